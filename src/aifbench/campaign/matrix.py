"""From a suite's axes to points: product x zip, minus exclude, plus include. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from aifbench.campaign.config import Suite
from aifbench.core.errors import ConfigError


def size(suite: Suite) -> int:
    """Return how many points a suite has at most, without making them."""
    rows = max((len(values) for values in suite.zipped.values()), default=1)
    return math.prod(len(values) for values in suite.axes.values()) * rows + len(suite.include)


def points(suite: Suite) -> Iterator[dict[str, Any]]:
    """Yield the points of a suite as field values, in the order in which the user wrote the axes."""
    names = list(suite.axes)
    zipped = list(suite.zipped)
    rows = list(zip(*suite.zipped.values(), strict=True)) if zipped else [()]
    used: set[int] = set()
    for values in product(*suite.axes.values()):
        for row in rows:
            point = {**suite.fixed, **dict(zip(names, values, strict=True)), **dict(zip(zipped, row, strict=True))}
            out = [place for place, clause in enumerate(suite.exclude) if _matches(clause, point)]
            used.update(out)
            if not out:
                yield point
    for place, clause in enumerate(suite.exclude):
        if place not in used:
            key = f"{suite.prefix}.exclude[{place}]" if suite.prefix else f"exclude[{place}]"
            shown = ", ".join(f"{name}: {values}" for name, values in clause.items())
            raise ConfigError(key, None, f"no point of the matrix has {shown}", where=suite.where)
    for extra in suite.include:
        yield {**suite.fixed, **extra}


def _matches(clause: Mapping[str, list[Any]], point: Mapping[str, Any]) -> bool:
    return all(key in point and point[key] in allowed for key, allowed in clause.items())
