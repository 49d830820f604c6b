"""Does direct I/O work in a folder?"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from aifbench.storage.buffers import AlignedBuffer
from aifbench.storage.params import PAGE


def direct_problem(directory: Path, block_size: int = PAGE) -> str | None:
    """Write one block with O_DIRECT to a temporary file in `directory`: None, or why direct I/O does not work there."""
    try:
        direct = _open_direct(directory)
        try:
            os.pwrite(direct, AlignedBuffer(block_size, "page").array.data, 0)
        finally:
            os.close(direct)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _open_direct(directory: Path) -> int:
    """Open a file that goes when it is closed: without a name where the file system can do that."""
    flags = os.O_WRONLY | os.O_DIRECT
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
            raise
    descriptor, name = tempfile.mkstemp(prefix="aifbench-check-", dir=directory)
    os.close(descriptor)
    try:
        return os.open(name, flags)
    finally:
        os.unlink(name)
