"""From the calls and facts of one repetition to metrics and verdict. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aifbench.checks.kinds import RECALL_UNKNOWN
from aifbench.checks.load import steady_window
from aifbench.checks.recall import recall_reasons
from aifbench.core.benchmark import Raw
from aifbench.core.notes import Note
from aifbench.core.records import Metric, Validity
from aifbench.retrieval import kinds
from aifbench.retrieval.params import RetrievalParams
from aifbench.stats.quantiles import quantile_metric

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
MOST_LID = 40.0
"""Above this local intrinsic dimension neighbours hardly differ in distance: recall says little about real data."""
MOST_STEAL = 0.02
MOST_SWITCHES_PER_QUERY = 0.01
LEAST_TOGETHER = 0.8
"""Share of the execution time in which all clients must be at work: start and end are part of it, but a small one."""
MOST_BUSY = 1.1
"""Busy cores of the clients by those asked for: above it, threads ran that the case does not speak of."""
BUSY_MARGIN_S = 0.002
"""CPU time that clients may spend between their own start and the first call."""
NORMAL_95 = 1.959964
"""Quantile 0.975 of the normal distribution."""
MANY_TIES = 0.01
"""Share of queries with a tie at k above which recall by id says little; `recall_tie_at_k` counts ties as found."""
LEAST_BUSY = 0.8
"""CPU time of the clients by their time at work, below which others had their cores."""
IDLE_MARGIN_S = 0.01
"""Time off the cores that a client may have in any case: one or two turns of another process, which short runs feel."""
LEAST_FLAT_RECALL = 0.999
"""An exhaustive index finds all true neighbours but for float32 rounding of near ties."""


def evaluate(params: RetrievalParams, raw: Raw, facts: Mapping[str, Any]) -> tuple[dict[str, Metric], Validity]:
    """Return metrics and verdict of one repetition.

    `raw`: one row per search call (see `search.Timed`). A latency is that of one call, of `batch_size` queries.
    `execution_time_s` is the time from the first start to the last end, in which each query was answered once.
    """
    start, end = np.asarray(raw["start_ns"], dtype=np.int64), np.asarray(raw["end_ns"], dtype=np.int64)
    first, count = np.asarray(raw["first_query"], dtype=np.int64), np.asarray(raw["count"], dtype=np.int64)
    answered = int(count.sum())
    complete = _each_once(first, count, params.queries)
    clock_s = facts["clock_pair_ns"] / 1e9
    latency = (end - start) / 1e9
    elapsed = float(end.max() - start.min()) / 1e9 if len(start) else 0.0
    call = "one call" if params.batch_size == 1 else f"one call of {params.batch_size} queries"
    notes = recall_reasons(facts["recall_id_mean"], params.recall_floor, facts["truth_rows"], params.queries)
    if not complete:
        notes.append(kinds.NOT_EACH_ONCE.against(answered=answered, queries=params.queries))

    metrics: dict[str, Metric] = {}
    if complete and elapsed > 0:
        # What lies between a client's calls is work of ours, or a time in which it was not let run.
        outside = max(clock_s, elapsed - float(latency.sum()) / params.clients)
        metrics["execution_time_s"] = Metric(
            value=elapsed, unit="s", n=answered, method="first start to last end", instrument=outside
        )
        metrics["queries_per_second"] = Metric(
            value=answered / elapsed,
            unit="1/s",
            n=answered,
            method="queries by execution time",
            instrument=answered / elapsed * outside / elapsed,
        )
        metrics["cpu_per_query_s"] = Metric(
            value=facts["cpu_s"] / answered,
            unit="s",
            n=answered,
            method="CPU time of the clients by queries",
        )
        notes += _own_threads(facts["cpu_s"], elapsed, params.clients * params.threads)
        notes += _let_run(facts["cpu_s"], elapsed, min(params.clients, facts["cores"]))
        window = steady_window(np.asarray(raw["client"], dtype=np.int64), start / 1e9, end / 1e9)
        if window is None or window.length_s < LEAST_TOGETHER * elapsed:
            together = 0.0 if window is None else window.length_s / elapsed
            metrics["concurrency_achieved"] = Metric.absent("1", kinds.NOT_TOGETHER.absent())
            notes.append(kinds.HARDLY_TOGETHER.against(together=together))
        else:
            metrics["concurrency_achieved"] = Metric(
                value=window.in_flight,
                unit="1",
                n=len(latency),
                method="time average of calls in flight while all clients were at work",
            )
            notes += window.reasons(params.clients)
    else:
        for name, unit in {
            "execution_time_s": "s", "queries_per_second": "1/s", "cpu_per_query_s": "s", "concurrency_achieved": "1",
        }.items():  # fmt: skip
            metrics[name] = Metric.absent(unit, kinds.NOT_ANSWERED.absent(), n=answered)
    metrics |= _latencies(latency, clock_s, call)
    metrics |= _recall(facts, params.top_k, params.queries)
    metrics |= _index(facts)
    if params.index == "Flat" and (facts["recall_tie_mean"] or 0.0) < LEAST_FLAT_RECALL:
        notes.append(kinds.EXHAUSTIVE_NOT_EXACT.against(recall=facts["recall_tie_mean"]))
    return metrics, Validity.of([*notes, *_cautions(params, facts)])


def _each_once(first: Any, count: Any, queries: int) -> bool:
    """Whether the calls' ranges [first, first + count) tile [0, queries)."""
    order = np.argsort(first, kind="stable")
    expected = np.concatenate([[0], np.cumsum(count[order])])
    return bool(len(first)) and bool((first[order] == expected[:-1]).all()) and int(expected[-1]) == queries


def _own_threads(cpu_s: float, elapsed_s: float, asked: int) -> list[Note]:
    """Return the reason, if any, why the clients kept more cores busy than the case asks for."""
    if cpu_s <= MOST_BUSY * asked * elapsed_s + BUSY_MARGIN_S:
        return []
    return [kinds.OWN_THREADS.against(cores=cpu_s / elapsed_s, asked=asked)]


def _let_run(cpu_s: float, elapsed_s: float, clients: int) -> list[Note]:
    """Return the reason, if any, why the clients had less of their cores than a search takes: it never waits itself."""
    if cpu_s + IDLE_MARGIN_S >= LEAST_BUSY * clients * elapsed_s:
        return []
    return [kinds.DISTURBED.against(clients=clients, cores=cpu_s / elapsed_s)]


def _latencies(latency: Any, clock_s: float, call: str) -> dict[str, Metric]:
    metrics = {}
    if len(latency):
        mean = float(latency.mean())
        metrics["latency_mean_s"] = Metric(
            value=mean, unit="s", n=len(latency), method=f"mean of {call}", instrument=clock_s
        )
    else:
        metrics["latency_mean_s"] = Metric.absent("s", kinds.NO_CALL.absent())
    for name, q in PERCENTILES.items():
        metrics[f"latency_{name}_s"] = quantile_metric(latency, q, "s", clock_s, of=call)
    return metrics


def _recall(facts: Mapping[str, Any], k: int, queries: int) -> dict[str, Metric]:
    """Return recall, the same in every repetition: one index, the same queries. So its interval is over the queries.

    Normal approximation of the mean over queries, within 0 to 1; it does not cover the choice of the indexed vectors.
    """
    methods = {
        "recall_at_k": ("recall_id", f"true ids among the first {k}, mean over queries"),
        "recall_tie_at_k": ("recall_tie", f"ids as near as true neighbour {k}, mean over queries"),
    }
    metrics = {}
    for name, (fact, method) in methods.items():
        mean, spread = facts[f"{fact}_mean"], facts[f"{fact}_std"]
        if mean is None:
            metrics[name] = Metric.absent("1", RECALL_UNKNOWN.absent())
            continue
        half = None if spread is None else NORMAL_95 * spread / math.sqrt(queries)
        metrics[name] = Metric(
            value=mean,
            unit="1",
            n=queries,
            method=method if half is None else f"{method}, normal 95 % over queries",
            ci_low=None if half is None else max(0.0, mean - half),
            ci_high=None if half is None else min(1.0, mean + half),
            shared=True,
        )
    return metrics


def _index(facts: Mapping[str, Any]) -> dict[str, Metric]:
    """Metrics of the index: building and size are measured once per batch, memory once per round."""
    train_s, add_s, memory = facts["train_s"], facts["add_s"], facts["memory_bytes"]
    built = f"built once per batch with {facts['build_threads']} threads"
    once: dict[str, Any] = {"n": 1, "shared": True}
    return {
        "build_time_s": Metric(
            value=(train_s or 0.0) + add_s, unit="s", method=f"training and adding, {built}", **once
        ),
        "train_time_s": Metric(value=train_s, unit="s", method=f"training, {built}", **once)
        if train_s is not None
        else Metric.absent("s", kinds.NO_TRAINING.absent()),
        "add_time_s": Metric(value=add_s, unit="s", method=f"adding all vectors, {built}", **once),
        "index_bytes": Metric(value=facts["index_bytes"], unit="B", method="size of the written index", **once),
        "memory_bytes": Metric(value=memory, unit="B", n=1, method="growth of RssAnon when a fresh process reads it")
        if memory is not None
        else Metric.absent("B", kinds.TOO_SMALL_TO_SHOW.absent()),
    }


def _cautions(params: RetrievalParams, facts: Mapping[str, Any]) -> list[Note]:
    notes = []
    lid, steal, cores = facts["lid"], facts["steal_share"], facts["cores"]
    switches = facts["involuntary_switches"] / params.queries
    if lid is not None and lid > MOST_LID:
        notes.append(kinds.HIGH_DIMENSION.caution(dimension=lid, limit=MOST_LID))
    if params.clients * params.threads > cores:
        notes.append(kinds.MORE_THREADS_THAN_CORES.caution(clients=params.clients, threads=params.threads, cores=cores))
    if params.threads > 1:
        notes.append(kinds.THREADS_WAIT.caution())
    if steal is not None and steal > MOST_STEAL:
        notes.append(kinds.STEAL.caution(share=steal))
    if switches > MOST_SWITCHES_PER_QUERY:
        notes.append(kinds.CONTEXT_SWITCHES.caution(switches_per_query=switches))
    if not facts["warmup_settled"]:
        notes.append(kinds.WARMUP_NOT_SETTLED.caution())
    ties = facts["queries_with_tie_at_k"] / params.queries
    if ties > MANY_TIES:
        notes.append(kinds.TIES.caution(share=ties, k=params.top_k))
    return notes
