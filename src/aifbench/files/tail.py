"""Follow a file that grows line by line, by its size: file systems that nodes share send no notice of a change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from aifbench.files.beneath import open_beneath, signature

LONGEST_LINE = 1 << 20
CHUNK = 1 << 20
MOST_AT_ONCE = 16 << 20
"""Bytes of a growing file that one look reads at most; the next one goes on."""
_PRINT = 64
"""Bytes before the place that was read last, kept to notice a file that was written anew in place."""


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
        there = signature(folder, self.name)
        if there is None:
            return
        if self._file == (there.device, there.inode) and self._seen == (there.size, there.mtime_ns):
            return
        with contextlib.suppress(OSError), open_beneath(folder, self.name) as opened:
            file = opened.fileno()
            self._seen = None
            try:
                facts = os.fstat(file)
                self._place(file, facts)
                begin = self.offset
                while self.offset - begin < most:
                    lines = self._next(file)
                    if lines is None:
                        self._seen = (facts.st_size, facts.st_mtime_ns)
                        break
                    yield from lines
            finally:  # also after a stale handle of a network file system: the next call looks again
                self._remember(file)

    def start_at(self, folder: int, offset: int) -> bool:
        """Begin at a byte of the file; return False, and change nothing, where no line begins there."""
        with contextlib.suppress(OSError), open_beneath(folder, self.name) as opened:
            facts = os.fstat(opened.fileno())
            if offset == 0 or (offset <= facts.st_size and os.pread(opened.fileno(), 1, offset - 1) == b"\n"):
                self._file, self._seen = (facts.st_dev, facts.st_ino), None
                self.offset, self._skipping = offset, False
                self._remember(opened.fileno())
                return True
        return False

    def start_near_end(self, folder: int, most: int) -> None:
        """Begin at the first whole line of the last `most` bytes instead of at the beginning."""
        with contextlib.suppress(OSError), open_beneath(folder, self.name) as opened:
            facts = os.fstat(opened.fileno())
            if facts.st_size <= most:
                return
            begin = facts.st_size - most
            end_of_line = os.pread(opened.fileno(), most, begin).find(b"\n")
            self._file = (facts.st_dev, facts.st_ino)
            self.offset = begin + end_of_line + 1 if end_of_line >= 0 else facts.st_size
            self._remember(opened.fileno())

    def _place(self, file: int, facts: os.stat_result) -> None:
        """Go back to the beginning if this is not the file, or not the content, that was read so far."""
        same = self._file in (None, (facts.st_dev, facts.st_ino)) and facts.st_size >= self.offset
        if not same or os.pread(file, len(self._print), self.offset - len(self._print)) != self._print:
            self.restarts += 1
            self.offset, self._print, self._skipping = 0, b"", False
        self._file = (facts.st_dev, facts.st_ino)

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
