"""Follow what running jobs write into `<results>/<run>/batches/<batch>/log.jsonl`, by the sizes of the files.

File systems that nodes share send no notice of a change, so sizes are asked for: of files that grow each second, of
all others once a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from aifbench.files import open_beneath
from aifbench.services.ids import is_id

LIST_S = 5.0
"""Between two looks for new batches."""
ALL_S = 60.0
"""Between two looks at files that have not grown for a while."""
ACTIVE_S = 600.0
MOST_AT_ONCE = 1 << 20
"""Bytes read of one file per look; more follows with the next."""


@dataclass
class _File:
    offset: int
    active_until: float


class Tail:
    """Returns the new statements of all jobs at each `poll`, with `run` and `service` added."""

    def __init__(self, results: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._results, self._clock = results, clock
        self._files: dict[tuple[str, str], _File] = {}
        self._started = False
        self._listed = self._all = float("-inf")

    @property
    def offsets(self) -> dict[str, int]:
        """Bytes read of each file, to go on from after a restart."""
        return {"/".join(key): file.offset for key, file in self._files.items()}

    def resume(self, offsets: dict[str, int]) -> None:
        """Go on where an earlier one stopped. What it never saw is read from the start."""
        for name, offset in offsets.items():
            run, _, batch = name.partition("/")
            self._files[run, batch] = _File(int(offset), float("-inf"))
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
        runs = _folders(self._results)
        if not runs and self._files:
            return  # a file system that is away for a moment has no runs either
        for run in runs:
            for batch in _folders(self._results / run / "batches"):
                key = (run, batch)
                present.add(key)
                if key not in self._files:
                    self._files[key] = _File(0, now + ACTIVE_S) if self._started else _File(-1, float("-inf"))
        for key in self._files.keys() - present:
            del self._files[key]

    def _read(self, run: str, batch: str, file: _File, now: float) -> list[dict[str, Any]]:
        try:
            with open_beneath(self._results, run, "batches", batch, "log.jsonl") as opened:
                facts = os.fstat(opened.fileno())
                size = facts.st_size
                if time.time() < facts.st_mtime + ACTIVE_S:
                    file.active_until = now + ACTIVE_S
                if file.offset < 0:
                    file.offset = size
                if size == file.offset:
                    return []
                if size < file.offset:  # written anew
                    file.offset = 0
                data = os.pread(opened.fileno(), MOST_AT_ONCE, file.offset)
        except FileNotFoundError:
            file.offset = 0
            return []
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == MOST_AT_ONCE:
            end = len(data)  # no line of ours is that long
        file.offset += end
        return [record for line in data[:end].split(b"\n") if (record := job_record(line, run, batch)) is not None]


def job_record(line: bytes, run: str, batch: str) -> dict[str, Any] | None:
    """Return a line of a batch's log as a record with `run` and `service`, or None when it is none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or record.get("level") not in (0, 1, 2) or not isinstance(record.get("msg"), str):
        return None
    if not isinstance(record.get("t"), str):
        return None
    rest = {key: value for key, value in record.items() if key not in {"t", "level"} and isinstance(value, str)}
    return {"t": record["t"], "level": record["level"], "run": run, "service": "job", "batch": batch, **rest}


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if is_id(entry.name) and entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
