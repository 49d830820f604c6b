"""The grammar of a finding: sentences of texts and of numbers that lead to their cases, silent where data carry none.

Only valid cases with an interval over at least two repetitions speak. A ratio of two numbers comes with the widest
range that their 95 % intervals allow (low over high to high over low), and is called a difference only when that range
leaves out 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, log
from typing import Any

from aifbench.analysis.cases import Case, Value, independent, varying
from aifbench.analysis.curves import Load, curves, knee_of, knee_text
from aifbench.analysis.numbers import factor, number

NBSP = "\u00a0"
"""Keeps an axis and its value on one line."""


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; with a case it is a number that leads to that case."""

    text: str
    case: str | None = None


@dataclass(frozen=True)
class Finding:
    """One sentence, and the chart that shows it."""

    figure: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The sentence without its links."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Ratio:
    """Quotient of two values with the range that their intervals allow."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the range leaves out 1."""
        return self.low > 1 or self.high < 1

    def __str__(self) -> str:
        """Return `12.1× (11.4–12.8)`."""
        return factor(self.value, self.low, self.high)


def ratio(top: Value, bottom: Value) -> Ratio | None:
    """Return top / bottom of two quantities that cannot be negative; None without intervals or with a 0."""
    if top.low is None or top.high is None or bottom.low is None or bottom.high is None:
        return None
    if not top.value or not bottom.value:
        return None
    highest = top.high / bottom.low if bottom.low > 0 else inf
    return Ratio(top.value / bottom.value, max(0.0, top.low) / bottom.high, highest)


# -- kinds of sentences ------------------------------------------------------------------------------------------------


def effect(
    cases: list[Case],
    *,
    axis: str,
    metric: str,
    figure: str,
    text: str,
    none: str,
    what: Callable[[Case], str] = lambda case: "",
    said: tuple[str, ...] = (),
    unit: str | None = None,
    like: Case | None = None,
) -> Finding | None:
    """Compare the ends of `axis`, all else equal, in the group of cases with most values of it, nearest to `like`.

    `text` (`none` where no difference is shown) has places for {a} and {b}, the ends of the axis; {s}, the plural of
    {a}; {x} and {y}, the metric there; {ratio}; and {what}, which says the axes whose first part is one of `said`.
    More of the axis must mean more: where its 0 stands for off, leave that value out of `cases`.
    """
    usable = [case for case in cases if sure(case, metric)]
    group = fullest(usable, {axis}, axis, like.axes if like else {})
    if group is None or len(group) < 2:
        return None
    group.sort(key=lambda case: case.axes[axis])
    first, last = group[0], group[-1]
    change = ratio(last.metrics[metric], first.metrics[metric])
    if change is None:
        return None
    pieces = {
        "{a}": Part(first.words.value(axis, first.axes[axis])),
        "{b}": Part(last.words.value(axis, last.axes[axis])),
        "{s}": Part("" if first.axes[axis] == 1 else "s"),
        "{what}": Part(what(first)),
        "{x}": link(first, metric, unit),
        "{y}": link(last, metric, unit),
        "{ratio}": Part(str(change), last.id),
    }
    parts = _filled(text if change.differs else none, pieces)
    free = {axis, *(name for name in varying(usable) if name.partition(".")[0] in said)}
    parts.append(Part(f"{where(first, group, usable, free)}."))
    return Finding(figure, tuple(parts))


def knee_finding(cases: list[Case], load: Load, figure: str, who: str, unit: str) -> Finding | None:
    """Say where the knee of the curve with most loads is, or why there is none. `who` answers the load."""
    found = curves([case for case in cases if sure(case, load.throughput)], load)
    curve = max(found, key=len, default=[])
    if len(curve) < 3:
        return None
    told, last = knee_of(curve, load), curve[-1]
    settings = where(last, curve, [case for one in found for case in one], {load.axis})
    if told.load is None:
        parts = [Part(f"No knee is found up to {_at(last, load)}: {told.reason}. There {who} reached ")]
        return Finding(figure, (*parts, link(last, load.throughput, unit), Part(f"{settings}.")))
    assert told.before is not None
    assert told.after is not None
    near = min(curve, key=lambda case: abs(log(float(case.axes[load.axis]) / (told.load or 1))))
    parts = [Part("Throughput has its knee at "), Part(knee_text(told, load), near.id)]
    parts.append(Part(f": a doubling brings {2**told.before:.2f}× before it and {2**told.after:.2f}× beyond it. "))
    parts += [Part(f"With {_at(near, load)} {who} reached "), link(near, load.throughput, unit), Part(f"{settings}.")]
    return Finding(figure, tuple(parts))


def _at(case: Case, load: Load) -> str:
    return load.shown(float(case.axes[load.axis]))


def _filled(text: str, pieces: Mapping[str, Part]) -> list[Part]:
    parts = [Part(text)]
    for name, piece in pieces.items():
        split: list[Part] = []
        for part in parts:
            head, found, tail = part.text.partition(name) if part.case is None else (part.text, "", "")
            split += [Part(head, part.case), *([piece, Part(tail)] if found else [])]
        parts = [part for part in split if part.text]
    return parts


# -- parts of sentences ------------------------------------------------------------------------------------------------


def fullest(cases: list[Case], free: Iterable[str], axis: str, prefer: Mapping[str, Any]) -> list[Case] | None:
    """Return the cases that agree in all but `free`, of the group with most values of `axis`; None if it has one.

    Among equals: the one that meets most of `prefer`, then the first of the plan.
    """
    free = set(free)
    groups: dict[tuple[Any, ...], list[Case]] = {}
    names = [name for name in varying(cases) if name not in free]
    for case in cases:
        if axis in case.axes:
            groups.setdefault(tuple(case.axes.get(name) for name in names), []).append(case)
    if not groups:
        return None
    best = max(
        groups.values(),
        key=lambda group: (
            len({case.axes[axis] for case in group}),
            sum(group[0].axes.get(name) == value for name, value in prefer.items()),
        ),
    )
    return best if len({case.axes[axis] for case in best}) > 1 else None


def sure(case: Case, metric: str) -> bool:
    """Return whether a case has a value with an interval."""
    value = case.measured(metric)
    return value is not None and value.low is not None and value.high is not None and value.n >= 2


def value_of(case: Case, metric: str) -> float:
    """Return a value that is there."""
    value = case.metrics[metric].value
    assert value is not None
    return value


def link(case: Case, metric: str, unit: str | None = None) -> Part:
    """Return `14 200 ± 340 queries/s` as a number that leads to its case. A value near 1 stays a share."""
    value = case.metrics[metric]
    assert value.value is not None
    return Part(number(value.value, value.half, value.unit if unit is None else unit), case.id)


def where(case: Case, group: list[Case], usable: list[Case], free: set[str]) -> str:
    """Return the settings that tell this group of cases from the others, such as ` (prompt short)`."""
    inside = varying(group)
    names = [name for name in varying(usable) if name not in free and name not in inside]
    told = settings(case, independent(names, usable))
    return f" ({told})" if told else ""


def settings(case: Case, names: list[str]) -> str:
    """Return axes and their values, such as `block size 1MiB, mode direct`."""
    given = [name for name in names if name in case.axes]
    words = case.words
    return ", ".join(
        f"{words.axis(name).replace('_', ' ')}{NBSP}{words.value(name, case.axes[name])}" for name in given
    )
