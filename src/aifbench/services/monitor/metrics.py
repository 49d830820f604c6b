"""The monitor's state as metrics of Prometheus. Pure: rows and samples in, families out.

Names are `aif_...`, in base units. A run is named (`run_id`: its campaign, `task`: its batch) while it is active and
for five minutes more; history lives in the results. What was not measured has no series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from aifbench.registry import benchmarks
from aifbench.services.monitor.jobs import MEMORY_KINDS, STATES, Job
from aifbench.services.monitor.series import NODES
from aifbench.services.monitor.slurm import Queue
from aifbench.services.values import number


@cache
def units() -> dict[str, str]:
    """Return what the workload counter of each benchmark counts."""
    return {name: benchmark.menu().unit for name, benchmark in benchmarks().items()}


class Families:
    """The families of one moment."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def gauge(self, name: str, text: str, value: float | None, **labels: str) -> None:
        """Add a value of a gauge, unless it was not measured."""
        self._add(GaugeMetricFamily, name, text, value, labels)

    def counter(self, name: str, text: str, value: float | None, **labels: str) -> None:
        """Add a value of a counter (its name ends in `_total`), unless it was not measured."""
        self._add(CounterMetricFamily, name, text, value, labels)

    def info(self, name: str, text: str, **labels: str) -> None:
        """Add facts as labels."""
        family = self._found.setdefault(name, InfoMetricFamily(name, text))
        family.add_metric([], labels)

    def _add(self, kind: Any, name: str, text: str, value: float | None, labels: dict[str, str]) -> None:
        if value is None:
            return
        if name not in self._found:
            self._found[name] = kind(name, text, labels=list(labels))
        self._found[name].add_metric(list(labels.values()), value)

    def __iter__(self) -> Any:
        return iter(self._found.values())


def families(rows: list[dict[str, Any]], shown: Iterable[Job], queue: Queue, wall: float, now: float) -> list[Metric]:
    """Return the metrics of all jobs together (`rows`) and of the `shown` ones. `wall`, `now`: both clocks in s."""
    found = Families()
    counts = Counter((row["benchmark"] or "unknown", row["state"]) for row in rows)
    for benchmark in sorted({benchmark for benchmark, _ in counts} | set(units())):
        for state in STATES:
            count = counts[benchmark, state]
            found.gauge("aif_jobs", "Jobs (batches) by state.", count, benchmark=benchmark, state=state)
    for job in shown:
        _task(found, job, wall, now)
    found.counter("aif_slurm_queries_total", "Calls of squeue.", queue.calls)
    found.gauge("aif_slurm_failures", "Calls of squeue that failed since the last answer.", queue.failures)
    return list(found)


def _task(found: Families, job: Job, wall: float, now: float) -> None:
    row, last = job.row, job.shown_sample()
    if not row:
        return
    names = {"run_id": job.campaign, "task": job.batch, "node": row["node"] or ""}
    provenance = _dict(job.invocation.get("provenance"))
    found.info(
        "aif_run",
        "What a task runs.",
        **names,
        benchmark=job.benchmark or "",
        state=row["state"],
        partition=str(_dict(provenance.get("slurm")).get("partition") or ""),
        commit=str(_dict(provenance.get("git")).get("commit") or ""),
    )
    gauges = (
        ("aif_task_cpu_allocated_cores", "Cores that the task may use.", row["cores_allocated"]["value"]),
        ("aif_task_memory_limit_bytes", "Memory that the task may use.", row["memory_limit"]["value"]),
        ("aif_task_elapsed_seconds", "Time since the start of the task's job.", row["elapsed_s"]),
        ("aif_task_time_limit_seconds", "Time limit of the task's job.", row["limit"]["value"]),
        ("aif_task_eta_seconds", "Time that the repetitions which are left will take.", row["eta"]["value"]),
        ("aif_task_stalled", "1: no progress for a minute and longer than expected.", float(row["stalled"])),
        ("aif_task_sample_age_seconds", "Time since the last sample.", _age(job.seen_sample, now, row)),
    )
    for name, text, value in gauges:
        found.gauge(name, text, value, **names)
    for what, state in (("repetitions_done", "done"), ("repetitions_all", "planned")):
        found.gauge("aif_task_repetitions", "Repetitions of the task's cases.", row[what], **names, state=state)
    for severity, counts in job.noted.items():
        for kind, count in counts.items():
            text = "Repetitions that bear a reason (invalid) or a caution, by its kind: see docs/reasons.md."
            found.gauge("aif_task_notes", text, count, **names, severity=severity, kind=kind)
    if row["state"] == "running" and job.seen_progress is not None:
        moment = wall - (now - job.seen_progress)
        name, text = "aif_workload_last_progress_timestamp_seconds", "When the work last went on."
        found.gauge(name, text, round(moment, 3), **names)
    sampler = _dict(_dict(job.invocation.get("facts")).get("sampler"))
    found.counter("aif_sampler_cpu_seconds_total", "CPU time of the sampler.", number(sampler.get("cpu_s")), **names)
    missed = number(sampler.get("missed_ticks"))
    found.counter("aif_sampler_missed_ticks_total", "Samples that came too late to be taken.", missed, **names)
    if last is None:
        return
    kind = units().get(job.benchmark or "", "records")
    text = "Work done, in units of the benchmark."
    found.counter("aif_workload_records_total", text, number(last.records), **names, kind=kind)
    text = "Requests and repetitions that failed."
    found.counter("aif_workload_errors_total", text, number(last.errors), **names, kind=kind)
    for role, sample in last.roles.items():
        there = sample.get("node")
        here = names if there in (None, last.node.get("node")) else {**names, "node": str(there)}
        if role in NODES:
            _node(found, sample, here)
        else:
            _role(found, sample, {**here, "role": role})
    for gpu in last.gpus:
        _gpu(found, gpu, {**names, "gpu": str(gpu.get("index"))})


def _node(found: Families, sample: dict[str, Any], names: dict[str, str]) -> None:
    text = "Cores of the whole node that are busy."
    found.gauge("aif_node_cpu_busy_cores", text, number(sample.get("cpu_cores")), **names)
    text = "Memory of the node that could be used without swapping."
    found.gauge("aif_node_memory_available_bytes", text, number(sample.get("memory_available_bytes")), **names)
    for resource in ("cpu", "memory", "io"):
        value = number(sample.get(f"stalled_{resource}_s"))
        text = "Time since boot in which some process of the node waited for a resource."
        found.counter("aif_node_pressure_stalled_seconds_total", text, value, **names, resource=resource)


def _role(found: Families, sample: dict[str, Any], names: dict[str, str]) -> None:
    text = "CPU time of a role's processes, of ended ones too."
    found.counter("aif_task_cpu_seconds_total", text, number(sample.get("cpu_seconds")), **names)
    text = "Memory of a role's processes: sum of resident sets, which count shared pages for each process."
    for memory in MEMORY_KINDS:
        found.gauge("aif_task_memory_bytes", text, number(sample.get(f"{memory}_bytes")), **names, kind=memory)
    text = "Largest sum of the peaks of a role's live processes."
    found.gauge("aif_task_memory_peak_bytes", text, number(sample.get("peak_rss_bytes")), **names, source="vmhwm")
    text = "Bytes of read and write calls on whatever (vfs), and from and to storage devices (block)."
    for direction in ("read", "write"):
        for layer, prefix in (("block", ""), ("vfs", "vfs_")):
            value = number(sample.get(f"{prefix}{direction}_bytes"))
            found.counter("aif_task_io_bytes_total", text, value, **names, direction=direction, layer=layer)


def _gpu(found: Families, gpu: dict[str, Any], names: dict[str, str]) -> None:
    gauges = (
        ("aif_gpu_utilization_ratio", "Part of the time in which a kernel ran.", "utilization"),
        ("aif_gpu_memory_used_bytes", "Memory of a GPU in use.", "memory_bytes"),
        ("aif_gpu_memory_total_bytes", "Memory of a GPU.", "memory_total_bytes"),
        ("aif_gpu_power_watts", "Power draw of a GPU.", "power_w"),
    )
    for name, text, column in gauges:
        found.gauge(name, text, number(gpu.get(column)), **names)
    text = "Energy that a GPU took since its driver was loaded."
    found.counter("aif_gpu_energy_joules_total", text, number(gpu.get("energy_j")), **names)


def _age(seen: float | None, now: float, row: dict[str, Any]) -> float | None:
    return None if seen is None or row["state"] != "running" else round(now - seen, 1)


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
