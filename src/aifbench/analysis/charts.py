"""The kinds of chart, and what stands in them: pure, from cases to panels of series of points.

A chart adapts to the axes that really vary. Its x is the numeric axis with the most values; the other varying axes
become series and, when these are too many for one panel, panels. What does not vary is said in the caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aifbench.analysis.cases import Case, Value, Words, determines, independent, varying
from aifbench.analysis.curves import Load, between, curves, knee_of, knee_text
from aifbench.analysis.numbers import Scale, plain, scale_for

SERIES = 8
"""Series in one panel that have a colour and marker of their own."""
PANELS = 8
DOTS = 1500
"""Single repetitions in one chart; above it they are left to the drawers, and the caption says so."""
LINES = 120
"""Series of one chart that are drawn at all, its panels together; the caption counts the rest."""
POINTS = 1500
"""Points of one chart, its panels together: beyond it series are not drawn, and the caption counts them."""
LABELS = 40
"""Points of one panel that have their load beside them; of more only the first and last of each series."""
KNEES = 6
"""Knees that a caption tells; the others are told on hover."""
REACH = 3.0
"""A bound of the SLO is drawn up to this many times above the highest point; farther up the caption tells it."""


KNEE_MARK = "knee, on the line between its neighbours; the wide stretch is its 95 % interval"


@dataclass(frozen=True)
class Spec:
    """How a chart is made: metrics over an axis, over another metric (`against`), or along a load (`along`)."""

    name: str
    """Its anchor in the page and its file: the benchmark's name, `_`, and what it shows."""
    title: str
    metrics: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    """Axes to take as x when several have equally many values."""
    over: str = ""
    """The axis to take as x, however many values it has; one of words where it has more than one."""
    marks: str = ""
    """What its marks are, where they are no means over repetitions."""
    against: str | None = None
    """The metric on x."""
    curve: str = ""
    """First part of the names of the axes along which a curve of `against` runs."""
    series: str = ""
    """The axis whose values are the curves of `against`; the others become panels."""
    along: Load | None = None
    """A load: a curve of `against` runs along it, and its knee is marked."""
    bounds: tuple[tuple[str, str], ...] = ()
    """(metric, axis of the SLO that bounds it)."""
    if_bounded: str = ""
    """A metric that is only shown where the SLO bounds it."""
    select: Callable[[list[Case]], list[Case]] = list
    """Takes the cases that belong in the chart."""

    def build(self, cases: list[Case]) -> Chart | None:
        """Return the chart of these cases, or None when none has a value for it."""
        return _build(self, self.select(cases))


@dataclass(frozen=True)
class Point:
    """One case in a chart, in display units. `low`, `high` are None without an interval."""

    case: str
    state: str
    x: float
    y: float
    low: float | None
    high: float | None
    x_low: float | None
    x_high: float | None
    repetitions: tuple[tuple[float, float, bool], ...]
    """(x, y, valid) of the single repetitions."""
    text: str
    label: str = ""
    """What stands beside the point."""


@dataclass(frozen=True)
class Mark:
    """A place on a curve that was computed, and the stretch of the curve in which it lies with 95 %."""

    x: float
    y: float
    stretch: tuple[tuple[float, float], ...]
    case: str
    """The case next to it."""
    text: str


@dataclass(frozen=True)
class Series:
    """Points that belong together. `style` is None for a series drawn in grey without a legend entry."""

    label: str
    style: int | None
    points: tuple[Point, ...]
    joined: bool
    mark: Mark | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    x_log: bool
    y_log: bool
    x_is_metric: bool
    ticks: tuple[tuple[float, str], ...]
    """Ticks of x (position, text); empty: as the scale gives them."""
    lines: tuple[tuple[float, str], ...] = ()
    """Bounds (y, text) that are drawn across."""
    y_top: float | None = None
    """Upper end of y where it is no matter of the points."""


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels. `mark` says what a computed place on its curves is, where there are any."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, int], ...] = field(default=())
    has_invalid: bool = False
    mark: str = ""


@dataclass
class _X:
    """How a case gets its place on x."""

    label: str
    of: Callable[[Case], float | None]
    text: Callable[[Case], str]
    axes: tuple[str, ...]
    """Axes that x uses up."""
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    joined: bool = True
    metric: str | None = None
    """The metric that x shows, if x is no axis; `factor` divides its values."""
    factor: float = 1.0

    def value(self, case: Case) -> Value | None:
        """Return the metric behind x, None when x is an axis."""
        return None if self.metric is None else case.measured(self.metric)


def _build(spec: Spec, cases: list[Case]) -> Chart | None:
    if spec.along:
        on = {case.id for curve in curves(cases, spec.along) for case in curve}
        cases = [case for case in cases if case.id in on]
    shown = [case for case in cases if any(_plottable(case, spec, metric) for metric in spec.metrics)]
    if not shown:
        return None
    axes = varying(shown)
    x = _metric_x(spec, shown, axes) if spec.against else _axis_x(spec, shown, axes)
    free = [axis for axis in axes if axis not in x.axes]
    if x.metric is None or spec.along:  # an axis that x determines would split a curve
        free = [axis for axis in free if not determines(x.axes, axis, shown)]
    rest = independent(free, shown)
    bounded = {metric for metric, axis in spec.bounds if any(axis in case.axes for case in shown)}
    metrics = [metric for metric in spec.metrics if metric != spec.if_bounded or metric in bounded]
    facets, lines = _split(rest, shown, spec, len(metrics))
    order = Order(shown)
    keys = sorted({key_of(case, lines) for case in shown}, key=lambda key: order(lines, key))
    styles = {key: place for place, key in enumerate(keys[:SERIES])}
    several = len(metrics) > 1
    words = shown[0].words
    panels, drawn, total = [], 0, 0
    notes: dict[str, None] = {}
    dots = sum(len(case.repetitions) for case in shown) * len(metrics) <= DOTS

    def made(cases: list[Case], key: tuple[Any, ...], metric: str, scale: Scale) -> Series | None:
        """Return one series of one panel."""
        label = describe(words, lines, key)
        return _series(cases, label, styles.get(key), metric=metric, x=x, scale=scale, dots=dots, along=spec.along)

    groups = _grouped(shown, facets)
    for combo in sorted(groups, key=lambda key: order(facets, key)):
        for metric in metrics:
            scale = scale_for([_number(case, metric) for case in shown], _unit(shown, metric))
            title = describe(words, facets, combo)
            if several:
                title = " · ".join(part for part in (words.metric(metric), title) if part)
            by_line = _grouped(groups[combo], lines)
            series = [one for key in keys if (one := made(by_line.get(key, []), key, metric, scale))]
            total += len(series)
            series = _bounded(series, len(groups) * len(metrics))
            drawn += len(series)
            if not series:
                continue
            y_log = _spans_decades(shown, metric)
            if spec.along:
                series = _labelled(_kneed(series, by_line, keys, spec.along, x_log=x.log, y_log=y_log))
                notes |= dict.fromkeys(_knee_notes(groups[combo], lines, facets, spec.along))
            slo, said = _slo(groups[combo], spec, metric, scale, series)
            notes |= dict.fromkeys(said)
            label = scale.unit if several and scale.unit else _axis_label(words.metric(metric), scale.unit)
            panels.append(_panel(series, title, label, x=x, y_log=y_log, lines=slo))
    found = [series for panel in panels for series in panel.series]
    legend = [(describe(words, lines, key), style) for key, style in styles.items()] if lines else []
    return Chart(
        name=spec.name,
        title=spec.title,
        caption=_caption(cases, shown, spec, dots=dots, undrawn=total - drawn, grey=_grey(found), notes=list(notes)),
        panels=tuple(panels),
        legend=tuple(legend),
        has_invalid=any(point.state != "valid" for series in found for point in series.points),
        mark=KNEE_MARK if any(series.mark for series in found) else "",
    )


def _grey(series: list[Series]) -> bool:
    return any(one.style is None for one in series)


def _slo(
    cases: list[Case], spec: Spec, metric: str, scale: Scale, series: list[Series]
) -> tuple[tuple[tuple[float, str], ...], list[str]]:
    """Return the bounds on a metric as lines, and what the caption says of those that lie too far up to be drawn."""
    axis = dict(spec.bounds).get(metric)
    bounds = sorted({float(case.axes[axis]) for case in cases if axis in case.axes}) if axis else []
    top = max(point.high or point.y for one in series for point in one.points)
    lines, said = [], []
    for bound in bounds:
        text = f"{bound / scale.factor:g} {scale.unit}"
        if bound / scale.factor <= REACH * top:
            lines.append((bound / scale.factor, f"SLO {text}"))
        else:
            said.append(f"The SLO's bound on {cases[0].words.metric(metric)}, {bound:g} s, lies above the chart.")
    return tuple(lines), said


def _kneed(
    series: list[Series],
    by_line: dict[tuple[Any, ...], list[Case]],
    keys: list[tuple[Any, ...]],
    load: Load,
    *,
    x_log: bool,
    y_log: bool,
) -> list[Series]:
    """Return the series with their knees marked."""
    drawn = {point.case: point for one in series for point in one.points}
    made = []
    of_key = [by_line[key] for key in keys if any(case.id in drawn for case in by_line.get(key, []))]
    for one, cases in zip(series, of_key, strict=False):
        found = knee_of(cases, load)
        valid = sorted((c for c in cases if c.state == "valid" and c.id in drawn), key=lambda c: c.axes[load.axis])
        places = [(float(c.axes[load.axis]), drawn[c.id].x, drawn[c.id].y) for c in valid]
        if found.load is None or found.low is None or found.high is None or len(places) < 2:
            made.append(one)
            continue
        inner = [place for place, _, _ in places if found.low < place < found.high]
        stretch = [between(places, place, x_log=x_log, y_log=y_log) for place in (found.low, *inner, found.high)]
        x, y = between(places, found.load, x_log=x_log, y_log=y_log)
        nearest = min(valid, key=lambda c: abs(float(c.axes[load.axis]) - (found.load or 0)))
        text = "\n".join(part for part in (one.label, f"knee at {knee_text(found, load)}") if part)
        made.append(Series(one.label, one.style, one.points, one.joined, Mark(x, y, tuple(stretch), nearest.id, text)))
    return made


def _labelled(series: list[Series]) -> list[Series]:
    """Return series whose points have no more labels than can be read."""
    if sum(len(one.points) for one in series) <= LABELS:
        return series
    return [
        replace(
            one,
            points=tuple(replace(p, label=p.label if p in (one.points[0], one.points[-1]) else "") for p in one.points),
        )
        for one in series
    ]


def _knee_notes(cases: list[Case], lines: list[str], facets: list[str], load: Load) -> list[str]:
    """Return one sentence for the knee of each curve, the first `KNEES` of them."""
    said = []
    for curve in curves(cases, load)[:KNEES]:
        who = describe(curve[0].words, [*facets, *lines], key_of(curve[0], [*facets, *lines]))
        found = knee_of(curve, load)
        most = max(
            (case for case in curve if case.state == "valid"), key=lambda c: c.axes[load.axis], default=curve[-1]
        )
        text = (
            f"no knee found up to {load.shown(float(most.axes[load.axis]))}: {found.reason}"
            if found.load is None
            else f"knee at {knee_text(found, load)}"
        )
        text = f"{who}: {text}." if who else f"{text[0].upper()}{text[1:]}."
        said.append(text)
    return said


def axis_summary(cases: list[Case]) -> str:
    """Return what all cases have in common, for a caption: only what a reader needs to tell this chart's subject."""
    fixed: dict[str, None] = {}
    changing = set(varying(cases))
    words = cases[0].words
    for axis, value in cases[0].axes.items():
        told = (
            value not in ("", "auto")
            and axis not in words.untold
            and not axis.endswith(("seed", "timeout_s"))
            and words.off.get(axis) != value
        )
        if axis not in changing and told:
            fixed[f"{words.axis(axis).replace('_', ' ')} {words.value(axis, value)}"] = None
    return ", ".join(fixed)


def _plottable(case: Case, spec: Spec, metric: str) -> bool:
    return case.measured(metric) is not None and (spec.against is None or case.measured(spec.against) is not None)


def _metric_x(spec: Spec, shown: list[Case], axes: list[str]) -> _X:
    assert spec.against is not None
    against, words = spec.against, shown[0].words
    scale = scale_for([_number(case, against) for case in shown], _unit(shown, against))
    return _X(
        label=_axis_label(words.metric(against), scale.unit),
        of=lambda case: _scaled(case.measured(against), scale),
        text=lambda case: f"{words.metric(against)} {_text(case.measured(against), scale)}",
        axes=(spec.along.axis,) if spec.along else tuple(axis for axis in axes if axis.split(".")[0] == spec.curve),
        metric=against,
        factor=scale.factor,
    )


def _axis_x(spec: Spec, shown: list[Case], axes: list[str]) -> _X:
    """Return x on the axis of `over`, else on the numeric axis with most values, else on that with most values."""
    words = shown[0].words
    numeric = [axis for axis in axes if "." not in axis and all(_is_number(case.axes.get(axis)) for case in shown)]
    sizes = {axis: len({case.axes.get(axis) for case in shown}) for axis in axes}
    of_words = spec.over in axes and not any(_is_number(case.axes.get(spec.over)) for case in shown)
    if numeric and not of_words:
        axis = (
            spec.over
            if spec.over in numeric
            else max(numeric, key=lambda name: (sizes[name], -_rank(name, spec.prefer)))
        )
        values = sorted({float(case.axes[axis]) for case in shown})
        log = values[0] > 0 and values[-1] / values[0] >= 8
        texts = {float(case.axes[axis]): words.value(axis, case.axes[axis]) for case in shown}
        return _X(
            label=words.axis(axis).replace("_", " "),
            of=lambda case: float(case.axes[axis]),
            text=lambda case: f"{words.axis(axis)} {words.value(axis, case.axes[axis])}",
            axes=(axis,),
            ticks=tuple((value, texts[value]) for value in some(values, log)),
            log=log,
        )
    axis = spec.over if of_words else max(axes, key=lambda name: sizes[name]) if axes else ""
    places = {text: float(i) for i, text in enumerate(sorted({words.value(axis, c.axes.get(axis)) for c in shown}))}
    return _X(
        label=words.axis(axis).replace("_", " "),
        of=lambda case: places[words.value(axis, case.axes.get(axis))],
        text=lambda case: f"{words.axis(axis)} {words.value(axis, case.axes.get(axis))}" if axis else "",
        axes=(axis,),
        ticks=tuple((place, text if axis else "") for text, place in places.items()),
        joined=False,
    )


def some(values: list[float], log: bool, most: int = 8) -> list[float]:
    """Return all of few values, or about `most` of many that lie evenly on the axis."""
    if len(values) <= most:
        return values
    places = np.geomspace(values[0], values[-1], most) if log else np.linspace(values[0], values[-1], most)
    return sorted({min(values, key=lambda value: abs(value - place)) for place in places.tolist()})


def _split(rest: list[str], shown: list[Case], spec: Spec, metrics: int) -> tuple[list[str], list[str]]:
    """Return (axes of panels, axes of series): as few panels as leave each with at most `SERIES` series."""
    lines, facets = list(rest), list[str]()

    def series() -> int:
        """Return the largest number of series in a panel."""
        keys = {(key_of(case, facets), key_of(case, lines)) for case in shown}
        return max(sum(key[0] == panel for key in keys) for panel in {key[0] for key in keys})

    def panels(axes: list[str]) -> int:
        """Return the number of panels that `axes` make."""
        return len({key_of(case, axes) for case in shown}) * metrics

    if spec.against is not None and spec.along is None:
        facets = [axis for axis in lines if axis != spec.series]
        while facets and panels(facets) > PANELS:
            facets.pop()
        return facets, [axis for axis in rest if axis not in facets]
    while series() > SERIES:
        fits = [axis for axis in lines if panels([*facets, axis]) <= PANELS]
        if not fits:
            break
        best = min(fits, key=lambda axis: (panels([*facets, axis]), "." in axis))
        facets.append(best)
        lines.remove(best)
    return facets, lines


class Order:
    """Sorts combinations of axis values: numbers by size, words as the plan names them first."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = cases
        self._places: dict[str, dict[Any, int]] = {}

    def __call__(self, axes: list[str], key: tuple[Any, ...]) -> tuple[int, ...]:
        """Return the places of the values on their axes."""
        return tuple(self._of(axis)[value] for axis, value in zip(axes, key, strict=True))

    def _of(self, axis: str) -> dict[Any, int]:
        if axis not in self._places:
            values = list(dict.fromkeys(case.axes.get(axis) for case in self._cases))
            if all(value is None or _is_number(value) for value in values):
                values.sort(key=lambda value: (value is not None, value))
            self._places[axis] = {value: place for place, value in enumerate(values)}
        return self._places[axis]


def _series(
    cases: list[Case],
    label: str,
    style: int | None,
    *,
    metric: str,
    x: _X,
    scale: Scale,
    dots: bool,
    along: Load | None = None,
) -> Series | None:
    if along is not None:
        cases = sorted(cases, key=lambda case: float(case.axes[along.axis]))
    found = (_point(case, label, metric=metric, x=x, scale=scale, dots=dots) for case in cases)
    points = [point for point in found if point is not None]
    if along is not None:
        values = {case.id: case.words.value(along.axis, case.axes[along.axis]) for case in cases}
        points = [replace(point, label=values[point.case]) for point in points]
    else:
        points.sort(key=lambda point: (point.x, point.y))
    return Series(label, style, tuple(points), x.joined) if points else None


def _point(case: Case, label: str, *, metric: str, x: _X, scale: Scale, dots: bool) -> Point | None:
    value, place = case.measured(metric), x.of(case)
    if value is None or value.value is None or place is None:
        return None
    along = x.value(case)
    repetitions = []
    for repetition in case.repetitions if dots else []:
        y = repetition.values.get(metric)
        at = place if x.metric is None else repetition.values.get(x.metric)
        if y is not None and at is not None:
            repetitions.append((at if x.metric is None else at / x.factor, y / scale.factor, repetition.valid))
    detail = " · ".join(part for part in (_settings(case, x), x.text(case)) if part)
    state = "" if case.state == "valid" else f" · {case.state}: {case.why}"
    said = f"{case.words.metric(metric)} {_text(value, scale)}, n = {value.n}{state}"
    return Point(
        case=case.id,
        state=case.state,
        x=place,
        y=value.value / scale.factor,
        low=_divided(value.low, scale.factor),
        high=_divided(value.high, scale.factor),
        x_low=None if along is None else _divided(along.low, x.factor),
        x_high=None if along is None else _divided(along.high, x.factor),
        repetitions=tuple(repetitions),
        text="\n".join(part for part in (label, detail, said) if part),
    )


def _bounded(series: list[Series], panels: int) -> list[Series]:
    """Return the first series that fit into one of `panels` panels of a chart; one always does."""
    kept: list[Series] = []
    points = 0
    for one in series:
        if kept and (len(kept) >= LINES // panels or points + len(one.points) > POINTS // panels):
            break
        kept.append(one)
        points += len(one.points)
    return kept


def _divided(value: float | None, factor: float) -> float | None:
    return None if value is None else value / factor


def _settings(case: Case, x: _X) -> str:
    """Return the settings along a curve (`nprobe 8`), which no axis of the chart shows."""
    if x.metric is None:
        return ""
    return ", ".join(f"{case.words.axis(axis)} {case.axes[axis]}" for axis in x.axes if axis in case.axes)


def _panel(
    series: list[Series], title: str, label: str, *, x: _X, y_log: bool, lines: tuple[tuple[float, str], ...] = ()
) -> Panel:
    return Panel(
        title=title,
        series=tuple(series),
        x_label=x.label,
        y_label=label,
        x_log=x.log,
        x_is_metric=x.metric is not None,
        y_log=y_log,
        ticks=x.ticks,
        lines=lines,
    )


def _spans_decades(cases: list[Case], metric: str) -> bool:
    """Return whether a metric needs a logarithmic axis: one answer for all panels, so that they can be compared."""
    values = [value for case in cases if (value := _number(case, metric)) is not None]
    return min(values) > 0 and max(values) / min(values) > 20


def _caption(
    cases: list[Case], shown: list[Case], spec: Spec, *, dots: bool, undrawn: int, grey: bool, notes: list[str]
) -> str:
    parts = ["Marks: mean over repetitions with its 95 % interval"]
    parts[0] += (
        "; dots beside them: the single repetitions." if dots else "; single repetitions stand in the drawer of a case."
    )
    if spec.marks:
        parts[0] = f"Marks: {spec.marks}."
    if spec.along:
        parts[0] = f"Marks: mean over repetitions with its 95 % interval both ways; beside them {spec.along.beside}."
    parts += notes
    same = axis_summary(shown)
    if same:
        parts.append(f"Held fixed: {same}.")
    if grey:
        parts.append("Grey: further combinations, named on hover.")
    if undrawn > 0:
        parts.append(f"{undrawn} further curves are not drawn; the table has them.")
    absent: dict[str, int] = {}
    for case in cases:
        if not all(_plottable(case, spec, metric) for metric in spec.metrics if metric != spec.if_bounded):
            absent[case.state] = absent.get(case.state, 0) + 1
    if absent:
        counts = ", ".join(f"{count} {state}" for state, count in absent.items())
        parts.append(f"Cases without a value here: {counts}.")
    return " ".join(parts)


def _grouped(cases: list[Case], axes: list[str]) -> dict[tuple[Any, ...], list[Case]]:
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(key_of(case, axes), []).append(case)
    return groups


def key_of(case: Case, axes: Iterable[str]) -> tuple[Any, ...]:
    """Return the values of `axes` in a case."""
    return tuple(case.axes.get(axis) for axis in axes)


def describe(words: Words, axes: list[str], key: tuple[Any, ...]) -> str:
    """Return `HNSW32 · efSearch 64`: words stand for themselves, numbers with the name of their axis."""
    parts = []
    for axis, value in zip(axes, key, strict=True):
        if value is None:
            continue
        text = words.value(axis, value)
        parts.append(text if isinstance(value, str) else f"{words.axis(axis).replace('_', ' ')} {text}")
    return " · ".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(name: str, prefer: tuple[str, ...]) -> int:
    return prefer.index(name) if name in prefer else len(prefer)


def _number(case: Case, metric: str) -> float | None:
    found = case.measured(metric)
    return None if found is None else found.value


def _unit(cases: list[Case], metric: str) -> str:
    return next((case.metrics[metric].unit for case in cases if metric in case.metrics), "")


def _scaled(value: Value | None, scale: Scale) -> float | None:
    return None if value is None or value.value is None else value.value / scale.factor


def _text(value: Value | None, scale: Scale) -> str:
    return "absent" if value is None or value.value is None else plain(value.value, value.half, scale)


def _axis_label(name: str, unit: str) -> str:
    return name if not unit or unit in name or (unit.endswith("/s") and "per second" in name) else f"{name} ({unit})"
