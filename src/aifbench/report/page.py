"""The report: one HTML file that asks for nothing, and the figures beside it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from aifbench.analysis.cases import CONTAINER, Case, Words, flatten, independent, varying
from aifbench.analysis.charts import Chart
from aifbench.analysis.findings import Finding
from aifbench.analysis.numbers import count, number, scale_for
from aifbench.core.states import STATES
from aifbench.files.written import atomic_write
from aifbench.log.writer import WARNING
from aifbench.registry import sentence
from aifbench.report import problems
from aifbench.report.cost import batch_rows, cost
from aifbench.report.figures import DrawnPanel, charts, draw_panels, figure_files, write_figures
from aifbench.report.findings import findings, headline, trust, verdict
from aifbench.report.load import Results, cautions, load
from aifbench.report.places import NONE, containers
from aifbench.report.timelines import Timeline, timelines

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
FILTER = Path(__file__).parents[1] / "services" / "web" / "filter.js"
"""How a filter is read: the page of the services has the same."""
PLAN_FACTS = ("seed", "digest", "config_files", "system")
CASE_PHASES = 20_000
"""Phases of single cases that a page carries; above it, only those of the batches."""
LOG_LINES = 2_000
LOG_LINES_OF_CASE = 20


@dataclass(frozen=True)
class ReportResult:
    """What `build` wrote, and what it says."""

    path: Path
    figures: list[Path]
    counts: dict[str, int]
    """Cases by state."""
    findings: list[str]
    problems: list[str]
    """What could not be read, one line each."""


def build(results: Path, out: Path | None = None) -> ReportResult:
    """Write `report/index.html` and `report/figures/*` of a results folder. Works on partial results at any time.

    `out`: the folder that they go to, when it is another one; the tables are there, too.
    """
    loaded = load(results, out)
    path = loaded.root / "report" / "index.html"
    atomic_write(path, render(loaded).encode())
    return ReportResult(
        path=path,
        figures=write_figures(loaded),
        counts={state: loaded.count(state) for state in STATES},
        findings=[finding.text for _, finding in headline(findings(loaded))],
        problems=loaded.problems,
    )


def render(results: Results) -> str:
    """Return the page. The same records give the same bytes."""
    script = "".join(file.read_text(encoding="utf-8") for file in (FILTER, TEMPLATES / "script.js"))
    found = findings(results)
    lines = timelines(results)
    sections = [_section(results, name, found[name]) for name in results.benchmarks]
    data = _data(results, lines, sections)
    packed = base64.b64encode(gzip.compress(orjson.dumps(data), 9, mtime=0)).decode()
    return _template().render(
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=packed,
        campaign=results.plan.facts.get("campaign") or results.root.name,
        facts_line=_facts(results),
        states=[(state, results.count(state)) for state in STATES],
        total=len(results.cases),
        headline=headline(found),
        verdict=verdict(results),
        trust=trust(results),
        sections=sections,
        cost=cost(results),
        batches=batch_rows(results, lines),
        problems=problems.rows(results),
        damage=results.damage,
        left_out=results.left_out,
        environment=_merged(
            _machine(invocation.environment) for record in results.batches.values() for invocation in record.invocations
        ),
        provenance=_merged(
            invocation.provenance for record in results.batches.values() for invocation in record.invocations
        ),
        servers=_merged(
            server
            for record in results.batches.values()
            for invocation in record.invocations
            for server in _objects(invocation.facts.get("servers_before"))
        ),
        plan=_merged([_planned(results.plan.facts)]),
        definitions=_definitions(results),
        files=figure_files(),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


# -- sections ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """One benchmark of the page."""

    name: str
    charts: list[tuple[Chart, list[DrawnPanel]]]
    findings: list[Finding]
    cautions: list[tuple[str, int]]
    """Kinds of notes in the verdicts: the one with the largest number, and how many cases bear one."""
    counts: list[tuple[str, int]]
    axes: list[str]
    columns: list[str]
    words: Words


def _section(results: Results, name: str, found: list[Finding]) -> Section:
    cases = results.of(name)
    report = results.reports[name]
    present = dict.fromkeys(metric for case in cases for metric in case.metrics)
    wanted = (*results.headlines[name], *(report.columns or tuple(present)[:6]))
    drawn = [
        (chart, panels)
        for chart in charts(results, name)
        if (panels := results.part(f"the chart {chart.name}", partial(draw_panels, chart)))
    ]
    return Section(
        name=name,
        charts=drawn,
        findings=found,
        cautions=cautions(cases)[:8],
        counts=[(state, count) for state in STATES if (count := sum(case.state == state for case in cases))],
        axes=independent(varying(cases), cases) or list(cases[0].axes)[:3],
        columns=[metric for metric in dict.fromkeys(wanted) if any(case.measured(metric) for case in cases)],
        words=report.words,
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    """Return the line under the title: system, dates, size."""
    invocations = [invocation for record in results.batches.values() for invocation in record.invocations]
    starts = sorted(invocation.started_at for invocation in invocations)
    ends = sorted(invocation.ended_at for invocation in invocations if invocation.ended_at)
    system = results.plan.system
    facts = [("system", system.get("name", "unknown"))]
    hosts = {str(invocation.environment.get("hostname") or "") for invocation in invocations} - {""}
    if hosts:
        facts.append(("node", ", ".join(sorted(hosts)) if len(hosts) <= 3 else f"{len(hosts)} nodes"))
    facts.append(("container", _containers(results)))
    facts.append(("measured", _span(starts[0], ends[-1] if ends else None) if starts else "nothing yet"))
    repetitions = sum(len(case.repetitions) for case in results.cases)
    facts.append(("size", f"{count(len(results.cases), 'case')}, {count(repetitions, 'repetition')}"))
    return facts


def _containers(results: Results) -> str:
    found = containers(results)
    if len(found) == 1:
        return next(iter(found))
    return "not one: " + ", ".join(f"{kind} ({count(jobs, 'job')})" for kind, jobs in found.items())


def _span(start: str, end: str | None) -> str:
    shown = start[:16].replace("T", " ")
    if end is None:
        return f"since {shown} UTC"
    return f"{shown} to {end[11:16] if end[:10] == start[:10] else end[:16].replace('T', ' ')} UTC"


# -- environment and definitions ---------------------------------------------------------------------------------------


def _merged(dictionaries: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each key with its distinct values and how many records bear each; null reads `not known`."""
    found: dict[str, dict[str, int]] = {}
    for dictionary in dictionaries:
        for key, value in _plain(dictionary):
            counts = found.setdefault(key, {})
            counts[value] = counts.get(value, 0) + 1
    merged = []
    for key, counts in found.items():
        values = list(counts.items())
        if len(values) > 4:
            values = [*values[:3], (f"and {len(values) - 3} more", sum(count for _, count in values[3:]))]
        merged.append((key, values))
    return merged


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a machine; the container around the runner is named as what it is."""
    return {
        {CONTAINER: "runs inside a container"}.get(key, key): "no" if key == CONTAINER and value is None else value
        for key, value in environment.items()
    }


def _planned(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a plan; the container that its cases are started in is named as what it is."""
    facts = {key: plan[key] for key in PLAN_FACTS if key in plan}
    if isinstance(facts.get("system"), Mapping):
        system = {{CONTAINER: "cases are started in"}.get(key, key): value for key, value in facts["system"].items()}
        if system.get("cases are started in") == NONE:
            system["cases are started in"] = "no container of their own"
        facts["system"] = system
    return facts


def _plain(dictionary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in dictionary.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _plain(value, f"{name}: ")
        elif value is None:
            yield name, "not known"
        elif isinstance(value, list):
            yield name, (" " if key == "command" else ", ").join(_inline(item) for item in value) or "none"
        elif isinstance(value, int) and not isinstance(value, bool) and key.endswith("_bytes"):
            yield name.removesuffix("bytes") + "size", number(value, None, "bytes")
        elif isinstance(value, float):
            yield name, f"{value:g}"
        else:
            yield name, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _objects(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list of any shape."""
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _inline(item: Any) -> str:
    if not isinstance(item, Mapping):
        return f"{item:g}" if isinstance(item, float) else str(item)
    return ", ".join(f"{key} {value}" for key, value in item.items() if value is not None)


def _definitions(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return, for each benchmark, each metric with its unit, its definition and how often it is absent."""
    tables = []
    for benchmark in results.benchmarks:
        cases = results.of(benchmark)
        metrics: dict[str, dict[str, Any]] = {}
        for case in cases:
            for name, value in case.metrics.items():
                row = metrics.setdefault(
                    name,
                    {
                        "name": name,
                        "unit": value.unit,
                        "definition": results.definitions.get((benchmark, name), ""),
                        "over": "",
                        "absent": {},
                    },
                )
                if value.value is None:
                    reason = value.reason or "no reason given"
                    row["absent"].setdefault(value.absence, []).append(reason)
                elif not row["over"]:
                    row["over"] = value.over
        for row in metrics.values():
            kinds = sorted(row["absent"].values(), key=len, reverse=True)
            row["absent"] = [(reasons[0], len(reasons)) for reasons in kinds[:3]]
        if metrics:
            tables.append((benchmark, list(metrics.values())))
    return tables


# -- data of tables and drawers ----------------------------------------------------------------------------------------


class _Texts:
    """Gives each text a number, so that a text which many cases bear stands in the page once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str | None) -> int:
        """Return the number of a text; -1 for none."""
        if text is None:
            return -1
        if text not in self._places:
            self._places[text] = len(self.all)
            self.all.append(text)
        return self._places[text]

    def places(self, texts: Iterable[str]) -> list[int]:
        """Return the numbers of several texts, each once."""
        return [self.place(text) for text in dict.fromkeys(texts)]


def _data(results: Results, lines: list[Timeline], sections: list[Section]) -> dict[str, Any]:
    """Return what the script needs, compact: columns by name once, texts once, six digits."""
    texts = _Texts()
    names = [*results.batches, *(case.batch for case in results.cases), *(timeline.batch for timeline in lines)]
    batches = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = {case.id: place for place, case in enumerate(results.cases)}
    groups = []
    for section in sections:
        cases = results.of(section.name)
        groups.append(_group(section, cases, places, batches, texts))
    return {
        "texts": texts.all,
        "batches": [{"name": name, "link": f"../batches/{quote(name)}/"} for name in batches],
        "groups": groups,
        "charts": {
            f"{chart.name}-{place}": [[x, y, places[case], text] for x, y, case, text in panel.points]
            for section in sections
            for chart, panels in section.charts
            for place, panel in enumerate(panels)
        },
        "phases": _phases(results, batches, places),
        "lines": [
            {
                "batch": batches[timeline.batch],
                "invocation": timeline.invocation,
                "samples": timeline.samples,
                "lines": [
                    [line.quantity, line.role, line.unit, line.t.round(2).tolist(), _digits(line.y.tolist(), 4)]
                    for line in timeline.lines
                ],
            }
            for timeline in lines
        ],
        "log": _log(results, places, batches),
    }


def _group(
    section: Section, cases: list[Case], places: Mapping[str, int], batches: Mapping[str, int], texts: _Texts
) -> dict[str, Any]:
    words = section.words
    metrics = list(dict.fromkeys(name for case in cases for name in case.metrics))
    inputs = list(dict.fromkeys(name for case in cases for name in _given(case)))
    described = []
    for name in metrics:
        values = [value for case in cases if (value := case.metrics.get(name)) is not None]
        scale = scale_for([value.value for value in values], values[0].unit)
        errors = [value.instrument for value in values if value.instrument is not None and value.value is not None]
        described.append(
            {
                "name": name,
                "label": words.metric(name),
                "unit": values[0].unit,
                "factor": scale.factor,
                "shown": scale.unit,
                "instrument": _digits([min(errors), max(errors)], 6) if errors else None,
            }
        )
    rows = []
    for case in cases:
        given = _given(case)
        rows.append(
            [
                places[case.id],
                case.id,
                batches[case.batch],
                case.label,
                STATES.index(case.state),
                [case.planned, case.done, case.failed],
                texts.places(case.suites),
                [_cell(given.get(name), texts) for name in inputs],
                texts.places(map(sentence, case.reasons)),
                texts.places(map(sentence, case.notes)),
                [
                    [
                        *_digits([value.value, value.low, value.high, value.instrument], 6),
                        value.n,
                        texts.place(value.method),
                        texts.place(value.reason),
                    ]
                    if (value := case.metrics.get(name)) is not None
                    else 0
                    for name in metrics
                ],
                [
                    [
                        repetition.index,
                        repetition.invocation,
                        texts.place(repetition.status),
                        int(repetition.valid),
                        repetition.started_at,
                        repetition.t_start_s,
                        repetition.t_end_s,
                        texts.places(map(sentence, repetition.reasons)),
                        texts.places(map(sentence, repetition.notes)),
                        texts.place(
                            f"{repetition.error_kind}: {repetition.error_message}" if repetition.error_kind else None
                        ),
                        repetition.seed,
                        _digits([repetition.values.get(name) for name in metrics], 5),
                    ]
                    for repetition in case.repetitions
                ],
            ]
        )
    return {
        "name": section.name,
        "axes": [[inputs.index(axis), words.axis(axis).replace("_", " ")] for axis in section.axes],
        "columns": [metrics.index(metric) for metric in section.columns],
        "inputs": inputs,
        "names": [words.axis(name) for name in inputs],
        "metrics": described,
        "rows": rows,
        "sizes": [place for place, name in enumerate(inputs) if words.units.get(name) == "bytes"],
    }


def _given(case: Case) -> dict[str, Any]:
    """Return what a case was given: its parameters, and the container where there is more than one."""
    place = {CONTAINER: case.axes[CONTAINER]} if CONTAINER in case.axes else {}
    return {**flatten(case.params), **place}


def _cell(value: Any, texts: _Texts) -> Any:
    """Return a number as it is, anything else as the place of its text in a list of its own."""
    if value is None:
        return [-1]
    if isinstance(value, bool):
        return [texts.place("yes" if value else "no")]
    return value if isinstance(value, int | float) else [texts.place(str(value))]


def _digits(values: list[float | None], digits: int) -> list[float | None]:
    """Return values rounded to `digits` significant ones; whole numbers as such."""
    rounded: list[float | None] = []
    for value in values:
        short = None if value is None else float(f"{value:.{digits}g}")
        rounded.append(int(short) if short is not None and short.is_integer() and abs(short) < 1e15 else short)
    return rounded


def _phases(results: Results, batches: Mapping[str, int], places: Mapping[str, int]) -> list[list[Any]]:
    """Return `[batch, invocation, name, start, end, case or -1]`."""
    everything = [
        (batches[name], invocation.index, phase)
        for name, record in results.batches.items()
        for invocation in record.invocations
        for phase in invocation.phases
    ]
    few = len(everything) <= CASE_PHASES
    return [
        [batch, index, phase.name, round(phase.t_start_s, 2), round(phase.t_end_s, 2), places.get(phase.case or "", -1)]
        for batch, index, phase in everything
        if few or phase.case is None
    ]


def _log(results: Results, places: Mapping[str, int], batches: Mapping[str, int]) -> list[list[Any]]:
    """Return the warnings and errors, `[batch, case or -1, time, level, message]`, at most some per case."""
    counts: dict[tuple[str, str | None], int] = {}
    kept: list[list[Any]] = []
    for line in results.log:
        key = (line["batch"], line["case"])
        if line["level"] < WARNING or line["batch"] not in batches or len(kept) == LOG_LINES:
            continue
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= LOG_LINES_OF_CASE:
            place = places.get(line["case"] or "", -1)
            kept.append([batches[line["batch"]], place, line["t"], line["level"], line["msg"]])
    return kept
