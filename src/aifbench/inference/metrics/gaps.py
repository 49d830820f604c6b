"""Inter-token latency (ITL): every gap between successive token events of a stream, all streams together.

A mean of gaps per request, which other tools print under this name, hides a stall; here each gap counts. A stall is a
gap over `STALL` times the median gap of the repetition.
"""

from __future__ import annotations

import numpy as np

from aifbench.core.records import Metric
from aifbench.inference.kinds import NO_GAP
from aifbench.inference.metrics.observed import Instrument, Requests, mean, quantile

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
STALL = 5.0


def gap_metrics(requests: Requests, errors: Instrument) -> dict[str, Metric]:
    """Return mean, quantiles, longest gap (s) and the number of stalls."""
    rows = requests.good_tokens_s
    gaps = np.concatenate([np.diff(row) for row in rows]) if rows else np.zeros(0)
    metrics = {
        "inter_token_latency_mean_s": mean(gaps, "s", "mean of all gaps between token events", errors.gap_s),
        **{
            f"inter_token_latency_{name}_s": quantile(gaps, q, "gaps between token events", errors.gap_s)
            for name, q in QUANTILES.items()
        },
    }
    if not gaps.size:
        why = NO_GAP.absent()
        absent = {"inter_token_latency_max_s": Metric.absent("s", why), "inter_token_stalls": Metric.absent("1", why)}
        return metrics | absent
    n, median = int(gaps.size), float(np.median(gaps))
    metrics["inter_token_latency_max_s"] = Metric(
        value=float(gaps.max()), unit="s", n=n, method="longest gap seen", instrument=errors.gap_s
    )
    metrics["inter_token_stalls"] = Metric(
        value=int(np.count_nonzero(gaps > STALL * median)), unit="1", n=n, method=f"gaps over {STALL:g} x their median"
    )
    return metrics
