"""The page cache's view of a file: drop it, fill it, and prove what is there. No privilege is needed."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_WINDOW = 1 << 30
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def drop(path: Path) -> None:
    """Write the file's dirty pages out and ask the kernel to forget its pages.

    Only a request: pages that another process has mapped stay. `residency` proves the effect.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def fill(path: Path) -> None:
    """Read the file once, so that the page cache holds it."""
    chunk = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(chunk):
            pass


def resident_bytes(path: Path) -> int:
    """Return how many bytes of a file lie in the page cache, in whole pages (mincore(2)); at most its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        pages = sum(
            _resident_pages(descriptor, offset, min(_WINDOW, size - offset)) for offset in range(0, size, _WINDOW)
        )
    finally:
        os.close(descriptor)
    return min(pages * mmap.PAGESIZE, size)


def residency(paths: list[Path]) -> float:
    """Return the fraction (0 to 1) of the files' bytes that lies in the page cache."""
    size = sum(path.stat().st_size for path in paths)
    return sum(resident_bytes(path) for path in paths) / size if size else 0.0


def _resident_pages(descriptor: int, offset: int, length: int) -> int:
    states = np.zeros(-(-length // mmap.PAGESIZE), dtype=np.uint8)
    with mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=offset) as window:
        view = np.frombuffer(window, dtype=np.uint8)
        address = view.ctypes.data
        del view  # a mapping with a live view cannot be closed
        if _LIBC.mincore(address, length, states.ctypes.data):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return int(np.count_nonzero(states & 1))
