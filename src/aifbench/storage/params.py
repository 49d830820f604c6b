"""Parameters of a storage case."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from aifbench.core.errors import FieldError
from aifbench.core.params import Params, setup, vary
from aifbench.core.paths import PathText
from aifbench.core.units import Size, format_size

MIB = 1 << 20
STRIPE_UNIT = 64 << 10
"""Lustre's stripes are multiples of this many bytes."""
PAGE = 4096
"""Alignment of offsets, lengths and addresses in direct mode, and the distance of two stamps in the data (bytes)."""

_ASSUMED_BYTES_PER_S = 1000 * 2**20
_ASSUMED_SECONDS_PER_OPERATION = 100e-6


class StorageParams(Params):
    """One case: each client writes blocks, makes them durable, and reads them back."""

    label_fields: ClassVar[tuple[str, ...]] = (
        "mode",
        "block_size",
        "file_size",
        "clients",
        "layout",
        "pattern",
        "buffer",
        "stripe_count",
        "stripe_size",
    )

    metrics: ClassVar[tuple[str, ...]] = (
        "write_time_s", "write_io_s", "write_sync_s", "read_time_s", "write_bandwidth_mib_s",
        "write_io_bandwidth_mib_s", "write_io_bandwidth_first_done_mib_s", "read_bandwidth_mib_s",
        "read_bandwidth_first_done_mib_s", "write_iops", "read_iops", "write_latency_mean_ms", "write_latency_p50_ms",
        "write_latency_p99_ms", "write_latency_max_ms", "read_latency_mean_ms", "read_latency_p50_ms",
        "read_latency_p99_ms", "read_latency_max_ms",
    )  # fmt: skip

    path: PathText | None = setup(
        None, "folder to test, made if it is missing; absent: `paths.target` of the system", min_length=1
    )
    file_size: Size = vary(..., "size of each file", le=1 << 47)
    block_size: Size = vary(MIB, "bytes per operation", ge=512, le=1 << 30)
    mode: Literal["direct", "buffered-cold", "warm"] = vary(
        "direct",
        "`direct`: O_DIRECT past the page cache; `buffered-cold`: through the page cache, emptied (and proved empty) "
        "before the read; `warm`: through the page cache, read while it holds the whole file",
    )
    clients: int = vary(
        1, "processes that write and read at the same time, one operation each at a time", ge=1, le=1024
    )
    layout: Literal["file-per-client", "shared"] = vary(
        "file-per-client", "a file for each client, or one file of which each client has its own segment"
    )
    pattern: Literal["sequential", "random"] = vary(
        "sequential", "order of the blocks; `random` visits each block once, in a random permutation"
    )
    buffer: Literal["huge", "page"] = vary(
        "huge", "memory of the clients: transparent huge pages (2 MiB aligned), or 4 KiB pages as fio has by default"
    )

    stripe_count: int | None = vary(
        None, "Lustre: targets over which each file is spread, -1 for all; absent: as the folder has it", ge=-1, le=2000
    )
    stripe_size: Size = vary(MIB, "Lustre: bytes on one target before the next; used with `stripe_count`", le=1 << 32)

    @model_validator(mode="after")
    def _stripes_fit(self) -> StorageParams:
        if self.stripe_count == 0:
            raise FieldError("stripe_count", "must be 1 or more, or -1 for all targets")
        if self.stripe_size % STRIPE_UNIT:
            raise FieldError("stripe_size", f"must be a multiple of {format_size(STRIPE_UNIT)}")
        if self.stripe_count is None and self.stripe_size != MIB:
            raise FieldError("stripe_size", "needs a stripe_count")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> StorageParams:
        if self.block_size > self.file_size:
            raise FieldError("block_size", f"is larger than file_size ({format_size(self.file_size)})")
        if self.mode == "direct" and self.block_size % PAGE:
            raise FieldError("block_size", f"must be a multiple of {PAGE} bytes in mode direct")
        if self.file_size % self.block_size:
            raise FieldError("file_size", f"must be a multiple of block_size ({format_size(self.block_size)})")
        if self.layout == "shared" and self.blocks_per_file % self.clients:
            raise FieldError(
                "clients", f"must divide the {self.blocks_per_file} blocks of a shared file (file_size / block_size)"
            )
        return self

    @property
    def blocks_per_file(self) -> int:
        """Return the number of blocks of one file."""
        return self.file_size // self.block_size

    @property
    def blocks_per_client(self) -> int:
        """Return the number of operations that each client does per phase."""
        return self.blocks_per_file // (self.clients if self.layout == "shared" else 1)

    @property
    def total_bytes(self) -> int:
        """Return the bytes that one repetition writes, over all clients."""
        return self.blocks_per_client * self.block_size * self.clients

    def writes(self) -> tuple[Path, ...]:
        """The folder under test."""
        return () if self.path is None else (Path(self.path),)

    def under_test(self, target: Path) -> tuple[Path, ...]:
        """The folder under test, or that of the system."""
        return self.writes() or (target,)

    def slug(self) -> str:
        """Return a short readable name of the folder under test."""
        name = "target" if self.path is None else re.sub(r"[^a-z0-9]+", "-", self.path.lower()).strip("-")[-24:]
        return name.strip("-") or "root"

    def expected_seconds(self, repetitions: int) -> float:
        """Return a rough expected time in seconds: write, read, verify at 1000 MiB/s, at least 0.1 ms each time."""
        by_size = self.total_bytes / _ASSUMED_BYTES_PER_S
        by_count = self.blocks_per_client * _ASSUMED_SECONDS_PER_OPERATION
        return repetitions * (0.2 + 0.05 * self.clients + 3 * max(by_size, by_count))
