"""Was the load that was asked for really there? Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifbench.checks.kinds import LITTLES_LAW
from aifbench.core.notes import Note


def littles_law(throughput_per_s: float, residence_s: float, clients: int, tolerance: float = 0.05) -> list[Note]:
    """Return the reason, if any, why a closed loop of `clients` was not kept busy.

    In a closed loop N = X R: the clients equal throughput (operations/s) times mean residence (s; the operation and, if
    there is one, the think time after it), both over the same window. A product below N means that clients waited for
    something that is not in the latencies (the load generator itself); above N, that latencies contain more than the
    operation.
    Source: J. D. C. Little, 1961; Denning and Buzen, operational analysis, 1978.
    """
    in_flight = throughput_per_s * residence_s
    if abs(in_flight - clients) <= tolerance * clients:
        return []
    return [
        LITTLES_LAW.against(
            throughput_per_s=throughput_per_s,
            residence_s=residence_s,
            in_flight=in_flight,
            clients=clients,
            tolerance=tolerance,
        )
    ]


@dataclass(frozen=True)
class SteadyWindow:
    """A stretch (s) of steady load and what ran in it: all clients of a closed loop at work, or requests arriving.

    Operations that the window cuts count by the part of them inside: `operations` is a sum of such parts, `busy_s` the
    time of operations inside, summed over clients.
    """

    start_s: float
    end_s: float
    operations: float
    busy_s: float
    touched: int
    """Number of operations of which some part is inside."""
    pauses: float = 0.0
    """Pauses of a closed loop's clients between their operations; those that the window cuts count by their part."""

    @property
    def length_s(self) -> float:
        """Length of the window in s."""
        return self.end_s - self.start_s

    @property
    def in_flight(self) -> float:
        """Time average of operations in flight."""
        return self.busy_s / self.length_s

    def reasons(self, clients: int, think_s: float = 0.0) -> list[Note]:
        """Return the reason, if any, why `clients` who think `think_s` were not kept busy (see `littles_law`)."""
        if not self.operations:
            return []
        residence_s = (self.busy_s + self.pauses * think_s) / self.operations
        return littles_law(self.operations / self.length_s, residence_s, clients)


def steady_window(
    clients: NDArray[np.int64], begin_s: NDArray[np.float64], end_s: NDArray[np.float64]
) -> SteadyWindow | None:
    """Return the steady window of operations (one row each; NaN where a stamp is missing), None if there is none."""
    known = ~(np.isnan(begin_s) | np.isnan(end_s))
    if not known.any() or set(clients) - set(clients[known]):
        return None
    owner, begin, end = clients[known], begin_s[known], end_s[known]
    groups = [owner == client for client in np.unique(owner)]
    start, stop = max(float(begin[mine].min()) for mine in groups), min(float(end[mine].max()) for mine in groups)
    if stop <= start:
        return None
    inside, share = _parts(begin, end, start, stop)
    paused = np.concatenate(
        [_parts(np.sort(end[mine])[:-1], np.sort(begin[mine])[1:], start, stop)[1] for mine in groups]
    )
    return SteadyWindow(
        start, stop, float(share.sum()), float(inside.sum()), int(np.count_nonzero(share)), float(paused.sum())
    )


def _parts(
    begin: NDArray[np.float64], end: NDArray[np.float64], start: float, stop: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much (s, and as a share of its own length) of each stretch is inside a window."""
    inside = np.clip(np.minimum(end, stop) - np.maximum(begin, start), 0.0, None)
    moments = ((begin >= start) & (end <= stop)).astype(np.float64)
    return inside, np.divide(inside, end - begin, out=moments, where=end > begin)


def arrival_window(begin_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> SteadyWindow | None:
    """Return the stretch from the first to the last send of an open load, None if there is none: no ramp, no drain."""
    known = ~(np.isnan(begin_s) | np.isnan(end_s))
    begin, end = begin_s[known], end_s[known]
    if begin.size < 2 or begin.max() <= begin.min():
        return None
    start, stop = float(begin.min()), float(begin.max())
    inside, share = _parts(begin, end, start, stop)
    return SteadyWindow(start, stop, float(share.sum()), float(inside.sum()), int(np.count_nonzero(share)))
