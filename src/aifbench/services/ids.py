"""Ids instead of paths: what a client names is checked, and opened beneath a root without following a link."""

from __future__ import annotations

import os
import re
import stat
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
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts, 1):
            if not part or part in {".", ".."} or "/" in part or "\0" in part:
                raise FileNotFoundError(part)
            last = number == len(parts)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if last else os.O_DIRECTORY)
            try:
                found = os.open(part, flags, dir_fd=folder)
            except OSError as error:
                raise FileNotFoundError(part) from error
            os.close(folder)
            folder = found
        if not stat.S_ISREG(os.fstat(folder).st_mode):
            raise FileNotFoundError("/".join(parts))
        file = os.fdopen(folder, "rb")
    except BaseException:
        os.close(folder)
        raise
    return file
