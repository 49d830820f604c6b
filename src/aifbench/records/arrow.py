"""pyarrow without pandas, which its first conversion would import, and Parquet files with a checksum.

Our Parquet files carry a checksum over all their other bytes. It stands between the last page and the footer, where
every reader of Parquet passes over it. A file without one was written by an earlier version.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import zlib
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from aifbench.core.damage import Damaged
from aifbench.files.written import replaced

__all__ = ["open_parquet", "pa", "pq", "read_parquet", "write_parquet"]

_SUM = re.compile(rb"sum:([0-9a-f]{8})\Z")
_SUM_BYTES = 12
_END = 8
"""Bytes behind the footer: its length and PAR1."""
_CHUNK = 1 << 20


class _Hidden(MetaPathFinder):
    """Makes `import pandas` fail."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _look_for_pandas_once() -> None:
    """Let pyarrow look for pandas while that is hidden: it looks once and remembers.

    It has no setting for this, and takes a None in `sys.modules` for a module. Without it every runner and worker would
    hold 36 MiB more and take 0.3 s longer to start. What needs pandas (`to_pandas`) still gets it: pyarrow looks again.
    """
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(hidden)


def read_parquet(path: Any) -> Any:
    """Return a Parquet file as a table. `pyarrow.parquet.read_table` would import pandas by way of its data sets."""
    return pq.ParquetFile(path).read()


def write_parquet(table: Any, path: Path) -> None:
    """Replace a Parquet file, with its checksum, so that a reader or a crash sees the old or the new one."""
    with replaced(path) as file:
        pq.write_table(table, file, compression="zstd")
        begin = _footer(file)
        mark = b"sum:%08x" % _checksum(file, begin)
        file.seek(begin)
        footer = file.read()
        file.seek(begin)
        file.write(mark + footer)


@contextlib.contextmanager
def open_parquet(file: BinaryIO) -> Iterator[tuple[Any, bool]]:
    """Give an open file as a `ParquetFile`, and whether its checksum says that it is as it was written.

    Raises `Damaged` where it says that it is not, and for whatever cannot be read, also later inside the block.
    """
    try:
        begin = _footer(file)
        file.seek(max(0, begin - _SUM_BYTES))
        match = _SUM.match(file.read(_SUM_BYTES)) if begin >= _SUM_BYTES else None
        if match is not None and _checksum(file, begin - _SUM_BYTES, begin) != int(match[1], 16):
            raise Damaged("was changed after it was written: its checksum does not fit")
        file.seek(0)
        yield pq.ParquetFile(file), match is not None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Damaged(f"is no whole Parquet file: {problem}") from None


def _footer(file: BinaryIO) -> int:
    """Return where the footer of an open Parquet file begins. Raises `Damaged`."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise Damaged("is empty")
    file.seek(max(0, size - _END))
    end = file.read(_END)
    begin = size - _END - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or begin < len(b"PAR1"):
        raise Damaged("is no whole Parquet file: its end is missing")
    return begin


def _checksum(file: BinaryIO, gap: int, after: int | None = None) -> int:
    """Return the CRC-32 of an open file, without what stands from `gap` to `after` (None: nothing is left out)."""
    file.seek(0)
    crc = 0
    while gap and (data := file.read(min(_CHUNK, gap))):
        crc, gap = zlib.crc32(data, crc), gap - len(data)
    if after is not None:
        file.seek(after)
    while data := file.read(_CHUNK):
        crc = zlib.crc32(data, crc)
    return crc


_look_for_pandas_once()
