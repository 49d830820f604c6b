"""Log statements of a batch: JSON lines `{t, level, benchmark, batch, case, msg}`; level 0 info, 1 warning, 2 error."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson

INFO, WARNING, ERROR = 0, 1, 2


class BatchLog:
    """Appends statements to a file and shows warnings and errors on the console."""

    def __init__(self, path: Path, benchmark: str, batch: str, echo: Path | None = None) -> None:
        self._file = path.open("ab")
        self._echo = echo.open("a", encoding="utf-8") if echo else None
        self.benchmark, self.batch = benchmark, batch

    def write(self, level: int, msg: str, case: str | None = None) -> None:
        """Write one statement. Newlines and control characters stay escaped inside one line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"t": now, "level": level, "benchmark": self.benchmark, "batch": self.batch, "case": case, "msg": msg}
        self._file.write(orjson.dumps(record) + b"\n")
        self._file.flush()
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in msg)
        if self._echo:
            print(f"{now} {('info', 'warning', 'error')[level]:7} {case or '-':12} {text}", file=self._echo, flush=True)
        if level >= WARNING:
            print(f"{self.batch}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._echo:
            self._echo.close()
