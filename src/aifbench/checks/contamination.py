"""Did other processes of the node use its cores while a repetition ran? Pure, over the batch's samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aifbench.checks.kinds import NOISY
from aifbench.core.notes import Note
from aifbench.core.roles import CLIENT_NODE, NODE

MOST_FOREIGN_CORES = 0.2
"""An idle Linux node with a login or two stays below it; one busy neighbour is far above."""


class ForeignCpu:
    """CPU time of each node that no process of the batch used, from samples (see `sampling.sampler`)."""

    def __init__(self, samples: Iterable[Mapping[str, Any]]) -> None:
        totals: dict[tuple[int, str | None], dict[float, list[float]]] = {}
        for row in samples:
            if row["cpu_seconds"] is not None:
                clock = row.get("clock_s") or row["t_s"]
                point = totals.setdefault((row["invocation"], row.get("node")), {}).setdefault(
                    row["t_s"], [clock, np.nan, 0.0]
                )
                whole = row["role"] in (NODE, CLIENT_NODE)
                point[1 if whole else 2] = row["cpu_seconds"] + (0.0 if whole else point[2])
        self._series: dict[int, list[Any]] = {}
        for (invocation, _), points in totals.items():
            rows = [(t_s, clock, node - own) for t_s, (clock, node, own) in sorted(points.items())]
            self._series.setdefault(invocation, []).append(np.array(rows).T)

    def cores(self, invocation: int, t_start_s: float, t_end_s: float) -> float | None:
        """Return the mean foreign cores between the samples around a stretch, of the node where they were most.

        None where no node has samples that enclose it.
        """
        found = [_cores(one, t_start_s, t_end_s) for one in self._series.get(invocation, [])]
        return max((cores for cores in found if cores is not None), default=None)


def _cores(samples: Any, t_start_s: float, t_end_s: float) -> float | None:
    """Return the foreign cores between the samples around a stretch; rows: times, clock of the node, foreign CPU."""
    times, clocks, foreign = samples
    first = int(np.searchsorted(times, t_start_s, side="right")) - 1
    last = int(np.searchsorted(times, t_end_s, side="left"))
    if first < 0 or last >= len(times) or clocks[last] <= clocks[first]:
        return None
    cores = float((foreign[last] - foreign[first]) / (clocks[last] - clocks[first]))
    return cores if np.isfinite(cores) else None


def contamination_notes(cores: Sequence[float | None]) -> list[Note]:
    """Return the caution about a case from the foreign cores of its repetitions."""
    noisy = [value for value in cores if value is not None and value > MOST_FOREIGN_CORES]
    if not noisy:
        return []
    found = {"noisy": len(noisy), "repetitions": len(cores), "cores": max(noisy)}
    return [NOISY.caution(**found, limit_cores=MOST_FOREIGN_CORES)]
