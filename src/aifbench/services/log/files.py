"""The files that statements are written to: whole lines, in parts, under a hard quota; and reading them backwards."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aifbench.core.errors import ConfigError
from aifbench.files.tail import LONGEST_LINE
from aifbench.services.settings import private_folder

NAME = "statements.jsonl"
BLOCK = 1 << 20


class LogFiles:
    """`<folder>/statements.jsonl` and its older parts `.1`, `.2`, …: together never more than `quota` bytes.

    When a part is full the oldest goes; `aged_out` counts its statements. One writer at a time: another one, in this
    process or another, gets a ConfigError.
    """

    def __init__(self, folder: Path, quota: int, parts: int = 8) -> None:
        self._path, self._parts, self._part_bytes = folder / NAME, parts, quota // parts
        self.aged_out = 0
        private_folder(folder)
        self._lock = _lock(folder / "lock")
        try:
            self._open()
        except OSError:
            os.close(self._lock)
            raise

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(path.stat().st_size for path in self.parts())

    def parts(self) -> list[Path]:
        """Return the parts that are there, newest first."""
        older = [self._path.with_name(f"{NAME}.{number}") for number in range(1, self._parts)]
        return [path for path in (self._path, *older) if path.exists()]

    def append(self, lines: bytes) -> None:
        """Write whole lines, all or none. Raises OSError when they cannot be kept, such as on a full disk."""
        if len(lines) > self._part_bytes:
            raise OSError("more than a part of the log may hold")
        if self._size + len(lines) > self._part_bytes:
            self._rotate()
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._file, lines[written:] if written else lines)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Close the file, and let another writer in."""
        os.close(self._file)
        os.close(self._lock)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":  # a writer was killed within a line
            self._size += os.write(self._file, b"\n")

    def _rotate(self) -> None:
        os.close(self._file)
        oldest = self._path.with_name(f"{NAME}.{self._parts - 1}")
        if oldest.exists():
            self.aged_out += sum(block.count(b"\n") for block in _blocks(oldest))
        for number in range(self._parts - 2, -1, -1):
            path = self._path.with_name(f"{NAME}.{number}") if number else self._path
            if path.exists():
                path.replace(self._path.with_name(f"{NAME}.{number + 1}"))
        self._open()

    def newest_first(self) -> Iterator[bytes]:
        """Yield the lines of all parts, newest first."""
        for path in self.parts():
            try:
                file = path.open("rb")
            except FileNotFoundError:  # aged out meanwhile
                continue
            with file:
                yield from backwards(file)


def backwards(file: BinaryIO) -> Iterator[bytes]:
    """Yield the whole lines of a file, last first; a last line without an end is left out.

    A line that is longer than `LONGEST_LINE` comes in pieces, which are no records.
    """
    size = position = file.seek(0, os.SEEK_END)
    rest: bytes | None = None
    while position > 0:
        start = max(0, position - BLOCK)
        file.seek(start)
        block = file.read(position - start)
        position = start
        if rest is None:
            end = block.rfind(b"\n")
            if end < 0:
                if size - position > LONGEST_LINE:
                    yield block
                continue
            block = block[:end]
        lines = (block + (rest or b"")).split(b"\n")
        rest = lines[0]
        yield from reversed(lines[1:])
        if len(rest) > LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        problem = "another log service of yours writes there; end it, or serve other results"
        raise ConfigError(str(path.parent), None, problem) from None
    return lock


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
