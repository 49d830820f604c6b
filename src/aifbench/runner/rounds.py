"""One round: a fresh worker process, the job it is given and the events that it sends."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from aifbench.processes.process import Group

POLL_S = 0.5
TIMEOUT = "no answer in time; the process was ended"


class WorkerProcess:
    """A worker process (`aifbench.runner.worker`) and the deadline for its next event."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], job: dict[str, Any], errors: Path) -> None:
        self.group = Group(argv, stderr=errors, environment=environment, pipes=True)
        self.started_ns = time.monotonic_ns()
        self.deadline = float("inf")
        self._write(orjson.dumps(job) + b"\n")

    def go_on(self, seconds: float) -> None:
        """Let the next case begin (none waits after the last); the next event must come within `seconds`."""
        self.allow(seconds)
        self._write(b"\n")

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its output tells
            self.group.stdin.write(line)
            self.group.stdin.flush()

    def allow(self, seconds: float) -> None:
        """Set the deadline of the next event to `seconds` from now."""
        self.deadline = time.monotonic() + seconds

    def events(self, wake: int, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Yield events until the worker closes its output; a last `broken` event when the deadline passes.

        `check` is called between reads, at least every half second and at once when `wake` becomes readable;
        what it raises ends the iteration.
        """
        buffer = b""
        output = self.group.stdout.fileno()
        while True:
            ready, _, _ = select.select([output, wake], [], [], POLL_S)
            check()
            if output in ready:
                data = os.read(output, 1 << 20)
                if not data:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                yield from map(orjson.loads, lines)
            elif time.monotonic() > self.deadline:
                self.group.stop(grace_s=2)
                yield {"event": "broken", "kind": "timeout", "message": TIMEOUT}
                return

    def end(self) -> int:
        """Wait for the worker's own exit, end what is left of its group and return the exit code."""
        return self.group.end()
