"""The storage worker: one repetition is write, make durable, prepare the cache, read, verify, remove."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from aifbench.core.benchmark import CaseFailed, Context, Measurement, Worker
from aifbench.core.units import format_size
from aifbench.log.writer import WARNING
from aifbench.machine.filesystem import describe, direct_alignment, mount_of
from aifbench.storage import cache_state
from aifbench.storage.client import failed
from aifbench.storage.group import Group
from aifbench.storage.metrics import READ, WRITE
from aifbench.storage.params import StorageParams
from aifbench.storage.stripes import FILE_SYSTEM, set_stripes, stripes_of
from aifbench.storage.workspace import data_file, remove_leftovers, workspace


class StorageWorker(Worker[StorageParams]):
    """Measures cases in a private folder under the target, which is removed after each repetition."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        own_thread = threading.current_thread() is threading.main_thread()
        if own_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that files are removed

    def prepare(self, params: StorageParams) -> dict[str, Any]:
        """Make the target folder, remove what a killed run of this batch left there; return the file system's facts."""
        target = self._target(params)
        try:
            target.mkdir(parents=True, exist_ok=True)
            removed = remove_leftovers(target, self._owner)
        except OSError as error:
            raise failed(error, direct=False) from error
        if removed:
            self.context.log(WARNING, f"removed {removed} folder(s) that a killed run of this batch left in {target}")
        return {"filesystem": describe(target), "leftovers_removed": removed}

    def measure(self, params: StorageParams) -> Measurement:
        """Run one repetition. Raises `CaseFailed` with the class of the system's error, such as `enospc`."""
        try:
            with workspace(self._target(params), self._owner, self.context.log) as folder:
                return self._measure(params, folder)
        except OSError as error:
            raise failed(error, direct=params.mode == "direct") from error

    @property
    def _owner(self) -> str:
        return str(self.context.work_dir.resolve())

    def _spread(self, params: StorageParams, folder: Path) -> None:
        """Set the stripes that the case asks for; other file systems than Lustre have none."""
        if params.stripe_count is None or mount_of(folder)["type"] != FILE_SYSTEM:
            return
        try:
            set_stripes(folder, params.stripe_count, params.stripe_size)
        except OSError as error:
            size = format_size(params.stripe_size)
            refused = f"Lustre refuses {params.stripe_count} stripes of {size}: {error.strerror}"
            raise CaseFailed("stripes", refused) from error

    def _target(self, params: StorageParams) -> Path:
        return self.context.target_dir if params.path is None else Path(params.path)

    def _measure(self, params: StorageParams, folder: Path) -> Measurement:
        self._spread(params, folder)
        shared = params.layout == "shared"
        files = [data_file(folder, client, shared) for client in range(1 if shared else params.clients)]
        if shared:
            os.close(os.open(files[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with Group(params, folder, self.context.seed) as group:
            self.context.phase("warmup")
            prepared = group.command("warm_up")
            self.context.phase("write")
            written = group.command("write")
            self.context.progress(params.blocks_per_client * params.clients)
            self.context.phase("prepare cache")
            cache = _prepare_cache(params.mode, files)
            self.context.phase("read")
            read = group.command("read")
            self.context.progress(2 * params.blocks_per_client * params.clients)
            after_read = cache_state.residency(files)
            self.context.phase("verify")
            verified = group.command("verify")
        return Measurement(
            raw=_columns({WRITE: written, READ: read}),
            facts={
                "filesystem": describe(folder),
                "direct_alignment": direct_alignment(files[0]),
                "stripes": stripes_of(files[0]),
                "clients": prepared,
                "write": [result["marks"] for result in written],
                "read": [result["marks"] for result in read],
                "cache": {**cache, "residency_after_read": after_read},
                "verify": verified,
                "clock_pair_ns": max(facts["clock_pair_ns"] for facts in prepared),
                "warmup_operations": sum(facts["warmup_operations"] for facts in prepared),
            },
        )


def _prepare_cache(mode: str, files: list[Path]) -> dict[str, Any]:
    """Bring the page cache into the state that the read needs; return what was done and what came of it."""
    start = time.monotonic_ns()
    after_write = cache_state.residency(files)
    action = {"direct": "none", "buffered-cold": "drop", "warm": "load"}[mode]
    for file in files:
        if action == "drop":
            cache_state.drop(file)
        elif action == "load":
            cache_state.fill(file)
    return {
        "action": action,
        "residency_after_write": after_write,
        "residency": cache_state.residency(files),
        "duration_ns": time.monotonic_ns() - start,
    }


def _columns(phases: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    parts = [(phase, client, result) for phase, results in phases.items() for client, result in enumerate(results)]
    counts = [result["offset"].size for _, _, result in parts]
    return {
        "client": np.repeat(np.array([client for _, client, _ in parts], dtype=np.int16), counts),
        "phase": np.repeat(np.array([phase for phase, _, _ in parts], dtype=np.int8), counts),
        **{
            name: np.concatenate([result[name] for _, _, result in parts]).astype(np.int64)
            for name in ("offset", "start_ns", "end_ns")
        },
    }


WORKER = StorageWorker
