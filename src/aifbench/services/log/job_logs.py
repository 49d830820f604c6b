"""Follow what running jobs write into `<results>/<run>/batches/<batch>/log.jsonl`, by the sizes of the files.

File systems that nodes share send no notice of a change, so sizes are asked for: of files that grow each second, of
all others once a minute.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from aifbench.files.beneath import folder_beneath, folders_beneath, signature
from aifbench.files.tail import Tail
from aifbench.services.ids import is_id
from aifbench.services.log.statements import MOST_TEXT, TEXTS

LIST_S = 5.0
"""Between two looks for new batches."""
ALL_S = 60.0
"""Between two looks at files that have not grown for a while."""
ACTIVE_S = 600.0
MOST_AT_ONCE = 1 << 20
"""Bytes read of one file per look; more follows with the next."""
MOST_MESSAGE = 4096
"""Characters of a message of a job that are told."""
LOG = "log.jsonl"


@dataclass
class _File:
    lines: Tail
    active_until: float


class JobLogs:
    """Returns the new statements of all jobs at each `poll`, with `run` and `service` added."""

    def __init__(self, results: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._results, self._clock = results, clock
        self._files: dict[tuple[str, str], _File] = {}
        self._started = False
        self._listed = self._all = float("-inf")

    @property
    def offsets(self) -> dict[str, int]:
        """Bytes read of each file, to go on from after a restart."""
        return {"/".join(key): file.lines.offset for key, file in self._files.items()}

    def resume(self, offsets: Mapping[str, Any]) -> None:
        """Go on where an earlier one stopped. What it never saw is read from the start."""
        for name, offset in offsets.items():
            run, _, batch = name.partition("/")
            if is_id(run) and is_id(batch):
                begin = offset if type(offset) is int and offset > 0 else 0
                self._files[run, batch] = _File(Tail(LOG, begin), float("-inf"))
        self._started = bool(offsets)

    def poll(self) -> list[dict[str, Any]]:
        """Return what was written since the last call; the first call without `resume` finds where files end."""
        now = self._clock()
        if now >= self._listed + LIST_S:
            self._listed = now
            self._list(now)
        every = now >= self._all + ALL_S
        if every:
            self._all = now
        found: list[dict[str, Any]] = []
        for (run, batch), file in list(self._files.items()):
            if every or now < file.active_until:
                found += self._read(run, batch, file, now)
        self._started = True
        return found

    def _list(self, now: float) -> None:
        present = set()
        runs = [run for run in folders_beneath(self._results)[0] if is_id(run)]
        if not runs and self._files:
            return  # a file system that is away for a moment has no runs either
        for run in runs:
            for batch in filter(is_id, folders_beneath(self._results, run, "batches")[0]):
                key = (run, batch)
                present.add(key)
                if key not in self._files:
                    self._files[key] = self._first_seen(run, batch, now)
        for key in self._files.keys() - present:
            del self._files[key]

    def _first_seen(self, run: str, batch: str, now: float) -> _File:
        """Begin a file that is new at its beginning, and one that was there before us at its end."""
        lines = Tail(LOG)
        if self._started:
            return _File(lines, now + ACTIVE_S)
        with contextlib.suppress(OSError), folder_beneath(self._results, run, "batches", batch) as folder:
            lines.start_near_end(folder, 0)
        return _File(lines, float("-inf"))

    def _read(self, run: str, batch: str, file: _File, now: float) -> list[dict[str, Any]]:
        try:
            with folder_beneath(self._results, run, "batches", batch) as folder:
                there = signature(folder, LOG)
                if there is not None and time.time() < there.mtime_ns / 1e9 + ACTIVE_S:
                    file.active_until = now + ACTIVE_S
                lines = file.lines.read(folder, MOST_AT_ONCE)
                return [record for line in lines if (record := job_record(line, run, batch)) is not None]
        except OSError:
            return []


def job_record(line: bytes, run: str, batch: str) -> dict[str, Any] | None:
    """Return a line of a batch's log as a record with `run` and `service`, or None when it is none.

    Where it stands says whose it is, whatever it says itself; a long message is cut, and says so.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or record.get("level") not in (0, 1, 2) or not isinstance(record.get("msg"), str):
        return None
    if not isinstance(record.get("t"), str):
        return None
    msg = record["msg"]
    if len(msg) > MOST_MESSAGE:
        msg = f"{msg[:MOST_MESSAGE]} … (cut: {len(msg) - MOST_MESSAGE} more characters in the job's log)"
    told = {name: record[name][:MOST_TEXT] for name in TEXTS if isinstance(record.get(name), str)}
    place = {"run": run, "service": "job", "batch": batch}
    return {"t": record["t"][:40], "level": int(record["level"]), **told, **place, "msg": msg}
