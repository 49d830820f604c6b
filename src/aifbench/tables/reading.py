"""The written tables, read again: whole columns of known types, or a word on what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aifbench.records.arrow import pa
from aifbench.records.reading import Reader
from aifbench.tables.collect import SCHEMAS

NEEDED = {
    "cases": ("case", "batch", "benchmark", "label", "params", "state", "planned", "done", "failed"),
    "metrics": ("case", "metric", "unit"),
    "repetitions": ("case", "repetition", "invocation", "status", "valid", "started_at"),
    "repetition_metrics": ("case", "repetition", "metric"),
    "resources": ("batch", "invocation", "t_s", "role"),
    "log": ("batch", "t", "level", "msg"),
    "notes": ("case", "severity", "kind"),
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


def table(files: Reader, name: str) -> Any:
    """Return a table with all its columns; None where it cannot be read."""
    path = f"tables/{name}.parquet"
    if not files.is_there(path):
        files.tell(path, "is missing", LOST)
    return files.table(path, KINDS[name], frozenset(NEEDED[name]), LOST)


def rows(files: Reader, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table by column; none where it cannot be read."""
    found = table(files, name)
    if found is None:
        return
    columns = found.to_pydict()
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(names, values, strict=True))


def arrays(files: Reader, name: str) -> dict[str, Any]:
    """Return the columns of a table as arrays; none where it is empty or cannot be read."""
    found = table(files, name)
    if found is None or not found.num_rows:
        return {}
    return {column: np.asarray(found[column].to_numpy()) for column in found.column_names}
