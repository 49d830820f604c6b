"""The streaming client against a server that says when it really wrote: errors, delivered load, cost.

A first token after 100 ms, 31 gaps of 20 ms, a staggered start; at 1 024 streams gaps of 49.6 ms, which makes 20 000
tokens/s. Server and client share this machine. Errors are those of `load.calibrate`: the server's own lateness is none.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from aifbench.checks.load import steady_window
from aifbench.load.calibrate import exchange_errors
from aifbench.load.client import Load, StreamingClient
from aifbench.load.http import Target
from aifbench.load.reference_server import reference_server

TTFT_MS, TOKENS = 100.0, 32
SIZES = ((1, 40, 20.0), (64, 6, 20.0), (256, 6, 20.0), (1024, 3, 49.6))
"""(streams, requests of each, gap in ms)."""
GOALS_MS = {1: (0.2, 0.1), 64: (0.5, 0.1), 256: (1.0, 0.1), 1024: (5.0, None)}
"""p99 of the error of the time to first token, and of a gap."""
LEAST_DELIVERED, MOST_CPU_MS = 0.99, 0.6
MOST_IDLE, MOST_RESIDENT_MIB, MOST_START_S = 0.02, 100, 1.0


def measure() -> list[dict[str, Any]]:
    """Return the rows of all sizes, and what the client costs while it waits and to start."""
    rows = []
    with reference_server() as url:
        for streams, requests, gap_ms in SIZES:
            rows += _rows(streams, gap_ms, _run(url, streams, requests, gap_ms))
        rows += _footprint(url)
    return rows


def _run(url: str, streams: int, requests: int, gap_ms: float) -> Load:
    target = Target.of(url)
    body = orjson.dumps({"stream": True, "planted": {"ttft_ms": TTFT_MS, "gap_ms": gap_ms, "tokens": TOKENS}})
    payload = target.request("/v1/chat/completions", body)
    answer_s = (TTFT_MS + (TOKENS - 1) * gap_ms) / 1e3
    offsets = [random.Random(client).uniform(0, answer_s) for client in range(streams)]
    with StreamingClient([target], streams) as client:
        client.run([[payload]] * streams, offsets, 30)
        return client.run([[payload] * requests] * streams, offsets, 30)


def _rows(streams: int, gap_ms: float, load: Load) -> list[dict[str, Any]]:
    pairs = [errors for exchange in load.exchanges if (errors := exchange_errors(exchange)) is not None]
    ttft = np.abs([first for first, _ in pairs]) / 1e6
    gaps = np.abs(np.concatenate([rest for _, rest in pairs])) / 1e6
    most_ttft, most_gap = GOALS_MS[streams]
    rows = [
        _row(f"ttft_error_p99_{streams}_streams", float(np.quantile(ttft, 0.99)), "ms", most=most_ttft),
        _row(f"delivered_{streams}_streams", _delivered(gap_ms, load), "1", least=LEAST_DELIVERED),
        _row(f"client_cpu_per_request_{streams}_streams", 1e3 * load.cpu_s / len(pairs), "ms", most=MOST_CPU_MS),
    ]
    if most_gap is not None:
        rows.append(_row(f"gap_error_p99_{streams}_streams", float(np.quantile(gaps, 0.99)), "ms", most=most_gap))
    return rows


def _delivered(gap_ms: float, load: Load) -> float:
    """Return requests in the steady window by those that the server's times allow."""
    clients = np.array([exchange.client for exchange in load.exchanges])
    send, end = (
        np.array([getattr(exchange, name) - load.start_ns for exchange in load.exchanges]) / 1e9
        for name in ("send_ns", "end_ns")
    )
    window = steady_window(clients, send, end)
    assert window is not None
    possible = (int(clients.max()) + 1) / ((TTFT_MS + (TOKENS - 1) * gap_ms) / 1e3)
    return window.operations / window.length_s / possible


def _footprint(url: str) -> list[dict[str, Any]]:
    """Measure a fresh process: time to its first answer, its memory, and its CPU while all streams wait."""
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.streaming_accuracy", url]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=True, text=True)
    facts = orjson.loads(answer.stdout.splitlines()[-1])
    return [
        _row("start_to_first_answer", facts["first_answer"] - start - TTFT_MS / 1e3, "s", most=MOST_START_S),
        _row("resident_256_streams", facts["resident_mib"], "MiB", most=MOST_RESIDENT_MIB),
        _row("cpu_while_256_streams_wait", facts["idle_cores"], "cores", most=MOST_IDLE),
    ]


def _child(url: str) -> None:
    target = Target.of(url)
    quick = {"ttft_ms": TTFT_MS, "gap_ms": 1, "tokens": 1}
    slow = {"ttft_ms": 3000, "gap_ms": 1, "tokens": 1}
    payloads = [
        target.request("/v1/chat/completions", orjson.dumps({"stream": True, "planted": plan}))
        for plan in (quick, slow)
    ]
    with StreamingClient([target], 1) as client:
        client.run([[payloads[0]]], [0.0], 30)
    first = time.monotonic()
    with StreamingClient([target], 256) as client:
        load = client.run([[payloads[1]]] * 256, [0.0] * 256, 30)
    facts = {
        "first_answer": first,
        "resident_mib": _most_resident_kib() / 1024,
        "idle_cores": load.cpu_s / ((load.end_ns - load.start_ns) / 1e9),
    }
    os.write(1, orjson.dumps(facts) + b"\n")


def _most_resident_kib() -> int:
    """Return VmHWM. The maximum of getrusage would be that of the parent, whose memory a new process begins with."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def _row(
    name: str, value: float, unit: str, *, most: float | None = None, least: float | None = None
) -> dict[str, Any]:
    met = value <= most if most is not None else least is not None and value >= least
    goal = f"<= {most:g}" if most is not None else f">= {least:g}"
    return {"id": name, "value": value, "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    _child(sys.argv[1])
