"""Samples of one invocation over time, in bounded memory: the last ones as they are, all of them in fewer buckets.

Pure: rows of `live/resources.jsonl` go in, columns for a chart come out. A value that was not measured is absent.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aifbench.core.roles import CLIENT_NODE, NODE
from aifbench.services.values import LARGEST_COUNT, count, listed, number, text

RECENT = 900
"""Samples that are kept as they are: a quarter of an hour at one per second."""
BUCKETS = 720
"""Buckets of the whole time; when they are full, two become one and each is twice as long."""
FIRST_BUCKET_S = 5.0
FINEST_STEP_S = 1e-3
LONGEST_S = 1e8
"""No job runs for three years: a later time is a lie, and would hide all true ones."""
RECORDS_WINDOW_S = 10.0
MOST_SERIES = 128
MOST_ROLES = 64
MOST_GPUS = 64
LONGEST_NAME = 64
NODES = (NODE, CLIENT_NODE)
UNITS = {
    "cpu": "cores",
    "memory": "bytes",
    "read": "bytes/s",
    "write": "bytes/s",
    "vfs_read": "bytes/s",
    "vfs_write": "bytes/s",
    "available": "bytes",
    "pressure": "ratio",
    "records": "1/s",
    "gpu": "ratio",
    "gpu_memory": "bytes",
    "gpu_power": "W",
}
"""Quantities of a chart and their units. A series is named `<quantity>/<role>`."""
_WAITS = {"CPU wait": "stalled_cpu_s", "memory wait": "stalled_memory_s", "I/O wait": "stalled_io_s"}
"""Series of the quantity `pressure`: the part of the time in which some process of a node waited."""
_GPU = {"gpu": "utilization", "gpu_memory": "memory_bytes", "gpu_power": "power_w"}


@dataclass
class Sample:
    """All rows of one moment. `t_s` is since the start of the invocation."""

    invocation: int
    t_s: float
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: int | None = None
    errors: int | None = None
    step: dict[str, Any] | None = None

    @property
    def node(self) -> dict[str, Any]:
        """The node's row, empty when there is none."""
        return self.roles.get(NODE, {})

    @property
    def gpus(self) -> list[dict[str, Any]]:
        """The rows of the GPUs."""
        found = self.node.get("gpu")
        return [gpu for gpu in listed(found)[:MOST_GPUS] if isinstance(gpu, dict)]

    def jobs(self, column: str) -> float | None:
        """Return the sum of a column over the roles of the batch, on all its nodes; None when a role does not tell."""
        values = [number(row.get(column)) for role, row in self.roles.items() if role not in NODES]
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None


class Grouping:
    """Puts the rows of one moment together: a sample is complete with the node's row, the last of its write."""

    def __init__(self) -> None:
        self._open: Sample | None = None

    def add(self, row: Any) -> Iterable[Sample]:
        """Take one row and return the samples that it completes; a row that is not one of a sample gives none."""
        if not isinstance(row, Mapping):
            return []
        invocation, t_s, role = row.get("invocation"), number(row.get("t_s")), row.get("role")
        if not isinstance(invocation, int) or not isinstance(role, str) or len(role) > LONGEST_NAME:
            return []
        if t_s is None or not 0 <= t_s < LONGEST_S:
            return []
        done = []
        if self._open is not None and (self._open.invocation, self._open.t_s) != (invocation, t_s):
            done.append(self._open)
            self._open = None
        if self._open is None:
            self._open = Sample(invocation, t_s)
        if role in NODES or len(self._open.roles) < MOST_ROLES:
            self._open.roles[role] = dict(row)
        self._open.records = _count(row.get("records"))
        self._open.errors = _count(row.get("errors"))
        if role == NODE:
            self._open.step = _step(row["step"]) if isinstance(row.get("step"), dict) else None
            done.append(self._open)
            self._open = None
        return done


@dataclass
class _Extent:
    """Mean, weighted by time, and largest of a value over all samples that had it; None: none had."""

    peak: float | None = None
    _total: float = 0.0
    _seconds: float = 0.0

    def add(self, value: float | None, seconds: float) -> None:
        if value is not None:
            self.peak = value if self.peak is None else max(self.peak, value)
            self._total += value * seconds
            self._seconds += seconds

    @property
    def mean(self) -> float | None:
        return self._total / self._seconds if self._seconds else None


@dataclass
class _Bucket:
    """Some samples in one: the time of the last, and smallest, largest, sum and number of each series."""

    number: int
    t_s: float
    low: array[float]
    high: array[float]
    total: array[float]
    count: array[float]


class Series:
    """The lines of one invocation."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.samples = 0
        self.last: Sample | None = None
        self._recent: deque[tuple[float, array[float]]] = deque(maxlen=RECENT)
        self._buckets: list[_Bucket] = []
        self._bucket_s = FIRST_BUCKET_S
        self._records: deque[tuple[float, int]] = deque()
        self._cores, self._memory, self._peak, self._gpu, self._gpu_memory = (_Extent() for _ in range(5))

    def add(self, sample: Sample) -> dict[str, float] | None:
        """Take one sample and return its values by series; None, and no change, when it is not later than the last."""
        if self.last is not None and sample.t_s <= self.last.t_s:
            return None
        values = self._values(sample)
        for name in values:
            if len(self.names) < MOST_SERIES:
                self.names.setdefault(name, len(self.names))
        row = array("d", [values.get(name, math.nan) for name in self.names])
        self._recent.append((sample.t_s, row))
        self._bucket(sample.t_s, row)
        self._use(sample)
        self.last = sample
        self.samples += 1
        return {name: _short(value) for name, value in values.items()}

    def used(self) -> dict[str, float | None]:
        """Return what the batch's processes have used over all samples: means over time, peaks, totals.

        Cores, bytes, `gpu` a ratio (mean of the GPUs), counts. None: no sample had it.
        """
        return {
            "cores_mean": self._cores.mean,
            "cores_peak": self._cores.peak,
            "memory_mean": self._memory.mean,
            "memory_peak": self._memory.peak,
            "memory_peak_vmhwm": self._peak.peak,
            "gpu_mean": self._gpu.mean,
            "gpu_memory_peak": self._gpu_memory.peak,
            "records": None if self.last is None else self.last.records,
            "errors": None if self.last is None else self.last.errors,
        }

    def _use(self, sample: Sample) -> None:
        seconds = sample.t_s - self.last.t_s if self.last is not None else sample.t_s
        self._cores.add(sample.jobs("cpu_cores"), seconds)
        self._memory.add(sample.jobs("rss_bytes"), seconds)
        self._peak.add(sample.jobs("peak_rss_bytes"), seconds)
        for extent, column in ((self._gpu, "utilization"), (self._gpu_memory, "memory_bytes")):
            values = [number(gpu.get(column)) for gpu in sample.gpus]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                extent.add(sum(known) / (len(known) if column == "utilization" else 1), seconds)

    def columns(self, since_s: float, step_s: float) -> dict[str, Any]:
        """Return `{t: [], series: [{name, quantity, role, unit, values, low, high}]}` of the samples after `since_s`.

        Values are means over each row's time, `low` and `high` its extremes; all are null where nothing was measured.
        Rows are single samples, or buckets where only those are left, or of `step_s` at least when that is above 1 ms.
        """
        begin = self._recent[0][0] if self.samples > len(self._recent) else -math.inf
        old = [
            replace(bucket, t_s=min(bucket.t_s, begin - 0.001))  # the last of them reaches into the recent ones
            for bucket in self._buckets
            if bucket.number * self._bucket_s < begin and bucket.t_s > since_s
        ]
        rows = [*old, *(_single(t_s, row) for t_s, row in self._recent if t_s > since_s)]
        if step_s >= FINEST_STEP_S:
            rows = _merged(rows, step_s)
        series = []
        for name, place in self.names.items():
            quantity, _, role = name.partition("/")
            counts = [row.count[place] if place < len(row.count) else 0.0 for row in rows]
            if not any(counts):
                continue
            known = [(row, count) for row, count in zip(rows, counts, strict=True)]
            series.append(
                {
                    "name": name,
                    "quantity": quantity,
                    "role": role,
                    "unit": UNITS[quantity],
                    "values": [_short(row.total[place] / count) if count else None for row, count in known],
                    "low": [_short(row.low[place]) if count else None for row, count in known],
                    "high": [_short(row.high[place]) if count else None for row, count in known],
                }
            )
        return {"t": [round(row.t_s, 3) for row in rows], "series": series}

    def rate(self, sample: Sample) -> float | None:
        """Return the records per second over the ten seconds before a sample, the last one that came.

        None while less than two counts were seen, and inside a case in which none came: there, they are counted
        between timed regions only, and none is not 0.
        """
        if len(self._records) < 2:
            return None
        (before_s, before), (now_s, now) = self._records[0], self._records[-1]
        if now == before and sample.step is not None and sample.step.get("case") is not None:
            return None
        return (now - before) / (now_s - before_s) if now >= before and now_s > before_s else None

    def _values(self, sample: Sample) -> dict[str, float]:
        values: dict[str, float] = {}
        for role, row in sample.roles.items():
            _put(values, f"cpu/{role}", row.get("cpu_cores"))
            if role in NODES:
                _put(values, f"available/{role}", row.get("memory_available_bytes"))
                for wait, column in _WAITS.items():
                    name = wait if role == NODE else f"{wait}, {role}"
                    _put(values, f"pressure/{name}", _at_most(1.0, self._growth(sample, role, column)))
                continue
            _put(values, f"memory/{role}", row.get("rss_bytes"))
            for quantity in ("read", "write", "vfs_read", "vfs_write"):
                _put(values, f"{quantity}/{role}", self._growth(sample, role, f"{quantity}_bytes"))
        for gpu in sample.gpus:
            for quantity, column in _GPU.items():
                _put(values, f"{quantity}/GPU {count(gpu.get('index'))}", gpu.get(column))
        if sample.records is not None:
            if self._records and sample.records < self._records[-1][1]:
                self._records.clear()
            self._records.append((sample.t_s, sample.records))
            while len(self._records) > 2 and self._records[1][0] <= sample.t_s - RECORDS_WINDOW_S:
                self._records.popleft()
            _put(values, "records/workload", self.rate(sample))
        return values

    def _growth(self, sample: Sample, role: str, column: str) -> float | None:
        """Return how much a total of a role grew per second since the last sample; None where that is the same one.

        What a process on another node told last may stand in two samples (`sampling.companion`).
        """
        if self.last is None:
            return None
        row, earlier = sample.roles[role], self.last.roles.get(role, {})
        now, before = number(row.get(column)), number(earlier.get(column))
        taken, taken_before = number(row.get("clock_s")), number(earlier.get("clock_s"))
        seconds = sample.t_s - self.last.t_s if taken is None or taken_before is None else taken - taken_before
        if now is None or before is None or now < before or seconds <= 0:
            return None
        return (now - before) / seconds

    def _bucket(self, t_s: float, row: array[float]) -> None:
        place = int(t_s // self._bucket_s)
        single = _single(t_s, row, place)
        if self._buckets and self._buckets[-1].number == place:
            self._buckets[-1] = _joined(self._buckets[-1], single)
            return
        self._buckets.append(single)
        if len(self._buckets) > BUCKETS:
            self._bucket_s *= 2
            self._buckets = _merged(self._buckets, self._bucket_s)


def _step(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sample says about the work of its moment, each part of the kind that it should be."""
    return {
        "phase": text(found.get("phase"), LONGEST_NAME),
        "case": text(found.get("case"), LONGEST_NAME),
        "repetition": count(found.get("repetition")),
        "since_s": number(found.get("since_s")),
        "expected_s": number(found.get("expected_s")),
    }


def _at_most(most: float, value: float | None) -> float | None:
    return None if value is None else min(most, value)


def _count(value: Any) -> int | None:
    known = number(value)
    return None if known is None else int(min(known, LARGEST_COUNT))


def _put(values: dict[str, float], name: str, value: Any) -> None:
    known = number(value)
    if known is not None:
        values[name] = float(known)


def _single(t_s: float, row: array[float], place: int = 0) -> _Bucket:
    known = array("d", [0.0 if math.isnan(value) else 1.0 for value in row])
    return _Bucket(place, t_s, row, row, array("d", [0.0 if math.isnan(value) else value for value in row]), known)


def _joined(one: _Bucket, other: _Bucket) -> _Bucket:
    width = max(len(one.total), len(other.total))
    parts = [(_at(one, i), _at(other, i)) for i in range(width)]
    return _Bucket(
        one.number,
        other.t_s,
        array("d", [min(a[0], b[0]) if a[3] and b[3] else (a if a[3] else b)[0] for a, b in parts]),
        array("d", [max(a[1], b[1]) if a[3] and b[3] else (a if a[3] else b)[1] for a, b in parts]),
        array("d", [a[2] + b[2] for a, b in parts]),
        array("d", [a[3] + b[3] for a, b in parts]),
    )


def _at(bucket: _Bucket, i: int) -> tuple[float, float, float, float]:
    if i >= len(bucket.total):
        return (math.nan, math.nan, 0.0, 0.0)
    return (bucket.low[i], bucket.high[i], bucket.total[i], bucket.count[i])


def _merged(buckets: list[_Bucket], width_s: float) -> list[_Bucket]:
    """Join neighbours that lie in the same stretch of `width_s`."""
    joined: list[_Bucket] = []
    for bucket in buckets:
        place = int(bucket.t_s // width_s)
        one = _Bucket(place, bucket.t_s, bucket.low, bucket.high, bucket.total, bucket.count)
        if joined and joined[-1].number == place:
            joined[-1] = _joined(joined[-1], one)
        else:
            joined.append(one)
    return joined


def _short(value: float) -> float:
    """Six digits are more than was measured, and half of what a float takes."""
    return float(f"{value:.6g}")
