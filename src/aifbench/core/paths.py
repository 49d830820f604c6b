"""Paths that a user writes: taken as they are, so whatever a file system holds has one meaning everywhere.

Spaces, quotes, `$(x)`, `;`, `{x}` and a leading `-` are parts of a name like any other. What a shell would have
replaced is refused instead of becoming a folder named `~`, and what would break a line of a log is refused too.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ValidationInfo

P = TypeVar("P", str, Path)

WRITTEN = {"written": True}
"""Context of a validation of what a user wrote. Without it, in records say, a path is what it is."""

_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, bytes that are no UTF-8, and what ends a line or a paragraph (categories of Unicode)."""
_REPLACED = re.compile(r"^~[^/]*|\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)


def name_problem(path: str | Path) -> str | None:
    """Return why no file of ours may have this name, None if it may."""
    found = next((char for char in str(path) if unicodedata.category(char) in _CONTROL), None)
    if found is None:
        return None
    return f"holds {found!r}: control characters and bytes that are no UTF-8 cannot stand in a path"


def written_problem(path: str | Path) -> str | None:
    """Return why a path cannot stand in a campaign, None if it can."""
    text = str(path)
    found = _REPLACED.search(text)
    if found is None or name_problem(path):
        return name_problem(path)
    meant = os.path.expandvars(os.path.expanduser(text))
    hint = "" if _REPLACED.search(meant) or name_problem(meant) else f", {meant}"
    return f"'{found[0]}' is not replaced here as a shell does it: write the whole path{hint}"


def operand(path: Path) -> str:
    """Return a path as a command takes it: never like an option."""
    return os.path.abspath(path) if str(path).startswith("-") else path.as_posix()


def _check(path: P, info: ValidationInfo) -> P:
    problem = written_problem(path) if info.context is WRITTEN else None
    if problem:
        raise ValueError(problem)
    return path


FilePath = Annotated[Path, AfterValidator(_check)]
"""A path of a file or folder."""
PathText = Annotated[str, AfterValidator(_check)]
"""The same where it stays text: it may be a name instead, or is part of an id as it was written."""
