"""What is known of one job (a batch of a campaign): its record, its owner, its samples, and the row that shows it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, get_args

import orjson

from aifbench.core.records import BatchStatus
from aifbench.files.beneath import Signature
from aifbench.files.bounded import parse
from aifbench.files.tail import Tail
from aifbench.services.monitor.series import LONGEST_NAME, Grouping, Sample, Series
from aifbench.services.values import count, listed, mapping, number, seconds, text

STALLED_S = 60.0
"""A job without progress for longer than this, and than twice what its step is expected to take, is stalled."""
QUIET_S = 30.0
"""Shorter than this, a time without progress is not told."""
SILENT_S = 10.0
"""A running job of which no sample came for longer than this is silent: its node or its file system does not answer."""
ENDED = tuple(status for status in get_args(BatchStatus) if status != "running")
STATES = ("pending", "running", "lost", "complete", *ENDED, "not-started")
"""`pending`: planned and its campaign is at work; `lost`: its runner is gone without a word, `complete`: the same, but
all that was planned is recorded; `not-started`: planned."""
GONE = frozenset({"lost", "complete"})
AFTER_S = 10.0
"""An ended job is followed for this long: its last samples and statements come after its status."""
LOG = "log.jsonl"
RESOURCES = "resources.jsonl"
NOT_SAMPLED = "no sample yet"
NOT_TOLD = "its record does not tell from where"
MOST_AXES = MOST_VALUES = 64
"""Parameters of a job's cases, and values of one of them, that its row tells."""
MOST_KINDS = 64
"""Kinds of notes that the row of a job counts."""
MEMORY_KINDS = ("anon", "file", "shmem")
SAMPLED = (
    "cores",
    "memory",
    *(f"memory_{kind}" for kind in MEMORY_KINDS),
    "memory_peak",
    "gpu",
    "gpu_memory",
    "gpu_memory_total",
    "records",
    "records_per_s",
    "errors",
)
"""The columns of a row that come from the last sample."""


def job_id(campaign: str, batch: str) -> str:
    """Return the id of a job: readable, and different for any two jobs of one results folder."""
    slug = re.sub(r"[^a-z0-9]+", "-", batch.lower()).strip("-")[:50].strip("-") or "job"
    return f"{slug}-{hashlib.sha256(f'{campaign}/{batch}'.encode()).hexdigest()[:12]}"


def axes_of(cases: list[Any]) -> dict[str, list[str | int | float]]:
    """Return the values of each parameter among cases, what stands within another one as `search.nprobe`.

    Texts of prompts and lists are left out: nobody asks for them by their value.
    """
    found: dict[str, dict[str | int | float, None]] = {}

    def take(params: Any, prefix: str) -> None:
        for name, value in mapping(params).items():
            if isinstance(value, dict) and not prefix:
                take(value, f"{name}.")
            elif isinstance(value, str | int | float) and not name.endswith("_text") and len(found) < MOST_AXES:
                values = found.setdefault(f"{prefix}{name}", {})
                if len(values) < MOST_VALUES:
                    values[value[:64] if isinstance(value, str) else value] = None

    for params in cases:
        take(params, "")
    return {name: list(values) for name, values in found.items()}


@dataclass
class Job:
    """One job. Filled by the reader from files; times of `seen_*` are of the reader's own monotonic clock."""

    campaign: str
    batch: str
    id: str = ""
    benchmark: str | None = None
    here: bool = False
    """It has a folder."""
    planned: bool = False
    """It is in the plan of its campaign."""
    expected_s: float | None = None
    axes: dict[str, list[str | int | float]] = field(default_factory=dict)
    """Values that the parameters of its cases have."""
    slurm: bool = False
    """Its campaign runs through Slurm."""
    record: Signature | None = None
    status: str | None = None
    reason: str | None = None
    cases_all: int = 0
    cases_done: int = 0
    cases_invalid: int | None = None
    """None: its record does not tell."""
    noted: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many of its repetitions bear each kind of reason and of caution, by severity."""
    cancelled: bool = False
    """Its launched run was cancelled."""
    repetitions_all: int = 0
    repetitions_done: int = 0
    done_at_start: int | None = None
    invocation: dict[str, Any] = field(default_factory=dict)
    invocations: int = 0
    phases: list[list[Any]] = field(default_factory=list)
    steps: list[list[Any]] = field(default_factory=list)
    """Phases as the samples told them that are not in its record yet, in the form of `phases`."""
    lost: str | None = None
    owner_unknown: str | None = None
    queue: dict[str, Any] | None = None
    log_level: dict[str, Any] | None = None
    """What the configurations of the log say about it while it runs."""
    series: Series = field(default_factory=Series)
    grouping: Grouping = field(default_factory=Grouping)
    samples: Tail = field(default_factory=lambda: Tail(RESOURCES))
    log: Tail = field(default_factory=lambda: Tail(LOG))
    log_started: bool = False
    seen_sample: float | None = None
    seen_progress: float | None = None
    ended_seen: float | None = None
    changed: bool = True
    """Something came that its row does not show yet."""
    row: dict[str, Any] = field(default_factory=dict)
    _mark: Any = None

    def __post_init__(self) -> None:
        self.id = job_id(self.campaign, self.batch)

    # -- what files tell -------------------------------------------------------------------------------------------

    def take_plan(self, entry: dict[str, Any], repetitions: int, slurm: bool, params: list[Any]) -> None:
        """Take the job's entry of plan.json; `repetitions` are the fewest of all its cases, `params` what each is."""
        self.planned, self.slurm, self.changed = True, slurm, True
        self.expected_s = number(entry.get("expected_s"))
        self.axes = axes_of(params)
        if self.status is None:
            benchmark, cases = entry.get("benchmark"), entry.get("cases")
            self.benchmark = text(benchmark, LONGEST_NAME)
            self.cases_all = len(listed(cases))
            self.repetitions_all = repetitions

    def take_record(self, data: bytes, now: float) -> bool:
        """Take the content of batch.json; False, and no change, when it is not a record of a batch."""
        try:
            found = parse(data)
            status, benchmark = found["status"], text(found["benchmark"], LONGEST_NAME)
            planned, done = _counts(found["planned"]), _counts(found.get("done"))
            invocations = [one for one in listed(found.get("invocations")) if isinstance(one, dict)]
            last = invocations[-1] if invocations else {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if status not in get_args(BatchStatus) or benchmark is None:
            return False
        before = (self.status, self.repetitions_done)
        self.status, self.benchmark, self.changed = status, benchmark, True
        self.reason = text(found.get("reason"))
        self.cases_all, self.repetitions_all = len(planned), sum(planned.values())
        self.cases_done = sum(done.get(case, 0) >= count for case, count in planned.items())
        self.noted = {
            severity: _kinds(found.get(name)) for severity, name in (("invalid", "reasons"), ("caution", "notes"))
        }
        invalid = found.get("invalid")
        named = {case for case in listed(invalid) if isinstance(case, str)}
        self.cases_invalid = len(planned.keys() & named) if isinstance(invalid, list) else None
        self.repetitions_done = sum(min(done.get(case, 0), count) for case, count in planned.items())
        if self.invocation.get("index") != last.get("index"):
            self.done_at_start, self.lost, self.ended_seen = None, None, None
        if self.done_at_start is None:
            self.done_at_start = self.repetitions_done - _measured_in(last)
        phases = [phase for phase in listed(last.get("phases")) if isinstance(phase, dict)]
        self.phases = [band for phase in phases if (band := _band(phase)) is not None]
        recorded = max((band[2] for band in self.phases), default=0.0)
        self.steps = [step for step in self.steps if step[2] > recorded]
        self.invocation = {name: value for name, value in last.items() if name != "phases"}
        self.invocations = len(invocations)
        if self.status != "running":
            self.lost = None
            self.ended_seen = self.ended_seen if self.ended_seen is not None else now
        if before != (self.status, self.repetitions_done):
            self.seen_progress = now
        return True

    def take_rows(self, lines: Iterable[bytes], now: float) -> list[tuple[Sample, dict[str, float]]]:
        """Take new lines of the live samples; return the samples that they complete, each with its values by series."""
        done: list[tuple[Sample, dict[str, float]]] = []
        for line in lines:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            for sample in self.grouping.add(row):
                if self.series.last is not None and sample.invocation != self.series.last.invocation:
                    self.series, self.steps = Series(), []
                values = self.series.add(sample)
                if values is not None:
                    done.append((sample, values))
                    self._notice(sample, now)
        if done:
            self.seen_sample = now
        return done

    def _notice(self, sample: Sample, now: float) -> None:
        """Remember the step, and when the work last went on: other records, or another step."""
        step = sample.step or {}
        since, phase = number(step.get("since_s")), text(step.get("phase"))
        if since is not None and phase is not None:
            since = round(min(since, sample.t_s), 2)
            if not self.steps or self.steps[-1][:2] != [phase, since]:
                if self.steps:
                    self.steps[-1][2] = max(self.steps[-1][1], since)
                self.steps.append([phase, since, since, text(step.get("case"))])
            self.steps[-1][2] = round(sample.t_s, 2)
        mark = (sample.records, step.get("phase"), step.get("case"), step.get("repetition"))
        if mark != self._mark:
            self._mark, self.seen_progress = mark, now

    # -- what follows from it -----------------------------------------------------------------------------------------

    def state(self, campaign_alive: bool) -> str:
        """Return the job's state, one of `STATES`."""
        if self.status is None:
            return "pending" if campaign_alive or self.queue is not None else "not-started"
        if self.status == "running" and self.lost is not None:
            return "complete" if self.cases_all and self.cases_done == self.cases_all else "lost"
        return self.status

    def ended_by(self) -> str | None:
        """Return `cancel` when a signal ended it and its run was cancelled, `signal` when not; None: neither."""
        if self.status != "terminated" or self.invocation.get("signal") is None:
            return None
        return "cancel" if self.cancelled else "signal"

    def is_live(self) -> bool:
        """Return whether its record says that it runs."""
        return self.status == "running"

    def is_compacted(self) -> bool:
        """Return whether its samples are in a table: the last of them may never have been seen in the live file."""
        return not self.is_live() and self.invocation.get("ended_at") is not None

    def is_followed(self, now: float) -> bool:
        """Return whether its files may still grow."""
        return self.is_live() or (self.ended_seen is not None and now - self.ended_seen < AFTER_S)

    def make_row(self, now: float, campaign_alive: bool) -> dict[str, Any]:
        """Return what the table shows of the job. Measured values are `{value, source}` or `{value: null, reason}`."""
        state = self.state(campaign_alive)
        live = state == "running"
        last = self.shown_sample()
        facts = mapping(self.invocation.get("facts"))
        allocation = mapping(facts.get("allocation"))
        started = seconds(self.invocation.get("started_at"))
        silent_s = None if not live or self.seen_sample is None else now - self.seen_sample
        progress_s = None if not live or self.seen_progress is None else now - self.seen_progress
        self.changed = False
        self.row = {
            "id": self.id,
            "campaign": self.campaign,
            "batch": self.batch,
            "benchmark": self.benchmark,
            "axes": self.axes,
            "state": state,
            "active": state in {"pending", "running"} or (state == "lost" and campaign_alive),
            "reason": self.lost if state in GONE else self.reason,
            "ended_by": self.ended_by(),
            "stalled": progress_s is not None and progress_s > self._patience_s(last),
            "no_progress_s": None if progress_s is None or progress_s <= QUIET_S else round(progress_s),
            "silent_s": None if silent_s is None or silent_s <= SILENT_S else round(silent_s),
            "owner": self.owner_unknown if live else None,
            "node": text(mapping(self.invocation.get("environment")).get("hostname")),
            "slurm_job": self.slurm_job(),
            "queue": self.queue,
            "invocation": self.invocations or None,
            "started_at": text(self.invocation.get("started_at")),
            "ended_at": text(self.invocation.get("ended_at")),
            "elapsed_s": self._elapsed_s(last, silent_s),
            "limit": _limit(allocation, started, self.queue),
            "cases_done": self.cases_done,
            "cases_all": self.cases_all,
            "cases_invalid": self.cases_invalid,
            "noted": self.noted,
            "repetitions_done": self.repetitions_done,
            "repetitions_all": self.repetitions_all,
            "eta": self._eta(last, state),
            "log_level": self.log_level,
            "step": last.step if live and last is not None else None,
            **self._values(last if live or state in GONE else None, allocation, state),
        }
        return self.row

    def shown_sample(self) -> Sample | None:
        """Return the last sample of its last run, None when there is none in memory."""
        last = self.series.last
        return last if last is not None and last.invocation == self.invocation.get("index") else None

    def slurm_job(self) -> str | None:
        """Return the id of its Slurm job, None when it has none."""
        job = mapping(mapping(self.invocation.get("provenance")).get("slurm")).get("job_id")
        if isinstance(job, str) and re.fullmatch(r"[0-9]{1,12}", job):
            return job
        found = self.queue or {}
        return found.get("job") if self.status is None else None

    def _patience_s(self, last: Sample | None) -> float:
        expected = number((last.step or {}).get("expected_s")) if last is not None else None
        return max(STALLED_S, 2 * (expected or 0.0))

    def _elapsed_s(self, last: Sample | None, silent_s: float | None) -> float | None:
        told = number(self.invocation.get("elapsed_s"))
        if told is not None or last is None:
            return told
        return round(last.t_s + min(silent_s or 0.0, SILENT_S), 1)

    def _eta(self, last: Sample | None, state: str) -> dict[str, Any]:
        if state == "pending":
            reason = "it has not started"
            return _known(self.expected_s, "plan") if self.expected_s is not None else _unknown(reason)
        if state != "running" or last is None:
            return _unknown("it does not run")
        left = self.repetitions_all - self.repetitions_done
        done = self.repetitions_done - (self.done_at_start or 0)
        begin = min((band[1] for band in self.phases if band[3] is not None), default=None)
        if left <= 0:
            return _unknown("all planned repetitions are done; more may follow")
        if done <= 0 or begin is None:
            return _unknown("no repetition has ended yet")
        reached = max(band[2] for band in self.phases)
        return _known(
            max(0.0, round((reached - begin) / done * left - (last.t_s - reached))), "mean of the repetitions"
        )

    def _values(self, last: Sample | None, allocation: dict[str, Any], state: str) -> dict[str, Any]:
        cores = number(allocation.get("cores"))
        memory = number(allocation.get("memory_bytes"))
        told = {
            "cores_allocated": _known(cores, text(allocation.get("cores_source"), LONGEST_NAME) or NOT_TOLD)
            if cores is not None
            else _unknown("its record does not tell"),
            "memory_limit": _known(memory, text(allocation.get("memory_source"), LONGEST_NAME) or NOT_TOLD)
            if memory is not None
            else _unknown("no limit was set"),
        }
        if last is None:
            reason = NOT_SAMPLED if state == "running" else "it does not run"
            return told | {name: _unknown(reason) for name in SAMPLED}
        gpus = last.gpus
        rate = self.series.rate(last)
        told["cores"] = _value(last.jobs("cpu_cores"), "proc", "the first sample has no rate yet")
        told["memory"] = _value(last.jobs("rss_bytes"), "proc: sum of resident sets", "not told")
        for kind in MEMORY_KINDS:
            told[f"memory_{kind}"] = _value(last.jobs(f"{kind}_bytes"), "proc: part of the resident sets", "not told")
        told["memory_peak"] = _value(last.jobs("peak_rss_bytes"), "proc: sum of VmHWM", "not told")
        if not gpus:
            no_gpu = "no GPU was found through NVML"
            told |= {name: _unknown(no_gpu) for name in ("gpu", "gpu_memory", "gpu_memory_total")}
        else:
            use = _all(gpus, "utilization")
            told["gpu"] = _value(sum(use) / len(use) if use else None, f"nvml, {len(gpus)} GPU", "NVML does not tell")
            for name, column in (("gpu_memory", "memory_bytes"), ("gpu_memory_total", "memory_total_bytes")):
                values = _all(gpus, column)
                told[name] = _value(sum(values) if values else None, "nvml", "NVML does not tell")
        records = None if last.records is None else float(last.records)
        told["records"] = _value(records, "worker", "the worker does not count")
        told["errors"] = _value(last.errors, "runner: failed requests and repetitions", "its samples do not tell")
        told["records_per_s"] = _value(rate, "worker, last 10 s", "counted between timed regions: none came in 10 s")
        return told


def all_bands(job: Job) -> list[list[Any]]:
    """Return the bands of a job's last run: what its record tells, and then what its samples told."""
    recorded = max((band[2] for band in job.phases), default=-1.0)
    return bands([*job.phases, *([name, max(begin, recorded), end, case] for name, begin, end, case in job.steps)])


def bands(phases: list[list[Any]], most: int = 400) -> list[list[Any]]:
    """Return `[name, from_s, to_s, case]` of at most about `most` bands: neighbours of one name become one."""
    ordered = sorted(phases, key=lambda band: (band[1], band[2]))
    if len(ordered) <= most:
        return ordered
    width = (max(band[2] for band in ordered) - ordered[0][1]) / most
    joined: list[list[Any]] = []
    for name, begin, end, case in ordered:
        of_case = "measure" if case is not None else name
        if joined and joined[-1][0] == of_case and begin - joined[-1][2] < width:
            joined[-1][2] = max(joined[-1][2], end)
        else:
            joined.append([of_case, begin, end, None])
    return joined[-4 * most :]


def _measured_in(invocation: dict[str, Any]) -> int:
    """Return how many repetitions this invocation has measured, from its phases."""
    phases = [phase for phase in listed(invocation.get("phases")) if isinstance(phase, dict)]
    return len({(str(p.get("case")), str(p.get("repetition"))) for p in phases if p.get("case") is not None})


def _band(phase: dict[str, Any]) -> list[Any] | None:
    begin, end, name = number(phase.get("t_start_s")), number(phase.get("t_end_s")), text(phase.get("name"))
    if begin is None or end is None or name is None:
        return None
    return [name, round(begin, 2), round(end, 2), text(phase.get("case"))]


def _limit(allocation: dict[str, Any], started: float | None, queue: dict[str, Any] | None) -> dict[str, Any]:
    ends = seconds(allocation.get("ends_at"))
    if ends is not None and started is not None:
        return _known(round(ends - started), "Slurm: end of the job")
    limit = number((queue or {}).get("limit_s"))
    return _known(limit, "squeue") if limit is not None else _unknown("not a job of Slurm, or Slurm does not tell")


def _known(value: float, source: str) -> dict[str, Any]:
    return {"value": round(value, 4) if isinstance(value, float) else value, "source": source}


def _unknown(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}


def _value(value: float | None, source: str, reason: str) -> dict[str, Any]:
    return _unknown(reason) if value is None else _known(value, source)


def _all(rows: list[dict[str, Any]], column: str) -> list[float]:
    """Return a column of all rows; empty when one of them does not tell."""
    values = [value for row in rows if (value := number(row.get(column))) is not None]
    return values if len(values) == len(rows) else []


def _kinds(found: Any) -> dict[str, int]:
    """Return the counts of kinds of notes; names that none of ours has are left out."""
    counts = _counts(found).items()
    known = ((kind, told) for kind, told in counts if kind.isidentifier() and len(kind) <= LONGEST_NAME)
    return dict(islice(known, MOST_KINDS))


def _counts(found: Any) -> dict[str, int]:
    return {case: known for case, value in mapping(found).items() if (known := count(value)) is not None}
