"""What searches for the highest load within an SLO tried and found, as a chart. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aifbench.analysis.cases import Case, Repetition, independent, varying
from aifbench.analysis.charts import (
    SERIES,
    Chart,
    Mark,
    Order,
    Panel,
    Point,
    Series,
    Spec,
    axis_summary,
    describe,
    key_of,
    some,
)
from aifbench.analysis.curves import Load
from aifbench.analysis.numbers import Scale, fixed, plain
from aifbench.inference.loads import CLIENTS, FIND, RATE
from aifbench.stats.intervals import mean_interval

NOTES = 6
"""Searches whose result the caption tells; the others are told on hover."""


@dataclass(frozen=True)
class SearchSpec(Spec):
    """A chart of the loads that searches tried, one panel for clients and one for rates."""

    def build(self, cases: list[Case]) -> Chart | None:
        """Return the chart of the searches among these cases, or None when there is none."""
        tried = [case for case in cases if any(probes(repetition) for repetition in case.repetitions)]
        return _build(self, tried) if tried else None


def probes(repetition: Repetition) -> tuple[tuple[float, float], ...]:
    """Return (load, share of its requests that kept the SLO) of each load that a search tried, in its order."""
    try:
        return tuple((float(load), float(share)) for load, share in repetition.facts.get("probes") or ())
    except (TypeError, ValueError):
        return ()


def _build(spec: Spec, tried: list[Case]) -> Chart | None:
    names = [
        name for name in independent([n for n in varying(tried) if n != FIND], tried) if not name.endswith(".rate")
    ]
    order, words = Order(tried), tried[0].words
    keys = sorted({key_of(case, names) for case in tried}, key=lambda key: order(names, key))
    styles = {key: place for place, key in enumerate(keys[:SERIES])}
    panels = []
    notes: list[str] = []
    for load in (CLIENTS, RATE):
        mine = [case for case in tried if (case.axes[FIND] == "clients") == (load is CLIENTS)]
        if not mine:
            continue
        series = [
            _tried(case, load, describe(words, names, key_of(case, names)), styles.get(key_of(case, names)))
            for case in mine
        ]
        asked = sorted({float(case.axes["find_share"]) for case in mine if "find_share" in case.axes})
        xs = sorted({point.x for one in series for point in one.points})
        log = xs[-1] / xs[0] >= 8
        panels.append(
            Panel(
                title="",
                series=tuple(series),
                x_label=load.unit,
                y_label="share of requests within the SLO",
                x_log=log,
                y_log=False,
                x_is_metric=False,
                ticks=tuple((x, f"{x:.3g}") for x in some(xs, log)),
                lines=tuple((share, f"asked for {fixed(100 * share, 0)} %") for share in asked),
                y_top=1.05,
            )
        )
        notes += [_found(case, load, describe(words, names, key_of(case, names))) for case in mine[:NOTES]]
    if not panels:
        return None
    said = [
        "Marks: share of the requests within the SLO at each load that was tried, mean of the searches that tried it; "
        "dots beside them: the single searches.",
        *notes,
        f"Held fixed: {axis_summary(tried)}.",
    ]
    found = [one for panel in panels for one in panel.series]
    return Chart(
        name=spec.name,
        title=spec.title,
        caption=" ".join(said),
        panels=tuple(panels),
        legend=tuple((describe(words, names, key), style) for key, style in styles.items()) if names else (),
        has_invalid=any(case.state != "valid" for case in tried),
        mark="highest load that kept it; the wide stretch is its 95 % interval"
        if any(one.mark for one in found)
        else "",
    )


def _tried(case: Case, load: Load, label: str, style: int | None) -> Series:
    shares: dict[float, list[tuple[float, bool]]] = {}
    for repetition in case.repetitions:
        for place, share in probes(repetition):
            shares.setdefault(place, []).append((share, repetition.valid))
    points = []
    for place, told in sorted(shares.items()):
        interval = mean_interval([share for share, _ in told])
        said = f"{load.shown(float(f'{place:.3g}'))}: {fixed(100 * interval.mean, 1)} % within the SLO"
        points.append(
            Point(
                case=case.id,
                state=case.state,
                x=place,
                y=interval.mean,
                low=None,
                high=None,
                x_low=None,
                x_high=None,
                repetitions=tuple((place, share, valid) for share, valid in told),
                text="\n".join(part for part in (label, said, f"tried by {len(told)} searches") if part),
            )
        )
    value = case.measured(f"{case.axes[FIND]}_under_slo")
    mark = None
    if value is not None and value.value is not None:
        share = float(case.axes.get("find_share", 1.0))
        least, most = min(shares), max(shares)
        low = min(max(value.value if value.low is None else value.low, least), most)
        high = max(min(value.value if value.high is None else value.high, most), least)
        text = "\n".join(part for part in (label, _found(case, load, "")) if part)
        mark = Mark(value.value, share, ((low, share), (high, share)), case.id, text)
    return Series(label, style, tuple(points), True, mark)


def _found(case: Case, load: Load, label: str) -> str:
    value = case.measured(f"{case.axes[FIND]}_under_slo")
    texts = [outcomes(case)] if outcomes(case) else []
    if value is not None and value.value is not None:
        texts.insert(0, f"{plain(value.value, value.half, Scale(1, load.unit))} keep the SLO")
    text = " ".join(texts) or "no result"
    return f"{label}: {text}." if label else f"{text[0].upper()}{text[1:]}."


def outcomes(case: Case) -> str:
    """Return how many searches ended with a limit and how the others did, such as `in 2 of 3 searches; in 1 ...`.

    Empty when all ended with one. The mean is over those that did: without the others it would be too good, or too bad.
    """
    done = [repetition for repetition in case.repetitions if probes(repetition)]
    without = [repetition for repetition in done if f"{case.axes[FIND]}_under_slo" not in repetition.values]
    if not without:
        return ""
    asked = float(case.axes.get("find_share", 1.0))
    none = sum(all(share < asked for _, share in probes(repetition)) for repetition in without)
    parts = [f"in {len(done) - len(without)} of {len(done)} searches"] if len(without) < len(done) else []
    parts += [f"in {none} not even the lowest load kept it"] if none else []
    parts += [f"in {len(without) - none} no load failed"] if len(without) > none else []
    return "; ".join(parts)
