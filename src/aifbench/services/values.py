"""Values of files that others may have written: what is not of the kind that is asked for is None, or empty."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

LONGEST_TEXT = 2000
LARGEST_COUNT = 10**15
LAST_S = 2**33
"""Unix seconds of the last time that is believed, in the year 2242."""


def number(value: Any) -> float | None:
    """Return a finite number as it is, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        return None
    return value


def count(value: Any) -> int | None:
    """Return a whole number from 0 to `LARGEST_COUNT`, anything else as None."""
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else None


def text(value: Any, most: int = LONGEST_TEXT) -> str | None:
    """Return the beginning of a text, anything else as None."""
    return value[:most] if isinstance(value, str) else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """Return a list as it is, anything else as an empty one."""
    return value if isinstance(value, list) else []


def seconds(value: Any) -> float | None:
    """Return the Unix seconds of a date with time, as a text of ISO 8601; None for what is none."""
    try:
        found = datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < LAST_S else None


def moment(value: Any) -> str | None:
    """Return a date with time as it was written, None for what is none."""
    return value if isinstance(value, str) and seconds(value) is not None else None
