"""What is written down of one invocation of a batch: records, raw events, phases, batch.json, statements."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aifbench.campaign.spec import Spec
from aifbench.core.benchmark import Benchmark
from aifbench.core.notes import FAILED
from aifbench.core.params import Params
from aifbench.core.records import (
    BatchRecord,
    BatchStatus,
    CaseError,
    CaseRecord,
    Invocation,
    Phase,
    Validity,
    Where,
)
from aifbench.core.states import state_of
from aifbench.log.writer import ERROR, INFO, WARNING, BatchLog
from aifbench.machine.environment import environment
from aifbench.machine.provenance import provenance
from aifbench.records.store import BatchStore, typed_columns
from aifbench.registry import sentence
from aifbench.runner.ended import EXIT_CODES


@dataclass
class Current:
    """The repetition that a worker is measuring. Times are ns of CLOCK_MONOTONIC."""

    case: str
    repetition: int
    begin_ns: int
    phases: list[tuple[str, int]] = field(default_factory=list)
    """Name and begin of each."""


class Recorder:
    """Writes one invocation of a batch, after those that are recorded. Times count from when it was made.

    `step`, `workload` and `errors` are for the samples: what the batch does, how much work it has done, and how much
    of it failed.
    """

    def __init__(
        self, spec: Spec, benchmark: Benchmark, params: Mapping[str, Params], folder: Path, log_file: Path | None
    ) -> None:
        self._spec, self._benchmark, self._params = spec, benchmark, params
        self.headline = benchmark.headline
        self.store = BatchStore(folder)
        damaged = self.store.create()
        self.log = BatchLog(self.store.log_path, spec.benchmark, spec.batch, log_file)
        for damage in damaged:
            self.log.write(WARNING, f"{damage}; what can be read stays, and the file as it was is in set-aside")
        self.t0_ns = time.monotonic_ns()
        recorded = self.store.read_cases()
        self.records: dict[str, list[CaseRecord]] = {entry.case: [] for entry in spec.cases}
        for record in recorded:
            self.records.setdefault(record.case, []).append(record)
        known = self.store.read_record()
        self.batch = BatchRecord(
            campaign=spec.campaign,
            batch=spec.batch,
            benchmark=spec.benchmark,
            status="running",
            setup=spec.setup,
            planned={entry.case: entry.repetitions.min for entry in spec.cases},
            invocations=[_with_end(invocation) for invocation in known.invocations] if known else [],
        )
        earlier = [invocation.index for invocation in self.batch.invocations]
        earlier += [record.invocation for record in recorded]
        self.invocation = Invocation(
            index=max(earlier, default=-1) + 1,
            started_at=_now(),
            environment=environment(),
            provenance=provenance(),
        )
        self.batch.invocations.append(self.invocation)
        self.where: Where | None = None
        self.step: Mapping[str, Any] | None = None
        self.workload = 0
        self.errors = 0
        self._measured = 0

    @property
    def repetitions(self) -> int:
        """How many repetitions are recorded, by all invocations."""
        return sum(map(len, self.records.values()))

    def verdict(self) -> tuple[BatchStatus, str | None]:
        """Return the status of a batch that has measured all it can, and the reason for it."""
        failed = sum(record.status == "failed" for mine in self.records.values() for record in mine)
        return ("partial", f"{failed} repetitions failed") if failed else ("ok", None)

    def begin(self, phase: str, case: str | None, repetition: int | None, expected_s: float | None) -> None:
        """Tell the samples what the batch does from now on; `expected_s` is for the whole case, or the whole set-up."""
        since_s = self._since(time.monotonic_ns())
        self.step = {
            "phase": phase, "case": case, "repetition": repetition, "since_s": since_s, "expected_s": expected_s
        }  # fmt: skip

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the block as a phase of the batch."""
        begin_ns = time.monotonic_ns()
        self.begin(name, None, None, None)
        try:
            yield
        finally:
            self._add_phase(name, begin_ns, time.monotonic_ns())

    def prepared(self, repetition: int, begin_ns: int, facts: dict[str, Any], packages: dict[str, Any]) -> None:
        """Record what a worker has set up since `begin_ns`."""
        self._add_phase("prepare", begin_ns, time.monotonic_ns(), repetition=repetition)
        self.invocation.facts["prepared"] = facts
        self.invocation.provenance["packages"] = packages
        self.save()

    def progress(self, count: int) -> None:
        """Note how much of the current repetition's work is done."""
        self.workload = self._measured + count

    def record(self, current: Current, event: Mapping[str, Any]) -> CaseRecord:
        """Evaluate and store one repetition from its worker's event, `measured` or `failed`; return its record."""
        case, repetition, params = current.case, current.repetition, self._params[current.case]
        begin_ns, end_ns = event["t_start_ns"], event["t_end_ns"]
        measured = event["event"] == "measured"
        record = CaseRecord(
            benchmark=self._spec.benchmark,
            batch=self._spec.batch,
            case=case,
            repetition=repetition,
            invocation=self.invocation.index,
            status="ok" if measured else "failed",
            input=params.model_dump(mode="json"),
            seed=self._spec.case_seed(case, repetition),
            where=self.where,
            started_at=self._wall(begin_ns),
            t_start_s=self._since(begin_ns),
            t_end_s=self._since(end_ns),
            validity=Validity(),
        )
        raw: dict[str, list[Any]] | None = None
        if measured:
            raw = event["raw"]
            record.facts = event["facts"]
            record.metrics, record.validity = self._benchmark.evaluate()(params, typed_columns(raw), event["facts"])
            self._measured += len(next(iter(raw.values()), []))
            self.workload = self._measured
            self.errors += sum(error is not None for error in raw.get("error", []))
        else:
            self.errors += 1
            record.error = CaseError(kind=event["kind"], message=event["message"])
            record.validity = Validity.of([FAILED.against(error=event["kind"], message=event["message"])])
            self.log.write(WARNING, f"{event['kind']}: {event['message']}", case)
        record = self.store.append_case(record, raw)
        self.records[case].append(record)
        phases = current.phases or [("measure", begin_ns)]
        ends_ns = [*(begin for _, begin in phases[1:]), end_ns]
        for (name, phase_begin_ns), phase_end_ns in zip(phases, ends_ns, strict=True):
            self._add_phase(name, phase_begin_ns, phase_end_ns, case=case, repetition=repetition)
        self.invocation.measured_s += (end_ns - begin_ns) / 1e9
        level = WARNING if measured and not record.validity.valid else INFO  # a failed one has had its warning
        self.log.write(level, f"repetition {repetition + 1}: {outcome(record, self.headline)}", case)
        self.save()
        return record

    def save(self) -> None:
        """Write batch.json."""
        self.batch.done = {case: len(mine) for case, mine in self.records.items() if mine}
        states = {entry.case: state_of(self.records[entry.case], entry.repetitions) for entry in self._spec.cases}
        verdicts = [record.validity for mine in self.records.values() for record in mine]
        self.batch.reasons = dict(Counter(kind for one in verdicts for kind in {note.kind for note in one.reasons}))
        self.batch.notes = dict(Counter(kind for one in verdicts for kind in {note.kind for note in one.notes}))
        self.batch.invalid = [case for case, state in states.items() if state == "invalid"]
        self.store.write_record(self.batch)

    def end(self, status: BatchStatus, reason: str | None) -> None:
        """Write into batch.json how the batch ends."""
        self.invocation.status = self.batch.status = status
        self.invocation.reason = self.batch.reason = reason
        self.save()

    def finish(self, status: BatchStatus, reason: str | None) -> None:
        """Bring all files into their last form; nothing runs any more."""
        self.invocation.ended_at = _now()
        self.invocation.elapsed_s = self._since(time.monotonic_ns())
        self.store.compact()
        self.end(status, reason)
        level = INFO if EXIT_CODES.get(status) == 0 else ERROR
        self.log.write(level, f"ended: {status}" + (f" ({reason})" if reason else ""))

    def _add_phase(
        self, name: str, begin_ns: int, end_ns: int, *, case: str | None = None, repetition: int | None = None
    ) -> None:
        t_start_s, t_end_s = self._since(begin_ns), self._since(end_ns)
        phase = Phase(name=name, t_start_s=t_start_s, t_end_s=t_end_s, case=case, repetition=repetition)
        self.invocation.phases.append(phase)

    def _since(self, t_ns: int) -> float:
        return (t_ns - self.t0_ns) / 1e9

    def _wall(self, t_ns: int) -> str:
        start = datetime.fromisoformat(self.invocation.started_at).timestamp()
        return datetime.fromtimestamp(start + self._since(t_ns), UTC).isoformat(timespec="milliseconds")


def outcome(record: CaseRecord, headline: Sequence[str]) -> str:
    """Return in a few words what came of a repetition: its first metrics, or what is wrong with it."""
    if record.status == "failed":
        return sentence(record.validity.reasons[0])
    if not record.validity.valid:
        return "invalid: " + "; ".join(map(sentence, record.validity.reasons))
    metrics = {name: record.metrics.get(name) for name in headline}
    values = {name: metric.value for name, metric in metrics.items() if metric is not None and metric.value is not None}
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _with_end(invocation: Invocation) -> Invocation:
    """Return an earlier invocation with a status: one that never said how it ended was killed or lost its node."""
    if invocation.status != "running":
        return invocation
    return invocation.model_copy(
        update={"status": "terminated", "reason": "ended without a word: killed, or node lost"}
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
