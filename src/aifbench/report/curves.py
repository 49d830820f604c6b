"""Curves of load: the cases that differ only in their number of clients or their rate, and the knee of each. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import log

from aifbench.report.load import Case, determines, varying
from aifbench.report.numbers import decimals_for, fixed
from aifbench.stats.knee import Knee, knee

FIND = "find"
"""Parameter of a case that searches its load: it has no place on a curve."""
LONGEST_ANSWER = 0.2
"""Part of the time of all requests at the highest rate that one answer at the lowest may take."""


@dataclass(frozen=True)
class Load:
    """A way to ask for more: its axis, its unit, what a number beside a point is, and the throughput that answers."""

    axis: str
    unit: str
    beside: str
    throughput: str

    def shown(self, value: float) -> str:
        """Return `1 client`, `4 clients`, `2.5 requests/s`."""
        return f"{value:g} {self.unit[:-1] if self.unit == 'clients' and value == 1 else self.unit}"


CLIENTS = Load("clients", "clients", "the number of clients", "tokens_generated_per_second_aggregate")
RATE = Load("schedule.rate", "requests/s", "the rate that was asked for, in requests/s", "requests_per_second")


def curves(cases: list[Case], load: Load) -> list[list[Case]]:
    """Return the curves of at least two loads among `cases`, each in the order of its loads."""
    able = [case for case in cases if _on_curve(case, load)]
    groups: dict[tuple[object, ...], list[Case]] = {}
    names = [name for name in varying(able) if name != load.axis and not determines((load.axis,), name, able)]
    for case in able:
        groups.setdefault(tuple(case.axes.get(name) for name in names), []).append(case)
    found = [sorted(group, key=lambda case: float(case.axes[load.axis])) for group in groups.values()]
    return [group for group in found if len({case.axes[load.axis] for case in group}) > 1]


def knee_of(curve: Iterable[Case], load: Load) -> Knee:
    """Return the knee of one curve, from the valid repetitions of its valid cases."""
    valid = [case for case in curve if case.state == "valid"]
    values: dict[float, list[float]] = {}
    for case in valid:
        told = [r.values[load.throughput] for r in case.repetitions if r.valid and load.throughput in r.values]
        values.setdefault(float(case.axes[load.axis]), []).extend(told)
    short = _too_short(valid) if load is RATE else None
    if short:
        return Knee(None, reason=short)
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


def _on_curve(case: Case, load: Load) -> bool:
    value = case.axes.get(load.axis)
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    closed = case.axes.get("schedule.kind", "closed") == "closed"
    return number and FIND not in case.axes and closed == (load is CLIENTS)


def _too_short(curve: list[Case]) -> str | None:
    """Return why the achieved rate bends by itself: an answer takes long against all requests together."""
    ordered = sorted(curve, key=lambda case: float(case.axes[RATE.axis]))
    answer = ordered[0].measured("end_to_end_latency_s") if ordered else None
    whole = ordered[-1].measured("makespan_s") if ordered else None
    if answer is None or whole is None or answer.value is None or whole.value is None:
        return None
    if answer.value <= LONGEST_ANSWER * whole.value:
        return None
    return (
        f"too few requests: one answer takes {answer.value:.2g} s, all of the highest rate {whole.value:.2g} s, "
        "so that rate would not be reached by any server"
    )
