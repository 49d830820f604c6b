"""The one way in which a file is written that others read: aside, under a name of its own, to the disk, into place."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aifbench.files.beneath import Unreadable, folder_of, open_part

MODE = 0o644
"""Of files that are made: whatever the umask, only their owner may change them."""


@contextlib.contextmanager
def replaced_beneath(root: Path | int, *parts: str, new: bool = False, mode: int = MODE) -> Iterator[BinaryIO]:
    """Give a file to write (and read) that stands at its place, on the disk, once the block has ended without an error.

    Readers see the old or the new content, also after a crash; after an error the old one stays. Its folder is found
    as `folder_beneath` finds it, and a link in its place is replaced, not followed. `new`: raises FileExistsError when
    something of that name is there.
    """
    with folder_of(root, parts) as (folder, name):
        aside = f".{name}.{secrets.token_hex(8)}"  # a name that could be guessed could be a link that somebody has put
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(aside, flags, mode, dir_fd=folder), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if new:
                os.link(aside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            else:
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside, dir_fd=folder)


def write_beneath(root: Path | int, *parts: str, data: bytes, new: bool = False, mode: int = MODE) -> None:
    """Write a whole file as `replaced_beneath` does."""
    with replaced_beneath(root, *parts, new=new, mode=mode) as file:
        file.write(data)


def replaced(path: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    """Give a file to write that takes the place of `path`, as `replaced_beneath` does; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return replaced_beneath(path.parent, path.name)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a whole file as `replaced` does."""
    with replaced(path) as file:
        file.write(data)


def append_beneath(root: Path | int, *parts: str) -> BinaryIO:
    """Open a file to add to, found as `open_beneath` finds it; it is made when nothing is there.

    One that has a second name is refused as a link is: it may be somebody's file elsewhere.
    """
    flags, place = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, "/".join(parts)
    with folder_of(root, parts) as (folder, name):
        try:
            file = open_part(name, folder, flags, place)
        except Unreadable:
            raise
        except FileNotFoundError:
            file = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE, dir_fd=folder)
        if os.fstat(file).st_nlink > 1:
            os.close(file)
            raise Unreadable(place, "has a second name")
        return os.fdopen(file, "ab")
