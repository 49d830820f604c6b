"""Log statements of a batch: JSON lines `{t, level, benchmark, batch, case, msg}`; level 0 info, 1 warning, 2 error.

A job obeys the configurations of the log service (`aifbench serve log`) that are about it:

- none is about it, or the service never ran: everything is written;
- one or more are valid: what reaches the lowest of their levels;
- all that are about it are over: errors only.

Errors are written always, and how many statements a level held back is written as a statement of its own.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any

import orjson

from aifbench.log.levels import FILE, RulesFile, Threshold, job_fields, threshold

INFO, WARNING, ERROR = 0, 1, 2
LEVELS = ("info", "warning", "error")
LOOK_S = 2.0
"""Seconds until a job sees a changed configuration. (A file system shared by nodes sends no notice.)"""

_OBEYED = re.compile(b"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf")
"""In UTF-8: delete, the C1 controls (one of them begins a terminal code), and marks that turn the order of text."""


def encode_line(record: dict[str, Any]) -> bytes:
    """Return a record as one line of JSON in which nothing is left that a terminal or an editor would obey."""
    line = orjson.dumps(record)
    if not line.isascii() or b"\x7f" in line:
        line = _OBEYED.sub(lambda found: f"\\u{ord(found[0].decode()):04x}".encode(), line)
    return line + b"\n"


class BatchLog:
    """Appends statements to a file and shows warnings and errors on the console.

    `path` is `<results>/<campaign>/batches/<batch>/log.jsonl`; elsewhere no configuration is looked for.
    """

    def __init__(self, path: Path, benchmark: str, batch: str, echo: Path | None = None) -> None:
        self._file = path.open("ab")
        self._echo = echo.open("a", encoding="utf-8") if echo else None
        self.benchmark, self.batch = benchmark, batch
        self._levels = _Levels(path, benchmark, batch)
        self._held_back = 0
        self._level = INFO
        self._until = math.inf
        self._look_at = 0.0

    def write(self, level: int, msg: str, case: str | None = None) -> None:
        """Write one statement if its level is on. Newlines and control characters stay escaped inside one line."""
        if monotonic() >= self._look_at:
            self._look()
        if level >= self._level and time() >= self._until:
            self._look()
        if level >= self._level:
            self._write(level, msg, case)
        else:
            self._held_back += 1

    def close(self) -> None:
        """Close the files."""
        self._say_held_back()
        self._file.close()
        if self._echo:
            self._echo.close()

    def _write(self, level: int, msg: str, case: str | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"t": now, "level": level, "benchmark": self.benchmark, "batch": self.batch, "case": case, "msg": msg}
        self._file.write(encode_line(record))
        self._file.flush()
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in msg)
        if self._echo:
            print(f"{now} {LEVELS[level]:7} {case or '-':12} {text}", file=self._echo, flush=True)
        if level >= WARNING:
            print(f"{self.batch}: {text}", file=sys.stderr, flush=True)

    def _look(self) -> None:
        self._look_at = monotonic() + LOOK_S
        found = self._levels.now(time())
        self._until = found.until
        level = INFO if not found.known else ERROR if found.level is None else found.level
        if level != self._level:
            self._say_held_back()
            self._level = level
            on = LEVELS[level] if level == ERROR else f"{LEVELS[level]} and above"
            end = "" if found.level is not None or not found.known else " is over"
            why = f"log configuration '{found.name}'{end}" if found.name else "no log configuration"
            self._write(INFO, f"written from here on: {on} ({why})", None)

    def _say_held_back(self) -> None:
        if self._held_back:
            self._write(INFO, f"{self._held_back} statement(s) below '{LEVELS[self._level]}' were held back", None)
            self._held_back = 0


class _Levels:
    """The rules about one batch."""

    def __init__(self, log: Path, benchmark: str, batch: str) -> None:
        folders = log.absolute().parents  # batch, batches, campaign, results
        inside = len(folders) > 3 and folders[1].name == "batches"
        self._file = RulesFile(folders[3] / FILE) if inside else None
        self._fields = job_fields(folders[2].name if inside else None, benchmark, batch)

    def now(self, now: float) -> Threshold:
        """Return what holds at `now` (Unix seconds)."""
        return threshold(self._file.rules() if self._file is not None else [], self._fields, now)
