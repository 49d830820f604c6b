"""The files of one batch: appended line by line while the job lives, compacted when it ends.

batches/<batch>/batch.json            what happened, rewritten atomically at each change
                cases.jsonl           one line per repetition, fsynced: the checkpoint
                raw/operations.jsonl  raw events while the job runs (written before the line in cases.jsonl)
                raw/operations.parquet  the same, compacted; a repetition is there once
                live/resources.jsonl  samples while the job runs  ->  resources.parquet
                log.jsonl
                set-aside/<time>/     repetitions that `aifbench retry` took out, with their raw events
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from aifbench.files import write_beneath
from aifbench.records.arrow import pa, pq, read_parquet
from aifbench.records.models import BatchRecord, CaseRecord, RawRef

RAW_FILE = "raw/operations.parquet"


class BatchStore:
    """Reads and writes one batch's folder. One writer at a time (see `runner.lock`); readers need no lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases_path = folder / "cases.jsonl"
        self.raw_live = folder / "raw" / "operations.jsonl"
        self.raw_path = folder / RAW_FILE
        self.resources_live = folder / "live" / "resources.jsonl"
        self.resources_path = folder / "resources.parquet"
        self.log_path = folder / "log.jsonl"
        self.record_path = folder / "batch.json"

    def create(self) -> None:
        """Make the folders and cut a line that a killed writer left unfinished."""
        for path in (self.raw_live, self.resources_live):
            path.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.cases_path, self.raw_live, self.resources_live, self.log_path):
            _cut_torn_line(path)

    def read_record(self) -> BatchRecord | None:
        """Return what is known of the batch, or None when it never ran."""
        try:
            return BatchRecord.model_validate_json(self.record_path.read_bytes())
        except FileNotFoundError:
            return None

    def write_record(self, record: BatchRecord) -> None:
        """Replace batch.json atomically."""
        atomic_write(self.record_path, orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2))

    def read_cases(self) -> list[CaseRecord]:
        """Return all repetitions recorded so far, in the order of their end."""
        return [CaseRecord.model_validate(line) for line in read_lines(self.cases_path)]

    def append_case(self, record: CaseRecord, raw: dict[str, list[Any]] | None) -> CaseRecord:
        """Store one repetition: raw events first, then its record; both are on disk when this returns."""
        if raw is not None:
            rows = len(next(iter(raw.values()))) if raw else 0
            record = record.model_copy(update={"raw": RawRef(file=RAW_FILE, rows=rows)})
            _append(self.raw_live, {"case": record.case, "repetition": record.repetition, "columns": raw})
        _append(self.cases_path, record.model_dump(mode="json"))
        return record

    def compact(self) -> None:
        """Move live lines into Parquet. Safe to repeat: a repetition or a sample is never doubled."""
        self._compact_raw()
        rows = list(read_lines(self.resources_live))
        if rows:
            known = [read_parquet(self.resources_path)] if self.resources_path.exists() else []
            invocations = {row["invocation"] for row in rows}
            known = [
                table.filter(pa.compute.invert(pa.compute.is_in(table["invocation"], pa.array(sorted(invocations)))))
                for table in known
            ]
            for row in rows:
                row["gpu"] = orjson.dumps(row["gpu"]).decode() if row.get("gpu") is not None else None
                row.pop("step", None)  # batch.json has the phases, with their exact times
            _write_parquet(_concat([*known, pa.Table.from_pylist(rows)]), self.resources_path)
        self.resources_live.unlink(missing_ok=True)
        if self.resources_live.parent.exists() and not any(self.resources_live.parent.iterdir()):
            self.resources_live.parent.rmdir()

    def set_aside(self, cases: Collection[str], name: str) -> int:
        """Move all repetitions of `cases`, with their raw events, to `set-aside/<name>/`; return how many there were.

        They are then not measured yet, and nothing of what was measured is lost. The batch must have no live writer.
        """
        lines = list(read_lines(self.cases_path))
        going = [line for line in lines if line["case"] in cases]
        if not going:
            return 0
        self._compact_raw()
        aside = self.folder / "set-aside" / name
        aside.mkdir(parents=True)
        (aside / "cases.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in going))
        if self.raw_path.exists():
            table = read_parquet(self.raw_path)
            gone = pa.compute.is_in(table["case"], pa.array(sorted(cases)))
            _write_parquet(table.filter(gone), aside / self.raw_path.name)
            _write_parquet(table.filter(pa.compute.invert(gone)), self.raw_path)
        staying = [line for line in lines if line["case"] not in cases]
        atomic_write(self.cases_path, b"".join(orjson.dumps(line) + b"\n" for line in staying))
        (self.folder / "done.json").unlink(missing_ok=True)
        return len(going)

    def _compact_raw(self) -> None:
        wanted = {(case.case, case.repetition) for case in self.read_cases() if case.raw is not None}
        tables, seen = [], set()
        if self.raw_path.exists():
            table = read_parquet(self.raw_path)
            seen = set(zip(table["case"].to_pylist(), table["repetition"].to_pylist(), strict=True))
            tables.append(table)
        for line in read_lines(self.raw_live):
            key = (line["case"], line["repetition"])
            if key not in wanted or key in seen:
                continue
            seen.add(key)
            columns = line["columns"]
            rows = len(next(iter(columns.values()))) if columns else 0
            tables.append(pa.table({"case": [key[0]] * rows, "repetition": [key[1]] * rows, **columns}))
        if tables:
            _write_parquet(_concat(tables), self.raw_path)
        self.raw_live.unlink(missing_ok=True)

    def read_raw(self, case: str, repetition: int) -> dict[str, Any]:
        """Return the raw columns of one repetition (numpy arrays; list columns as lists), from either file."""
        for line in read_lines(self.raw_live):
            if line["case"] == case and line["repetition"] == repetition:
                return typed_columns(line["columns"])
        table = read_parquet(self.raw_path)
        table = table.filter((pa.compute.field("case") == case) & (pa.compute.field("repetition") == repetition))
        return {
            name: _column(table[name].combine_chunks())
            for name in table.column_names
            if name not in {"case", "repetition"}
        }


def plain_columns(raw: Any) -> dict[str, list[Any]]:
    """Return raw columns as lists for JSON; NaN becomes null. Raises ValueError when lengths differ."""
    columns = {}
    for name, values in raw.items():
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        columns[name] = [None if isinstance(value, float) and value != value else value for value in listed]  # noqa: PLR0124
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"raw columns of different lengths: {lengths}")
    return columns


def typed_columns(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Return plain columns in the form in which metrics get them: numpy arrays, lists for text and lists of stamps."""
    return {name: _column(pa.array(values)) for name, values in columns.items()}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a JSON-lines file; a torn last line is passed over. A missing file is empty."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield orjson.loads(line)
    except FileNotFoundError:
        return


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beneath(path.parent, path.name, data=data)


def _append(path: Path, value: dict[str, Any]) -> None:
    data = orjson.dumps(value) + b"\n"
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            position = start
        file.truncate(0)


def _column(values: Any) -> Any:
    if (
        pa.types.is_list(values.type)
        or pa.types.is_string(values.type)
        or values.null_count
        or pa.types.is_null(values.type)
    ):
        listed = values.to_pylist()
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            return np.array([np.nan if value is None else value for value in listed], dtype=np.float64)
        return listed
    return values.to_numpy(zero_copy_only=False)


def _concat(tables: list[Any]) -> Any:
    return (
        pa.concat_tables([table for table in tables if table.num_rows], promote_options="permissive")
        if any(table.num_rows for table in tables)
        else tables[0]
    )


def _write_parquet(table: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
