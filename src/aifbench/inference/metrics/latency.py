"""Whole requests: end-to-end latency, rates, success, concurrency, and how well the load was kept to its schedule."""

from __future__ import annotations

import numpy as np

from aifbench.checks.load import SteadyWindow
from aifbench.core.records import Metric
from aifbench.inference.kinds import NO_REQUEST, NO_WINDOW, NONE_SENT, NONE_SUCCEEDED
from aifbench.inference.metrics.observed import Instrument, Requests, mean, quantile


def request_metrics(requests: Requests, window: SteadyWindow | None, errors: Instrument) -> dict[str, Metric]:
    """Return the figures of whole requests. Times run from send; `_from_schedule_` from when it was to be sent."""
    send, scheduled, end = requests.columns["send"], requests.columns["scheduled"], requests.columns["end"]
    n, good = len(requests.errors), int(requests.ok.sum())
    ended = requests.good("end")
    metrics = {
        "end_to_end_latency_s": mean(
            ended - requests.good("send"), "s", "send to end of the answer, mean", errors.ttft_s
        ),
        "end_to_end_latency_from_schedule_s": mean(
            ended - requests.good("scheduled"), "s", "when it was to be sent to end of the answer, mean", errors.ttft_s
        ),
        "schedule_lag_p99_s": quantile(_known(send - scheduled), 0.99, "times from schedule to send", None),
        "schedule_lag_max_s": _largest(send - scheduled),
        "success_rate": Metric(value=good / n, unit="1", n=n, method="successful requests by all requests")
        if n
        else Metric.absent("1", NO_REQUEST.absent()),
    }
    if good and not np.isnan(send).all():
        makespan = float(np.nanmax(end) - np.nanmin(send))
        metrics["makespan_s"] = Metric(value=makespan, unit="s", n=n, method="first send to last end")
        metrics["requests_per_second"] = Metric(
            value=good / makespan, unit="1/s", n=good, method="successful requests by makespan"
        )
        distinct = len({answer for answer, ok in zip(requests.answers, requests.ok, strict=True) if ok})
        metrics["distinct_answers"] = Metric(value=distinct, unit="1", n=good, method="different texts by SHA-256")
    else:
        why = NONE_SUCCEEDED.absent()
        for name, unit in {"makespan_s": "s", "requests_per_second": "1/s", "distinct_answers": "1"}.items():
            metrics[name] = Metric.absent(unit, why)
    if window is None:
        metrics["concurrency_achieved"] = Metric.absent("1", NO_WINDOW.absent())
    else:
        method = "time average of requests in flight in the steady window"
        metrics["concurrency_achieved"] = Metric(value=window.in_flight, unit="1", n=window.touched, method=method)
    return metrics


def _known(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return values[~np.isnan(values)]


def _largest(lags: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Metric:
    known = _known(lags)
    if not known.size:
        return Metric.absent("s", NONE_SENT.absent())
    return Metric(value=float(known.max()), unit="s", n=int(known.size), method="longest time from schedule to send")
