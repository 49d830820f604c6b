"""Ids instead of paths: what a client names is checked, and opened beneath a root without following a link."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import Path as PathParameter

PATTERN = r"^[a-z0-9-]{1,64}$"
_ID = re.compile(PATTERN[:-1] + r"\Z")
"""`$` would also match before a newline at the end."""

Id = Annotated[str, PathParameter(pattern=PATTERN, description="lower-case letters, digits and dashes, at most 64")]
"""The type of an id in the path of a route."""


def is_id(text: str) -> bool:
    """Return whether a text is an id, and so can be one part of a path."""
    return _ID.match(text) is not None


def open_beneath(root: Path, *parts: str) -> BinaryIO:
    """Open a file for reading, part by part below `root`; no part may be a link, `..`, empty or hold a `/`.

    Raises FileNotFoundError for every part that is not there or not allowed, and for what is no
    regular file, so that a refusal tells nothing.
    """
    found = _descend(root, parts, os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise FileNotFoundError("/".join(parts))
    return os.fdopen(found, "rb")


def list_beneath(root: Path, *parts: str) -> list[tuple[str, os.stat_result]]:
    """Return names and facts of what stands in a folder, which is found as `open_beneath` finds a file."""
    folder = _descend(root, parts, os.O_DIRECTORY)
    try:
        return [(name, os.stat(name, dir_fd=folder, follow_symlinks=False)) for name in os.listdir(folder)]
    finally:
        os.close(folder)


def _descend(root: Path, parts: Sequence[str], last: int) -> int:
    """Return a descriptor of what stands at the end of the parts; `last` are the flags that it is opened with."""
    found = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, part in enumerate(parts, 1):
        above = found
        try:
            if not part or part in {".", ".."} or "/" in part or "\0" in part:
                raise FileNotFoundError(part)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (last if number == len(parts) else os.O_DIRECTORY)
            found = os.open(part, flags, dir_fd=above)
        except OSError as error:
            raise FileNotFoundError(part) from error
        finally:
            os.close(above)
    return found
