"""A results folder as plain objects. Tolerant: any table or batch may be partial or missing, and the report says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from aifbench.campaign.units import format_size
from aifbench.records.accounting import read_jobs
from aifbench.records.arrow import pa, read_parquet
from aifbench.records.models import BatchRecord
from aifbench.records.store import BatchStore
from aifbench.report import places

SIZES = ("file_size", "block_size")
"""Parameters in bytes."""
COMPANIONS = {"find_share": "find", "stripe_size": "stripe_count"}
"""Parameters that mean nothing without another one."""
LONGEST = 40
"""Characters of an axis value that are shown (a prompt may be a whole text)."""
_NUMBER = re.compile(r"\d[\d.,]*")
STATES = ("valid", "invalid", "failed", "missing")


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
    plan: dict[str, Any]
    cases: list[Case]
    batches: dict[str, BatchRecord]
    resources: dict[str, Any]
    """Columns of tables/resources.parquet as arrays, empty when there is none."""
    log: list[dict[str, Any]]
    definitions: dict[tuple[str, str], str]
    """How one repetition's value was measured, by (benchmark, metric)."""
    problems: list[str]
    """What could not be read, one line each."""
    left_out: list[str] = field(default_factory=list)
    """What lies in the folder and is not of the plan, one line each."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What Slurm accounted, by job id (see `records.accounting`)."""

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
    """Read `results/<campaign>/`. What is missing or broken becomes a line in `problems`, never an exception.

    `made`: the folder that the tables were written into and the report goes to, when it is another one.
    """
    problems: list[str] = []
    plan = _read_plan(root / "plan.json", problems)
    made = made or root
    tables = made / "tables"
    cases = {case.id: case for case in _cases(tables / "cases.parquet", problems)}
    for entry in plan.get("cases", []):
        if entry["case"] not in cases:
            cases[entry["case"]] = _missing(entry)
    definitions = _attach(tables, cases, problems)
    batches = _batches(root, plan, problems)
    left_out = list(places.leave_out(root, plan, cases, batches))
    places.tell_apart(cases.values(), batches, plan)
    return Results(
        root=made,
        plan=plan,
        cases=list(cases.values()),
        batches=batches,
        resources=_arrays(tables / "resources.parquet", problems),
        log=list(_rows(tables / "log.parquet", problems)),
        definitions=definitions,
        problems=problems,
        left_out=left_out,
        jobs=read_jobs(made),
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


def _read_plan(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return {}
    except orjson.JSONDecodeError as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    return plan


def _missing(entry: Mapping[str, Any]) -> Case:
    return Case(
        id=entry["case"],
        batch=entry["batch"],
        benchmark=entry["benchmark"],
        label=entry["label"],
        suites=entry["suites"],
        params=entry["params"],
        axes=axes_of(entry["params"]),
        state="missing",
        planned=entry["repetitions"]["min"],
        done=0,
        failed=0,
        reasons=[],
        notes=[],
    )


def _cases(path: Path, problems: list[str]) -> Iterator[Case]:
    for row in _rows(path, problems):
        params = orjson.loads(row["params"])
        yield Case(
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


def _attach(tables: Path, cases: Mapping[str, Case], problems: list[str]) -> dict[tuple[str, str], str]:
    """Give each case its metrics and repetitions; return the definitions of the metrics."""
    for row in _rows(tables / "metrics.parquet", problems):
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
    for row in _rows(tables / "repetitions.parquet", problems):
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
    for row in _rows(tables / "repetition_metrics.parquet", problems):
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
    return tuple((float(load), float(share)) for load, share in orjson.loads(facts).get("probes", []))


def _batches(root: Path, plan: Mapping[str, Any], problems: list[str]) -> dict[str, BatchRecord]:
    folder = root / "batches"
    present = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    names = dict.fromkeys([entry["batch"] for entry in plan.get("batches", [])] + present)
    records = {}
    for name in names:
        try:
            record = BatchStore(folder / name).read_record()
        except ValidationError as error:
            problems.append(f"batches/{name}/batch.json cannot be read: {error.error_count()} fields do not fit")
            continue
        if record is not None:
            records[name] = record
    return records


def _table(path: Path, problems: list[str]) -> Any:
    try:
        return read_parquet(path)
    except FileNotFoundError:
        problems.append(f"tables/{path.name} is missing")
    except (pa.ArrowInvalid, OSError) as error:
        problems.append(f"tables/{path.name} cannot be read: {str(error).splitlines()[0]}")
    return None


def _rows(path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    table = _table(path, problems)
    if table is None:
        return
    columns = table.to_pydict()
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(names, values, strict=True))


def _arrays(path: Path, problems: list[str]) -> dict[str, Any]:
    table = _table(path, problems)
    if table is None or not table.num_rows:
        return {}
    return {name: np.asarray(table[name].to_numpy()) for name in table.column_names}


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
