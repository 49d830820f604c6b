"""What the report says of storage: bandwidth and time of writing and reading, and which of it is memory."""

from __future__ import annotations

from aifbench.analysis.cases import Case, Words, varying
from aifbench.analysis.charts import Spec
from aifbench.analysis.findings import (
    Finding,
    Part,
    effect,
    fullest,
    link,
    ratio,
    settings,
    sure,
    value_of,
    where,
)
from aifbench.analysis.report import BenchmarkReport
from aifbench.storage.kinds import IN_MEMORY

WRITE, READ = "write_bandwidth_mib_s", "read_bandwidth_mib_s"
BANDWIDTH = "storage_bandwidth"

CHARTS = (
    Spec(
        BANDWIDTH,
        "Bandwidth of writing and reading",
        (WRITE, READ),
        prefer=("block_size", "clients", "file_size"),
    ),
    Spec(
        "storage_time",
        "Time to write and to read a file",
        ("write_time_s", "read_time_s"),
        prefer=("file_size", "block_size", "clients"),
    ),
)


def fastest(cases: list[Case]) -> Finding | None:
    """Say where writing and reading are fastest; a read from memory speaks only where there is no other."""
    names = varying(cases)
    parts: list[Part] = []
    cold = [case for case in cases if case.axes.get("mode") != "warm" and sure(case, READ)]
    for metric, what, among in (
        (WRITE, "writing", cases),
        (READ, "reading from cold" if cold else "reading from memory", cold or cases),
    ):
        usable = [case for case in among if sure(case, metric) and not case.bears(IN_MEMORY)]
        if len(usable) > 1:
            best = max(usable, key=lambda case: value_of(case, metric))
            begin = f"; {what}" if parts else what.capitalize()
            parts += [
                Part(f"{begin} is fastest at "),
                link(best, metric, "MiB/s"),
                Part(f" ({settings(best, names)})"),
            ]
    return Finding(BANDWIDTH, (*parts, Part("."))) if parts else None


def block_size_effect(cases: list[Case]) -> Finding | None:
    """Say what larger operations bring."""
    return effect(
        cases,
        axis="block_size",
        metric=WRITE,
        figure=BANDWIDTH,
        text="Blocks of {b} instead of {a} give {ratio} the write bandwidth ({x} to {y})",
        none="Blocks of {b} instead of {a} are not shown to change the write bandwidth ({x} and {y})",
        unit="MiB/s",
    )


def mode_effect(cases: list[Case]) -> Finding | None:
    """Say how far apart the modes of reading are: a warm read shows memory, not the device."""
    usable = [case for case in cases if sure(case, READ)]
    group = fullest(usable, {"mode"}, "mode", {})
    if group is None or len(group) < 2:
        return None
    slow, quick = (pick(group, key=lambda case: value_of(case, READ)) for pick in (min, max))
    apart = ratio(quick.metrics[READ], slow.metrics[READ])
    if apart is None or not apart.differs:
        return None
    parts = [Part(f"Reading in mode {quick.axes['mode']} is "), Part(str(apart), quick.id)]
    parts += [Part(f" as fast as in mode {slow.axes['mode']} ("), link(quick, READ, "MiB/s")]
    parts += [Part(" and "), link(slow, READ, "MiB/s"), Part(")")]
    parts.append(Part(": memory answers, not the device" if quick.axes["mode"] == "warm" else ""))
    parts.append(Part(f"{where(quick, group, usable, {'mode'})}."))
    return Finding(BANDWIDTH, tuple(parts))


REPORT = BenchmarkReport(
    charts=CHARTS,
    findings=(fastest, block_size_effect, mode_effect),
    columns=(WRITE, READ, "write_sync_s", "read_latency_p50_ms"),
    words=Words(
        metrics={
            "write_time_s": "time to write",
            "read_time_s": "time to read",
            WRITE: "write bandwidth",
            READ: "read bandwidth",
        },
        companions={"stripe_size": "stripe_count"},
    ),
)
