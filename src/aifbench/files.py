"""Files that others may have written: opened part by part below a root, never through a link, bounded.

The one reader of results folders, for the report and for all services. Names and contents are not trusted: a link could
lead to somebody's secret, a FIFO would wait for ever, a sparse file would fill the memory: only regular files are
read. The root itself may be reached through links (results on a scratch file system); nothing below it may. Files that
grow are followed by size: shared file systems send no notifications.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LARGEST_FILE = 32 << 20
"""Bytes that are read of one whole file at most."""
LONGEST_LINE = 1 << 20
CHUNK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")
_PRINT = 64
"""Bytes before the place that was read last, kept to notice a file that was written anew in place."""
_LINK = {errno.ELOOP, errno.ENOTDIR}


class Unreadable(FileNotFoundError):
    """Something stands there that is not read as a file; `problem` says what, without its path.

    To those who do not ask, it is as if nothing were there.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(errno.ENOENT, problem, name)
        self.problem = problem


def open_beneath(root: Path, *parts: str) -> BinaryIO:
    """Open a file for reading, part by part below `root`; no part may be a link, `..`, empty or hold a `/`.

    Never waits. Raises FileNotFoundError when nothing is there, its subclass `Unreadable` for all that is not allowed.
    """
    found = _descend(root, parts, os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise Unreadable("/".join(parts), "is no regular file")
    return os.fdopen(found, "rb")


def read_beneath(root: Path, *parts: str, most: int = LARGEST_FILE) -> bytes:
    """Return the content of a file, found as `open_beneath` finds it; one of more than `most` bytes is `Unreadable`."""
    with open_beneath(root, *parts) as file:
        data = _read(file, "/".join(parts), most)
    if len(data) > most:
        raise Unreadable(parts[-1], _larger(most))
    return data


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
    """Return names and facts of what stands in a folder, which is found as `open_beneath` finds a file."""
    folder = _descend(root, parts, os.O_DIRECTORY)
    try:
        return [(name, os.stat(name, dir_fd=folder, follow_symlinks=False)) for name in os.listdir(folder)]
    finally:
        os.close(folder)


def _larger(most: int) -> str:
    return f"is larger than {most >> 20} MiB" if most >> 20 else f"is larger than {most} bytes"


def _read(file: BinaryIO, name: str, most: int) -> bytes:
    try:
        return file.read(most + 1)
    except OSError as error:
        raise Unreadable(name, f"cannot be read: {error.strerror}") from None


def _descend(root: Path, parts: Sequence[str], last: int) -> int:
    """Return a descriptor of what stands at the end of the parts; `last` are the flags that it is opened with."""
    found = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, part in enumerate(parts, 1):
        above = found
        try:
            if not part or part in {".", ".."} or "/" in part or "\0" in part:
                raise Unreadable(part, "is no name of a file")
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (last if number == len(parts) else os.O_DIRECTORY)
            found = os.open(part, flags, dir_fd=above)
        except FileNotFoundError:
            raise
        except OSError as error:
            problem = _odd(part, above) if error.errno in _LINK else f"cannot be opened: {error.strerror}"
            raise Unreadable(part, problem) from error
        finally:
            os.close(above)
    return found


def _odd(name: str, folder: int) -> str:
    """Return what stands in an open folder that is neither a regular file nor a folder."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return "cannot be opened"
    return "is a link" if stat.S_ISLNK(mode) else "is no folder" if not stat.S_ISDIR(mode) else "cannot be opened"


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

    @contextlib.contextmanager
    def folder(self, *parts: str) -> Iterator[int]:
        """Open a folder below the root and give its descriptor. Raises OSError when there is none, or a link in it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        found = os.open(self.path, flags)
        try:
            for part in parts:
                if not is_name(part):
                    raise FileNotFoundError(part)
                deeper = os.open(part, flags | os.O_NOFOLLOW, dir_fd=found)
                os.close(found)
                found = deeper
            yield found
        finally:
            os.close(found)

    def folders(self, *parts: str) -> tuple[list[str], int]:
        """Return the names of the folders in a folder, sorted, and how many other names were passed over."""
        names, strange = [], 0
        try:
            with self.folder(*parts) as folder, os.scandir(folder) as entries:
                for entry in entries:
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
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def open_file(folder: int, name: str) -> int | None:
    """Open a regular file in an open folder and return its descriptor, None when there is none. Never waits."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return None
    return file


def read_file(folder: int, name: str, most: int = LARGEST_FILE) -> bytes | None:
    """Return the content of a regular file in an open folder, None when there is none or it is larger than `most`."""
    file = open_file(folder, name)
    if file is None:
        return None
    with os.fdopen(file, "rb") as opened:
        data = opened.read(most + 1)
    return data if len(data) <= most else None


class Tail:
    """Follows a file that grows line by line.

    `read` gives each complete line once, in order, also where the file was replaced, cut or written anew: then it is
    read from its beginning again, and `restarts` grows. A torn last line waits for its end. A line that is longer than
    `LONGEST_LINE` is passed over and counted in `dropped`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.offset = 0
        self.restarts = 0
        self.dropped = 0
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, int] | None = None
        self._print = b""
        self._skipping = False

    def read(self, folder: int) -> list[bytes]:
        """Return the lines that are new since the last call; none when the file is not there."""
        found = signature(folder, self.name)
        if found is None:
            return []
        if self._file == (found.device, found.inode) and self._seen == (found.size, found.mtime_ns):
            return []
        file = open_file(folder, self.name)
        if file is None:
            return []
        try:
            opened = os.fstat(file)
            self._place(file, opened)
            self._seen = (opened.st_size, opened.st_mtime_ns)
            return self._lines(file)
        except OSError:  # stale handle of a network file system: the next call looks again
            self._seen = None
            return []
        finally:
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
        same = self._file == (opened.st_dev, opened.st_ino) and opened.st_size >= self.offset
        if same and os.pread(file, len(self._print), self.offset - len(self._print)) == self._print:
            return
        self.restarts += self._file is not None
        self._file = (opened.st_dev, opened.st_ino)
        self.offset, self._print, self._skipping = 0, b"", False

    def _lines(self, file: int) -> list[bytes]:
        lines: list[bytes] = []
        while chunk := os.pread(file, CHUNK, self.offset):
            end = chunk.rfind(b"\n") + 1
            if end == 0 and len(chunk) < LONGEST_LINE:
                break  # the end of this line is not written yet
            if end == 0:
                self.dropped += not self._skipping
                self._skipping = True
                self.offset += len(chunk)
                continue
            found = chunk[: end - 1].split(b"\n")
            if self._skipping:
                found, self._skipping = found[1:], False
            lines += found
            self.offset += end
        self._remember(file)
        return lines

    def _remember(self, file: int) -> None:
        begin = max(0, self.offset - _PRINT)
        self._print = os.pread(file, self.offset - begin, begin)
