"""A results folder as plain objects. Tolerant: any table or batch may be partial or missing, and the report says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from aifbench.core.damage import Damage
from aifbench.core.records import BatchRecord
from aifbench.core.states import STATES
from aifbench.core.units import format_size
from aifbench.records.arrow import pa
from aifbench.records.planned import Planned, PlannedCase, read_plan
from aifbench.records.reading import Reader
from aifbench.records.store import BatchStore
from aifbench.report import places
from aifbench.tables.accounting import jobs_in
from aifbench.tables.collect import SCHEMAS

SIZES = ("file_size", "block_size")
"""Parameters in bytes."""
COMPANIONS = {"find_share": "find", "stripe_size": "stripe_count"}
"""Parameters that mean nothing without another one."""
LONGEST = 40
"""Characters of an axis value that are shown (a prompt may be a whole text)."""
Part = TypeVar("Part")
_NUMBER = re.compile(r"\d[\d.,]*")
NEEDED = {
    "cases": ("case", "batch", "benchmark", "label", "params", "state", "planned", "done", "failed"),
    "metrics": ("case", "metric", "unit"),
    "repetitions": ("case", "repetition", "invocation", "status", "valid", "started_at"),
    "repetition_metrics": ("case", "repetition", "metric"),
    "resources": ("batch", "invocation", "t_s", "role"),
    "log": ("batch", "t", "level", "msg"),
    "damage": ("file", "problem", "lost"),
}
"""Columns of each table without which a row says nothing."""
LOST = "that part of this report; `aifbench report` writes it anew"
KINDS = SCHEMAS | {
    "resources": {
        column: pa.float64() if pa.types.is_integer(kind) and column != "invocation" else kind
        for column, kind in SCHEMAS["resources"].items()
    }
}


@dataclass(frozen=True, slots=True)
class Value:
    """One number of a case over its repetitions. `value` None is absent, and `reason` says why."""

    value: float | None
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""
    instrument: float | None = None
    reason: str | None = None

    @property
    def half(self) -> float | None:
        """Half of the interval's width in the unit of the value; None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def relative_half(self) -> float | None:
        """Half-width over value, without unit."""
        return abs(self.half / self.value) if self.value and self.half is not None else None


@dataclass(frozen=True, slots=True)
class Repetition:
    """One repetition of a case, its numbers by metric name."""

    index: int
    invocation: int
    status: str
    valid: bool
    reasons: list[str]
    notes: list[str]
    started_at: str
    t_start_s: float | None
    t_end_s: float | None
    error_kind: str | None
    error_message: str | None
    seed: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    probes: tuple[tuple[float, float], ...] = ()
    """(load, share of its requests that kept the SLO) of each load that a search tried, in its order."""


@dataclass(slots=True)
class Case:
    """One planned case with all that is known of it."""

    id: str
    batch: str
    benchmark: str
    label: str
    suites: list[str]
    params: dict[str, Any]
    axes: dict[str, Any]
    state: str
    planned: int
    done: int
    failed: int
    reasons: list[str]
    notes: list[str]
    metrics: dict[str, Value] = field(default_factory=dict)
    repetitions: list[Repetition] = field(default_factory=list)

    def measured(self, metric: str) -> Value | None:
        """Return the value of a metric, or None when it is absent."""
        found = self.metrics.get(metric)
        return found if found is not None and found.value is not None else None


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
    definitions: dict[tuple[str, str], str]
    """How one repetition's value was measured, by (benchmark, metric)."""
    damage: list[Damage]
    left_out: list[str] = field(default_factory=list)
    """What lies in the folder and is not of the plan, one line each."""
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
    cases = {case.id: case for row in _rows(tables, "cases") if (case := _case(row)) is not None}
    for entry in plan.cases:
        if entry.case not in cases:
            cases[entry.case] = _missing(entry)
    definitions = _attach(tables, cases)
    batches = _batches(files, plan)
    left_out = list(places.leave_out(root, plan, cases, batches))
    places.tell_apart(cases.values(), batches, plan)
    return Results(
        root=tables.root,
        plan=plan,
        cases=list(cases.values()),
        batches=batches,
        resources=_arrays(tables, "resources"),
        log=list(_rows(tables, "log")),
        definitions=definitions,
        jobs=jobs_in(tables),
        damage=_damage(files, tables),
        left_out=left_out,
    )


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as scalars by name; a nested one is `search.nprobe`. None is left out."""
    axes: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            axes.update({f"{name}.{key}": inner for key, inner in flatten(value).items()})
        elif isinstance(value, list):
            axes[name] = orjson.dumps(value).decode()
        elif value is not None:
            axes[name] = value
    return axes


def axes_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells cases apart: all parameters but texts and times of traces, which another one names."""
    told = {name: value for name, value in flatten(params).items() if not name.endswith("_text")}
    return {name: value for name, value in told.items() if name != "schedule_s" and COMPANIONS.get(name, name) in told}


def axis_name(axis: str) -> str:
    """Return the name of an axis for a reader: the last part, but `engine.kind` is the engine and `top_k` is k."""
    head, _, last = axis.rpartition(".")
    if head == "slo":
        return f"SLO on {last.removesuffix('_s')}"
    return {"kind": head, "top_k": "k"}.get(last, last)


def axis_value(axis: str, value: Any) -> str:
    """Return one value of an axis for a reader, sizes as sizes."""
    if axis.startswith("slo."):
        return f"{value:g} s"
    if isinstance(value, int) and axis in SIZES:
        return format_size(value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "—"}[value]
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def alike(text: str) -> str:
    """Return a text with its numbers taken out: what tells kinds of reasons and notes apart."""
    return _NUMBER.sub("#", text)


def worst_of(texts: Sequence[str]) -> str:
    """Return the text with the largest last number among texts that are alike but for their numbers."""

    def numbers(text: str) -> list[float]:
        return [float(found.rstrip(".,").replace(",", "")) for found in reversed(_NUMBER.findall(text))]

    return max(texts, key=numbers)


def varying(cases: list[Case]) -> list[str]:
    """Return the axes that have more than one value among `cases`, in the order of the parameters."""
    names = dict.fromkeys(name for case in cases for name in case.axes)
    return [name for name in names if len({case.axes.get(name) for case in cases}) > 1]


def determines(given: Iterable[str], axis: str, cases: list[Case]) -> bool:
    """Return whether cases with equal values of `given` always have equal values of `axis`.

    Never of the container: where there is more than one it is always told, and no line leads from one to another.
    """
    if axis == places.AXIS:
        return False
    names = tuple(given)
    seen: dict[tuple[Any, ...], Any] = {}
    for case in cases:
        value = case.axes.get(axis)
        if seen.setdefault(tuple(case.axes.get(name) for name in names), value) != value:
            return False
    return True


def independent(axes: Iterable[str], cases: list[Case]) -> list[str]:
    """Return axes without those that the ones before them determine: they would say a thing twice."""
    kept: list[str] = []
    for axis in axes:
        if not kept or not determines(kept, axis, cases):
            kept.append(axis)
    return kept


def _missing(entry: PlannedCase) -> Case:
    return Case(
        id=entry.case,
        batch=entry.batch,
        benchmark=entry.benchmark,
        label=entry.label,
        suites=entry.suites,
        params=entry.params,
        axes=axes_of(entry.params),
        state="missing",
        planned=entry.repetitions.min,
        done=0,
        failed=0,
        reasons=[],
        notes=[],
    )


def _case(row: Mapping[str, Any]) -> Case | None:
    """Return the case of a row; None where its state or its parameters are none."""
    params = _object(row["params"])
    if params is None or row["state"] not in STATES:
        return None
    return Case(
        id=row["case"],
        batch=row["batch"],
        benchmark=row["benchmark"],
        label=row["label"],
        suites=row["suites"] or [],
        params=params,
        axes=axes_of(params),
        state=row["state"],
        planned=row["planned"],
        done=row["done"],
        failed=row["failed"],
        reasons=row["reasons"] or [],
        notes=row["notes"] or [],
    )


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        found = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _attach(files: Reader, cases: Mapping[str, Case]) -> dict[tuple[str, str], str]:
    """Give each case its metrics and repetitions; return the definitions of the metrics."""
    for row in _rows(files, "metrics"):
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
            )
    by_key: dict[tuple[str, int], Repetition] = {}
    for row in _rows(files, "repetitions"):
        if row["case"] in cases:
            repetition = Repetition(
                index=row["repetition"],
                invocation=row["invocation"],
                status=row["status"],
                valid=bool(row["valid"]),
                reasons=row["reasons"] or [],
                notes=row["notes"] or [],
                started_at=row["started_at"],
                t_start_s=_finite(row["t_start_s"]),
                t_end_s=_finite(row["t_end_s"]),
                error_kind=row["error_kind"],
                error_message=row["error_message"],
                seed=row.get("seed"),
                probes=_probes(row["facts"]),
            )
            by_key[row["case"], repetition.index] = repetition
            cases[row["case"]].repetitions.append(repetition)
    definitions: dict[tuple[str, str], str] = {}
    for row in _rows(files, "repetition_metrics"):
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


def _probes(facts: str | None) -> tuple[tuple[float, float], ...]:
    if not facts or '"probes"' not in facts:
        return ()
    probes = (_object(facts) or {}).get("probes")
    try:
        return tuple((float(load), float(share)) for load, share in probes or ())
    except (TypeError, ValueError):
        return ()


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
    told = [Damage(**row) for row in _rows(tables, "damage")] if tables.is_there("tables/damage.parquet") else []
    return list(dict.fromkeys([*told, *files.damage, *tables.damage]))


def _table(files: Reader, name: str) -> Any:
    """Return a table with all its columns; None where it cannot be read."""
    path = f"tables/{name}.parquet"
    if not files.is_there(path):
        files.tell(path, "is missing", LOST)
    return files.table(path, KINDS[name], frozenset(NEEDED[name]), LOST)


def _rows(files: Reader, name: str) -> Iterator[dict[str, Any]]:
    table = _table(files, name)
    if table is None:
        return
    columns = table.to_pydict()
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(names, values, strict=True))


def _arrays(files: Reader, name: str) -> dict[str, Any]:
    table = _table(files, name)
    if table is None or not table.num_rows:
        return {}
    return {column: np.asarray(table[column].to_numpy()) for column in table.column_names}


def inside(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object inside facts of any shape; an empty one where there is none."""
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
