"""A results folder as pandas frames, made from its records. What measures does not import it: pandas takes a second.

What was not measured is missing (NA), never 0. Units stand in the names: `_s`, `_ms`, `_ns`, `_bytes`, `_mib_s`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from aifbench.analysis.cases import flatten
from aifbench.core.damage import Damage
from aifbench.records.arrow import pa
from aifbench.records.store import BatchStore
from aifbench.registry import benchmarks
from aifbench.tables.collect import SCHEMAS, Tables, collect

_KINDS = {pa.string(): pd.StringDtype(), pa.bool_(): pd.BooleanDtype()}
_KINDS |= {kind: pd.Int64Dtype() for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
"""pandas' types that know what is missing. Real numbers stay as numpy has them: missing is NaN."""
_OF_PYTHON: dict[type | None, Any] = {
    bool: pd.BooleanDtype(),
    int: pd.Int64Dtype(),
    float: "float64",
    str: pd.StringDtype(),
}


class DamagedResults(UserWarning):
    """A file of the results folder is damaged: the text names it and what is lost with it."""


@dataclass(frozen=True)
class Frames:
    """The frames of one results folder."""

    folder: Path
    cases: pd.DataFrame
    """One row per planned case, by `case`: what and in which state, its parameters (sizes as `..._bytes`), then each
    metric over its repetitions with the ends of its 95 % interval (`..._ci_low`, `..._ci_high`)."""
    metrics: pd.DataFrame
    """The same numbers in long form, by `case` and `metric`: also unit, n, method, error of the instrument, and the
    reason where there is no value."""
    repetitions: pd.DataFrame
    """One row per recorded repetition, by `case` and `repetition`: its verdict, times, seed, facts, metrics."""
    resources: pd.DataFrame
    """One row per sample, by `batch`, `invocation`, `node`, `role` and `t_s` (seconds since the invocation began)."""
    notes: pd.DataFrame
    """One row per reason and caution, by `case`, of the case itself or of one `repetition`: severity, kind, values."""
    damage: pd.DataFrame
    """One row per damaged file."""

    @cached_property
    def operations(self) -> pd.DataFrame:
        """One row per request, query, read or write, by `case`, `repetition` and `operation`, as it was timed."""
        parts, damage = [], []
        for batch in dict.fromkeys(self.cases["batch"]):
            store = BatchStore.of(self.folder, batch)
            if (table := store.read_operations()) is not None:
                parts.append(_frame(table))
            damage += store.damage
        known = set(self.damage.itertuples(index=False, name=None))
        _warn(found for found in damage if (found.file, found.problem, found.lost) not in known)
        made = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["case", "repetition"])
        made["operation"] = made.groupby(["case", "repetition"]).cumcount()
        return made.set_index(["case", "repetition", "operation"]).sort_index()


def load(folder: str | Path) -> Frames:
    """Return what is recorded in a results folder, also while it grows. Warns of each damaged file (`DamagedResults`).

    Raises FileNotFoundError where there is neither a plan nor a batch.
    """
    tables = collect(Path(folder))
    _warn(tables.damage)
    metrics = _table(tables, "metrics")
    repetitions = _table(tables, "repetitions")
    repetitions["started_at"] = pd.to_datetime(repetitions["started_at"], format="ISO8601", utc=True)
    repetitions["facts"] = repetitions["facts"].map(orjson.loads, na_action="ignore")
    each = _table(tables, "repetition_metrics").pivot(index=["case", "repetition"], columns="metric", values="value")
    notes = _table(tables, "notes")
    notes["values"] = notes["values"].map(orjson.loads, na_action="ignore")
    resources = _table(tables, "resources")
    resources["gpu"] = resources["gpu"].astype(object).map(orjson.loads, na_action="ignore")
    return Frames(
        folder=Path(folder),
        cases=_cases(tables, metrics),
        metrics=metrics.drop(columns=["batch"]).set_index(["case", "metric"]),
        repetitions=repetitions.set_index(["case", "repetition"]).join(each[_in_order(tables, "repetition_metrics")]),
        resources=resources.set_index(["batch", "invocation", "node", "role", "t_s"]),
        notes=notes.set_index("case"),
        damage=_table(tables, "damage"),
    )


def _cases(tables: Tables, metrics: pd.DataFrame) -> pd.DataFrame:
    cases = _table(tables, "cases").set_index("case")
    wide = metrics.pivot(index="case", columns="metric", values=["value", "ci_low", "ci_high"])
    names = [(part, name) for name in _in_order(tables, "metrics") for part in ("value", "ci_low", "ci_high")]
    wide = wide[names]
    wide.columns = [name if part == "value" else f"{name}_{part}" for part, name in names]
    taken = {*cases.columns, *wide.columns}
    rows = [_params(row) for row in tables.rows["cases"]]
    params = {
        f"params.{name}" if name in taken else name: _typed([row.get(name) for row in rows])
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    return cases.drop(columns="params").join(pd.DataFrame(params, index=cases.index)).join(wide)


def _params(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a case, of which sizes tell their unit."""
    known = benchmarks().get(row["benchmark"])
    sizes = known.params.sizes() if known else frozenset()
    params = flatten(orjson.loads(row["params"]))
    return {f"{name}_bytes" if name in sizes else name: value for name, value in params.items()}


def _typed(values: list[Any]) -> Any:
    """Return the values of a parameter with the type of pandas that fits, None as missing."""
    kinds = {type(value) for value in values if value is not None}
    kind = float if kinds == {int, float} else next(iter(kinds)) if len(kinds) == 1 else None
    return pd.array(values, dtype=_OF_PYTHON.get(kind, object))


def _table(tables: Tables, name: str) -> pd.DataFrame:
    rows, schema = tables.rows[name], SCHEMAS[name]
    columns = {column: pa.array([row.get(column) for row in rows], kind) for column, kind in schema.items()}
    return _frame(pa.table(columns))


def _frame(table: Any) -> pd.DataFrame:
    return table.to_pandas(types_mapper=_KINDS.get)


def _in_order(tables: Tables, name: str) -> list[str]:
    """Return the names of the metrics in the order in which the benchmarks give them."""
    return list(dict.fromkeys(row["metric"] for row in tables.rows[name]))


def _warn(damage: Iterable[Damage]) -> None:
    for found in damage:
        warnings.warn(str(found), DamagedResults, stacklevel=3)
