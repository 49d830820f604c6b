"""Time to first token (TTFT), and the other moments that are called so elsewhere.

`time_to_first_token_s` runs from send (before the request's first byte is given to the kernel) to the stamp of the
first token event: one that carries text of any channel; role-only and empty ones are none. First byte is the first of
the response, first event the first of its body, first visible token the first of the answer itself (no reasoning, no
tool call). From schedule: from the time at which the schedule wanted the request sent, so that a wait in the client
counts (response time instead of service time).
"""

from __future__ import annotations

from aifbench.core.records import Metric
from aifbench.inference.metrics.observed import Instrument, Requests, mean, quantile

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
OTHER = {"byte": "first_byte", "event": "first_event", "visible_token": "first_visible"}


def first_token_metrics(requests: Requests, errors: Instrument) -> dict[str, Metric]:
    """Return the times of one repetition, in s, over its successful requests."""
    send, first = requests.good("send"), requests.good("first_token")
    metrics = {"time_to_first_token_s": mean(first - send, "s", "send to first token, mean of requests", errors.ttft_s)}
    for name, q in QUANTILES.items():
        metrics[f"time_to_first_token_{name}_s"] = quantile(first - send, q, "requests", errors.ttft_s)
    for name, stamp in OTHER.items():
        method = f"send to first {name.replace('_', ' ')}, mean of requests"
        metrics[f"time_to_first_{name}_s"] = mean(requests.good(stamp) - send, "s", method, errors.ttft_s)
    method = "when the schedule wanted it sent to first token, mean of requests"
    metrics["time_to_first_token_from_schedule_s"] = mean(
        first - requests.good("scheduled"), "s", method, errors.ttft_s
    )
    return metrics
