"""Where the bytes of a read came from: verdicts on cold, warm and direct reads. Pure functions.

Two independent witnesses: the page cache's residency before the read (mincore), and the bytes that the kernel fetched
from storage on behalf of the readers during it (`read_bytes` of /proc/self/io).
"""

from __future__ import annotations

from aifbench.checks.kinds import (
    FETCH_NOT_COUNTED,
    NO_PROCESS_IO,
    NOT_COLD,
    NOT_COLD_FETCHED,
    NOT_COLD_UNKNOWN,
    NOT_DIRECT_FETCHED,
    NOT_WARM,
    NOT_WARM_UNKNOWN,
)
from aifbench.core.notes import Kind, Note

COLD_RESIDENCY = 0.001
WARM_RESIDENCY = 0.999
FETCHED_SHARE = 0.99

NOT_ACCOUNTED = frozenset({"9p", "beegfs", "ceph", "cifs", "fuse", "gpfs", "lustre", "nfs", "nfs4", "virtiofs"})
"""File systems that may leave `read_bytes` at 0 although they fetch: there, residency is the only witness."""


def cold_read(residency: float | None, read_bytes: int | None, size: int, fs_type: str) -> list[Note]:
    """Judge a read of `size` bytes that should have found the page cache empty; `residency` is from before it."""
    notes = _fetched(NOT_COLD_FETCHED, read_bytes, size, fs_type)
    if residency is None:
        notes.append(NOT_COLD_UNKNOWN.against())
    elif residency > COLD_RESIDENCY:
        notes.append(NOT_COLD.against(residency=residency, limit=COLD_RESIDENCY))
    return notes


def direct_read(read_bytes: int | None, size: int, fs_type: str) -> list[Note]:
    """Judge a read of `size` bytes that should have gone past the page cache."""
    return _fetched(NOT_DIRECT_FETCHED, read_bytes, size, fs_type)


def warm_read(residency: float | None) -> list[Note]:
    """Judge a read that should have found all data in the page cache; `residency` is from before it."""
    if residency is None:
        return [NOT_WARM_UNKNOWN.against()]
    return [NOT_WARM.against(residency=residency, needed=WARM_RESIDENCY)] if residency < WARM_RESIDENCY else []


def _fetched(kind: Kind, read_bytes: int | None, size: int, fs_type: str) -> list[Note]:
    if read_bytes is None:
        return [NO_PROCESS_IO.caution()]
    if read_bytes >= FETCHED_SHARE * size:
        return []
    if read_bytes == 0 and fs_type.partition(".")[0] in NOT_ACCOUNTED:
        return [FETCH_NOT_COUNTED.caution(file_system=fs_type)]
    return [kind.against(fetched=read_bytes / size, needed=FETCHED_SHARE)]
