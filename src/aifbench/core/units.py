"""Sizes as people write them (`64MiB`, `1GB`, `4096`)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_FACTORS = {"": 1, "B": 1}
_FACTORS |= {f"{prefix}B": 1000 ** (i + 1) for i, prefix in enumerate("kMGT")}
_FACTORS |= {"KB": 1000}
_FACTORS |= {f"{prefix}iB": 1024 ** (i + 1) for i, prefix in enumerate("KMGT")}
_PATTERN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$", re.ASCII)
_LONGEST = 60
UNITS = "bytes, or a number with B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)"


def parse_size(value: Any) -> int:
    """Return a size in bytes. Raises ValueError for a negative, fractional or unknown size."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a size; allowed: {UNITS}")
    if isinstance(value, int):
        return value
    text = str(value)  # a float is one such as 1e9
    match = _PATTERN.match(text) if len(text) <= _LONGEST else None
    if not match or match[2] not in _FACTORS:
        raise ValueError(f"not a size; allowed: {UNITS}")
    size = Fraction(match[1]) * _FACTORS[match[2]]
    if size.denominator != 1:
        raise ValueError("not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """Return a size with the largest binary unit that divides it, such as `64MiB`."""
    for unit, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _PATTERN.pattern}]}),
]
"""A pydantic type: accepts `64MiB`, `1GB` or bytes; the value is bytes."""


def duration(seconds: float) -> str:
    """Return a duration for a reader, such as `2 min 38 s`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
