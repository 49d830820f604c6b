"""What becomes of each statement: written, filtered, expired or dropped; who is told of it, and how many there were."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from aifbench.log.writer import LEVELS, encode_line
from aifbench.services.log.configs import Configs, Loki
from aifbench.services.log.files import LogFiles
from aifbench.services.log.loki import LokiPush
from aifbench.services.log.statements import moment
from aifbench.services.stream import Hub

MOST_RECENT = 5000
END_S = 0.7
"""Seconds that the log store gets at the end of a push."""
DECISIONS = ("written", "filtered", "expired", "dropped")
PUSHED = ("offered", "sent", "refused", "dropped")

_log = logging.getLogger("aifbench.services.log")


class Intake:
    """Writes statements to the files, and tells the live tail and the log store of them.

    `recent` are the newest statements of jobs, which have files of their own.
    """

    def __init__(self, configs: Configs, quota: int, clock: Callable[[], float]) -> None:
        self._configs, self._quota, self._clock = configs, quota, clock
        self._lock = asyncio.Lock()
        self.hub = Hub()
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        self.problem: str | None = "starting"
        self._files: LogFiles | None = None
        self._push: LokiPush | None = None
        self._pushed_before: Counter[str] = Counter()
        self._counts: Counter[tuple[int, str]] = Counter()

    def open(self, folder: Path) -> None:
        """Open the files. Raises OSError, and ConfigError when another process writes there."""
        self._files = LogFiles(folder, self._quota)
        self.problem = None

    def close(self) -> None:
        """Give the log store a last moment, and close the files."""
        if self._push is not None:
            self._push.stop(END_S)
            if self._push.dropped:
                _log.warning("%d statement(s) did not reach Loki; the files have them", self._push.dropped)
        if self._files is not None:
            self._files.close()

    @property
    def pushes(self) -> bool:
        """Whether statements go to a log store."""
        return self._push is not None

    async def push_to(self, target: Loki | None) -> None:
        """Push to another log store from now on, or to none. Raises ValueError for credentials that cannot work."""
        new = await anyio.to_thread.run_sync(LokiPush, target) if target is not None else None
        old, self._push = self._push, new
        if old is not None:
            await anyio.to_thread.run_sync(old.stop, END_S)
            for name in PUSHED:
                self._pushed_before[name] += getattr(old, name)

    async def write(self, records: list[dict[str, Any]]) -> dict[str, int]:
        """Write the records whose level is on now; return how many were written, filtered, expired, dropped."""
        counts = dict.fromkeys(DECISIONS, 0)
        kept: list[dict[str, Any]] = []
        last: tuple[str | None, ...] | None = None
        threshold = None
        for record in records:
            get = record.get
            key = (get("run"), get("benchmark"), get("batch"), get("service"))
            if threshold is None or key != last:
                threshold, last = self._configs.threshold(record), key
            level = record["level"]
            if threshold.level is None:
                decision = "expired" if threshold.known else "filtered"
            elif level < threshold.level:
                decision = "filtered"
            else:
                kept.append(record)
                continue
            counts[decision] += 1
            self._counts[level, decision] += 1
        if kept:
            decision = "written" if await self._append(kept) else "dropped"
            counts[decision] = len(kept)
            for record in kept:
                self._counts[record["level"], decision] += 1
        return counts

    async def audit(self, level: int, text: str) -> None:
        """Write a statement of our own, whatever the configurations say; it is not counted among those of others."""
        await self._append([{"t": moment(self._clock()), "level": level, "service": "log", "msg": text}])

    def newest_first(self) -> Iterator[bytes]:
        """Return the lines of the files, newest first."""
        assert self._files is not None
        return self._files.newest_first()

    def follow(self, records: list[dict[str, Any]]) -> None:
        """Tell of statements that jobs have written into files of their own."""
        self.recent.extend(records)
        self._tell(records, [encode_line(record) for record in records])

    async def _append(self, records: list[dict[str, Any]]) -> bool:
        lines = [encode_line(record) for record in records]
        assert self._files is not None
        try:
            async with self._lock:
                await anyio.to_thread.run_sync(self._files.append, b"".join(lines))
        except OSError as error:
            problem = f"statements cannot be written: {error.strerror or error}"
            if problem != self.problem:
                _log.error("%s", problem)
            self.problem = problem
            return False
        self.problem = None
        self._tell(records, lines)
        return True

    def _tell(self, records: list[dict[str, Any]], lines: list[bytes]) -> None:
        """Give written statements to the live tail and to the log store."""
        pairs = zip(records, lines, strict=True)
        for (level, run), group in itertools.groupby(pairs, lambda pair: (pair[0]["level"], pair[0].get("run") or "")):
            self.hub.publish(b"[" + b",".join(line[:-1] for _, line in group) + b"]", "statements", f"{level} {run}")
        if self._push is not None:
            self._push.offer(records)

    def collect(self) -> Iterable[Metric]:
        """Yield the counters of statements and of the push."""
        statements = CounterMetricFamily(
            "aif_log_statements", "Statements by what became of them.", labels=["level", "decision"]
        )
        for level in range(3):
            for decision in DECISIONS:
                statements.add_metric([LEVELS[level], decision], self._counts[level, decision])
        yield statements
        result = CounterMetricFamily(
            "aif_log_loki_statements", "Statements for Loki by what became of them.", labels=["result"]
        )
        pushed = self._push_counts()
        for name in ("sent", "refused", "dropped"):
            result.add_metric([name], pushed[name])
        yield result
        yield GaugeMetricFamily("aif_log_loki_waiting", "Statements that wait for Loki.", pushed["waiting"])
        aged = self._files.aged_out if self._files is not None else 0
        yield CounterMetricFamily("aif_log_aged_out_statements", "Statements that the quota has removed.", aged)

    def status(self) -> dict[str, Any]:
        """Return what became of all statements since the start, the size of the files, and how the log store is."""
        assert self._files is not None
        return {
            "statements": {name: sum(self._counts[level, name] for level in range(3)) for name in DECISIONS},
            "file": {"bytes": self._files.size, "quota_bytes": self._quota, "aged_out": self._files.aged_out},
            "loki": {**self._push_counts(), "problem": self._push.problem} if self._push is not None else None,
            "problem": self.problem,
        }

    def _push_counts(self) -> dict[str, int]:
        now = self._push
        counts = {name: self._pushed_before[name] + (getattr(now, name) if now else 0) for name in PUSHED}
        return {**counts, "waiting": now.waiting if now else 0}
