"""Samples of the node on which a worker runs apart from its runner: a process beside the worker, and who reads it.

The process is a child of the worker, on the worker's node and in its container. It appends one line per second to a
file that both nodes see; the runner's sampler puts the newest line into each of its samples, so that all rows of a
batch stand in one file on one clock. They are at most a second and the file system's delay older than the sample says.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.roles import CLIENT_NODE, NODE
from aifbench.sampling.sampler import INTERVAL_S, ROLE_UNKNOWN, Probe, ticks

STALE_S = 3 * INTERVAL_S
"""A line that is older tells nothing of now."""
_TOTALS = ("cpu_seconds", "read_bytes", "write_bytes", "vfs_read_bytes", "vfs_write_bytes")


class ClientNodeSamples:
    """The rows that the processes beside a batch's workers write, one worker after the other. Safe for two threads.

    Totals of a role go on from one worker to the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._node: str | None = None
        self._offset = 0
        self._rows: list[dict[str, Any]] = []
        self._seen = -math.inf
        self._before: dict[tuple[str, str], float] = {}

    def follow(self, path: Path, node: str) -> None:
        """Read the file of the next worker, which runs on `node`, from now on."""
        with self._lock:
            self._read()
            self._before |= {
                (row["role"], name): row[name]
                for row in self._rows
                for name in _TOTALS
                if row["role"] != CLIENT_NODE and row[name] is not None
            }
            self._path, self._offset, self._node = path, 0, node

    def leave(self) -> None:
        """The worker has ended: what it told last is read, and nothing is missing when no more comes."""
        with self._lock:
            self._node = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the newest rows. When none is newer than three seconds, the worker's is all null.

        When the worker has ended, what it told last is returned once.
        """
        with self._lock:
            new = self._read()
            if new or (self._node is not None and time.monotonic() - self._seen <= STALE_S):
                return self._rows
            return [] if self._node is None else [{**ROLE_UNKNOWN, "node": self._node, "role": "worker"}]

    def _read(self) -> bool:
        """Read what has come, and return whether there was a whole line."""
        try:
            if self._path is None:
                return False
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return False
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            self._offset += len(whole)
            self._seen = time.monotonic()
            self._rows = [self._going_on(row) for row in orjson.loads(whole.splitlines()[-1])]
        return bool(whole)

    def _going_on(self, row: dict[str, Any]) -> dict[str, Any]:
        known = [name for name in _TOTALS if row[name] is not None]
        return row | {name: row[name] + self._before.get((row["role"], name), 0) for name in known}


class Companion:
    """The process beside this one, on `node`, which writes to `out` until `stop`."""

    def __init__(self, out: Path, node: str) -> None:
        command = [sys.executable, "-m", "aifbench.sampling.companion", str(out), node]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """Let it take a last sample, and wait for its end."""
        self._process.terminate()
        self._process.wait()


def main() -> int:
    """Sample the parent process and this node until TERM or the parent's end. Arguments: the file, the node's name."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    worker = os.getppid()
    roots = {"worker": worker, "sampler": os.getpid()}
    probe = Probe(sys.argv[2], devices=())
    with Path(sys.argv[1]).open("ab", buffering=0) as out:
        for _ in ticks(INTERVAL_S, stop):
            if os.getppid() != worker:
                break
            *rows, node = probe.sample(roots, time.monotonic_ns())
            assert node["role"] == NODE
            out.write(orjson.dumps([*rows, {**node, "role": CLIENT_NODE}]) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
