"""From the records of all batches to tables. Works on whatever is there: a missing batch is rows in state `missing`.

tables/cases.parquet               one row per planned case with its state
tables/metrics.parquet             long: one row per case and metric, aggregated over repetitions
tables/repetitions.parquet         one row per repetition
tables/repetition_metrics.parquet  long: one row per repetition and metric
tables/notes.parquet               long: one row per reason and caution, of a case or (with its number) of a repetition
tables/phases.parquet  tables/resources.parquet  tables/log.parquet
tables/damage.parquet              one row per damaged file: what is wrong with it, and what is lost
cases.csv                          wide: one row per case, for spreadsheets
"""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from aifbench.checks.contamination import ForeignCpu, contamination_notes
from aifbench.checks.kinds import (
    LEFT_OUT,
    LINES_LOST,
    PLAN_LOST,
    RAW_LOST,
    RECORDED_TWICE,
    REPETITIONS_LOST,
    REPETITIONS_MISSING,
)
from aifbench.core.damage import Damage
from aifbench.core.notes import TEXT, Note
from aifbench.core.records import BatchRecord, CaseRecord, Metric
from aifbench.core.states import STATES, counted, state_of
from aifbench.files.written import atomic_write
from aifbench.records.arrow import pa, write_parquet
from aifbench.records.planned import PlannedCase, read_plan
from aifbench.records.reading import Reader
from aifbench.records.store import SAMPLE, BatchStore
from aifbench.registry import sentence
from aifbench.stats.intervals import mean_interval
from aifbench.tables.accounting import account, jobs_in

_TEXT, _INT, _FLOAT, _BOOL, _TEXTS = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.string())
_METRIC = {"metric": _TEXT, "value": _FLOAT, "unit": _TEXT, "n": _INT, "ci_low": _FLOAT, "ci_high": _FLOAT}
_METRIC |= {"method": _TEXT, "instrument": _FLOAT, "reason": _TEXT, "reason_kind": _TEXT}
SCHEMAS: dict[str, dict[str, Any]] = {
    "cases": {
        "case": _TEXT, "batch": _TEXT, "benchmark": _TEXT, "suites": _TEXTS, "label": _TEXT, "params": _TEXT,
        "state": _TEXT, "planned": _INT, "done": _INT, "failed": _INT, "reasons": _TEXTS, "notes": _TEXTS,
        "reason_kinds": _TEXTS, "note_kinds": _TEXTS,
    },
    "metrics": {
        "case": _TEXT, "batch": _TEXT, "benchmark": _TEXT, **_METRIC, "over": _TEXT, "min": _FLOAT, "max": _FLOAT,
        "shared": _BOOL,
    },
    "repetitions": {
        "case": _TEXT, "batch": _TEXT, "benchmark": _TEXT, "repetition": _INT, "invocation": _INT, "status": _TEXT,
        "valid": _BOOL, "reasons": _TEXTS, "notes": _TEXTS, "started_at": _TEXT, "t_start_s": _FLOAT, "t_end_s": _FLOAT,
        "error_kind": _TEXT, "error_message": _TEXT, "seed": _INT, "facts": _TEXT,
    },
    "repetition_metrics": {"case": _TEXT, "repetition": _INT, **_METRIC},
    "notes": {
        "case": _TEXT, "batch": _TEXT, "benchmark": _TEXT, "repetition": _INT, "severity": _TEXT, "kind": _TEXT,
        "values": _TEXT, "text": _TEXT,
    },
    "phases": {
        "batch": _TEXT, "invocation": _INT, "name": _TEXT, "case": _TEXT, "repetition": _INT,
        "t_start_s": _FLOAT, "t_end_s": _FLOAT,
    },
    "resources": {"batch": _TEXT, **SAMPLE},
    "log": {"batch": _TEXT, "t": _TEXT, "level": _INT, "case": _TEXT, "msg": _TEXT},
    "damage": {"file": _TEXT, "problem": _TEXT, "lost": _TEXT},
}  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """The tables as rows of plain data, by name as in `SCHEMAS`."""

    rows: dict[str, list[dict[str, Any]]]
    batches: dict[str, BatchRecord]
    plan_lost: bool

    @property
    def damage(self) -> list[Damage]:
        """The damaged files. A case that needs one of them is not valid."""
        return [Damage(**row) for row in self.rows["damage"]]

    def counts(self) -> dict[str, int]:
        """Return the number of cases by state."""
        states = [row["state"] for row in self.rows["cases"]]
        return {state: states.count(state) for state in STATES}

    def told(self) -> list[str]:
        """Return how many cases are in each state, then a line for each damaged file."""
        counts = " · ".join(f"{count} {state}" for state, count in self.counts().items())
        return [counts, *(f"damaged: {damage}" for damage in self.damage)]


@dataclass(frozen=True)
class _Batch:
    """What is found of one batch."""

    record: BatchRecord | None
    cases: dict[str, list[CaseRecord]]
    doubts: dict[str, list[Note]]
    """Reasons against cases, by their ids, from what is damaged."""
    foreign: ForeignCpu
    samples: list[dict[str, Any]]
    log: list[dict[str, Any]]
    damage: list[Damage]


def collect(results: Path) -> Tables:
    """Read plan.json and all batches of a results folder: what is damaged is named and never costs the rest.

    Raises FileNotFoundError when there is neither a plan nor a batch.
    """
    files = Reader(results)
    plan = read_plan(files)
    names = files.folders("batches") if plan.lost else list(plan.batches)
    if plan.lost and not names and not files.is_there("plan.json"):
        raise FileNotFoundError(errno.ENOENT, "no such file", str(results / "plan.json"))
    jobs_in(files)
    batches = {name: _batch(BatchStore.of(results, name)) for name in names}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for name, batch in batches.items():
        _batch_rows(name, batch, rows)
    cases = plan.cases or [
        PlannedCase.unplanned(records[0], name) for name, batch in batches.items() for records in batch.cases.values()
    ]
    for planned in cases:
        batch = batches[planned.batch]
        mine = sorted(batch.cases.get(planned.case, []), key=lambda record: record.repetition)
        doubts = [*([PLAN_LOST.against()] if plan.lost else ()), *batch.doubts.get(planned.case, ())]
        row, notes = case_row(planned, mine, batch.foreign, doubts)
        rows["cases"].append(row)
        rows["notes"].extend(_note_row(row, None, note) for note in notes)
        rows["metrics"].extend(_aggregate(counted(mine, planned.repetitions)))
        for record in mine:
            _repetition_rows(record, rows)
    damage = dict.fromkeys([*files.damage, *(found for batch in batches.values() for found in batch.damage)])
    rows["damage"] = [asdict(found) for found in damage]
    return Tables(rows, {name: batch.record for name, batch in batches.items() if batch.record}, plan.lost)


def make_tables(results: Path, out: Path | None = None) -> Tables:
    """Gather what is recorded, and what Slurm accounts, into the tables of a results folder, and return them.

    `out`: the folder that they go to, when it is another one.
    """
    account(results, out)
    tables = collect(results)
    write_tables(tables, out or results)
    return tables


def write_tables(tables: Tables, results: Path) -> None:
    """Write the tables as Parquet, and cases.csv."""
    folder = results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in SCHEMAS.items():
        data = {column: [row.get(column) for row in tables.rows[name]] for column in schema}
        table = pa.table({c: pa.array(values, schema[c]) for c, values in data.items()})
        write_parquet(table, folder / f"{name}.parquet")
    atomic_write(results / "cases.csv", _csv(tables).encode())


def _batch(store: BatchStore) -> _Batch:
    """Read a batch and doubt the cases of which something is lost."""
    record = store.read_record()  # first: what it counts was there before
    growing = record is None or record.status == "running"
    cases: dict[str, list[CaseRecord]] = {}
    recorded = store.read_cases(growing=growing)
    for one in recorded:
        cases.setdefault(one.case, []).append(one)
    doubts: dict[str, list[Note]] = {case: [] for case in cases}
    for case in sorted({case for case, _ in store.without_raw(recorded)}):
        doubts[case].append(RAW_LOST.against())
    if store.is_damaged("cases.jsonl") and growing:
        for case in cases:
            doubts[case].append(LINES_LOST.against())
    for case in sorted(store.contradicted):
        doubts[case].append(RECORDED_TWICE.against())
    for case, lost in store.lost(record, recorded).items():
        doubts.setdefault(case, []).append(REPETITIONS_LOST.against(lost=lost))
    if record is None and recorded:
        store.note_missing("batch.json")
    samples, log = store.read_samples(), store.read_log(growing=growing)
    return _Batch(record, cases, doubts, ForeignCpu(samples), samples, log, store.damage)


def case_row(
    planned: PlannedCase,
    records: Sequence[CaseRecord] = (),
    foreign: ForeignCpu | None = None,
    doubts: Sequence[Note] = (),
) -> tuple[dict[str, Any], list[Note]]:
    """Return the row of one planned case, and the notes that it tells; without records it is one that is missing."""
    foreign = foreign or ForeignCpu([])
    rule = planned.repetitions
    needed, mine = rule.min, counted(records, rule)
    failed = sum(record.status == "failed" for record in records)
    left_out = [record for record in records if record.status == "ok" and record not in mine]
    reasons = [reason for record in records for reason in record.validity.reasons]
    notes = [note for record in mine for note in record.validity.notes]
    notes += contamination_notes(
        [foreign.cores(record.invocation, record.t_start_s, record.t_end_s) for record in mine]
    )
    state = state_of(records, rule)
    if state == "valid" and doubts:
        state = "invalid"
    if state == "missing":
        reasons.append(REPETITIONS_MISSING.against(done=len(mine), planned=needed))
    if left_out:
        why = next(iter(left_out[0].validity.reasons), TEXT.against(text="no reason recorded")).model_dump()
        notes.insert(0, LEFT_OUT.caution(left_out=len(left_out), repetitions=len(records), why=why))
    against = _told([*([] if state == "valid" else reasons), *doubts])
    cautions = _told(notes)
    row = {
        **planned.model_dump(include={"case", "batch", "benchmark", "suites", "label"}),
        "params": orjson.dumps(planned.params).decode(),
        "state": state,
        "planned": needed,
        "done": len(mine),
        "failed": failed,
        "reasons": list(against),
        "notes": list(cautions),
        "reason_kinds": _distinct(note.kind for note in against.values()),
        "note_kinds": _distinct(note.kind for note in cautions.values()),
    }
    return row, [*against.values(), *cautions.values()]


def _told(notes: Iterable[Note]) -> dict[str, Note]:
    """Return notes by their sentences: those of several repetitions that read alike are told once."""
    told: dict[str, Note] = {}
    for note in notes:
        told.setdefault(sentence(note), note)
    return told


def _note_row(of: Mapping[str, Any], repetition: int | None, note: Note) -> dict[str, Any]:
    return {
        **{name: of[name] for name in ("case", "batch", "benchmark")},
        **note.model_dump(include={"severity", "kind"}),
        "repetition": repetition,
        "values": orjson.dumps(note.values).decode(),
        "text": sentence(note),
    }


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _aggregate(records: Sequence[CaseRecord]) -> list[dict[str, Any]]:
    """Aggregate each metric over the repetitions that have it: mean and Student-t interval over repetitions."""
    rows = []
    for name in _distinct(name for record in records for name in record.metrics):
        found = [record.metrics[name] for record in records if name in record.metrics]
        first = records[0]
        row = {"case": first.case, "batch": first.batch, "benchmark": first.benchmark, "metric": name}
        rows.append({**row, **_over_repetitions(found)})
    return rows


def _over_repetitions(metrics: Sequence[Metric]) -> dict[str, Any]:
    values = [metric.value for metric in metrics if metric.value is not None]
    first = metrics[0]
    shared = all(metric.shared for metric in metrics)
    instruments = [metric.instrument for metric in metrics if metric.instrument is not None]
    row: dict[str, Any] = {"unit": first.unit, "shared": shared, "instrument": max(instruments, default=None)}
    if not values:
        return {**row, "value": None, "n": 0, "method": first.method, **_absence(first.reason)}
    if shared and len(set(values)) == 1:
        once = first.model_dump(include={"value", "n", "ci_low", "ci_high"})
        over = "one value for all repetitions"
        return {**row, **once, **_methods(first.method, over), "min": values[0], "max": values[0]}
    interval = mean_interval(values)
    per_run = first.method if len({metric.method for metric in metrics}) == 1 else "see the repetitions"
    return {
        **row,
        "value": interval.mean,
        "n": interval.n,
        "ci_low": interval.low,
        "ci_high": interval.high,
        **_methods(per_run, interval.method),
        "min": min(values),
        "max": max(values),
    }


def _methods(method: str, over: str) -> dict[str, str]:
    """Return how a number was made: both in one, and over repetitions alone."""
    return {"method": f"{method}; {over}", "over": over}


def _absence(reason: Note | None) -> dict[str, str | None]:
    return {"reason": sentence(reason) if reason else None, "reason_kind": reason.kind if reason else None}


def _repetition_rows(record: CaseRecord, rows: dict[str, list[dict[str, Any]]]) -> None:
    taken = {"case", "batch", "benchmark", "repetition", "invocation", "status", "started_at", "t_start_s", "t_end_s"}
    row = record.model_dump(include={*taken, "seed"})
    rows["repetitions"].append(
        {
            **row,
            "valid": record.validity.valid,
            "reasons": list(map(sentence, record.validity.reasons)),
            "notes": list(map(sentence, record.validity.notes)),
            "error_kind": record.error.kind if record.error else None,
            "error_message": record.error.message if record.error else None,
            "facts": orjson.dumps(record.facts).decode(),
        }
    )
    rows["notes"] += [
        _note_row(row, record.repetition, note) for note in (*record.validity.reasons, *record.validity.notes)
    ]
    for name, metric in record.metrics.items():
        found = {"case": record.case, "repetition": record.repetition, "metric": name, **_absence(metric.reason)}
        rows["repetition_metrics"].append({**found, **metric.model_dump(exclude={"shared", "reason"})})


def _batch_rows(name: str, batch: _Batch, rows: dict[str, list[dict[str, Any]]]) -> None:
    for invocation in batch.record.invocations if batch.record else []:
        for phase in invocation.phases:
            rows["phases"].append({"batch": name, "invocation": invocation.index, **phase.model_dump()})
    rows["resources"].extend({"batch": name, **sample} for sample in batch.samples)
    rows["log"].extend({"batch": name, **statement} for statement in batch.log)


_LISTS = ("reasons", "reason_kinds", "note_kinds")


def _csv(tables: Tables) -> str:
    """Return one row per case: id, state, parameters, then value, low and high of each metric."""
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for row in tables.rows["metrics"]:
        metrics.setdefault(row["case"], {})[row["metric"]] = row
    names = list(dict.fromkeys(row["metric"] for row in tables.rows["metrics"]))
    flat = [(case, _flat(orjson.loads(case["params"]))) for case in tables.rows["cases"]]
    keys = list(dict.fromkeys(key for _, params in flat for key in params))
    file = io.StringIO(newline="")
    out = csv.writer(file)
    bounds = [f"{name}{suffix}" for name in names for suffix in ("", "_ci_low", "_ci_high")]
    out.writerow(["case", "benchmark", "suites", "state", "done", *_LISTS, *keys, *bounds])
    for case, params in flat:
        mine = metrics.get(case["case"], {})
        head = [case["case"], case["benchmark"], " ".join(case["suites"]), case["state"], case["done"]]
        values = [mine.get(name, {}).get(column) for name in names for column in ("value", "ci_low", "ci_high")]
        lists = ["; ".join(case[name]) for name in _LISTS]
        cells = [*head, *lists, *(params.get(key) for key in keys), *values]
        out.writerow([_inert(cell) for cell in cells])
    return file.getvalue()


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _inert(cell: Any) -> Any:
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r")) else cell
