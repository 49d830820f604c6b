"""One round: a fresh worker process, the job that it is given, and what becomes of the events that it sends."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from aifbench.campaign.spec import SpecCase
from aifbench.core.params import Params
from aifbench.processes.process import Group
from aifbench.runner.console import Console
from aifbench.runner.ended import Ended
from aifbench.runner.recorder import Current, Recorder, outcome

POLL_S = 0.5
CASE_TIMEOUT_FACTOR = 20.0
CASE_TIMEOUT_FLOOR_S = 180.0
TIMEOUT = "no answer in time; the process was ended"


class WorkerProcess:
    """A worker process (`aifbench.runner.worker`) and the deadline for its next event."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], job: dict[str, Any], errors: Path) -> None:
        self.group = Group(argv, stderr=errors, environment=environment, pipes=True)
        self.errors = errors
        self.started_ns = time.monotonic_ns()
        self.deadline = float("inf")
        self._write(orjson.dumps(job) + b"\n")

    def go_on(self) -> None:
        """Let the next case begin; none waits after the last."""
        self.allow(0.0)
        self._write(b"\n")

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its output tells
            self.group.stdin.write(line)
            self.group.stdin.flush()

    def allow(self, expected_s: float) -> None:
        """Set the deadline of the next event, which is expected in `expected_s`."""
        self.deadline = time.monotonic() + max(CASE_TIMEOUT_FLOOR_S, CASE_TIMEOUT_FACTOR * expected_s)

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


class Round:
    """What is known of a running round. `params` and `expected_s` are parameters and seconds of each case."""

    def __init__(
        self,
        repetition: int,
        cases: Sequence[SpecCase],
        params: Mapping[str, Params],
        expected_s: Mapping[str, float],
        *,
        worker: WorkerProcess,
        recorder: Recorder,
        console: Console,
    ) -> None:
        self._repetition = repetition
        self._params, self._expected_s = params, expected_s
        self._worker, self._recorder, self._console = worker, recorder, console
        self._left = {entry.case: entry for entry in cases}
        self._current: Current | None = None
        self._broken: tuple[str, str] | None = None
        setup_s = params[cases[0].case].expected_setup_seconds()
        worker.allow(setup_s)
        recorder.begin("prepare", None, repetition, setup_s)
        self._show("preparing")

    def on_event(self, event: dict[str, Any], check: Callable[[], None]) -> None:
        """Record and show one event. `check` is called before a repetition counts; what it raises goes through."""
        kind, current = event["event"], self._current
        if kind == "prepared":
            self._recorder.prepared(self._repetition, self._worker.started_ns, event["facts"], event["packages"])
            self._worker.go_on()
        elif kind == "begin":
            self._current = Current(event["case"], self._repetition, time.monotonic_ns())
            self._worker.allow(self._expected_s[event["case"]])
            self._begin("measure", event["case"])
            self._show(_label(self._params[event["case"]]))
        elif kind == "phase" and current:
            current.phases.append((event["name"], event["t_ns"]))
            self._show(f"{_label(self._params[current.case])}: {event['name'].replace('_', ' ')}")
            self._begin(event["name"], current.case)
        elif kind == "progress":
            self._recorder.progress(event["records"])
        elif kind == "log":
            self._recorder.log.write(event["level"], event["msg"], current.case if current else None)
            if current is None:
                self._show(event["msg"])
        elif kind in {"measured", "failed"} and current:
            check()
            self._record(current, event)
            self._current = None
            self._worker.go_on()
        elif kind == "broken":
            self._broken = event["kind"], event["message"]

    def end(self, code: int) -> list[SpecCase]:
        """Take the exit code of the worker; return the cases that a broken one left unmeasured.

        The one that it was measuring has failed. Raises `Ended` when it broke before any: the others would do the same.
        """
        if code == 0 and not self._left:
            return []
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        kind, reason = self._broken or ("worker_crashed", f"the worker process ended {how}")
        if self._current is None:
            raise Ended("client_error", f"{kind}: {reason}; see {self._worker.errors}")
        times = {"t_start_ns": self._current.begin_ns, "t_end_ns": time.monotonic_ns()}
        self._record(self._current, {"event": "failed", "kind": kind, "message": reason, **times})
        return list(self._left.values())

    def _record(self, current: Current, event: Mapping[str, Any]) -> None:
        record = self._recorder.record(current, event)
        label = _label(self._params[current.case])
        self._console.advance(f"{label}  repetition {self._repetition + 1}  {outcome(record, self._recorder.headline)}")
        del self._left[current.case]

    def _begin(self, phase: str, case: str) -> None:
        self._recorder.begin(phase, case, self._repetition, self._expected_s[case])

    def _show(self, step: str) -> None:
        self._console.show(f"round {self._repetition + 1}: {step}")


def _label(params: Params) -> str:
    """Return what tells a case from the others of its batch: the fields without their defaults, where there are any."""
    varying = [name for name in params.label_fields if name not in params.setup_names()]
    telling = [name for name in varying if not params.is_default(name)]
    return " ".join(text for name in telling or varying if (text := params.shown(name)))
