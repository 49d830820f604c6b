"""Quantiles, given only when the sample supports them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from aifbench.core.records import Metric
from aifbench.stats.kinds import TOO_FEW_FOR_QUANTILE

BEYOND = 10
"""Observations that must lie beyond a quantile before it is printed: p99 needs 1000."""


def needed(q: float) -> int:
    """Return the number of observations that quantile `q` (0 < q < 1) needs."""
    return int(np.ceil(round(BEYOND / min(q, 1 - q), 6)))


def quantile_metric(
    values: ArrayLike, q: float, unit: str, instrument: float | None = None, *, of: str = "operations"
) -> Metric:
    """Return quantile `q` of one repetition's operations, or an absent metric when n does not support it.

    `of` says what the values are.
    Method: linear interpolation between order statistics (Hyndman and Fan 1996, type 7).
    """
    data = np.asarray(values, dtype=np.float64)
    n = int(data.size)
    if n < needed(q):
        return Metric.absent(unit, TOO_FEW_FOR_QUANTILE.absent(n=n, percent=q * 100, needed=needed(q)), n=n)
    value = float(np.quantile(data, q))
    return Metric(value=value, unit=unit, n=n, method=f"p{q * 100:g} of {of}", instrument=instrument)
