"""Intervals over repetitions: mean with Student's t. One value has no interval, and says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over `n` repetitions with a two-sided interval; bounds are None when n < 2."""

    mean: float
    n: int
    low: float | None
    high: float | None
    method: str

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, in the unit of the mean."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of independent repetitions and its Student-t interval.

    Source: W. S. Gosset (Student), 1908; requires independent repetitions, which requests within a run are not.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, 1, None, None, "one repetition, no interval")
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(0.5 + confidence / 2, n - 1) * math.sqrt(variance / n)
    return Interval(mean, n, mean - half, mean + half, f"mean, Student t {confidence:.0%} over {n} repetitions")


def t_quantile(p: float, df: int) -> float:
    """Return the quantile of Student's t for `df` degrees of freedom, 0.5 <= p < 1, by bisection of its exact CDF."""
    if not 0.5 <= p < 1 or df < 1:
        raise ValueError("needs 0.5 <= p < 1 and df >= 1")
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < p else (low, middle)
        if high - low < 1e-12 * high:
            break
    return (low + high) / 2


def _t_cdf(t: float, df: int) -> float:
    """CDF of Student's t for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    if df % 2:
        term = total = math.cos(theta)
        for k in range(3, df - 1, 2):
            term *= cos2 * (k - 1) / k
            total += term
        a = 2 / math.pi * (theta + (math.sin(theta) * total if df > 1 else 0.0))
    else:
        term = total = 1.0
        for k in range(2, df - 1, 2):
            term *= cos2 * (k - 1) / k
            total += term
        a = math.sin(theta) * total
    return 0.5 + a / 2
