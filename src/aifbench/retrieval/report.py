"""What the report says of retrieval: recall against rate, execution time, and which index to take."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from aifbench.analysis.cases import CONTAINER, Case, Words, varying
from aifbench.analysis.charts import Spec
from aifbench.analysis.findings import (
    Finding,
    Part,
    effect,
    fullest,
    link,
    ratio,
    settings,
    sure,
    value_of,
    where,
)
from aifbench.analysis.report import BenchmarkReport
from aifbench.retrieval.params import RetrievalParams

RECALL_TARGET = 0.95
EXACT_INDEX = "Flat"
RATE, RECALL, TIME = "queries_per_second", "recall_at_k", "execution_time_s"
BUILD = "build_time_s"
FRONTIER, EXECUTION_TIME, BUILD_TIME = "retrieval_frontier", "retrieval_execution_time", "retrieval_build_time"
CHOICE = ("index", "search")
"""First parts of the axes that make one index: its kind and its search settings."""

# -- charts ------------------------------------------------------------------------------------------------------------


def with_trade(cases: list[Case]) -> list[Case]:
    """Return the cases of data sets in which recall differs between cases; all cases where there is no such set."""
    shown = [case for case in cases if case.measured(RATE) and case.measured(RECALL)]
    values: dict[Any, set[float]] = {}
    for case in shown:
        values.setdefault(_data_set(case), set()).add(value_of(case, RECALL))
    return [case for case in shown if len(values[_data_set(case)]) > 1] or shown


def of_swept_sets(cases: list[Case], *, swept: bool) -> list[Case]:
    """Return the cases of data sets in which the dimension takes several values, or (`swept` False) of the others."""
    shown = [case for case in cases if case.measured(TIME)]
    values: dict[Any, set[Any]] = {}
    for case in shown:
        if isinstance(case.axes.get("dim"), int):
            values.setdefault(_data_set(case), set()).add(case.axes["dim"])
    return [case for case in shown if (len(values.get(_data_set(case), ())) > 1) == swept]


def built(cases: list[Case]) -> list[Case]:
    """Return one case for each index that was built, with what its batch shares as its only axes.

    Of data sets with more than one index, or of all where only the campaign has; none where it has but one.
    """
    batches: dict[str, list[Case]] = {}
    for case in cases:
        batches.setdefault(case.batch, []).append(case)
    names = {*RetrievalParams.setup_names(), CONTAINER}
    shared = []
    for batch in batches.values():
        best = min(batch, key=lambda case: (case.measured(BUILD) is None, case.state != "valid"))
        axes = {name: value for name, value in best.axes.items() if name in names}
        shared.append(replace(best, axes=axes, repetitions=[]))
    indexes: dict[Any, set[Any]] = {}
    for case in shared:
        if case.measured(BUILD):
            indexes.setdefault(_data_set(case), set()).add(case.axes.get("index"))
    if len(set().union(*indexes.values())) < 2:
        return []
    return [case for case in shared if len(indexes.get(_data_set(case), ())) > 1] or shared


def _data_set(case: Case) -> Any:
    return case.axes.get("dataset")


CHARTS = (
    Spec(
        FRONTIER,
        "Recall against queries per second",
        (RATE,),
        against=RECALL,
        curve="search",
        series="index",
        select=with_trade,
    ),
    Spec(
        EXECUTION_TIME,
        "Execution time",
        (TIME,),
        prefer=("top_k", "clients"),
        select=partial(of_swept_sets, swept=False),
    ),
    Spec(
        "retrieval_dimension",
        "Execution time against the dimension of the vectors",
        (TIME,),
        over="dim",
        select=partial(of_swept_sets, swept=True),
    ),
    Spec(
        BUILD_TIME,
        "Build time of each index",
        (BUILD,),
        over="index",
        marks="time to train an index and to add all vectors, measured once per batch",
        select=built,
    ),
)

# -- findings ----------------------------------------------------------------------------------------------------------


def best_index(cases: list[Case]) -> Finding | None:
    """Say which index answers fastest at the recall target, and how that compares with exact search."""
    usable, group = _indexes(cases)
    best = _winner(group)
    if best is None:
        return _no_index(group)
    recall = f"recall@{best.axes['top_k']}"
    parts = [Part(f"{_index(best)} reaches {recall} "), link(best, RECALL), Part(" at ")]
    parts.append(link(best, RATE, "queries/s"))
    exact = next((case for case in group if case.axes.get("index") == EXACT_INDEX), None)
    if exact is not None:
        against = ratio(best.metrics[RATE], exact.metrics[RATE])
        if against is not None and against.differs:
            parts += [Part(", "), Part(str(against), exact.id), Part(" the rate of exact search")]
        else:
            parts.append(Part(", which is not shown to differ from exact search"))
    parts.append(Part(f"{where(best, group, usable, _choice(usable))}."))
    return Finding(FRONTIER, tuple(parts))


def _no_index(group: list[Case]) -> Finding | None:
    """Say which approximate index comes closest when none reaches the target."""
    others = [case for case in group if case.axes.get("index") != EXACT_INDEX]
    if not others:
        return None
    best = max(others, key=lambda case: value_of(case, RECALL))
    target = f"recall@{best.axes['top_k']} of {RECALL_TARGET}"
    text = f"No approximate index reaches {target}; the closest is {_index(best)} with "
    return Finding(FRONTIER, (Part(text), link(best, RECALL), Part(".")))


def _indexes(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """Return the cases with rate and recall, and those of them that differ only in index and search settings."""
    usable = [case for case in cases if sure(case, RATE) and case.measured(RECALL)]
    prefer = {"top_k": 10, "clients": 1, "batch_size": 1, "threads": 1}
    return usable, fullest(usable, _choice(usable), "index", prefer) or []


def _choice(cases: list[Case]) -> set[str]:
    return {"index", *(axis for axis in varying(cases) if axis.startswith("search."))}


def _winner(group: list[Case]) -> Case | None:
    """Return the approximate index with the highest rate at the recall target."""
    able = [case for case in group if case.axes["index"] != EXACT_INDEX and value_of(case, RECALL) >= RECALL_TARGET]
    return max(able, key=lambda case: value_of(case, RATE), default=None)


def clients_effect(cases: list[Case]) -> Finding | None:
    """Say what more concurrent searchers bring to the fastest index at the target."""
    return effect(
        cases,
        axis="clients",
        metric=RATE,
        figure=EXECUTION_TIME,
        text="From {a} to {b} concurrent clients, {what} answers {ratio} as many queries/s ({x} to {y})",
        none="From {a} to {b} concurrent clients, queries/s of {what} is not shown to change ({x} and {y})",
        what=_index,
        said=CHOICE,
        unit="queries/s",
        like=_winner(_indexes(cases)[1]),
    )


def top_k_effect(cases: list[Case]) -> Finding | None:
    """Say what a larger k costs."""
    return effect(
        cases,
        axis="top_k",
        metric=TIME,
        figure=EXECUTION_TIME,
        text="From k = {a} to {b}, {what} takes {ratio} the execution time ({x} to {y})",
        none="From k = {a} to {b}, the execution time of {what} is not shown to change ({x} and {y})",
        what=_index,
        said=CHOICE,
        like=_winner(_indexes(cases)[1]),
    )


def build_cost(cases: list[Case]) -> Finding | None:
    """Say which index is dearest to build."""
    by_index: dict[Any, Case] = {}
    for case in cases:
        if case.measured(BUILD) and case.measured("index_bytes"):
            by_index.setdefault(case.axes.get("index"), case)
    if len(by_index) < 2:
        return None
    ordered = sorted(by_index.values(), key=lambda case: value_of(case, BUILD))
    first, last = ordered[0], ordered[-1]
    parts = [Part(f"{last.axes['index']} takes longest to build, "), link(last, BUILD), Part(" for ")]
    parts += [link(last, "index_bytes"), Part(f"; {first.axes['index']} takes "), link(first, BUILD)]
    parts += [Part(" for "), link(first, "index_bytes"), Part(".")]
    return Finding(BUILD_TIME, tuple(parts))


def _index(case: Case) -> str:
    told = settings(case, [name for name in case.axes if name.startswith("search.")])
    return f"{case.axes.get('index', 'the index')}{f' ({told})' if told else ''}"


REPORT = BenchmarkReport(
    charts=CHARTS,
    findings=(best_index, clients_effect, top_k_effect, build_cost),
    columns=(RATE, RECALL, "latency_p50_s", "latency_p99_s", BUILD, "index_bytes"),
    words=Words(
        metrics={
            TIME: "execution time",
            RATE: "queries per second",
            RECALL: "recall@k",
            "recall_tie_at_k": "recall@k with ties",
            "index_bytes": "index size",
        },
        axes={"top_k": "k"},
    ),
)
