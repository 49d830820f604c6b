"""A results folder as plain objects. Tolerant: any table or batch may be partial or missing, and the report says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import ValidationError

from aifbench.analysis.cases import Case, Repetition, Value
from aifbench.analysis.report import BenchmarkReport, report_of
from aifbench.core.damage import Damage
from aifbench.core.notes import Note
from aifbench.core.records import BatchRecord, Validity
from aifbench.core.states import STATES
from aifbench.records.planned import Planned, read_plan
from aifbench.records.reading import Reader
from aifbench.records.store import BatchStore
from aifbench.registry import benchmarks, kinds, sentence
from aifbench.report import places
from aifbench.tables.accounting import jobs_in
from aifbench.tables.collect import case_row
from aifbench.tables.reading import arrays, rows

Part = TypeVar("Part")


@dataclass
class Results:
    """All that a report needs."""

    root: Path
    plan: Planned
    cases: list[Case]
    batches: dict[str, BatchRecord]
    resources: dict[str, Any]
    """Columns of tables/resources.parquet as arrays, empty when there is none."""
    log: list[dict[str, Any]]
    reports: dict[str, BenchmarkReport]
    """What each benchmark says of itself."""
    headlines: dict[str, tuple[str, ...]]
    """The contract outputs of each benchmark; none of one that nobody knows."""
    definitions: dict[tuple[str, str], str]
    """How one repetition's value was measured, by (benchmark, metric)."""
    damage: list[Damage]
    left_out: list[str] = field(default_factory=list)
    """What lies in the folder and is not of the plan, or cannot be said of a benchmark, one line each."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What Slurm accounted, by job id (see `tables.accounting`)."""

    @property
    def problems(self) -> list[str]:
        """What could not be read, one line each."""
        return [str(damage) for damage in self.damage]

    def part(self, name: str, make: Callable[[], Part | None]) -> Part | None:
        """Return a part of the report; None, and the damage named, where the plan holds what no version of ours wrote.

        A plan without a checksum may hold a case without its index, or a number where a text should be: that costs
        the parts that show it and no other.
        """
        try:
            return make()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            damage = Damage("plan.json", f"has parameters that do not fit ({type(error).__name__})", name)
            if damage not in self.damage:
                self.damage.append(damage)
            return None

    def of(self, benchmark: str) -> list[Case]:
        """Return the cases of one benchmark."""
        return [case for case in self.cases if case.benchmark == benchmark]

    @property
    def benchmarks(self) -> list[str]:
        """Names of the benchmarks, in the order of the plan."""
        return list(dict.fromkeys(case.benchmark for case in self.cases))

    def count(self, state: str) -> int:
        """Return the number of cases in one state."""
        return sum(case.state == state for case in self.cases)


def load(root: Path, made: Path | None = None) -> Results:
    """Read `results/<campaign>/`. What is missing or broken is named in `damage` and is never an exception.

    `made`: the folder that the tables were written into and the report goes to, when it is another one.
    """
    files = Reader(root)
    tables = files if made is None or made == root else Reader(made)
    plan = read_plan(files)
    told = list(rows(tables, "cases"))
    known = benchmarks()
    names = dict.fromkeys([row["benchmark"] for row in told] + [entry.benchmark for entry in plan.cases])
    reports = {name: report_of(known.get(name)) for name in names}
    notes = _notes(tables)
    cases = {row["case"]: case for row in told if (case := _case(row, reports, notes)) is not None}
    for entry in plan.cases:
        if entry.case not in cases and (case := _case(case_row(entry)[0], reports, notes)) is not None:
            cases[entry.case] = case
    definitions = _attach(tables, cases, reports, notes)
    batches = _batches(files, plan)
    left_out = list(places.leave_out(root, plan, cases, batches))
    left_out += [f"what {name} says of itself: {said.problem}" for name, said in reports.items() if said.problem]
    places.tell_apart(cases.values(), batches, plan)
    return Results(
        root=tables.root,
        plan=plan,
        cases=list(cases.values()),
        batches=batches,
        resources=arrays(tables, "resources"),
        log=list(rows(tables, "log")),
        reports=reports,
        headlines={name: known[name].headline if name in known else () for name in names},
        definitions=definitions,
        jobs=jobs_in(tables),
        damage=_damage(files, tables),
        left_out=left_out,
    )


def cautions(cases: Iterable[Case]) -> list[tuple[str, int]]:
    """Return the cautions of cases, the most frequent first: the worst of those that are alike, and their number."""
    found: dict[tuple[str, ...], list[Note]] = {}
    for case in cases:
        for alike, note in {note.alike: note for note in case.notes}.items():
            found.setdefault(alike, []).append(note)
    told = [(sentence(max(notes, key=_amount)), len(notes)) for notes in found.values()]
    return sorted(told, key=lambda entry: -entry[1])


def _amount(note: Note) -> float:
    """Return how bad a note is among those of its kind; 0 where nothing tells it."""
    kind = kinds().get(note.kind)
    value = note.values.get(kind.worst) if kind else None
    return float(value) if isinstance(value, int | float) else 0.0


_Notes = Mapping[tuple[str, int | None], list[Note]]
"""Notes by case and repetition; those of the case itself by None."""


def _case(row: Mapping[str, Any], reports: Mapping[str, BenchmarkReport], notes: _Notes) -> Case | None:
    """Return the case of a row; None where its state or its parameters are none."""
    params = _object(row["params"])
    if params is None or row["state"] not in STATES:
        return None
    words = reports[row["benchmark"]].words
    return Case(
        id=row["case"],
        params=params,
        axes=words.axes_of(params),
        words=words,
        why="; ".join(row["reasons"] or ()),
        **_as_written(row, "batch", "benchmark", "label", "state", "planned", "done", "failed"),
        suites=row["suites"] or [],
        **_verdict(row, None, notes),
    )


def _as_written(row: Mapping[str, Any], *columns: str) -> dict[str, Any]:
    return {column: row[column] for column in columns}


def _verdict(row: Mapping[str, Any], repetition: int | None, notes: _Notes) -> dict[str, Any]:
    """Return reasons and notes of a row; where the table of notes has none, they are the sentences in the row."""
    found = notes.get((row["case"], repetition))
    told = Validity.of(found) if found else Validity(reasons=row["reasons"] or [], notes=row["notes"] or [])
    return {"reasons": told.reasons, "notes": told.notes}


def _notes(files: Reader) -> _Notes:
    """Return what is told of cases and repetitions; nothing where earlier versions wrote the tables."""
    notes: dict[tuple[str, int | None], list[Note]] = {}
    for row in rows(files, "notes") if files.is_there("tables/notes.parquet") else ():
        with suppress(ValidationError):
            note = Note(kind=row["kind"], severity=row["severity"], values=_object(row["values"]) or {})
            notes.setdefault((row["case"], row["repetition"]), []).append(note)
    return notes


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        found = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _attach(
    files: Reader, cases: Mapping[str, Case], reports: Mapping[str, BenchmarkReport], notes: _Notes
) -> dict[tuple[str, str], str]:
    """Give each case its metrics and repetitions; return the definitions of the metrics."""
    for row in rows(files, "metrics"):
        if row["case"] in cases:
            cases[row["case"]].metrics[row["metric"]] = Value(
                _finite(row["value"]),
                row["unit"],
                int(row["n"] or 0),
                _finite(row["ci_low"]),
                _finite(row["ci_high"]),
                row["method"] or "",
                _finite(row["instrument"]),
                row["reason"],
                row["reason_kind"],
                row["over"] or "",
            )
    by_key: dict[tuple[str, int], Repetition] = {}
    for row in rows(files, "repetitions"):
        if row["case"] in cases:
            repetition = Repetition(
                index=row["repetition"],
                t_start_s=_finite(row["t_start_s"]),
                t_end_s=_finite(row["t_end_s"]),
                facts=_facts(row["facts"], reports[cases[row["case"]].benchmark].facts),
                **_as_written(
                    row, "invocation", "status", "valid", "started_at", "error_kind", "error_message", "seed"
                ),
                **_verdict(row, row["repetition"], notes),
            )
            by_key[row["case"], repetition.index] = repetition
            cases[row["case"]].repetitions.append(repetition)
    definitions: dict[tuple[str, str], str] = {}
    for row in rows(files, "repetition_metrics"):
        found = by_key.get((row["case"], row["repetition"]))
        if found is None:
            continue
        value = _finite(row["value"])
        if value is not None:
            found.values[row["metric"]] = value
            definitions.setdefault((cases[row["case"]].benchmark, row["metric"]), row["method"] or "")
    for case in cases.values():
        case.repetitions.sort(key=lambda repetition: repetition.index)
    return definitions


def _facts(text: str | None, names: tuple[str, ...]) -> dict[str, Any]:
    """Return these facts of a repetition, those that are there; most of them have none, and are not parsed."""
    if not text or not any(f'"{name}"' in text for name in names):
        return {}
    found = _object(text) or {}
    return {name: found[name] for name in names if name in found}


def _batches(files: Reader, plan: Planned) -> dict[str, BatchRecord]:
    records = {}
    for name in dict.fromkeys([*plan.batches, *files.folders("batches")]):
        store = BatchStore.of(files.root, name)
        record = store.read_record()
        if record is not None:
            records[name] = record
        files.damage += store.damage
    return records


def _damage(files: Reader, tables: Reader) -> list[Damage]:
    """Return what `collect` found damaged, and what was found here; earlier versions told nothing."""
    told = [Damage(**row) for row in rows(tables, "damage")] if tables.is_there("tables/damage.parquet") else []
    return list(dict.fromkeys([*told, *files.damage, *tables.damage]))


def inside(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object inside facts of any shape; an empty one where there is none."""
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
