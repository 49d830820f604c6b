"""The highest load that keeps an SLO, by doubling and bisection. Pure: which load to try next, and what was found.

One repetition is one search. Which of two neighbouring loads is the last good one depends on chance; that is why the
answer is a mean over repetitions, with an interval, like any other number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RESOLUTION = 0.05
"""A search ends when the lowest load that failed is no more than this above the highest one that kept."""
FIRST_PART, LEAST_PART = 64, 1024
"""A rate is first tried at this part of the highest, and never below the second."""


@dataclass(frozen=True)
class Probe:
    """One load that was tried, and the share of its requests that kept the SLO."""

    load: float
    share: float


def bracket(probes: Sequence[Probe], share: float) -> tuple[float | None, float | None]:
    """Return (highest load that kept below any that failed, lowest load that failed); None where there is none."""
    failed = min((probe.load for probe in probes if probe.share < share), default=None)
    kept = [probe.load for probe in probes if probe.share >= share and (failed is None or probe.load < failed)]
    return max(kept, default=None), failed


def next_load(probes: Sequence[Probe], most: float, share: float, *, whole: bool) -> float | None:
    """Return the load to try next, None when the search has ended. `whole`: loads are numbers of clients."""
    if not probes:
        return 1.0 if whole else most / FIRST_PART
    kept, failed = bracket(probes, share)
    if failed is None:
        assert kept is not None
        return None if kept >= most else min(2 * kept, most)
    if kept is None:
        return None if (whole and failed <= 1) or failed <= most / LEAST_PART else _halved(failed, whole=whole)
    if failed <= kept * (1 + RESOLUTION) or (whole and failed - kept <= 1):
        return None
    return float((kept + failed) // 2) if whole else math.sqrt(kept * failed)


def _halved(load: float, *, whole: bool) -> float:
    return float(max(1, load // 2)) if whole else load / 2
