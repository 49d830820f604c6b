"""What a campaign took, how much of it went into anything but measuring, and how far the plan was off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import quote

from aifbench.analysis.numbers import count, fixed, scale_for
from aifbench.core.records import BatchRecord, Invocation
from aifbench.core.units import duration
from aifbench.records.planned import PlannedBatch
from aifbench.report.load import Results
from aifbench.report.timelines import Timeline, gpu_energy
from aifbench.tables.accounting import slurm_job

COMPLETE = {"ok", "partial"}


@dataclass(frozen=True)
class Job:
    """One job of a batch that has ended: what was held, and what of it was spent in measured cases."""

    held_s: float
    """By Slurm's account where there is one: it begins before our first line runs and ends after our last."""
    measured_s: float
    nodes: int

    @property
    def around_s(self) -> float:
        """Time around the cases."""
        return max(0.0, self.held_s - self.measured_s)


def cost(results: Results) -> list[str]:
    """Return sentences about time, node-hours, the share of measured cases, energy, and the plan's error."""
    invocations = [invocation for record in results.batches.values() for invocation in record.invocations]
    jobs = [job for name in results.batches for job in _jobs(results, name)]
    held = sum(job.held_s for job in jobs)
    if not held:
        return ["No job has ended yet: time and cost are not measured."]
    measured = sum(job.measured_s for job in jobs)
    node_s, node_measured_s = (
        sum(job.nodes * seconds for job, seconds in zip(jobs, column, strict=True))
        for column in ([job.held_s for job in jobs], [job.measured_s for job in jobs])
    )
    parts, warmup = _phases(invocations)
    largest = sorted(parts.items(), key=lambda entry: -entry[1])[:3]
    named = ", ".join(f"{name.replace('_', ' ')} {seconds(value)}" for name, value in largest if value > 0)
    around = sorted(job.around_s for job in jobs)
    sentences = [
        f"{count(len(jobs), 'job')} took {seconds(held)}, or {node_s / 3600:.3g} node-hours"
        + (" by Slurm's account" if results.jobs else "")
        + f". {seconds(measured)} ({node_measured_s / node_s:.0%} of the node-hours) went into the cases"
        + (f", of that {seconds(warmup)} into warm-up" if warmup else "")
        + f"; what stood around them took {seconds(held - measured)}"
        + (f": {named}" if named else "")
        + "."
    ]
    if len(jobs) > 1:
        most = seconds(around[-1])
        sentences.append(f"Around its cases a job took {seconds(median(around))} in the median, at most {most}.")
    joules = gpu_energy(results)
    nodes_j = [job["energy_j"] for job in results.jobs.values() if job.get("energy_j")]
    if nodes_j:
        sentences.append(f"The nodes took {sum(nodes_j) / 3600:.3g} Wh by Slurm's account.")
    if joules is not None:
        sentences.append(f"The GPUs took {joules / 3600:.3g} Wh.")
    if joules is None and not nodes_j:
        sentences.append("Energy was not measured.")
    sentences += [text for text in (_estimate(results), _unended(results, invocations)) if text]
    return [sentence.replace("%", "\u202f%") for sentence in sentences]


def _jobs(results: Results, batch: str) -> list[Job]:
    """Return the ended jobs of a batch."""
    jobs = []
    for invocation in results.batches[batch].invocations:
        known = results.jobs.get(slurm_job(invocation) or "", {})
        held = known.get("elapsed_s") or invocation.elapsed_s
        if held and invocation.status != "running":
            nodes = known.get("nodes") or _planned(results, batch).nodes
            jobs.append(Job(max(held, invocation.elapsed_s or 0.0), invocation.measured_s, nodes))
    return jobs


def _planned(results: Results, batch: str) -> PlannedBatch:
    return results.plan.batches.get(batch) or PlannedBatch(batch=batch)


def _phases(invocations: list[Invocation]) -> tuple[dict[str, float], float]:
    """Return the seconds of each phase around the cases, and those of warm-up inside them."""
    parts: dict[str, float] = {}
    warmup = 0.0
    for invocation in invocations:
        for phase in invocation.phases:
            if phase.case is None:
                parts[phase.name] = parts.get(phase.name, 0.0) + phase.t_end_s - phase.t_start_s
            elif phase.name == "warmup":
                warmup += phase.t_end_s - phase.t_start_s
    return parts, warmup


def _estimate(results: Results) -> str | None:
    """Compare the plan with the batches that ran whole in one job."""
    expected = took = 0.0
    whole = 0
    for name, record in results.batches.items():
        planned = _planned(results, name).expected_s
        jobs = _jobs(results, name)
        if planned and len(record.invocations) == len(jobs) == 1 and record.status in COMPLETE and _is_all(record):
            expected, took, whole = expected + planned, took + jobs[0].held_s, whole + 1
    if not whole:
        return None
    which = f"the {count(whole, 'batch', 'batches')} that ran whole in one job"
    return f"The plan expected {seconds(expected)} for {which}; they took {took / expected - 1:+.0%}: {seconds(took)}."


def _is_all(record: BatchRecord) -> bool:
    return all(record.done.get(case, 0) >= least for case, least in record.planned.items())


def _unended(results: Results, invocations: list[Invocation]) -> str | None:
    """Tell jobs that still run from those that ended without a word."""
    open_ones = [invocation for invocation in invocations if invocation.status == "running"]
    lost = [known for one in open_ones if (known := results.jobs.get(slurm_job(one) or "")) and known["ended"]]
    sentences = []
    if len(open_ones) > len(lost):
        sentences.append(f"{count(len(open_ones) - len(lost), 'job')} had not ended when this page was made.")
    if lost:
        states = ", ".join(sorted({known["state"] for known in lost}))
        sentences.append(f"{count(len(lost), 'job')} ended without a word (Slurm: {states}).")
    return " ".join(sentences) or None


def seconds(value: float) -> str:
    """Return a time for a reader: `2 min 38 s`, `8.3 s`, `12 ms`."""
    if value >= 10:
        return duration(value)
    scale = scale_for([value], "s")
    return f"{fixed(value / scale.factor, 1 if value / scale.factor < 10 else 0)} {scale.unit}"


def batch_rows(results: Results, lines: list[Timeline]) -> list[dict[str, Any]]:
    """Return one row per batch: what it is, what was planned, what it took, its peaks."""
    peaks: dict[str, dict[str, float]] = {}
    for timeline in lines:
        for line in timeline.lines:
            if line.role != "node":
                key = f"{line.quantity} {line.role}"
                mine = peaks.setdefault(timeline.batch, {})
                mine[key] = max(mine.get(key, 0.0), float(line.y.max()))
    rows = []
    for name, record in results.batches.items():
        jobs = _jobs(results, name)
        held, measured = sum(job.held_s for job in jobs), sum(job.measured_s for job in jobs)
        planned = _planned(results, name).expected_s
        peak = peaks.get(name, {})
        rows.append(
            {
                "batch": name,
                "benchmark": record.benchmark,
                "status": record.status,
                "reason": record.reason or "",
                "jobs": len(record.invocations),
                "expected": seconds(planned) if planned else "—",
                "elapsed": seconds(held) if held else "not ended",
                "measured": f"{measured / held:.0%}".replace("%", "\u202f%") if held else "—",
                "share": measured / held if held else 0.0,
                "cpu": _peak(peak, "CPU", "cores"),
                "memory": _peak(peak, "memory", "bytes"),
                "link": f"../batches/{quote(name)}/",
            }
        )
    return rows


def _peak(peak: Mapping[str, float], quantity: str, unit: str) -> str:
    found = {key.removeprefix(f"{quantity} "): value for key, value in peak.items() if key.startswith(f"{quantity} ")}
    if not found:
        return "not measured"
    role = max(found, key=lambda name: found[name])
    scale = scale_for([found[role]], unit)
    return f"{found[role] / scale.factor:.3g}\u202f{scale.unit} ({role})"
