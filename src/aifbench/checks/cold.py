"""Where the bytes of a read came from: verdicts on cold, warm and direct reads. Pure functions.

Two independent witnesses: the page cache's residency before the read (mincore), and the bytes that the kernel fetched
from storage on behalf of the readers during it (`read_bytes` of /proc/self/io).
"""

from __future__ import annotations

COLD_RESIDENCY = 0.001
WARM_RESIDENCY = 0.999
FETCHED_SHARE = 0.99

NOT_ACCOUNTED = frozenset({"9p", "beegfs", "ceph", "cifs", "fuse", "gpfs", "lustre", "nfs", "nfs4", "virtiofs"})
"""File systems that may leave `read_bytes` at 0 although they fetch: there, residency is the only witness."""

Verdict = tuple[list[str], list[str]]
"""Reasons against the result, and notes."""


def cold_read(residency: float | None, read_bytes: int | None, size: int, fs_type: str) -> Verdict:
    """Judge a read of `size` bytes that should have found the page cache empty; `residency` is from before it."""
    reasons, notes = _fetched("not cold", read_bytes, size, fs_type)
    if residency is None:
        reasons.append("not cold: residency before the read is unknown")
    elif residency > COLD_RESIDENCY:
        reasons.append(
            f"not cold: {residency:.2%} of the data was in the page cache before the read (limit {COLD_RESIDENCY:.1%})"
        )
    return reasons, notes


def direct_read(read_bytes: int | None, size: int, fs_type: str) -> Verdict:
    """Judge a read of `size` bytes that should have gone past the page cache."""
    return _fetched("not direct", read_bytes, size, fs_type)


def warm_read(residency: float | None) -> Verdict:
    """Judge a read that should have found all data in the page cache; `residency` is from before it."""
    if residency is None:
        return ["not warm: residency before the read is unknown"], []
    if residency < WARM_RESIDENCY:
        return [
            f"not warm: {residency:.2%} of the data was in the page cache before the read (needs {WARM_RESIDENCY:.1%})"
        ], []
    return [], []


def _fetched(name: str, read_bytes: int | None, size: int, fs_type: str) -> Verdict:
    if read_bytes is None:
        return [], ["the kernel keeps no /proc/self/io: residency is the only witness"]
    if read_bytes >= FETCHED_SHARE * size:
        return [], []
    if read_bytes == 0 and fs_type.partition(".")[0] in NOT_ACCOUNTED:
        return [], [f"{fs_type} does not account read_bytes: residency is the only witness"]
    share = f"{read_bytes / size:.2%}"
    return [f"{name}: the kernel fetched {share} of the bytes from storage (needs {FETCHED_SHARE:.0%})"], []
