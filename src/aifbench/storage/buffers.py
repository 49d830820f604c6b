"""Memory of the clients: private, aligned, of a known page size. The kind of page decides direct throughput."""

from __future__ import annotations

import mmap
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE = 2 << 20


class AlignedBuffer:
    """`size` bytes of private anonymous memory whose address is a multiple of 2 MiB.

    `huge` asks for transparent huge pages (no privilege needed), `page` forbids them; `describe()` tells what the
    kernel gave. `array` is the memory as uint8, shape (size,).
    """

    def __init__(self, size: int, kind: Literal["huge", "page"]) -> None:
        self.kind = kind
        length = -(-size // HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE
        self._map = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        advice = mmap.MADV_HUGEPAGE if kind == "huge" else mmap.MADV_NOHUGEPAGE
        try:
            self._map.madvise(advice)
            self._advised = True
        except OSError:  # a kernel without transparent huge pages
            self._advised = False
        whole = np.frombuffer(self._map, dtype=np.uint8)
        skip = -whole.ctypes.data % HUGE_PAGE
        self.array: NDArray[np.uint8] = whole[skip : skip + size]

    @property
    def address(self) -> int:
        """Return the address of the first byte."""
        return self.array.ctypes.data

    def describe(self) -> dict[str, Any]:
        """Return kind, size and what the kernel really backs the memory with (bytes; null if it does not tell)."""
        return {
            "kind": self.kind,
            "bytes": int(self.array.size),
            "advised": self._advised,
            "anon_huge_bytes": anon_huge_bytes(self.address),
            "address_mod_64": self.address % 64,
            "address_mod_2mib": self.address % HUGE_PAGE,
        }


def anon_huge_bytes(address: int) -> int | None:
    """Return AnonHugePages in bytes of this process's mapping that holds `address` (proc(5), smaps)."""
    inside = False
    try:
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                head = line.split(maxsplit=1)[0]
                if "-" in head and not head.endswith(":"):
                    low, high = (int(part, 16) for part in head.split("-"))
                    inside = low <= address < high
                elif inside and head == "AnonHugePages:":
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
