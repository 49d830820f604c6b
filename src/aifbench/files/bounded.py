"""Whole files of others, read up to a size: a sparse one would fill the memory, and JSON takes more than its text."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from aifbench.files.beneath import Unreadable, open_beneath

LARGEST_FILE = 32 << 20
"""Bytes that are read of one whole file at most."""
MOST_VALUES = 1_500_000
"""Values and keys of one file of JSON at most, so that it takes some 300 MiB: short ones take far more than their text.
"""


def read_beneath(root: Path | int, *parts: str, most: int = LARGEST_FILE) -> bytes:
    """Return the content of a file, found as `open_beneath` finds it; one of more than `most` bytes is `Unreadable`."""
    with open_beneath(root, *parts) as file:
        if os.fstat(file.fileno()).st_size <= most:
            data = _read(file, "/".join(parts), most)
            if len(data) <= most:
                return data
    raise Unreadable("/".join(parts), _larger(most))


def json_beneath(root: Path | int, *parts: str, most: int = LARGEST_FILE) -> Any:
    """Return the content of a file of JSON, found as `open_beneath` finds it; one that is none is `Unreadable`."""
    data = read_beneath(root, *parts, most=most)
    try:
        return parse(data)
    except ValueError as error:
        raise Unreadable("/".join(parts), str(error)) from None


def end_beneath(root: Path | int, *parts: str, most: int) -> tuple[bytes, bool]:
    """Return the last `most` bytes of a file, found as `open_beneath` finds it, and whether more stands before them."""
    with open_beneath(root, *parts) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read(most), size > most


def parse(data: bytes) -> Any:
    """Return what a text of JSON says. Raises ValueError when it is none, or holds too many values."""
    if data.count(b",") + data.count(b":") > MOST_VALUES:
        raise ValueError(f"holds more than {MOST_VALUES} values")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValueError("is no JSON") from None


def read_regular(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Return the content of a file of the user's own, which may be a link. Never waits.

    What is missing, no regular file or larger than `most` bytes is `Unreadable`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unreadable(str(path), "no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise Unreadable(str(path), f"cannot be read: {reason}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise Unreadable(str(path), "is a folder" if stat.S_ISDIR(mode) else "is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = _read(file, str(path), most)
    if len(data) > most:
        raise Unreadable(str(path), _larger(most))
    return data


def _larger(most: int) -> str:
    return f"is larger than {most >> 20} MiB" if most >> 20 else f"is larger than {most} bytes"


def _read(file: BinaryIO, name: str, most: int) -> bytes:
    try:
        return file.read(most + 1)
    except OSError as error:
        raise Unreadable(name, f"cannot be read: {error.strerror}") from None
