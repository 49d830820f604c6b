"""Curves of load: the cases that differ only in how much is asked for, and the knee of each. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from math import log

from aifbench.analysis.cases import Case, determines, varying
from aifbench.analysis.numbers import decimals_for, fixed
from aifbench.stats.knee import Knee, knee


@dataclass(frozen=True)
class Load:
    """A way to ask for more: its axis, its unit, what a number beside a point is, and the throughput that answers."""

    axis: str
    unit: str
    beside: str
    throughput: str
    takes: Callable[[Case], bool] = lambda case: True
    """Whether a case asks in this way."""
    bends: Callable[[list[Case]], str | None] = lambda curve: None
    """Why the throughput of valid cases, in the order of their loads, bends by itself; None where it does not."""
    one: str = ""
    """Its unit beside the number 1, where that is another."""

    def shown(self, value: float) -> str:
        """Return `1 client`, `4 clients`, `2.5 requests/s`."""
        return f"{value:g} {(value == 1 and self.one) or self.unit}"


def curves(cases: list[Case], load: Load) -> list[list[Case]]:
    """Return the curves of at least two loads among `cases`, each in the order of its loads."""
    able = [case for case in cases if _is_load(case.axes.get(load.axis)) and load.takes(case)]
    groups: dict[tuple[object, ...], list[Case]] = {}
    names = [name for name in varying(able) if name != load.axis and not determines((load.axis,), name, able)]
    for case in able:
        groups.setdefault(tuple(case.axes.get(name) for name in names), []).append(case)
    found = [_ordered(group, load) for group in groups.values()]
    return [group for group in found if len({case.axes[load.axis] for case in group}) > 1]


def knee_of(curve: Iterable[Case], load: Load) -> Knee:
    """Return the knee of one curve, from the valid repetitions of its valid cases."""
    valid = _ordered([case for case in curve if case.state == "valid"], load)
    values: dict[float, list[float]] = {}
    for case in valid:
        told = [r.values[load.throughput] for r in case.repetitions if r.valid and load.throughput in r.values]
        values.setdefault(float(case.axes[load.axis]), []).extend(told)
    bends = load.bends(valid)
    if bends:
        return Knee(None, reason=bends)
    return _knee(tuple((place, tuple(told)) for place, told in sorted(values.items()) if told))


@cache
def _knee(curve: tuple[tuple[float, tuple[float, ...]], ...]) -> Knee:
    """Find each knee once, as several panels and sentences tell it."""
    return knee(dict(curve))


def knee_text(found: Knee, load: Load) -> str:
    """Return `3.5 clients (3.4–3.6)`."""
    assert found.load is not None
    assert found.low is not None
    assert found.high is not None
    decimals = max(0, min(decimals_for(found.load, (found.high - found.low) / 2), 1 if found.load >= 1 else 3))
    low, high = fixed(found.low, decimals), fixed(found.high, decimals)
    return f"{fixed(found.load, decimals)} {load.unit} ({low}–{high})"


def between(places: list[tuple[float, float, float]], load: float, *, x_log: bool, y_log: bool) -> tuple[float, float]:
    """Return where `load` lies on the line that is drawn through `places` (load, x, y), in order of load."""
    for (a, *start), (b, *end) in itertools.pairwise(places):
        if load <= b or (b, *end) == places[-1]:
            part = min(max(log(load / a) / log(b / a), 0.0), 1.0) if b > a else 1.0
            x, y = (
                p * (q / p) ** part if logarithmic and p > 0 and q > 0 else p + (q - p) * part
                for p, q, logarithmic in zip(start, end, (x_log, y_log), strict=True)
            )
            return x, y
    raise ValueError("needs two places")


def _ordered(cases: list[Case], load: Load) -> list[Case]:
    return sorted(cases, key=lambda case: float(case.axes[load.axis]))


def _is_load(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
