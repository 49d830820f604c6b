"""Did other processes of the node use its cores while a repetition ran? Pure, over the batch's samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

NODE = "node"
NOISY = "noisy:"
"""First word of the note."""
MOST_FOREIGN_CORES = 0.2
"""An idle Linux node with a login or two stays below it; one busy neighbour is far above."""


class ForeignCpu:
    """CPU time of the node that no process of the batch used, from samples (see `sampling.sampler`)."""

    def __init__(self, samples: Iterable[Mapping[str, Any]]) -> None:
        totals: dict[int, dict[float, list[float]]] = {}
        for row in samples:
            if row["cpu_seconds"] is not None:
                node, own = totals.setdefault(row["invocation"], {}).setdefault(row["t_s"], [np.nan, 0.0])
                is_node = row["role"] == NODE
                entry = [row["cpu_seconds"], own] if is_node else [node, own + row["cpu_seconds"]]
                totals[row["invocation"]][row["t_s"]] = entry
        self._series = {
            invocation: (np.array(sorted(points)), np.array([points[t][0] - points[t][1] for t in sorted(points)]))
            for invocation, points in totals.items()
        }

    def cores(self, invocation: int, t_start_s: float, t_end_s: float) -> float | None:
        """Return the mean foreign cores between the samples around a stretch; None where samples do not enclose it."""
        times, foreign = self._series.get(invocation, (np.array([]), np.array([])))
        first = int(np.searchsorted(times, t_start_s, side="right")) - 1
        last = int(np.searchsorted(times, t_end_s, side="left"))
        if first < 0 or last >= len(times) or last <= first:
            return None
        cores = float((foreign[last] - foreign[first]) / (times[last] - times[first]))
        return cores if np.isfinite(cores) else None


def contamination_notes(cores: Sequence[float | None]) -> list[str]:
    """Return the caution about a case from the foreign cores of its repetitions."""
    noisy = [value for value in cores if value is not None and value > MOST_FOREIGN_CORES]
    if not noisy:
        return []
    return [
        f"{NOISY} in {len(noisy)} of {len(cores)} repetitions other processes used over {MOST_FOREIGN_CORES:g} cores "
        f"(at most {max(noisy):.1f})"
    ]
