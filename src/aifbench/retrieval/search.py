"""The timed search: a closed loop of one or more clients over prepared calls, two clock stamps per call."""

from __future__ import annotations

import gc
import itertools
import math
import mmap
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from aifbench.retrieval.datasets import Matrix
from aifbench.retrieval.forks import Child, ChildFailed

_WINDOWS = 3
_MOST_WINDOWS = 9
_SETTLED = 0.05
"""Range of the last windows' medians, by the smallest, that counts as steady in any case."""
_RANGE_OF_THREE = 3.31
"""Quantile 0.95 of the range of three normal values by their standard deviation (the studentized range)."""
_START_WITHIN_NS = 30_000_000_000
_STEAL_TICKS = 100
"""Ticks (10 ms each) over all cores below which a share of stolen time says nothing."""

_TOKEN = np.dtype(np.uint32)
"""The number of a part in the pipe. A pipe holds 16 384 of them; there are at most as many as calls, 10 000."""

Ids = NDArray[np.int64]
_Call = tuple[int, Any, Any, Any]
"""Arguments of one search: queries, pointer to them, pointers to the result's distances and ids."""


@dataclass(frozen=True)
class Timed:
    """One pass over the queries.

    `raw`: one row per call, int64 columns client, first_query, count, start_ns, end_ns (CLOCK_MONOTONIC).
    `ids` (queries, k) as the index returned them. `cpu_s` and `involuntary_switches` are those of the clients between
    start and end; `steal_share` is that of the machine, None when the pass was too short to tell. `first_query_s`: one
    query in a fresh client, before the warm-up. `warmup_settled`: each client's medians of its last three windows lay
    within 5 % of each other, or no farther apart than chance would put them.
    """

    raw: dict[str, Ids]
    ids: Ids
    cpu_s: float
    involuntary_switches: int
    steal_share: float | None
    first_query_s: float
    warmup_queries: int
    warmup_settled: bool


@dataclass(frozen=True)
class _Plan:
    """What the clients share. `parts` are ranges of calls, `tokens` a pipe that holds the number of each part once:
    who reads a number runs that part. `gate` turns 1 when all may start.
    """

    index: Any
    queries: Matrix
    warmup: Matrix
    k: int
    batch_size: int
    threads: int
    window: int
    most_warmup: int
    clients: int
    ids: Ids
    parts: Sequence[range]
    tokens: int
    gate: Any


@dataclass(frozen=True)
class _Done:
    """What a client reports at its end: which calls it ran, when, and what that took."""

    rows: Ids
    starts: Ids
    ends: Ids
    cpu_ns: int
    switches: int


def timed_search(
    index: Any,
    queries: Matrix,
    warmup: Matrix,
    *,
    k: int,
    batch_size: int,
    clients: int,
    threads: int,
    warmup_queries: int,
    on_start: Callable[[], None] = lambda: None,
) -> Timed:
    """Warm up with vectors of `warmup`, then answer each of `queries` (q, d) once.

    Each client is a forked process with `threads` OpenMP threads. Clients take parts of the calls from one queue, ever
    smaller ones, so that they end together (guided self-scheduling, Polychronopoulos and Kuck, 1987).
    Warm-up calls have the size of the timed ones; there are at least `warmup_queries` queries in them, and three calls
    per client. `on_start` is called just before the timed part. Raises `ChildFailed`.
    """
    firsts = np.arange(0, len(queries), batch_size, dtype=np.int64)
    parts = _parts(len(firsts), clients)
    tokens, fill = os.pipe()
    os.write(fill, np.arange(len(parts), dtype=_TOKEN).tobytes())
    os.close(fill)
    plan = _Plan(
        index=index,
        queries=np.ascontiguousarray(queries, dtype=np.float32),
        warmup=np.ascontiguousarray(warmup, dtype=np.float32),
        k=k,
        batch_size=batch_size,
        threads=threads,
        window=-(-warmup_queries // (batch_size * clients * _WINDOWS)),
        most_warmup=len(queries) // clients,
        clients=clients,
        ids=np.frombuffer(mmap.mmap(-1, 8 * len(queries) * k), dtype=np.int64).reshape(-1, k),
        parts=parts,
        tokens=tokens,
        gate=multiprocessing.get_context("fork").RawValue("b", 0),
    )
    children: list[Child] = []
    try:
        children += [Child(_client, plan, number) for number in range(clients)]
        ready = [child.receive() for child in children]
        on_start()
        ticks = machine_ticks()
        plan.gate.value = 1
        done: list[_Done] = [child.receive() for child in children]
        stolen = steal_share(ticks, machine_ticks())
    finally:
        for child in children:
            child.stop()
        os.close(tokens)
    raw = {
        "client": np.full(len(firsts), -1, dtype=np.int64),
        "first_query": firsts,
        "count": np.minimum(batch_size, len(queries) - firsts),
        "start_ns": np.zeros(len(firsts), dtype=np.int64),
        "end_ns": np.zeros(len(firsts), dtype=np.int64),
    }
    for number, part in enumerate(done):
        raw["client"][part.rows] = number
        raw["start_ns"][part.rows] = part.starts
        raw["end_ns"][part.rows] = part.ends
    if (raw["client"] < 0).any():
        raise ChildFailed("a search process left calls undone")
    return Timed(
        raw=raw,
        ids=plan.ids.copy(),
        cpu_s=sum(part.cpu_ns for part in done) / 1e9,
        involuntary_switches=sum(part.switches for part in done),
        steal_share=stolen,
        first_query_s=ready[0][0],
        warmup_queries=sum(queries_done for _, queries_done, _ in ready),
        warmup_settled=all(settled for _, _, settled in ready),
    )


def _parts(calls: int, clients: int) -> list[range]:
    """Return ranges that tile the calls: all for a single client, else each a part of what the ones before it left."""
    if clients == 1:
        return [range(calls)]
    parts, first = [], 0
    while first < calls:
        after = first + max(1, (calls - first) // (2 * clients))
        parts.append(range(first, after))
        first = after
    return parts


def clock_pair_ns() -> int:
    """Return what two clock stamps with nothing between them show (ns), median of 1001: our own part of a latency."""
    now = time.perf_counter_ns
    pairs = []
    for _ in range(1001):
        begin = now()
        end = now()
        pairs.append(end - begin)
    return statistics.median_low(pairs)


def machine_ticks() -> tuple[int, int]:
    """Return (all, stolen) clock ticks of all cores since boot, from the first line of /proc/stat."""
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[7]


def steal_share(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Return the share of time that other guests of the host took, None when too few ticks passed to tell."""
    passed = after[0] - before[0]
    return (after[1] - before[1]) / passed if passed >= _STEAL_TICKS else None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _client(send: Callable[[Any], None], plan: _Plan, number: int) -> None:
    """Warm up, report, wait for the gate, search, report."""
    faiss.omp_set_num_threads(plan.threads)
    plan.ids.fill(-1)
    size = plan.batch_size
    distances = np.zeros((size, plan.k), dtype=np.float32)
    D = faiss.swig_ptr(distances)  # one for all calls: it stays in the processor's cache
    firsts = range(0, len(plan.queries), size)
    calls = [_call(plan.queries[i : i + size], D, plan.ids[i : i + size]) for i in firsts]
    search = plan.index.search_c
    first_query_ns = _first_query_ns(search, plan)
    queries_done, settled = _warm_up(search, plan, number)
    gc.collect()
    gc.freeze()
    gc.disable()
    send((first_query_ns / 1e9, queries_done + 1, settled))
    deadline = time.monotonic_ns() + _START_WITHIN_NS
    while not plan.gate.value:
        if time.monotonic_ns() > deadline:
            raise TimeoutError("the other clients were not ready in time")
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    cpu_ns = time.process_time_ns()
    parts, stamps = _drain(search, calls, plan)
    cpu_ns = time.process_time_ns() - cpu_ns
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
    rows = np.fromiter(itertools.chain.from_iterable(parts), dtype=np.int64)
    pairs = np.array(stamps, dtype=np.int64).reshape(-1, 2)
    send(_Done(rows, pairs[:, 0], pairs[:, 1], cpu_ns, switches))


def _drain(search: Callable[..., None], calls: list[_Call], plan: _Plan) -> tuple[list[range], list[int]]:
    """Run parts of the calls until none is left; return the parts and two stamps per call, in the order of running.

    Between the two stamps stands the search alone. What stands between two calls makes a client wait that should not:
    two appends to one list take half the time of two stores into arrays.
    """
    now, k, parts, take = time.perf_counter_ns, plan.k, plan.parts, os.read
    mine: list[range] = []
    stamps: list[int] = []
    add = stamps.append
    while token := take(plan.tokens, _TOKEN.itemsize):
        part = parts[int.from_bytes(token, sys.byteorder)]
        mine.append(part)
        for count, x, D, I in calls[part.start : part.stop]:  # noqa: E741
            begin = now()
            search(count, x, k, D, I)
            add(begin)
            add(now())
    return mine, stamps


def _warm_up(search: Callable[..., None], plan: _Plan, number: int) -> tuple[int, bool]:
    """Search in windows until the medians of the last three agree (see `Timed`); return (queries, agreed).

    There are three windows at least; more of them only up to nine, and up to as many queries as will be timed. Each
    client has other vectors, as far as there are enough.
    """
    size, per_window = plan.batch_size, plan.window * plan.batch_size
    rows = np.arange(number * _WINDOWS * per_window, (number + 1) * _WINDOWS * per_window) % len(plan.warmup)
    vectors, distances, ids = plan.warmup[rows], *_results(size, plan.k)
    D = faiss.swig_ptr(distances)
    supply = itertools.cycle(_call(vectors[i : i + size], D, ids) for i in range(0, len(rows), size))
    medians: list[float] = []
    errors: list[float] = []
    settled = False
    while len(medians) < _WINDOWS or (
        not settled and len(medians) < _MOST_WINDOWS and len(medians) * per_window < plan.most_warmup
    ):
        times = [_time_ns(search, call, plan.k) for call in itertools.islice(supply, plan.window)]
        medians.append(statistics.median(times))
        errors.append(_error_of_median(times))
        last = medians[-_WINDOWS:]
        chance = _RANGE_OF_THREE * statistics.mean(errors[-_WINDOWS:])
        settled = len(last) == _WINDOWS and max(last) - min(last) <= max(_SETTLED * min(last), chance)
    return len(medians) * per_window, settled


def _error_of_median(times: list[int]) -> float:
    """Return the standard error of the median, from the middle half of the values (as if they were normal)."""
    low, high = np.quantile(times, (0.25, 0.75))
    return 1.2533 * float(high - low) / 1.349 / math.sqrt(len(times))


def _first_query_ns(search: Callable[..., None], plan: _Plan) -> int:
    """Return the time of the first search of this process, for the last vector of the warm-up (ns)."""
    distances, ids = _results(1, plan.k)
    return _time_ns(search, _call(plan.warmup[-1:], faiss.swig_ptr(distances), ids), plan.k)


def _results(count: int, k: int) -> tuple[Matrix, Ids]:
    return np.zeros((count, k), dtype=np.float32), np.zeros((count, k), dtype=np.int64)


def _call(queries: Matrix, D: Any, ids: Ids) -> _Call:
    """Return the arguments of one search; `D` points to the result's distances. They do not keep arrays alive."""
    return len(queries), faiss.swig_ptr(queries), D, faiss.swig_ptr(ids)


def _time_ns(search: Callable[..., None], call: _Call, k: int) -> int:
    """Run one call and return its time in nanoseconds."""
    count, x, D, I = call  # noqa: E741
    begin = time.perf_counter_ns()
    search(count, x, k, D, I)
    return time.perf_counter_ns() - begin
