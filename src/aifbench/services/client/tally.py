"""How far a run is: what its plan asks for, and what its records have of it, counted on as they grow.

Nothing but counts is kept, so a run of any size takes little memory; a file that is written anew is counted anew. What
a report says of a case may be less: it also reads the operations.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aifbench.core.records import CaseRecord, Validity
from aifbench.core.repetitions import Repetitions
from aifbench.core.states import STATES, state_of
from aifbench.files.beneath import Signature, Unreadable, folder_beneath, is_name, signature, stat_beneath
from aifbench.files.bounded import end_beneath, parse, read_beneath
from aifbench.files.tail import Tail
from aifbench.records.sealed import is_sealed
from aifbench.services.values import listed, mapping, number, text

COUNTED_BYTES = 256 << 20
"""Of the records of one batch; a larger file is not counted."""
MOST = 100_000
"""Repetitions of one kind that a case's state is made of."""
RECORDS = "cases.jsonl"
RAW = ("raw", "operations.parquet")
_END = b"PAR1"


def _record(status: Literal["ok", "failed"], valid: bool) -> CaseRecord:
    nothing: dict[str, Any] = {"benchmark": "", "batch": "", "case": "", "input": {}, "started_at": ""}
    numbers = dict.fromkeys(("repetition", "invocation", "seed", "t_start_s", "t_end_s"), 0)
    return CaseRecord(**nothing, **numbers, status=status, validity=Validity(valid=valid))


_KINDS = {"valid": _record("ok", True), "invalid": _record("ok", False), "failed": _record("failed", False)}
"""A record of each kind, with what tells the state of its case."""


@dataclass(frozen=True)
class Plan:
    """What plan.json says of a run, as far as it is shown here."""

    benchmarks: list[str]
    expected_s: float | None
    batches: tuple[str, ...]
    cases: dict[str, tuple[str, Repetitions]]
    """The batch of each case, and how often it is measured."""

    @classmethod
    def read(cls, data: bytes) -> Plan:
        """Return the content of plan.json. Raises ValueError when it is none that this version knows."""
        try:
            is_sealed(data)
            found = parse(data)
            cases = {_name(case["case"]): case for case in found["cases"]}
            return cls(
                sorted({_name(case["benchmark"]) for case in cases.values()})[:20],
                number(mapping(found.get("totals")).get("expected_s")),
                tuple(batch for entry in listed(found["batches"]) if is_name(batch := _name(entry["batch"]))),
                {
                    name: (_name(case.get("batch", "")), Repetitions.model_validate(case["repetitions"]))
                    for name, case in cases.items()
                },
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("is no plan") from error


@dataclass
class _Batch:
    """The records of one batch: how many of each kind each case has."""

    tail: Tail = field(default_factory=lambda: Tail(RECORDS))
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    damaged: int = 0
    """Lines that are not what was written."""
    raw: Signature | None = None
    raw_is_cut: bool = False
    problem: str | None = None


class Tally:
    """The plan of one run and the counts of its records."""

    def __init__(self, results: Path, run: str) -> None:
        self._results, self._run = results, run
        self._lock = threading.Lock()
        self._seen: Signature | None = None
        self._batches: dict[str, _Batch] = {}
        self.plan: Plan | None = None
        self._plan_problem: str | None = None

    def look(self) -> tuple[dict[str, int] | None, tuple[int, int | None], list[str]]:
        """Look at the files; return the cases by state (None: not known), the repetitions done and planned, problems.

        Planned are the fewest repetitions that the plan asks for; only so many of each case count as done.
        """
        with self._lock:
            self._look_at_plan()
            if self.plan is None:
                return None, (0, None), [self._plan_problem] if self._plan_problem else []
            for name in self.plan.batches:
                self._look_at_batch(name)
            problems = [each.problem for each in self._batches.values() if each.problem]
            counted = not any(each.tail.offset == 0 and each.problem for each in self._batches.values())
            return (self._states() if counted else None), self._done(), problems

    def _look_at_plan(self) -> None:
        try:
            with folder_beneath(self._results, self._run) as folder:
                found = signature(folder, "plan.json")
            if found is not None and found == self._seen:
                return
            self._seen, self.plan, self._batches, self._plan_problem = found, None, {}, None
            self.plan = Plan.read(read_beneath(self._results, self._run, "plan.json"))
        except Unreadable as error:
            self.plan, self._plan_problem = None, self._place(error)
        except FileNotFoundError:
            self.plan, self._plan_problem = None, None
        except OSError as error:
            self.plan, self._plan_problem = None, f"plan.json cannot be read: {error.strerror}"
        except ValueError:
            self._plan_problem = "plan.json is no plan that this version knows"

    def _look_at_batch(self, name: str) -> None:
        known = self._batches.setdefault(name, _Batch())
        try:
            with folder_beneath(self._results, self._run, "batches", name) as folder:
                known.problem = self._count(known, folder, name)
        except Unreadable as error:
            self._batches[name] = _Batch(problem=self._place(error))
        except OSError:
            self._batches[name] = _Batch()

    def _count(self, known: _Batch, folder: int, name: str) -> str | None:
        """Count the new records of a batch; return what is wrong with its files."""
        if stat_beneath(self._results, self._run, "batches", name, RECORDS).st_size > COUNTED_BYTES:
            known.tail, known.counts, known.damaged = Tail(RECORDS), {}, 0
            return f"batches/{name}/{RECORDS} is larger than {COUNTED_BYTES >> 20} MiB"
        restarts = known.tail.restarts
        for line in known.tail.read(folder, COUNTED_BYTES):
            if known.tail.restarts != restarts:
                restarts, known.counts, known.damaged = known.tail.restarts, {}, 0
            self._take(line, known, name)
        if known.tail.restarts != restarts:
            known.counts, known.damaged = {}, 0
        self._check_raw(known, name)
        if known.damaged:
            return f"batches/{name}/{RECORDS} has {known.damaged} damaged line{'' if known.damaged == 1 else 's'}"
        return f"batches/{name}/{'/'.join(RAW)} is cut" if known.raw_is_cut else None

    def _place(self, error: Unreadable) -> str:
        return f"{str(error.filename).removeprefix(f'{self._run}/')} {error.problem}"

    def _take(self, line: bytes, known: _Batch, batch: str) -> None:
        """Count a line; one whose checksum does not fit is no repetition."""
        try:
            is_sealed(line)
            found = mapping(parse(line))
        except ValueError:
            known.damaged += 1
            return
        case, status = found.get("case"), found.get("status")
        assert self.plan is not None
        if not isinstance(case, str) or self.plan.cases.get(case, (None,))[0] not in {batch, ""}:
            return
        if status not in ("ok", "failed"):
            return
        valid = mapping(found.get("validity")).get("valid") is True
        kind = "failed" if status == "failed" else "valid" if valid else "invalid"
        of_case = known.counts.setdefault(case, {})
        of_case[kind] = of_case.get(kind, 0) + 1

    def _check_raw(self, known: _Batch, name: str) -> None:
        """Look whether the file of all operations is whole, by its end. Without it, nothing of the batch is valid."""
        try:
            with folder_beneath(self._results, self._run, "batches", name, RAW[0]) as folder:
                found = signature(folder, RAW[1])
                if found != known.raw:
                    known.raw = found
                    known.raw_is_cut = found is not None and end_beneath(folder, RAW[1], most=len(_END))[0] != _END
        except OSError:
            known.raw, known.raw_is_cut = None, False

    def _states(self) -> dict[str, int]:
        """Return the number of cases by state."""
        assert self.plan is not None
        states = dict.fromkeys(STATES, 0)
        for case, (_, rule) in self.plan.cases.items():
            kinds: list[str] = []
            cut = False
            for batch in self._batches.values():
                if case in batch.counts:
                    kinds += [kind for kind, count in batch.counts[case].items() for _ in range(min(count, MOST))]
                    cut = cut or batch.raw_is_cut
            state = state_of([_KINDS[kind] for kind in kinds], rule)
            states["invalid" if cut and state == "valid" else state] += 1
        return states

    def _done(self) -> tuple[int, int]:
        assert self.plan is not None
        done: dict[str, int] = {}
        for batch in self._batches.values():
            for case, kinds in batch.counts.items():
                done[case] = done.get(case, 0) + sum(kinds.values())
        needed = {case: rule.min for case, (_, rule) in self.plan.cases.items()}
        return sum(min(done.get(case, 0), least) for case, least in needed.items()), sum(needed.values())


def _name(value: Any) -> str:
    found = text(value, 200)
    if found is None:
        raise TypeError("is no text")
    return found
