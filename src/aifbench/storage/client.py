"""One client: a process that writes, reads and verifies its own blocks, one operation at a time in its main thread.

Times are CLOCK_MONOTONIC in ns. The loops hold the operation and its two stamps, and the write loop new stamps for the
data; what lies between two operations is in no latency, and metrics.py tells how much it is. Another kind of operation
takes the place of pwrite or preadv; the loops gain no branch.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.core.benchmark import CaseFailed
from aifbench.processes.die_with_parent import die_with_parent
from aifbench.storage.buffers import AlignedBuffer
from aifbench.storage.data import BlockSource, ring_bytes, verification
from aifbench.storage.params import StorageParams
from aifbench.storage.workspace import data_file, warmup_file

CLOCK_PAIRS = 1000
WARMUP_OPERATIONS = 16
WARMUP_BYTES = 16 << 20

_clock = time.monotonic_ns


@dataclass(frozen=True)
class Job:
    """What one client is to do."""

    params: StorageParams
    folder: Path
    client: int
    seed: int
    parent: int

    @property
    def first_offset(self) -> int:
        """Return the offset in the file of this client's first byte."""
        own = self.params.blocks_per_client * self.params.block_size
        return own * self.client if self.params.layout == "shared" else 0


class Client:
    """The memory and the operations of one client. Each phase returns its stamps and facts."""

    def __init__(self, job: Job) -> None:
        params = job.params
        self.job, self.params = job, params
        self.path = data_file(job.folder, job.client, params.layout == "shared")
        self._ring = AlignedBuffer(ring_bytes(params.block_size, params.blocks_per_client), params.buffer)
        self._source = BlockSource(self._ring.array, params.block_size, job.seed, job.client)
        self._memory = AlignedBuffer(params.block_size, params.buffer)
        self._memory.array[:] = 1  # backs the memory now, not in the first read
        self._direct = os.O_DIRECT if params.mode == "direct" else 0
        self._written: list[int] = []

    def warm_up(self) -> dict[str, Any]:
        """Write and read a small file of its own; return facts on memory, clock and the operations left out."""
        count = max(1, min(WARMUP_OPERATIONS, self.params.blocks_per_client, WARMUP_BYTES // self.params.block_size))
        path = warmup_file(self.job.folder, self.job.client)
        offsets = [index * self.params.block_size for index in range(count)]
        try:
            self._write(path, os.O_CREAT | os.O_EXCL, offsets, 0)
            self._read(path, offsets, 0)
        finally:
            path.unlink(missing_ok=True)
        return {
            "warmup_operations": 2 * count,
            "clock_pair_ns": _clock_pair_ns(),
            "buffer": self._memory.describe(),
            "ring": self._ring.describe(),
        }

    def write(self, start_ns: int) -> dict[str, Any]:
        """Write all blocks from `start_ns` on, and make them durable."""
        self._written = self._order("write")
        create = 0 if self.params.layout == "shared" else os.O_CREAT | os.O_EXCL
        return self._write(self.path, create, self._written, start_ns)

    def read(self, start_ns: int) -> dict[str, Any]:
        """Read all blocks back from `start_ns` on."""
        return self._read(self.path, self._order("read"), start_ns)

    def verify(self) -> dict[str, Any]:
        """Read all blocks once more, outside any timed region, and compare each byte with what was written."""
        size = self.params.block_size
        problems = []
        start = _clock()
        descriptor = os.open(self.path, os.O_RDONLY | self._direct)
        try:
            for index, offset in enumerate(self._written):
                count = os.preadv(descriptor, [self._memory.array.data], offset)
                short = f"offset {offset}: the file ends after {count} of {size} bytes"
                problem = short if count != size else self._source.problem(index, offset, self._memory.array)
                if problem:
                    problems.append(problem)
        finally:
            os.close(descriptor)
        return {**verification(len(self._written), problems), "duration_ns": _clock() - start}

    def _order(self, phase: str) -> list[int]:
        count, size = self.params.blocks_per_client, self.params.block_size
        blocks: NDArray[np.int64] = np.arange(count, dtype=np.int64)
        if self.params.pattern == "random":
            phase_number = ("write", "read").index(phase)
            blocks = np.random.default_rng([self.job.seed, self.job.client, phase_number]).permutation(count)
        offsets: list[int] = (blocks * size + self.job.first_offset).tolist()
        return offsets

    def _write(self, path: Path, create: int, offsets: Sequence[int], start_ns: int) -> dict[str, Any]:
        source, size = self._source, self.params.block_size
        starts, ends = _stamps(len(offsets)), _stamps(len(offsets))
        blocks = [block.data for block in source.blocks]
        slots = len(blocks)
        stamp, pwrite = source.stamp, os.pwrite
        marks: dict[str, Any] = {"open_start_ns": _clock()}
        descriptor = os.open(path, os.O_WRONLY | create | self._direct, 0o600)
        try:
            marks["open_end_ns"] = _clock()
            _wait_until(start_ns)
            for index, offset in enumerate(offsets):
                stamp(index, offset)
                block = blocks[index % slots]
                begin = _clock()
                count = pwrite(descriptor, block, offset)
                end = _clock()
                if count != size:
                    raise _short_write(descriptor, block, offset, count)
                starts[index] = begin
                ends[index] = end
            marks["fsync_start_ns"] = _clock()
            os.fsync(descriptor)
            marks["fsync_end_ns"] = _clock()
        finally:
            os.close(descriptor)
        marks["close_end_ns"] = _clock()
        marks["directory_synced"] = _sync_directory(path.parent)
        marks["dirsync_end_ns"] = _clock()
        return _result(offsets, starts, ends, marks)

    def _read(self, path: Path, offsets: Sequence[int], start_ns: int) -> dict[str, Any]:
        size = self.params.block_size
        starts, ends = _stamps(len(offsets)), _stamps(len(offsets))
        target = (self._memory.array.data,)
        preadv = os.preadv
        before = _io_counters()
        marks: dict[str, Any] = {"open_start_ns": _clock()}
        descriptor = os.open(path, os.O_RDONLY | self._direct)
        try:
            marks["open_end_ns"] = _clock()
            _wait_until(start_ns)
            for index, offset in enumerate(offsets):
                begin = _clock()
                count = preadv(descriptor, target, offset)
                end = _clock()
                if count != size:
                    raise CaseFailed("short_read", f"read at offset {offset}: {count} of {size} bytes")
                starts[index] = begin
                ends[index] = end
            marks["close_start_ns"] = _clock()
        finally:
            os.close(descriptor)
        marks["close_end_ns"] = _clock()
        after = _io_counters()
        marks["read_bytes"] = after["read_bytes"] - before["read_bytes"] if before and after else None
        return _result(offsets, starts, ends, marks)


def serve(job: Job, channel: Connection) -> None:
    """Answer the group's commands `(name, start_ns)` with `("done", result)` or `("failed", kind, message)`."""
    die_with_parent(job.parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    try:
        client = Client(job)
        while True:
            name, start_ns = channel.recv()
            if name == "warm_up":
                result = client.warm_up()
            elif name == "write":
                result = client.write(start_ns)
            elif name == "read":
                result = client.read(start_ns)
            else:
                result = client.verify()
            channel.send(("done", result))
    except CaseFailed as error:
        channel.send(("failed", error.kind, str(error)))
    except OSError as error:
        failure = failed(error, direct=job.params.mode == "direct")
        channel.send(("failed", failure.kind, str(failure)))
    except MemoryError:
        channel.send(("failed", "enomem", "not enough memory for the buffers"))


def failed(error: OSError, *, direct: bool) -> CaseFailed:
    """Return the failure of a case for an error of the system: its class is the error's name, such as `enospc`."""
    if direct and error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
        return CaseFailed("direct_unsupported", f"the file system refuses direct I/O: {error.strerror}")
    name = errno.errorcode.get(error.errno or 0, "oserror").lower()
    return CaseFailed(name, error.strerror or str(error))


def _result(offsets: Sequence[int], starts: array[int], ends: array[int], marks: dict[str, Any]) -> dict[str, Any]:
    stamps = {"start_ns": np.asarray(starts), "end_ns": np.asarray(ends)}
    return {"offset": np.asarray(offsets, dtype=np.int64), **stamps, "marks": marks}


def _stamps(count: int) -> array[int]:
    return array("q", bytes(8 * count))


def _wait_until(start_ns: int) -> None:
    time.sleep(max(0, start_ns - _clock()) / 1e9)


def _short_write(descriptor: int, block: memoryview, offset: int, count: int) -> CaseFailed:
    """Return the failure for a write that took `count` bytes; an error of the next bytes, such as ENOSPC, is raised."""
    os.pwrite(descriptor, block[count:], offset + count)
    return CaseFailed("short_write", f"write at offset {offset}: {count} of {len(block)} bytes")


def _sync_directory(folder: Path) -> bool:
    """Make the new name durable; False where the file system cannot sync a directory."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
            return True
        return False
    finally:
        os.close(descriptor)


def _io_counters() -> dict[str, int] | None:
    """Return this process's counters (proc(5), io), None where the kernel keeps none."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def _clock_pair_ns() -> float:
    """Return the median cost in ns of the two stamps around an empty operation: what each latency includes."""
    pairs = np.empty(CLOCK_PAIRS, dtype=np.int64)
    for index in range(CLOCK_PAIRS):
        begin = _clock()
        end = _clock()
        pairs[index] = end - begin
    return float(np.median(pairs))
