"""What the report says of one benchmark beyond its tables: the interface of a benchmark's `report.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aifbench.analysis.cases import Case, Words
from aifbench.analysis.charts import Spec
from aifbench.analysis.findings import Finding
from aifbench.core.benchmark import Benchmark

FindingMaker = Callable[[list[Case]], Finding | None]
"""Given the valid cases; None where they do not carry its sentence."""


@dataclass(frozen=True)
class BenchmarkReport:
    """`REPORT` of a benchmark's `report.py`. All may be left out: a benchmark without that module is in all tables."""

    charts: tuple[Spec, ...] = ()
    """In the order of the page. Without any, the contract outputs are drawn over the axes that vary."""
    findings: tuple[FindingMaker, ...] = ()
    """The most telling first: the first ones of each benchmark stand on the first screen."""
    columns: tuple[str, ...] = ()
    """Metrics of the table behind the contract outputs; without any, the first six. A case's drawer has all."""
    words: Words = field(default_factory=Words)
    facts: tuple[str, ...] = ()
    """Facts of a repetition that its charts need."""
    problem: str = ""
    """Why nothing of it can be used: only `report_of` says so."""


def report_of(benchmark: Benchmark | None) -> BenchmarkReport:
    """Return what a benchmark says of itself; of one that says nothing, or that nobody knows, an empty one.

    Which of its parameters are sizes, their types say. A broken `report.py` costs what it says, and `problem` tells it.
    """
    if benchmark is None:
        return BenchmarkReport()
    try:
        found = benchmark.report() or BenchmarkReport()
        if not isinstance(found, BenchmarkReport):
            raise TypeError(f"REPORT is a {type(found).__name__}, not a BenchmarkReport")
    except Exception as error:  # whatever the module of another package does
        found = BenchmarkReport(problem=f"{type(error).__name__}: {error}")
    units = {**dict.fromkeys(sorted(benchmark.params.sizes()), "bytes"), **found.words.units}
    return replace(found, words=replace(found.words, units=units))


def charts_of(name: str, report: BenchmarkReport, headline: tuple[str, ...]) -> tuple[Spec, ...]:
    """Return the charts of a benchmark; one that has none of its own gets its contract outputs over its axes."""
    title = ", ".join(report.words.metric(metric) for metric in headline)
    return report.charts or (Spec(f"{name}_headline", title[:1].upper() + title[1:], headline),)
