"""The process of one round: reads one job (a JSON line) from standard input, writes events (JSON lines) to its output.

Job: `{benchmark, repetition, work_dir, cache_dir, target_dir, endpoints, samples, cases: [{case, params, seed}]}`, the
cases in order. `samples` is null, or on another node than the runner's `{path, node}`: the file for the samples of this
one, and its name.
Before each case it waits for an empty line: the runner sends it when the last case is on disk and evaluated, so that
none of this runs beside a measurement.
Events: `prepared {facts, packages}`, `begin {case}`, `phase {name, t_ns}`, `progress {records}`, `log {level, msg}`,
`measured {case, t_start_ns, t_end_ns, raw, facts}`, `failed {case, kind, message, t_start_ns, t_end_ns}`, `done`.
Times are CLOCK_MONOTONIC. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from aifbench import registry
from aifbench.core.benchmark import CaseFailed, Context
from aifbench.machine.provenance import packages
from aifbench.records.store import plain_columns
from aifbench.sampling.companion import Companion


class _Events:
    """Writes events to the runner."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def send(self, event: str, **values: Any) -> None:
        """Write one event and flush it."""
        data = orjson.dumps({"event": event, **values}, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        self._stream.write(data + b"\n")
        self._stream.flush()


def run(job: dict[str, Any], events: _Events, go_on: Callable[[], object]) -> None:
    """Run one round; `go_on` blocks until the next case may begin, and raises when nobody waits for it."""
    benchmark = registry.benchmark(job["benchmark"])
    context = Context(
        benchmark=job["benchmark"],
        repetition=job["repetition"],
        seed=0,
        work_dir=Path(job["work_dir"]),
        cache_dir=Path(job["cache_dir"]),
        target_dir=Path(job["target_dir"]),
        endpoints=tuple(job["endpoints"]),
        progress=lambda records: events.send("progress", records=records),
        log=lambda level, msg: events.send("log", level=level, msg=msg),
        phase=lambda name: events.send("phase", name=name, t_ns=time.monotonic_ns()),
    )
    cases = [(entry["case"], benchmark.params.model_validate(entry["params"]), entry["seed"]) for entry in job["cases"]]
    worker = benchmark.worker()(context)
    try:
        context.seed = cases[0][2]
        events.send("prepared", facts=worker.prepare(cases[0][1]), packages=packages(benchmark.distribution))
        for case, params, seed in cases:
            context.seed = seed
            go_on()
            start = time.monotonic_ns()
            events.send("begin", case=case)
            try:
                measurement = worker.measure(params)
            except CaseFailed as error:
                times = {"t_start_ns": start, "t_end_ns": time.monotonic_ns()}
                events.send("failed", case=case, kind=error.kind, message=str(error), **times)
                continue
            end = time.monotonic_ns()
            raw = plain_columns(measurement.raw)
            events.send("measured", case=case, t_start_ns=start, t_end_ns=end, raw=raw, facts=measurement.facts)
        events.send("done")
    finally:
        worker.close()


def _next_line() -> None:
    if not sys.stdin.buffer.readline():
        raise EOFError("the runner is gone")


def main() -> int:
    """Run the job on standard input; exit code 1 when the round broke as a whole."""
    events = _Events(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    job = orjson.loads(sys.stdin.buffer.readline())
    samples = job["samples"]
    companion = None if samples is None else Companion(Path(samples["path"]), samples["node"])
    try:
        run(job, events, _next_line)
    except CaseFailed as error:
        events.send("broken", kind=error.kind, message=str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        events.send("broken", kind=type(error).__name__, message=str(error) or type(error).__name__)
        return 1
    finally:
        if companion is not None:
            companion.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
