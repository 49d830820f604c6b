"""Statements that were asked for: the newest ones of the service's own files and of the jobs' logs, merged by time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from aifbench.files.beneath import folders_beneath, open_beneath
from aifbench.files.tail import LONGEST_LINE
from aifbench.services.ids import is_id
from aifbench.services.log.files import backwards
from aifbench.services.log.job_logs import LOG, job_record

MOST_SEARCHED_BYTES = 64 << 20
ANSWER_BYTES = 4 << 20

Record = dict[str, Any]


def find(
    own: Iterable[bytes],
    recent: Iterable[Record],
    results: Path,
    *,
    run: str | None,
    level: int,
    since: str | None,
    most: int,
) -> tuple[list[Record], bool]:
    """Return the newest statements, oldest first, and whether there may be more of them.

    `own` are the lines of the service's files, newest first. With `run` the logs of its jobs are read too, without it
    there are the `recent` statements of all jobs. `since` is a time in UTC.
    """

    def wanted(record: Record) -> bool:
        of_level = record.get("level")
        return (
            isinstance(of_level, int)
            and of_level >= level
            and (run is None or record.get("run") == run)
            and (since is None or str(record.get("t")) >= since)
        )

    newest, more = _search(own, own_record, wanted, most, MOST_SEARCHED_BYTES)
    newest.sort(key=_t, reverse=True)
    if run is None:
        newest = _merged(newest, [record for record in recent if wanted(record)])
    else:
        batches = [batch for batch in folders_beneath(results, run, "batches")[0] if is_id(batch)]
        share = max(LONGEST_LINE, MOST_SEARCHED_BYTES // max(1, len(batches)))
        for batch in batches:
            parse = partial(job_record, run=run, batch=batch)
            of_job, left = _search(_job_lines(results, run, batch), parse, wanted, most, share)
            more |= left or len(newest) + len(of_job) > most
            newest = _merged(newest[:most], of_job)
    return newest[:most][::-1], more or len(newest) > most


def fitting(records: list[Record]) -> tuple[list[Record], bool]:
    """Return the newest of some records, oldest first, that an answer has room for, and whether any are left out."""
    size = 0
    for number, record in enumerate(reversed(records)):
        size += len(orjson.dumps(record)) + 1
        if size > ANSWER_BYTES:
            return records[len(records) - number :], True
    return records, False


def own_record(line: bytes) -> Record | None:
    """Return a line of the service's files as a record, or None when it is none (a writer was killed within it)."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("t"), str) else None


def _search(
    lines: Iterable[bytes],
    parse: Callable[[bytes], Record | None],
    wanted: Callable[[Record], bool],
    most: int,
    most_bytes: int,
) -> tuple[list[Record], bool]:
    """Return at most `most` records that are wanted, in the order of `lines`, and whether older ones may be left.

    Reads at most `most_bytes`. `parse` gives None for a line that is no record.
    """
    records: list[Record] = []
    read = 0
    for line in lines:
        read += len(line)
        if read > most_bytes:
            return records, True
        record = parse(line)
        if record is not None and wanted(record):
            if len(records) == most:
                return records, True
            records.append(record)
    return records, False


def _job_lines(results: Path, run: str, batch: str) -> Iterable[bytes]:
    try:
        with open_beneath(results, run, "batches", batch, LOG) as file:
            yield from backwards(file)
    except OSError:
        return


def _merged(one: list[Record], other: list[Record]) -> list[Record]:
    """Return the records of both, the newest first; `one` is in that order already."""
    return list(heapq.merge(one, sorted(other, key=_t, reverse=True), key=_t, reverse=True))


def _t(record: Record) -> str:
    return str(record.get("t"))
