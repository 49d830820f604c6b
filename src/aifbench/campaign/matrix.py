"""From a suite's axes to points: product x zip, minus exclude, plus include. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from aifbench.campaign.config import Suite


def points(suite: Suite) -> Iterator[dict[str, Any]]:
    """Yield the points of a suite as field values, in the order in which the user wrote the axes."""
    names = list(suite.axes)
    zipped = list(suite.zipped)
    rows = list(zip(*suite.zipped.values(), strict=True)) if zipped else [()]
    for values in product(*suite.axes.values()):
        for row in rows:
            point = {**suite.fixed, **dict(zip(names, values, strict=True)), **dict(zip(zipped, row, strict=True))}
            if not any(_matches(clause, point) for clause in suite.exclude):
                yield point
    for extra in suite.include:
        yield {**suite.fixed, **extra}


def _matches(clause: Mapping[str, list[Any]], point: Mapping[str, Any]) -> bool:
    return all(key in point and point[key] in allowed for key, allowed in clause.items())
