"""What is read of a job's files when somebody asks for it: samples of a run that has ended, its log, its cases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from aifbench.files.beneath import folder_beneath, open_beneath
from aifbench.files.bounded import json_beneath
from aifbench.files.tail import Tail
from aifbench.services.monitor.jobs import LOG
from aifbench.services.monitor.series import LONGEST_NAME, Grouping, Sample
from aifbench.services.values import text

LOG_BYTES = 64 << 10
"""Of the end of a log that are given first."""
LONGEST_LABEL = 500
LONGEST_MESSAGE = 4096
ROWS_AT_ONCE = 8192
MOST_ROWS = 4_000_000
"""Rows of the samples of an ended job that are read: two weeks of three roles a second."""


def labels(results: Path, campaign: str, batch: str) -> dict[str, str]:
    """Return what tells each case of a batch from the others, as the plan says it; empty where it does not."""
    try:
        cases = json_beneath(results, campaign, "plan.json")["cases"]
        told = {
            text(case["case"], LONGEST_NAME): text(case.get("label"), LONGEST_LABEL)
            for case in cases
            if case.get("batch") == batch
        }
    except (OSError, KeyError, TypeError, AttributeError):
        return {}
    return {case: label for case, label in told.items() if case and label}


def log_piece(results: Path, campaign: str, batch: str, since: int | None) -> dict[str, Any]:
    """Return `{lines, next, restarted}` of a job's log from byte `since` on, or of its end.

    `restarted` tells that the file is shorter than `since`, or that no line begins there: then its end is given.
    """
    tail, lines = Tail(LOG), []
    restarted = since is not None and since > 0
    with contextlib.suppress(OSError), folder_beneath(results, campaign, "batches", batch) as folder:
        if since is not None and tail.start_at(folder, since):
            restarted = False
        else:
            tail.start_near_end(folder, LOG_BYTES)
        lines = [line for line in map(log_line, tail.read(folder, 1)) if line is not None]
    return {"lines": lines, "next": tail.offset, "restarted": restarted}


def log_line(data: bytes) -> dict[str, Any] | None:
    """Return one statement of a log as `{t, level, case, msg}`, None when it is none."""
    try:
        found = orjson.loads(data)
        level = found["level"] if found["level"] in (0, 1, 2) else 2
        told = {"t": text(found["t"], 40), "level": int(level), "case": text(found.get("case"), LONGEST_NAME)}
        told["msg"] = text(found["msg"], LONGEST_MESSAGE)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return told if told["t"] is not None and told["msg"] is not None else None


def stored_samples(folder: int, invocation: Any) -> Iterator[Sample]:
    """Yield the samples of one invocation from `resources.parquet` in an open folder; none where it cannot be read."""
    from aifbench.records.arrow import pa, pq

    grouping = Grouping()
    try:
        with open_beneath(folder, "resources.parquet") as file:
            pieces = pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE)
            for row in islice((row for piece in pieces for row in piece.to_pylist()), MOST_ROWS):
                if row.get("invocation") == invocation:
                    yield from grouping.add({**row, "gpu": _gpus(row.get("gpu"))})
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
        return


def _gpus(told: Any) -> Any:
    try:
        return orjson.loads(told) if isinstance(told, str) else None
    except orjson.JSONDecodeError:
        return None
