"""Push statements to a log store, by Grafana Loki's protocol: in batches, compressed, by a thread of its own.

A caller never waits: when the store is away, or slower than we are, the oldest of the queue go, and are counted.
Labels are few and have few values (`app, cluster, service, level`); all else is structured metadata of a line.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson

from aifbench.log.writer import LEVELS
from aifbench.services.log.configs import Loki, push_address

MOST_LINES = 500
MOST_WAIT_S = 1.0
CAPACITY = 20_000
"""Statements that wait at most: 80 MiB if each has the longest text."""
TIMEOUT_S = 10.0
BACK_OFF_S = (0.5, 30.0)
"""First and longest pause after a failure."""
SERVICES = frozenset({"client", "monitor", "log", "job"})
"""Values of the label `service`; whatever else a sender calls itself is `other`, and stands in the metadata."""
METADATA = {
    "run": "run_id",
    "benchmark": "benchmark",
    "batch": "batch",
    "case": "case",
    "node": "node",
    "slurm_job_id": "slurm_job_id",
    "rule": "rule",
}
REFUSED = frozenset({400, 413, 422})
"""Answers that another try would get again."""
_IGNORED = re.compile(r"total ignored: (\d+) out of \d+|(\d+) errors like: ")
_ONE_IGNORED = re.compile(r"entry for stream .* has timestamp too (old|new)", re.DOTALL)
"""How Loki says that it took a batch but for some lines."""


class LokiPush:
    """The queue and the thread. `offered == sent + refused + dropped + waiting` holds at any time."""

    def __init__(self, target: Loki, capacity: int = CAPACITY) -> None:
        address, self._path = push_address(target.url)
        self._target, self._capacity = target, capacity
        self._host, self._port, self._tls = address.host, address.port, address.tls
        _headers(target)  # a credentials file that cannot work is told at once
        self._queue: deque[dict[str, Any]] = deque()
        self._flight: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="loki", daemon=True)
        self.offered = self.sent = self.refused = self.dropped = 0
        self.problem: str | None = None
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Statements that are neither sent nor given up."""
        return len(self._queue) + len(self._flight)

    def offer(self, records: Sequence[dict[str, Any]]) -> None:
        """Queue records and return at once."""
        with self._changed:
            self.offered += len(records)
            self._queue.extend(records)
            while len(self._queue) > self._capacity:
                self._queue.popleft()
                self.dropped += 1
            if len(self._queue) >= MOST_LINES:
                self._changed.notify()

    def stop(self, seconds: float) -> None:
        """Send what can be sent in that time, then end; the rest counts as dropped."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            self.dropped += len(self._queue) + len(self._flight)
            self._queue.clear()
            self._flight = []

    def _work(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while self._take():
            body = gzip.compress(orjson.dumps(payload(self._flight, self._target.cluster)), 5)
            failures = 0
            while self._flight:
                try:
                    connection = connection or self._connect()
                    connection.request("POST", self._path, body, _headers(self._target))
                    answer = connection.getresponse()
                    text, status = answer.read(4096).decode(errors="replace"), answer.status
                    pause = answer.headers.get("retry-after")
                    if answer.will_close or not answer.isclosed():
                        connection.close()
                        connection = None
                except (OSError, ValueError, http.client.HTTPException) as error:
                    if connection is not None:
                        connection.close()
                    connection, status, pause, text = None, 0, None, getattr(error, "strerror", None) or str(error)
                if self._settle(status, text):
                    break
                failures += 1
                if self._rest(failures, pause):
                    return
        if connection is not None:
            connection.close()

    def _take(self) -> bool:
        """Wait for a batch and put it in flight; return False when all is done."""
        with self._changed:
            deadline = None
            while not self._ending and len(self._queue) < MOST_LINES:
                now = time.monotonic()
                if self._queue and deadline is None:
                    deadline = now + MOST_WAIT_S
                if deadline is not None and now >= deadline:
                    break
                self._changed.wait(MOST_WAIT_S if deadline is None else deadline - now)
            self._flight = [self._queue.popleft() for _ in range(min(MOST_LINES, len(self._queue)))]
            return bool(self._flight) or not self._ending

    def _settle(self, status: int, text: str) -> bool:
        """Count the batch in flight if the answer is final; return whether it is."""
        with self._changed:
            if 200 <= status < 300:
                self.sent += len(self._flight)
                self.problem = None
            elif status in REFUSED:
                refused = _ignored(text, len(self._flight))
                self.refused += refused
                self.sent += len(self._flight) - refused
                self.problem = f"the log store refused {refused} of {len(self._flight)} statements: {_short(text)}"
            else:
                answer = f"the log store answers {status}: {_short(text)}"
                hint = f" (does it take pushes at {self._path}? See `url`)" if status in {404, 405} else ""
                self.problem = answer + hint if status else f"the log store cannot be reached: {text}"
                return False
            self._flight = []
            return True

    def _rest(self, failures: int, retry_after: str | None) -> bool:
        """Wait before the next try; return whether the end has come meanwhile."""
        first, longest = BACK_OFF_S
        pause = random.uniform(0.5, 1.0) * min(longest, first * 2 ** min(failures - 1, 16))
        if retry_after and retry_after.isdigit():
            pause = max(pause, min(float(retry_after), longest))
        with self._changed:
            return self._changed.wait_for(lambda: self._ending, pause)

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=TIMEOUT_S)


def payload(records: Iterable[dict[str, Any]], cluster: str) -> dict[str, Any]:
    """Return the body of a push: records grouped into streams by their labels.

    Statements of one millisecond keep their order by the nanoseconds that we add.
    """
    streams: dict[tuple[str, str], list[Any]] = {}
    for number, record in enumerate(records):
        service = record.get("service")
        metadata = {METADATA[name]: visible(str(record[name])) for name in METADATA if record.get(name)}
        if service not in SERVICES:
            if service:
                metadata["sender"] = visible(service)
            service = "other"
        stamp = _nanoseconds(record["t"]) + number
        line = [str(stamp), visible(record["msg"]), metadata]
        streams.setdefault((service, LEVELS[record["level"]]), []).append(line)
    return {
        "streams": [
            {"stream": {"app": "aifbench", "cluster": cluster, "service": service, "level": level}, "values": values}
            for (service, level), values in streams.items()
        ]
    }


def visible(text: str) -> str:
    """Return a text as one line in which nothing is left that a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _ignored(text: str, lines: int) -> int:
    """Return how many of the lines of a batch an answer 400 has refused: all, unless it says otherwise."""
    counted = sum(int(first or second) for first, second in _IGNORED.findall(text))
    if counted == 0 and _ONE_IGNORED.match(text):
        counted = 1
    return min(counted, lines) if counted else lines


def _nanoseconds(text: str) -> int:
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        seconds = time.time()
    return round(seconds * 1000) * 1_000_000


def _headers(target: Loki) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "User-Agent": "aifbench"}
    if target.tenant:
        headers["X-Scope-OrgID"] = target.tenant
    secret = target.secret()
    if secret is not None:
        text = secret.get_secret_value()
        basic = base64.b64encode(text.encode()).decode()
        headers["Authorization"] = f"Basic {basic}" if ":" in text else f"Bearer {text}"
    return headers


def _short(text: str) -> str:
    return visible(" ".join(text.split()))[:200]
