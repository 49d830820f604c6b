"""Our streaming client beside other load generators, on one planted server, in interleaved rounds.

A first token after 100 ms, 31 gaps of 20 ms, starts spread over one answer. Tool and server share this machine. What a
tool says of a request is compared with the server's own stamps of that very request: here the wake-up of the server
counts against whoever sends, which it does not in `streaming_accuracy`. Prints a table; the rows compare us with the
best of the others. A run that other processes disturb is repeated. A tool that cannot be installed is named with the
reason, and left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from aifbench.load.reference_server import reference_server
from benchmarks.peers.tools import ANSWER_S, OURS, PEERS, TOKENS, Answer, Task, Tool, environment, version

SIZES = ((1, 20), (64, 6), (256, 6))
"""(streams, requests of each)."""
ROUNDS = 3
POLL_S, TIMEOUT_S = 0.2, 180
TRIES, CALM_CORES = 3, 0.2
"""A run is repeated while other processes take more than so many cores; the calmest counts."""
TABLE = Path(__file__).parent / "results" / "peers_streaming.json"
FIGURES = {
    "ttft_p50_ms": "TTFT p50",
    "ttft_p99_ms": "p99",
    "true_ttft_p50_ms": "true p50",
    "true_ttft_p99_ms": "p99",
    "ttft_error_p50_ms": "error p50",
    "ttft_error_p99_ms": "p99",
    "mean_gap_error_p99_ms": "mean gap",
    "gap_error_p99_ms": "each gap",
    "delivered": "delivered",
    "told_tokens_per_s": "told tok/s",
    "cpu_ms_per_request": "CPU ms/req",
    "cpu_over_ours": "x ours",
    "whole_cpu_s": "whole CPU s",
    "whole_wall_s": "wall s",
    "connections": "connections",
    "others_cores": "others",
}
"""Columns of the table; the last is what other processes of the machine took meanwhile, in cores."""
COMPARED = (
    ("ttft_error_p99_ms", "ttft_error_p99"),
    ("gap_error_p99_ms", "gap_error_p99"),
    ("mean_gap_error_p99_ms", "mean_gap_error_p99"),
    ("cpu_ms_per_request", "cpu_per_request"),
)


@dataclass
class _Cpu:
    """CPU seconds of a process and its descendants, of all that this process started, and of the whole machine."""

    pid: int
    at_ns: list[int] = field(default_factory=list)
    tree_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    machine_s: list[float] = field(default_factory=list)

    def watch(self, stop: threading.Event) -> None:
        """Take a sample every `POLL_S` until told to stop."""
        while True:
            self.at_ns.append(time.monotonic_ns())
            self.tree_s.append(_tree_cpu_s(self.pid))
            self.ours_s.append(_tree_cpu_s(os.getpid()))
            whole = psutil.cpu_times()
            self.machine_s.append(whole.user + whole.nice + whole.system + whole.irq + whole.softirq)
            if stop.wait(POLL_S):
                return

    def between(self, values: list[float], begin_ns: int, end_ns: int) -> float:
        """Return by how much `values` grew between two moments, interpolated."""
        first, last = np.interp([begin_ns, end_ns], self.at_ns, values)
        return float(last - first)


def _tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process, its living descendants and those of them that were waited for."""
    total = 0.0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure() -> list[dict[str, Any]]:
    """Print the table and return the rows of our figures over those of the best of the others."""
    places: dict[str, Path | None] = {OURS.name: None}
    absent = {}
    for tool in PEERS:
        place, why = environment(tool)
        if place is None:
            absent[tool.name] = why
            print(f"{tool.name} {version(tool)} is not here: {why}", flush=True)
        else:
            places[tool.name] = place
    tools = [tool for tool in (OURS, *PEERS) if tool.name in places]
    if len(tools) == 1:
        return [_row(streams, figure, name, None, absent) for streams, _ in SIZES for figure, name in COMPARED]
    found: dict[tuple[str, int], list[dict[str, float | None]]] = {}
    for streams, requests in SIZES:
        for number in range(ROUNDS):
            turn = number % len(tools)
            for tool in tools[turn:] + tools[:turn]:
                figures = _calm_run(tool, streams, requests, places[tool.name])
                found.setdefault((tool.name, streams), []).append(figures)
    table = {key: _medians(rounds) for key, rounds in found.items()}
    for (_, streams), figures in table.items():
        ours = table[OURS.name, streams]["cpu_ms_per_request"]
        mine = figures["cpu_ms_per_request"]
        figures["cpu_over_ours"] = mine / ours if mine is not None and ours else None
    _show(table, absent)
    return [_row(streams, figure, name, table, absent) for streams, _ in SIZES for figure, name in COMPARED]


def _calm_run(tool: Tool, streams: int, requests: int, place: Path | None) -> dict[str, float | None]:
    """Return the figures of the calmest of up to `TRIES` runs."""
    runs = []
    for _ in range(TRIES):
        runs.append(_run(tool, streams, requests, place))
        if (runs[-1]["others_cores"] or 0.0) <= CALM_CORES:
            break
    return min(runs, key=lambda run: run["others_cores"] or 0.0)


def _run(tool: Tool, streams: int, requests: int, place: Path | None) -> dict[str, float | None]:
    """Run a tool once on a fresh server; return its figures by the keys of `FIGURES`."""
    with tempfile.TemporaryDirectory(prefix="aifbench-peers-") as name:
        folder = Path(name)
        log = folder / "truth.jsonl"
        own = folder / "tool"
        own.mkdir()
        with reference_server(log) as url:
            task = Task(url, streams, requests, own, place)
            command, variables = tool.command(task)
            begin = time.monotonic()
            with open(folder / "output.txt", "wb") as output:
                process = subprocess.Popen(
                    command,
                    cwd=own,
                    env={**os.environ, **variables},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            cpu, stop = _Cpu(process.pid), threading.Event()
            watcher = threading.Thread(target=cpu.watch, args=(stop,))
            watcher.start()
            try:
                code = process.wait(TIMEOUT_S)
            finally:
                with contextlib.suppress(ProcessLookupError):  # what it has left behind, or all of it after a fault
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                stop.set()
                watcher.join()
            wall_s = time.monotonic() - begin
        if code:
            said = (folder / "output.txt").read_text(errors="replace")
            raise RuntimeError(f"{tool.name} at {streams} streams ended with exit code {code}:\n{said[-2000:]}")
        truth = {key: line for line in map(orjson.loads, log.read_bytes().splitlines()) if (key := tool.key(line))}
        figures = _figures(tool.answer(task), truth, streams, cpu)
    return {**figures, "whole_cpu_s": max(cpu.tree_s), "whole_wall_s": wall_s}


def _figures(answer: Answer, truth: dict[str, Any], streams: int, cpu: _Cpu) -> dict[str, float | None]:
    pairs = [(record, truth[record.key]) for record in answer.records]
    true_ttft = np.array([line["written_ns"][0] - line["received_ns"] for _, line in pairs]) / 1e6
    error = np.abs([record.ttft_ms for record, _ in pairs] - true_ttft)
    true_gaps = [np.diff(line["written_ns"]) / 1e6 for _, line in pairs]
    mean_error = np.abs(np.array([record.mean_gap_ms for record, _ in pairs]) - [gaps.mean() for gaps in true_gaps])
    each = [
        np.abs(np.array(record.gaps_ms) - gaps)
        for (record, _), gaps in zip(pairs, true_gaps, strict=True)
        if record.gaps_ms is not None and len(record.gaps_ms) == len(gaps)
    ]
    begin = min(line["received_ns"] for _, line in pairs)
    end = max(line["written_ns"][-1] for _, line in pairs)
    written = np.sort(np.concatenate([line["written_ns"] for line in truth.values()]))
    answers = np.count_nonzero((written >= begin) & (written <= end)) / TOKENS
    used_s = cpu.between(cpu.tree_s, begin, end)
    others_s = cpu.between(cpu.machine_s, begin, end) - cpu.between(cpu.ours_s, begin, end)
    return {
        "ttft_p50_ms": answer.ttft_p50_ms,
        "ttft_p99_ms": answer.ttft_p99_ms,
        "true_ttft_p50_ms": float(np.quantile(true_ttft, 0.5)),
        "true_ttft_p99_ms": float(np.quantile(true_ttft, 0.99)),
        "ttft_error_p50_ms": float(np.quantile(error, 0.5)),
        "ttft_error_p99_ms": float(np.quantile(error, 0.99)),
        "mean_gap_error_p99_ms": float(np.quantile(mean_error, 0.99)),
        "gap_error_p99_ms": float(np.quantile(np.concatenate(each), 0.99)) if each else None,
        "delivered": _delivered(written, begin, end, streams),
        "told_tokens_per_s": answer.tokens_per_s,
        "cpu_ms_per_request": 1e3 * used_s / answers,
        "connections": float(len({line["connection"] for line in truth.values()})),
        "others_cores": max(0.0, others_s / ((end - begin) / 1e9)),
    }


def _delivered(written: Any, begin: int, end: int, streams: int) -> float:
    """Return tokens in the middle half of the measured time by those that the server's times allow."""
    quarter = (end - begin) // 4
    inside = np.count_nonzero((written >= begin + quarter) & (written < end - quarter))
    return float(inside / ((end - begin - 2 * quarter) / 1e9) / (streams * TOKENS / ANSWER_S))


def _medians(rounds: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the median of each figure over the rounds; None where a tool does not tell it."""
    known = {name: [value for one in rounds if (value := one[name]) is not None] for name in rounds[0]}
    return {name: statistics.median(values) if values else None for name, values in known.items()}


def _show(table: dict[tuple[str, int], dict[str, float | None]], absent: dict[str, str]) -> None:
    """Print the table, in Markdown, and keep it beside the rows."""
    print(_table_line("tool", "streams", *FIGURES.values()))
    print(_table_line(*["-" * 11] * (2 + len(FIGURES))))
    for (name, streams), figures in table.items():
        cells = ["-" if (value := figures[key]) is None else f"{value:.4g}" for key in FIGURES]
        print(_table_line(name, str(streams), *cells), flush=True)
    content = {
        "versions": {tool.name: version(tool) for tool in PEERS if tool.name not in absent},
        "absent": absent,
        "rounds": ROUNDS,
        "rows": [{"tool": name, "streams": streams, **figures} for (name, streams), figures in table.items()],
    }
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def _table_line(*cells: str) -> str:
    return "| " + " | ".join(f"{cell:>11}" for cell in cells) + " |"


def _row(
    streams: int,
    figure: str,
    name: str,
    table: dict[tuple[str, int], dict[str, float | None]] | None,
    absent: dict[str, str],
) -> dict[str, Any]:
    """Return our figure over the least of the others'; without another to compare with it stays open."""
    row = {"id": f"{name}_{streams}_streams_over_best_peer", "unit": "ratio"}
    missing = f" ({', '.join(absent)} absent)" if absent else ""
    others = [
        figures[figure] for (tool, size), figures in (table or {}).items() if size == streams and tool != OURS.name
    ]
    known = [value for value in others if value is not None]
    ours = table[OURS.name, streams][figure] if table else None
    if not known or ours is None:
        return {**row, "value": None, "goal": f"<= 1{missing}", "met": None}
    value = ours / min(known)
    return {**row, "value": value, "goal": f"<= 1{missing}", "met": value <= 1}


if __name__ == "__main__":
    sys.exit(0 if all(row["met"] is not False for row in measure()) else 1)
