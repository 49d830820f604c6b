"""Ids instead of paths: what a client names is checked before it becomes a part of one."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path as PathParameter

PATTERN = r"^[a-z0-9-]{1,64}$"
_ID = re.compile(PATTERN[:-1] + r"\Z")
"""`$` would also match before a newline at the end."""

Id = Annotated[str, PathParameter(pattern=PATTERN, description="lower-case letters, digits and dashes, at most 64")]
"""The type of an id in the path of a route."""


def is_id(text: str) -> bool:
    """Return whether a text is an id, and so can be one part of a path."""
    return _ID.match(text) is not None
