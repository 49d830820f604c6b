"""From the stamps of one repetition to metrics and a verdict. Pure functions.

The write time of the contract runs from the first byte to durable: first write started, to the last client's data
written, synced, closed and its directory entry synced. The read time runs from the first read started to the last
read ended. Bandwidth is all bytes over that time ("last done"); the "first done" figures stop when the first client
has finished its operations (elbencho's distinction), so the two differ where clients are served unequally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.checks.cold import cold_read, direct_read, warm_read
from aifbench.core.benchmark import Raw
from aifbench.core.notes import Note
from aifbench.core.records import Metric, Validity
from aifbench.stats.quantiles import quantile_metric
from aifbench.storage import kinds
from aifbench.storage.params import MIB, StorageParams
from aifbench.storage.stripes import EVERY, FILE_SYSTEM

WRITE, READ = 0, 1
"""Values of the raw column `phase`."""

SKEW_NOTE_S = 1e-3
OWN_WORK_NS = 1_000_000
"""A longer time between two operations is no work of the client's own: it was off the processor."""

BETWEEN_NOTE = 0.05
OWN_LIMIT = 0.2
"""Part of the time that may pass between operations before the result says so, and, for own work, before it is void."""

_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class _Phase:
    """The operations of one phase. `own_s` and `off_s` are the times between operations of the client with the most:
    its own work (with the clock's cost in each operation), and times off the processor.
    """

    client: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    bytes: int
    own_s: float
    off_s: float

    @property
    def io_s(self) -> float:
        return float(self.end.max() - self.start.min()) / 1e9

    @property
    def instrument_s(self) -> float:
        return self.own_s + self.off_s

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        return (self.end - self.start) / 1e6

    @property
    def first_done_bytes_per_s(self) -> float:
        done = min(int(self.end[self.client == client].max()) for client in np.unique(self.client))
        share = float(np.count_nonzero(self.end <= done)) / self.end.size
        return share * self.bytes / (float(done - self.start.min()) / 1e9)


def evaluate(params: StorageParams, raw: Raw, facts: Mapping[str, Any]) -> tuple[dict[str, Metric], Validity]:
    """Return the metrics of one repetition and its verdict. Times in s, latencies in ms, MiB = 2^20 bytes.

    Raw columns: client, phase (0 write, 1 read), offset (bytes), start_ns, end_ns (CLOCK_MONOTONIC).
    """
    write, read = (_phase(params, raw, number, float(facts["clock_pair_ns"])) for number in (WRITE, READ))
    if write is None or read is None:
        missing = "write" if write is None else "read"
        return {}, Validity.of([kinds.NOTHING_RECORDED.against(phase=missing)])
    durable_ns = max(int(marks["dirsync_end_ns"]) for marks in facts["write"])
    write_s = float(durable_ns - write.start.min()) / 1e9
    pair_ms = float(facts["clock_pair_ns"]) / 1e6
    to_durable = "first write started to data, size and name durable, all clients"
    metrics = {
        "write_time_s": _time(write_s, write, to_durable),
        "write_io_s": _time(write.io_s, write, "first write started to last write ended, all clients"),
        "write_sync_s": _time(write_s - write.io_s, None, "last write ended to fsync, close, directory fsync ended"),
        "read_time_s": _time(read.io_s, read, "first read started to last read ended, all clients"),
        "write_bandwidth_mib_s": _rate(write, write_s, "all bytes / write_time_s"),
        "write_io_bandwidth_mib_s": _rate(write, write.io_s, "all bytes / write_io_s: not durable yet"),
        "write_io_bandwidth_first_done_mib_s": _first_done(write),
        "read_bandwidth_mib_s": _rate(read, read.io_s, "all bytes / read_time_s"),
        "read_bandwidth_first_done_mib_s": _first_done(read),
        "write_iops": _iops(write, "writes / write_io_s"),
        "read_iops": _iops(read, "reads / read_time_s"),
        **_latencies("write", write.latency_ms, pair_ms),
        **_latencies("read", read.latency_ms, pair_ms),
    }
    return metrics, _verdict(params, facts, write, read)


def _phase(params: StorageParams, raw: Raw, number: int, clock_pair_ns: float) -> _Phase | None:
    chosen = np.asarray(raw["phase"]) == number
    if not chosen.any():
        return None
    client, start, end = (np.asarray(raw[name], dtype=np.int64)[chosen] for name in ("client", "start_ns", "end_ns"))
    own_ns, off_ns = [], []
    for each in np.unique(client):
        between = start[client == each][1:] - end[client == each][:-1]
        own_ns.append(float(between[between <= OWN_WORK_NS].sum()) + (between.size + 1) * clock_pair_ns)
        off_ns.append(float(between[between > OWN_WORK_NS].sum()))
    return _Phase(client, start, end, end.size * params.block_size, max(own_ns) / 1e9, max(off_ns) / 1e9)


def _time(value_s: float, phase: _Phase | None, method: str) -> Metric:
    if phase is None:
        return Metric(value=value_s, unit="s", n=1, method=method)
    return Metric(value=value_s, unit="s", n=int(phase.end.size), method=method, instrument=phase.instrument_s)


def _rate(phase: _Phase, seconds: float, method: str) -> Metric:
    value = phase.bytes / MIB / seconds
    instrument = value * phase.instrument_s / seconds
    return Metric(value=value, unit="MiB/s", n=int(phase.end.size), method=method, instrument=instrument)


def _first_done(phase: _Phase) -> Metric:
    method = "bytes of all clients until the first client's last operation ended / that time"
    return Metric(value=phase.first_done_bytes_per_s / MIB, unit="MiB/s", n=int(phase.end.size), method=method)


def _iops(phase: _Phase, method: str) -> Metric:
    n = int(phase.end.size)
    value = n / phase.io_s
    return Metric(value=value, unit="1/s", n=n, method=method, instrument=value * phase.instrument_s / phase.io_s)


def _latencies(name: str, latency_ms: NDArray[np.float64], instrument: float) -> dict[str, Metric]:
    n = int(latency_ms.size)

    def metric(value: np.floating[Any], method: str) -> Metric:
        return Metric(value=float(value), unit="ms", n=n, method=method, instrument=instrument)

    return {
        f"{name}_latency_mean_ms": metric(latency_ms.mean(), "mean of operations"),
        f"{name}_latency_p50_ms": quantile_metric(latency_ms, 0.5, "ms", instrument),
        f"{name}_latency_p99_ms": quantile_metric(latency_ms, 0.99, "ms", instrument),
        f"{name}_latency_max_ms": metric(latency_ms.max(), "largest of operations"),
    }


def _verdict(params: StorageParams, facts: Mapping[str, Any], write: _Phase, read: _Phase) -> Validity:
    notes = [*_read_origin(params, facts), *_stripes(params, facts)]
    expected = params.blocks_per_client * params.clients
    for name, phase in (("write", write), ("read", read)):
        if phase.end.size != expected:
            notes.append(kinds.OPERATIONS_MISSING.against(recorded=phase.end.size, expected=expected, phase=name))
        own, off = phase.own_s / phase.io_s, phase.off_s / phase.io_s
        if own > OWN_LIMIT:
            notes.append(kinds.OWN_WORK.against(share=own, phase=name, limit=OWN_LIMIT))
        elif own > BETWEEN_NOTE:
            notes.append(kinds.SOME_OWN_WORK.caution(share=own, phase=name))
        if off > BETWEEN_NOTE:
            notes.append(kinds.OFF_THE_PROCESSOR.caution(share=off, phase=name))
        skew_s = _start_skew_s(phase)
        if skew_s > SKEW_NOTE_S:
            notes.append(kinds.APART.caution(phase=name, skew_ms=skew_s * 1e3))
    verified = facts["verify"]
    bad = sum(entry["bad_blocks"] for entry in verified)
    if bad:
        first = next(entry["first_problem"] for entry in verified if entry["first_problem"])
        notes.append(kinds.CORRUPT.against(blocks=bad, first=first))
    compared = sum(entry["blocks"] for entry in verified)
    if compared != expected:
        notes.append(kinds.NOT_ALL_VERIFIED.against(compared=compared, expected=expected))
    return Validity.of([*notes, *_cautions(params, facts)])


def _read_origin(params: StorageParams, facts: Mapping[str, Any]) -> list[Note]:
    residency, fs_type = facts["cache"]["residency"], facts["filesystem"]["type"]
    counts = [marks["read_bytes"] for marks in facts["read"]]
    read_bytes = None if None in counts else sum(counts)
    if params.mode == "warm":
        return warm_read(residency)
    if params.mode == "buffered-cold":
        return cold_read(residency, read_bytes, params.total_bytes, fs_type)
    return direct_read(read_bytes, params.total_bytes, fs_type)


def _stripes(params: StorageParams, facts: Mapping[str, Any]) -> list[Note]:
    """Compare the stripes that a case asks for with those that its first file has."""
    asked, fs_type, found = params.stripe_count, facts["filesystem"]["type"], facts["stripes"]
    if asked is None:
        return []
    if fs_type != FILE_SYSTEM:
        return [kinds.NO_STRIPES_HERE.caution(asked=asked, file_system=fs_type)]
    if found is None or "count" not in found:
        return [kinds.STRIPES_UNKNOWN.against(asked=asked)]
    wrong_count = asked != EVERY and found["count"] != asked
    there = {"stripes": found["count"], "stripe_bytes": found["size"]}
    if wrong_count or found["size"] != params.stripe_size:
        return [kinds.OTHER_STRIPES.against(asked=asked, asked_bytes=params.stripe_size, **there)]
    return [kinds.STRIPES.caution(**there)]


def _start_skew_s(phase: _Phase) -> float:
    first = [int(phase.start[phase.client == client].min()) for client in np.unique(phase.client)]
    return (max(first) - min(first)) / 1e9


def _cautions(params: StorageParams, facts: Mapping[str, Any]) -> list[Note]:
    notes = []
    system = facts["filesystem"]
    if system["type"] in _MEMORY_FILE_SYSTEMS:
        notes.append(kinds.IN_MEMORY.caution(file_system=system["type"]))
    if system["type"] == "overlay":
        notes.append(kinds.OVERLAY.caution())
    if (system["device"] or {}).get("virtual") and params.mode != "warm":
        notes.append(kinds.VIRTUAL_DISK.caution(device=system["device"]["name"]))
    if not all(marks["directory_synced"] for marks in facts["write"]):
        notes.append(kinds.NO_DIRECTORY_SYNC.caution())
    if params.buffer == "huge" and any(entry["buffer"]["anon_huge_bytes"] == 0 for entry in facts["clients"]):
        notes.append(kinds.NO_HUGE_PAGES.caution())
    return notes
