"""Files that others may have written: opened part by part below a root, never through a link, bounded.

The one reader of results folders, for the report and for all services. Names and contents are not trusted: a link could
lead to somebody's secret, a FIFO would wait for ever, a sparse file would fill the memory: only regular files are
read, and nothing is written through a link either. The root itself may be reached through links (results on a scratch
file system); nothing below it may. Files that grow are followed by size: shared file systems send no notifications.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

LARGEST_FILE = 32 << 20
"""Bytes that are read of one whole file at most."""
MOST_VALUES = 1_500_000
"""Values and keys of one file of JSON at most, so that it takes some 300 MiB: short ones take far more than their text.
"""
MOST_NAMES = 20_000
"""Names of one folder that are looked at."""
LONGEST_LINE = 1 << 20
CHUNK = 1 << 20
MOST_AT_ONCE = 16 << 20
"""Bytes of a growing file that one look reads at most; the next one goes on."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")
_PRINT = 64
"""Bytes before the place that was read last, kept to notice a file that was written anew in place."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK
_MODE = 0o644
"""Of files that are made: whatever the umask, only their owner may change them."""


class Unreadable(FileNotFoundError):
    """Something stands there that is not read as a file; `problem` says what, without its path.

    To those who do not ask, it is as if nothing were there.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(errno.ENOENT, problem, name)
        self.problem = problem


@contextlib.contextmanager
def folder_beneath(root: Path, *parts: str) -> Iterator[int]:
    """Open a folder part by part below `root` and give its descriptor.

    No part may be a link, `..`, empty or hold a `/`. Raises FileNotFoundError when nothing is there, its subclass
    `Unreadable` for all that is not allowed.
    """
    found = os.open(root, _FOLDER)
    try:
        for number, part in enumerate(parts, 1):
            above = found
            found = _open(part, above, _FOLDER, "/".join(parts[:number]))
            os.close(above)
        yield found
    finally:
        os.close(found)


def open_beneath(root: Path, *parts: str) -> BinaryIO:
    """Open a file for reading, in a folder that is found as `folder_beneath` finds it. Never waits."""
    with _last(root, parts) as (folder, name):
        return os.fdopen(_open(name, folder, _FILE, "/".join(parts)), "rb")


def read_beneath(root: Path, *parts: str, most: int = LARGEST_FILE) -> bytes:
    """Return the content of a file, found as `open_beneath` finds it; one of more than `most` bytes is `Unreadable`."""
    with open_beneath(root, *parts) as file:
        if os.fstat(file.fileno()).st_size <= most:
            data = _read(file, "/".join(parts), most)
            if len(data) <= most:
                return data
    raise Unreadable("/".join(parts), _larger(most))


def json_beneath(root: Path, *parts: str, most: int = LARGEST_FILE) -> Any:
    """Return the content of a file of JSON, found as `open_beneath` finds it; one that is none is `Unreadable`."""
    data = read_beneath(root, *parts, most=most)
    try:
        return parse(data)
    except ValueError as error:
        raise Unreadable("/".join(parts), str(error)) from None


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
        found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unreadable(str(path), "no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise Unreadable(str(path), f"cannot be read: {reason}") from None
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        os.close(found)
        raise Unreadable(str(path), "is a folder" if stat.S_ISDIR(mode) else "is no regular file")
    with os.fdopen(found, "rb") as file:
        data = _read(file, str(path), most)
    if len(data) > most:
        raise Unreadable(str(path), _larger(most))
    return data


def tail_beneath(root: Path, *parts: str, most: int) -> tuple[bytes, bool]:
    """Return the last `most` bytes of a file, found as `open_beneath` finds it, and whether more stands before them."""
    with open_beneath(root, *parts) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read(most), size > most


def stat_beneath(root: Path, *parts: str) -> os.stat_result:
    """Return the facts of a file, found as `open_beneath` finds it."""
    with open_beneath(root, *parts) as file:
        return os.fstat(file.fileno())


def list_beneath(root: Path, *parts: str) -> list[tuple[str, os.stat_result]]:
    """Return names and facts of what stands in a folder, found as `folder_beneath` finds it: at most `MOST_NAMES`."""
    found = []
    with folder_beneath(root, *parts) as folder, os.scandir(folder) as entries:
        for entry in islice(entries, MOST_NAMES):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def write_beneath(root: Path, *parts: str, data: bytes, new: bool = False) -> None:
    """Write a file that is whole or not there, also after a crash; readers see the old or the new content.

    `new`: raises FileExistsError when something of that name is there.
    """
    with _last(root, parts) as (folder, name):
        aside = f".{name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(aside, flags, _MODE, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                os.link(aside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            else:
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside, dir_fd=folder)


def append_beneath(root: Path, *parts: str) -> BinaryIO:
    """Open a file to add to, found as `open_beneath` finds it; it is made when nothing is there.

    One that has a second name is refused as a link is: it may be somebody's file elsewhere.
    """
    flags, place = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, "/".join(parts)
    with _last(root, parts) as (folder, name):
        try:
            file = _open(name, folder, flags, place)
        except Unreadable:
            raise
        except FileNotFoundError:
            file = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE, dir_fd=folder)
        if os.fstat(file).st_nlink > 1:
            os.close(file)
            raise Unreadable(place, "has a second name")
        return os.fdopen(file, "ab")


@contextlib.contextmanager
def _last(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Open the folder of a file and give it with the file's name."""
    if not parts:
        raise Unreadable(str(root), "is no regular file")
    with folder_beneath(root, *parts[:-1]) as folder:
        yield folder, parts[-1]


def _larger(most: int) -> str:
    return f"is larger than {most >> 20} MiB" if most >> 20 else f"is larger than {most} bytes"


def _read(file: BinaryIO, name: str, most: int) -> bytes:
    try:
        return file.read(most + 1)
    except OSError as error:
        raise Unreadable(name, f"cannot be read: {error.strerror}") from None


def _open(name: str, above: int, flags: int, place: str) -> int:
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
        found = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(place, f"cannot be opened: {error.strerror}") from error
    if not fits(os.fstat(found).st_mode):
        os.close(found)
        raise Unreadable(place, problem)
    return found


@dataclass(frozen=True)
class Signature:
    """What changes when a file is written, without opening it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Root:
    """The folder below which everything is read. It may itself be reached through links; nothing below it may."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, *parts: str) -> contextlib.AbstractContextManager[int]:
        """Open a folder below the root and give its descriptor. Raises OSError when there is none, or a link in it."""
        return folder_beneath(self.path, *parts)

    def folders(self, *parts: str) -> tuple[list[str], int]:
        """Return the names of the folders in a folder, sorted, and how many other names were passed over."""
        names, strange = [], 0
        try:
            with self.folder(*parts) as folder, os.scandir(folder) as entries:
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


def signature(folder: int, name: str) -> Signature | None:
    """Return the signature of a regular file in an open folder, None when there is none."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def open_file(folder: int, name: str) -> int | None:
    """Open a regular file in an open folder and return its descriptor, None when there is none. Never waits."""
    try:
        return _open(name, folder, _FILE, name)
    except OSError:
        return None


def read_file(folder: int, name: str, most: int = LARGEST_FILE) -> bytes | None:
    """Return the content of a regular file in an open folder, None when there is none or it is larger than `most`."""
    file = open_file(folder, name)
    if file is None:
        return None
    with os.fdopen(file, "rb") as opened:
        data = opened.read(most + 1) if os.fstat(file).st_size <= most else b""
        return data if len(data) <= most and os.fstat(file).st_size <= most else None


class Tail:
    """Follows a file that grows line by line, from `offset` on.

    `read` gives each complete line once, in order, also where the file was replaced, cut or written anew: then it is
    read from its beginning again, and `restarts` grows. A torn last line waits for its end. A line that is longer than
    `LONGEST_LINE` is passed over and counted in `dropped`.
    """

    def __init__(self, name: str, offset: int = 0) -> None:
        self.name = name
        self.offset = offset
        self.restarts = 0
        self.dropped = 0
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, int] | None = None
        self._print = b""
        self._skipping = False

    def read(self, folder: int, most: int = MOST_AT_ONCE) -> Iterator[bytes]:
        """Yield the lines that are new since the last call; none when the file is not there.

        Reads about `most` bytes, and the rest with the next call.
        """
        found = signature(folder, self.name)
        if found is None:
            return
        if self._file == (found.device, found.inode) and self._seen == (found.size, found.mtime_ns):
            return
        file = open_file(folder, self.name)
        if file is None:
            return
        self._seen = None
        try:
            opened = os.fstat(file)
            self._place(file, opened)
            begin = self.offset
            while self.offset - begin < most:
                lines = self._next(file)
                if lines is None:
                    self._seen = (opened.st_size, opened.st_mtime_ns)
                    break
                yield from lines
        except OSError:  # stale handle of a network file system: the next call looks again
            return
        finally:
            with contextlib.suppress(OSError):
                self._remember(file)
            os.close(file)

    def start_near_end(self, folder: int, most: int) -> None:
        """Begin at the first whole line of the last `most` bytes instead of at the beginning."""
        file = open_file(folder, self.name)
        if file is None:
            return
        try:
            opened = os.fstat(file)
            if opened.st_size <= most:
                return
            begin = opened.st_size - most
            end_of_line = os.pread(file, most, begin).find(b"\n")
            self._file = (opened.st_dev, opened.st_ino)
            self.offset = begin + end_of_line + 1 if end_of_line >= 0 else opened.st_size
            self._remember(file)
        finally:
            os.close(file)

    def _place(self, file: int, opened: os.stat_result) -> None:
        """Go back to the beginning if this is not the file, or not the content, that was read so far."""
        same = self._file in (None, (opened.st_dev, opened.st_ino)) and opened.st_size >= self.offset
        if not same or os.pread(file, len(self._print), self.offset - len(self._print)) != self._print:
            self.restarts += 1
            self.offset, self._print, self._skipping = 0, b"", False
        self._file = (opened.st_dev, opened.st_ino)

    def _next(self, file: int) -> list[bytes] | None:
        """Return the whole lines of the next piece; None when no further one is there yet."""
        chunk = os.pread(file, CHUNK, self.offset)
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) < LONGEST_LINE:
            return None  # the end of this line is not written yet
        if end == 0:
            self.dropped += not self._skipping
            self._skipping = True
            self.offset += len(chunk)
            return []
        lines = chunk[: end - 1].split(b"\n")
        if self._skipping:
            lines, self._skipping = lines[1:], False
        self.offset += end
        return lines

    def _remember(self, file: int) -> None:
        begin = max(0, self.offset - _PRINT)
        self._print = os.pread(file, self.offset - begin, begin)
