"""Rates of generation.

`tokens_generated_per_second`: per stream (tokens - 1) / (last token - first token), mean of the streams.
`time_per_output_token_s`: per stream (last token - first token) / (tokens - 1), mean (MLPerf's TPOT).
`tokens_generated_per_second_aggregate`: tokens stamped in the steady window by its length; where the server counts
more tokens than there are events, each event of a request weighs alike.
"""

from __future__ import annotations

import numpy as np

from aifbench.checks.load import SteadyWindow
from aifbench.core.records import Metric
from aifbench.inference.kinds import NO_WINDOW, NONE_SUCCEEDED
from aifbench.inference.metrics.observed import Instrument, Requests, mean


def generation_metrics(requests: Requests, window: SteadyWindow | None, errors: Instrument) -> dict[str, Metric]:
    """Return the rates of one repetition over its successful requests."""
    rows, counts = requests.good_tokens_s, requests.counts
    spans = np.array([row[-1] - row[0] for row in rows], dtype=np.float64)
    usable = (spans > 0) & (counts > 1) if len(rows) else np.zeros(0, dtype=bool)
    rates = (counts[usable] - 1) / spans[usable]
    rate_error = None
    if errors.gap_s is not None and rates.size:
        rate_error = float(np.mean(rates * errors.gap_s / spans[usable]))
    times = np.divide(1.0, rates)
    time_error = None if errors.gap_s is None or not rates.size else float(np.mean(errors.gap_s / (counts[usable] - 1)))
    how = f"mean of streams, {requests.count_method}"
    metrics = {
        "tokens_generated_per_second": mean(
            rates, "tokens/s", f"(tokens - 1) / (last - first token), {how}", rate_error
        ),
        "time_per_output_token_s": mean(times, "s", f"(last - first token) / (tokens - 1), {how}", time_error),
    }
    name = "tokens_generated_per_second_aggregate"
    if window is None:
        metrics[name] = Metric.absent("tokens/s", NO_WINDOW.absent())
        return metrics
    if not rows:
        metrics[name] = Metric.absent("tokens/s", NONE_SUCCEEDED.absent())
        return metrics
    start, end = window.start_s, window.end_s
    inside = [np.count_nonzero((row > start) & (row <= end)) / len(row) for row in rows]
    metrics[name] = Metric(
        value=float(np.dot(inside, counts)) / (end - start),
        unit="tokens/s",
        n=int(sum(np.count_nonzero((row > start) & (row <= end)) for row in rows)),
        method=f"tokens by length of the steady window, {requests.count_method}",
    )
    return metrics
