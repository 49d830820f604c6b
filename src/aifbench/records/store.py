"""The files of one batch: appended line by line while the job lives, compacted when it ends.

batches/<batch>/batch.json            what happened, rewritten atomically at each change
                cases.jsonl           one line per repetition, fsynced: the checkpoint
                raw/operations.jsonl  raw events while the job runs (written before the line in cases.jsonl)
                raw/operations.parquet  the same, compacted; a repetition is there once
                live/resources.jsonl  samples while the job runs  ->  resources.parquet
                log.jsonl
                set-aside/<time>/     repetitions that `aifbench retry` took out, with their raw events
                set-aside/<time>.damaged/   files as they were found, where something in them could not be read

Records and raw events carry checksums (see `records.sealed` and `records.arrow`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from aifbench.core.damage import Damage, Damaged
from aifbench.core.records import BatchRecord, CaseRecord, RawRef
from aifbench.files.written import atomic_write
from aifbench.records.arrow import open_parquet, pa, read_parquet, write_parquet
from aifbench.records.reading import Reader, fitted, within_bounds
from aifbench.records.sealed import is_sealed, seal, unseal

RAW_FILE = "raw/operations.parquet"
RAW_LIVE = "raw/operations.jsonl"
LONGEST_RAW_LINE = 512 << 20
_RAW_KEY = re.compile(rb'\{"case":"([^"\\]{1,64})","repetition":(\d{1,9}),"columns":')
"""What a live line of raw events begins with."""
_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
SAMPLE: dict[str, Any] = {
    "invocation": _INT, "t_s": _FLOAT, "node": _TEXT, "clock_s": _FLOAT, "role": _TEXT,
    "processes": _INT, "cpu_cores": _FLOAT, "cpu_seconds": _FLOAT, "rss_bytes": _INT, "peak_rss_bytes": _INT,
    "anon_bytes": _INT, "file_bytes": _INT, "shmem_bytes": _INT, "read_bytes": _INT, "write_bytes": _INT,
    "vfs_read_bytes": _INT, "vfs_write_bytes": _INT, "memory_available_bytes": _INT, "stalled_cpu_s": _FLOAT,
    "stalled_memory_s": _FLOAT, "stalled_io_s": _FLOAT, "gpu": _TEXT, "records": _INT, "errors": _INT, "source": _TEXT,
}  # fmt: skip
"""The columns of a sample."""
SAMPLE_NEEDS = frozenset({"invocation", "t_s", "role"})
_OF_JSON: dict[Any, set[type]] = {_TEXT: {str}, _INT: {int}, _FLOAT: {int, float}}
_KINDS = {name: _OF_JSON[kind] | (set() if name in SAMPLE_NEEDS else {type(None)}) for name, kind in SAMPLE.items()}
"""What JSON may hold for each of them."""
LOST = {
    "batch.json": "times, environment and cost of this batch",
    "cases.jsonl": "repetitions of its cases",
    RAW_FILE: "raw events of its repetitions",
    RAW_LIVE: "raw events of its last repetitions",
    "resources.parquet": "samples of CPU, memory and GPU, and notes that rest on them",
    "live/resources.jsonl": "samples of the last job",
    "log.jsonl": "statements of the log",
}
"""What is lost with each file of a batch."""
LINES = ("cases.jsonl", RAW_LIVE, "live/resources.jsonl", "log.jsonl")

Key = tuple[str, int]
"""A repetition: id of its case, number."""


class BatchStore:
    """Reads and writes one batch's folder. One writer at a time (see `records.lock`); readers need no lock.

    With `results` the folder is `batches/<batch>` in it, and nothing on the way may be a link. What cannot be read is
    named in `damage`.
    """

    def __init__(self, folder: Path, results: Path | None = None) -> None:
        self.folder = folder
        self.files = Reader(folder) if results is None else Reader(results, "batches", folder.name)
        self.cases_path = folder / "cases.jsonl"
        self.raw_live = folder / "raw" / "operations.jsonl"
        self.raw_path = folder / RAW_FILE
        self.resources_live = folder / "live" / "resources.jsonl"
        self.resources_path = folder / "resources.parquet"
        self.log_path = folder / "log.jsonl"
        self.record_path = folder / "batch.json"
        self.contradicted: set[str] = set()
        """Cases of which a repetition was read twice, and not alike."""

    @classmethod
    def of(cls, results: Path, batch: str) -> BatchStore:
        """Return the store of a batch of a results folder."""
        return cls(results / "batches" / batch, results)

    @property
    def damage(self) -> list[Damage]:
        """What was found damaged so far."""
        return self.files.damage

    def create(self) -> list[Damage]:
        """Make the folder ready for a writer: a line that a killed one left unfinished is cut; see also `mend`."""
        for name in LINES:
            with contextlib.suppress(FileNotFoundError):
                self.files.open(name).close()
                _cut_torn_line(self.folder / name)
        damaged = self.mend()
        for path in (self.raw_live, self.resources_live):
            path.parent.mkdir(parents=True, exist_ok=True)
        return damaged

    # -- reading --------------------------------------------------------------------------------------------------

    def read_record(self) -> BatchRecord | None:
        """Return what is known of the batch, or None when it never ran."""
        with self.files.naming("batch.json", LOST["batch.json"]):
            return fitted(BatchRecord, self.files.json("batch.json"))
        return None

    def read_cases(self, *, growing: bool = True) -> list[CaseRecord]:
        """Return all repetitions recorded so far, in the order of their end; each is there once."""
        return [record for _, record in self._case_lines(growing=growing)]

    def read_samples(self) -> list[dict[str, Any]]:
        """Return the samples of ended invocations and of one that still runs."""
        samples: list[dict[str, Any]] = []
        table = self.files.table("resources.parquet", SAMPLE, SAMPLE_NEEDS, LOST["resources.parquet"])
        if table is not None:
            samples += table.to_pylist()
        samples += [sample for _, sample in self._lines("live/resources.jsonl", _sample, growing=True)]
        return samples

    def read_log(self, *, growing: bool = True) -> list[dict[str, Any]]:
        """Return the statements of the log."""
        return [statement for _, statement in self._lines("log.jsonl", _statement, growing=growing)]

    def without_raw(self, records: Collection[CaseRecord]) -> set[Key]:
        """Return the repetitions whose raw events are not all there: nobody can compute their numbers again.

        Must follow `read_cases`, and looks at the live file first: events stand there before the record, and in the
        Parquet file before they leave it.
        """
        wanted = {(record.case, record.repetition): record.raw.rows for record in records if record.raw}
        if not wanted:
            return set()
        live = {key for _, key in self._raw_lines()}
        stored: Counter[Key] | None = None
        with self.files.naming(RAW_FILE, LOST[RAW_FILE]):
            stored = self._stored_rows()
        rows = stored or Counter()
        lost = {key for key, count in wanted.items() if key not in live and rows[key] != count}
        if lost and not self.is_damaged(RAW_FILE) and not self.is_damaged(RAW_LIVE):
            name = RAW_LIVE if stored is None and self.files.is_there(RAW_LIVE) else RAW_FILE
            there = stored is not None or name == RAW_LIVE
            problem = f"lacks rows of {len(lost)} repetition{'' if len(lost) == 1 else 's'}"
            self.files.tell(name, problem if there else "is missing", LOST[name])
        return lost

    def lost(self, record: BatchRecord | None, recorded: Collection[CaseRecord]) -> dict[str, int]:
        """Return how many repetitions batch.json counts of each case that are not there any more.

        Earlier versions did not count again after they had set a case aside.
        """
        there = Counter(record.case for record in recorded)
        older = (self.folder / "set-aside").is_dir()
        counts = record.done if record is not None else {}
        lost = {case: count - there[case] for case, count in counts.items() if count > there[case]}
        lost = {case: count for case, count in lost.items() if there[case] or not older}
        if lost and not self.is_damaged("cases.jsonl"):
            total = sum(lost.values())
            problem = f"lacks {total} repetition{'' if total == 1 else 's'} that batch.json counts"
            self.files.tell("cases.jsonl", problem, LOST["cases.jsonl"])
        return lost

    def is_damaged(self, name: str) -> bool:
        """Return whether a file was found damaged so far."""
        return self.files.path(name) in {damage.file for damage in self.damage}

    def note_missing(self, name: str) -> None:
        """Name a file that should be there, unless it is and is damaged."""
        if not self.is_damaged(name):
            self.files.tell(name, "is missing", LOST[name])

    def read_raw(self, case: str, repetition: int) -> dict[str, Any]:
        """Return the raw columns of one repetition (numpy arrays; list columns as lists), from either file.

        Raises FileNotFoundError and `Damaged`.
        """
        live = None
        for line, key in self._raw_lines():
            live = line if key == (case, repetition) else live  # the last: before it, one was killed without a record
        if live is not None:
            return typed_columns(orjson.loads(live)["columns"])
        with self.files.open(RAW_FILE) as file, open_parquet(file) as (parquet, _):
            table = within_bounds(parquet).read()
            table = table.filter((pa.compute.field("case") == case) & (pa.compute.field("repetition") == repetition))
            return {
                name: _column(table[name].combine_chunks())
                for name in table.column_names
                if name not in {"case", "repetition"}
            }

    def read_operations(self) -> Any | None:
        """Return the operations of all recorded repetitions as one table; None where there are none."""
        stored = None
        with self.files.naming(RAW_FILE, LOST[RAW_FILE]), self.files.open(RAW_FILE) as file:
            with open_parquet(file) as (parquet, _):
                stored = within_bounds(parquet).read()
            if not {"case", "repetition"} <= set(stored.column_names):
                raise Damaged("has no columns case and repetition")
        return self._with_live(stored)

    def _lines(self, name: str, parse: Any, *, growing: bool, **limits: int) -> Iterator[tuple[bytes, Any]]:
        return self.files.lines(name, parse, LOST[name], growing=growing, **limits)

    def _case_lines(self, *, growing: bool) -> Iterator[tuple[bytes, CaseRecord]]:
        known: dict[Key, CaseRecord] = {}

        def parse(line: bytes) -> CaseRecord:
            record = fitted(CaseRecord, unseal(line))
            first = known.setdefault((record.case, record.repetition), record)
            if first is not record:
                if first != record:
                    self.contradicted.add(record.case)
                how = "" if first == record else ", and not as before"
                raise Damaged(f"records repetition {record.repetition} of case {record.case} once more{how}")
            return record

        return self._lines("cases.jsonl", parse, growing=growing)

    def _raw_lines(self, *, growing: bool = True) -> Iterator[tuple[bytes, Key]]:
        return self._lines(RAW_LIVE, _raw_key, growing=growing, longest=LONGEST_RAW_LINE)

    def _stored_rows(self) -> Counter[Key]:
        """Return the rows of each repetition in the Parquet file. Raises FileNotFoundError and `Damaged`."""
        rows: Counter[Key] = Counter()
        with self.files.open(RAW_FILE) as file, open_parquet(file) as (parquet, checked):
            names = ["case", "repetition"]
            if not set(names) <= set(parquet.schema_arrow.names):
                raise Damaged("has no columns case and repetition")
            # Without a checksum all pages are read, to see at least whether they can be.
            for batch in within_bounds(parquet).iter_batches(1 << 16, columns=names if checked else None):
                keys = pa.table([batch.column(name) for name in names], names=names)
                counts = keys.group_by(names, use_threads=False).aggregate([([], "count_all")])
                for case, repetition, count in zip(
                    *counts.select([*names, "count_all"]).to_pydict().values(), strict=True
                ):
                    rows[case, repetition] += count
        return rows

    # -- writing --------------------------------------------------------------------------------------------------

    def write_record(self, record: BatchRecord) -> None:
        """Replace batch.json atomically."""
        atomic_write(self.record_path, seal(orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2)))

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
        self.mend(("cases.jsonl", RAW_LIVE))
        self._compact_raw()
        rows = [sample for _, sample in self._lines("live/resources.jsonl", _sample, growing=True)]
        if self.is_damaged("live/resources.jsonl"):
            self.mend(("live/resources.jsonl",))
        if rows:
            fresh = pa.Table.from_pylist(rows, pa.schema(list(SAMPLE.items())))
            known = self.files.table("resources.parquet", SAMPLE, SAMPLE_NEEDS, LOST["resources.parquet"])
            if known is not None:
                again = pa.compute.is_in(known["invocation"], fresh["invocation"].combine_chunks())
                fresh = pa.concat_tables([known.filter(pa.compute.invert(again)), fresh])
            write_parquet(fresh, self.resources_path)
        self.resources_live.unlink(missing_ok=True)
        if self.resources_live.parent.exists() and not any(self.resources_live.parent.iterdir()):
            self.resources_live.parent.rmdir()

    def set_aside(self, cases: Collection[str], name: str) -> int:
        """Move all repetitions of `cases`, with their raw events, to `set-aside/<name>/`; return how many there were.

        They are then not measured yet, and nothing of what was measured is lost. The batch must have no live writer,
        and nothing in it may be damaged (see `mend`).
        """
        lines = list(self._case_lines(growing=True))
        going = [line for line, record in lines if record.case in cases]
        if not going:
            return 0
        self._compact_raw()
        aside = self.folder / "set-aside" / name
        aside.mkdir(parents=True)
        atomic_write(aside / "cases.jsonl", b"".join(going))
        if self.raw_path.exists():
            table = read_parquet(self.raw_path)
            gone = pa.compute.is_in(table["case"], pa.array(sorted(cases)))
            write_parquet(table.filter(gone), aside / self.raw_path.name)
            write_parquet(table.filter(pa.compute.invert(gone)), self.raw_path)
        atomic_write(self.cases_path, b"".join(line for line, record in lines if record.case not in cases))
        self._count_again()
        (self.folder / "done.json").unlink(missing_ok=True)
        return len(going)

    def mend(self, names: Collection[str] = LINES) -> list[Damage]:
        """Put files in which something cannot be read into `set-aside/<time>.damaged/` and keep the rest of them.

        So a job can go on: a repetition whose line is broken is measured again, since nothing tells that it was, and
        one whose raw events are lost keeps its record and stays invalid until `aifbench retry`. The batch must have no
        other live writer; `names` are the files of lines that are looked into. Returns what was damaged.
        """
        inspected = BatchStore(self.folder)
        for name in names:
            for _ in inspected._whole_lines(name):
                pass
        inspected.lost(inspected.read_record(), inspected.read_cases())
        inspected.files.table("resources.parquet", SAMPLE, SAMPLE_NEEDS, LOST["resources.parquet"])
        with inspected.files.naming(RAW_FILE, LOST[RAW_FILE]):
            inspected._stored_rows()
        if not inspected.damage:
            return []
        aside = _fresh_folder(self.folder / "set-aside", "damaged")
        for name in dict.fromkeys(damage.file for damage in inspected.damage):
            kept = BatchStore(self.folder)
            lines = list(kept._whole_lines(name)) if name in names else []
            path, grave = _odd_part(self.folder, name), aside / name.replace("/", "-")
            if lines:
                os.link(path, grave)
                atomic_write(path, b"".join(lines))
            elif path.exists() or path.is_symlink():
                path.rename(grave)
        if inspected.is_damaged("cases.jsonl"):
            self._count_again()
        if inspected.is_damaged("cases.jsonl") or inspected.is_damaged("batch.json"):
            (self.folder / "done.json").unlink(missing_ok=True)  # so that the workflow runs it, and writes them whole
        return inspected.damage

    def _whole_lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a file that can be read, as they stand there."""
        if name == "cases.jsonl":
            lines: Iterator[tuple[bytes, Any]] = self._case_lines(growing=False)
        elif name == RAW_LIVE:
            lines = self._raw_lines(growing=False)
        else:
            lines = self._lines(name, _statement if name == "log.jsonl" else _sample, growing=False)
        return (line for line, _ in lines)

    def _count_again(self) -> None:
        """Make batch.json tell how many repetitions are there."""
        record = self.read_record()
        if record is not None:
            record.done = dict(Counter(case.case for case in self.read_cases()))
            self.write_record(record)

    def _compact_raw(self) -> None:
        stored = read_parquet(self.raw_path) if self.raw_path.exists() else None
        table = self._with_live(stored)
        if table is not None:
            write_parquet(table, self.raw_path)
        self.raw_live.unlink(missing_ok=True)

    def _with_live(self, stored: Any | None) -> Any | None:
        """Return the stored operations and the recorded live ones, each repetition once; None where there are none."""
        wanted = {(case.case, case.repetition) for case in self.read_cases() if case.raw is not None}
        live: dict[Key, Any] = {}
        for line, key in self._raw_lines():
            if key in wanted:  # the last: a writer may have been killed between its events and its record
                columns = orjson.loads(line)["columns"]
                rows = len(next(iter(columns.values()))) if columns else 0
                live[key] = pa.table({"case": [key[0]] * rows, "repetition": [key[1]] * rows, **columns})
        if stored is None:
            return _concat(list(live.values())) if live else None
        seen = set(zip(stored["case"].to_pylist(), stored["repetition"].to_pylist(), strict=True))
        return _concat([stored, *(rows for key, rows in live.items() if key not in seen)])


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


def _append(path: Path, value: dict[str, Any]) -> None:
    data = seal(orjson.dumps(value)) + b"\n"
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
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


def _sample(line: bytes) -> dict[str, Any]:
    """Return a live sample with the columns of `SAMPLE`. Raises `Damaged`."""
    values = unseal(line)
    gpu = values.get("gpu")
    values["gpu"] = None if gpu is None else orjson.dumps(gpu).decode()
    sample = {}
    for name, kinds in _KINDS.items():
        value = sample[name] = values.get(name)
        if type(value) not in kinds or (type(value) is int and not -(2**63) <= value < 2**63):
            raise Damaged(f"is no sample: {name}")
    return sample


def _statement(line: bytes) -> dict[str, Any]:
    """Return a statement of the log. Raises `Damaged`."""
    value = unseal(line)
    t, level, case, msg = (value.get(name) for name in ("t", "level", "case", "msg"))
    if not (isinstance(t, str) and level in (0, 1, 2) and isinstance(case, str | None) and isinstance(msg, str)):
        raise Damaged("is no statement")
    return {"t": t, "level": int(level), "case": case, "msg": msg}


def _raw_key(line: bytes) -> Key:
    """Return which repetition a live line of raw events is of. Raises `Damaged`."""
    match = _RAW_KEY.match(line)
    if match is not None and is_sealed(line):
        return match[1].decode(), int(match[2])
    value = unseal(line)
    case, repetition, columns = (value.get(name) for name in ("case", "repetition", "columns"))
    try:
        pa.table(columns)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError):
        raise Damaged("holds no columns of raw events") from None
    if not (isinstance(case, str) and isinstance(repetition, int)):
        raise Damaged("does not name its repetition")
    return case, repetition


def _odd_part(folder: Path, name: str) -> Path:
    """Return the first part of a path below a folder that is a link or no folder, the file itself at last."""
    path = folder
    for part in name.split("/"):
        path /= part
        if path.is_symlink() or not path.is_dir():
            break
    return path


def _fresh_folder(parent: Path, ending: str) -> Path:
    """Make a folder that is named after the time of now."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for number in range(1000):
        folder = parent / (f"{now}.{ending}" if not number else f"{now}-{number}.{ending}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise FileExistsError(17, "too many folders", str(parent))
