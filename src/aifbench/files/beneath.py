"""What stands below a root that others may write in: found part by part, never through a link.

Names are not trusted: a link could lead to somebody's secret, a FIFO would wait for ever, a device may do something
when it is opened. Only regular files and folders are opened. The root itself may be reached through links (results on
a scratch file system); nothing below it may. A root is a path, or the descriptor of an open folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

MOST_NAMES = 20_000
"""Names of one folder that are looked at."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK


class Unreadable(FileNotFoundError):
    """Something stands there that is not read as a file; `problem` says what, without its path.

    To those who do not ask, it is as if nothing were there.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(errno.ENOENT, problem, name)
        self.problem = problem


@contextlib.contextmanager
def folder_beneath(root: Path | int, *parts: str) -> Iterator[int]:
    """Open a folder part by part below `root` and give its descriptor.

    No part may be a link, `..`, empty or hold a `/`. Raises FileNotFoundError when nothing is there, its subclass
    `Unreadable` for all that is not allowed.
    """
    folder = os.dup(root) if isinstance(root, int) else os.open(root, _FOLDER)
    try:
        for number, part in enumerate(parts, 1):
            above = folder
            folder = open_part(part, above, _FOLDER, "/".join(parts[:number]))
            os.close(above)
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def folder_of(root: Path | int, parts: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Open the folder of a file and give it with the file's name."""
    if not parts:
        raise Unreadable(str(root), "is no regular file")
    with folder_beneath(root, *parts[:-1]) as folder:
        yield folder, parts[-1]


def open_beneath(root: Path | int, *parts: str) -> BinaryIO:
    """Open a file for reading, in a folder that is found as `folder_beneath` finds it. Never waits."""
    with folder_of(root, parts) as (folder, name):
        return os.fdopen(open_part(name, folder, _FILE, "/".join(parts)), "rb")


def stat_beneath(root: Path | int, *parts: str) -> os.stat_result:
    """Return the facts of a file, found as `open_beneath` finds it."""
    with open_beneath(root, *parts) as file:
        return os.fstat(file.fileno())


def list_beneath(root: Path | int, *parts: str) -> list[tuple[str, os.stat_result]]:
    """Return names and facts of what stands in a folder, found as `folder_beneath` finds it: at most `MOST_NAMES`."""
    entries_found = []
    with folder_beneath(root, *parts) as folder, os.scandir(folder) as entries:
        for entry in islice(entries, MOST_NAMES):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                entries_found.append((entry.name, entry.stat(follow_symlinks=False)))
    return entries_found


def folders_beneath(root: Path | int, *parts: str) -> tuple[list[str], int]:
    """Return the names of the folders in a folder, sorted, and how many other names were passed over.

    Where there is no such folder, or a link on the way to it, there are none.
    """
    names, strange = [], 0
    try:
        with folder_beneath(root, *parts) as folder, os.scandir(folder) as entries:
            for entry in islice(entries, MOST_NAMES):
                if not is_name(entry.name):
                    strange += not entry.name.startswith(".")
                elif entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
                else:
                    strange += entry.is_symlink()
    except OSError:
        return [], strange
    return sorted(names), strange


def is_name(text: str) -> bool:
    """Return whether a name can be one of ours: letters, digits, dots, dashes; no path, no control character."""
    return _NAME.match(text) is not None


@dataclass(frozen=True)
class Signature:
    """What changes when a file is written, without opening it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def signature(folder: int, name: str) -> Signature | None:
    """Return the signature of a regular file in an open folder, None when there is none."""
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return Signature(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def open_part(name: str, above: int, flags: int, place: str) -> int:
    """Open a folder (flags with O_DIRECTORY) or a regular file in an open folder and return its descriptor.

    What it is, is asked before: to open a device may do something. And after, since it may have been changed. `place`
    names it in an error.
    """
    fits, problem = (stat.S_ISDIR, "is no folder") if flags & os.O_DIRECTORY else (stat.S_ISREG, "is no regular file")
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise Unreadable(place, "is no name of a file")
    try:
        mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        if not fits(mode):
            raise Unreadable(place, "is a link" if stat.S_ISLNK(mode) else problem)
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(place, f"cannot be opened: {error.strerror}") from error
    if not fits(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(place, problem)
    return descriptor
