"""Goodput: what of the load was served as well as its users need (the SLO), failures and late ones counting as not."""

from __future__ import annotations

import numpy as np

from aifbench.inference.metrics.observed import Requests
from aifbench.inference.params import Slo
from aifbench.records.models import Metric


def goodput_metrics(requests: Requests, slo: Slo | None) -> dict[str, Metric]:
    """Return the share of all requests that kept every bound of `slo`, and their rate (by makespan).

    Times run from the schedule: a user who had to wait before the request was sent has waited.
    """
    names = {"goodput_share": "1", "goodput_requests_per_second": "1/s"}
    if slo is None:
        return {name: Metric.absent(unit, "the suite gives no slo") for name, unit in names.items()}
    if not requests.errors:
        return {name: Metric.absent(unit, "no request") for name, unit in names.items()}
    kept = kept_requests(requests, slo)
    n, good = int(kept.size), int(kept.sum())
    makespan = float(np.nanmax(requests.columns["end"]) - np.nanmin(requests.columns["scheduled"]))
    within = f"requests with {slo.shown}"
    return {
        "goodput_share": Metric(value=good / n, unit="1", n=n, method=f"{within}, by all requests"),
        "goodput_requests_per_second": Metric(value=good / makespan, unit="1/s", n=n, method=f"{within}, by makespan"),
    }


def kept_requests(requests: Requests, slo: Slo) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each request whether it succeeded within every bound."""
    columns, kept = requests.columns, requests.ok.copy()
    spans = np.array([row[-1] - row[0] if len(row) > 1 else 0.0 for row in requests.tokens_s])
    events = np.array([max(len(row) - 1, 1) for row in requests.tokens_s])
    counts = np.where(np.isnan(columns["tokens"]), events, np.maximum(columns["tokens"] - 1, 1))
    observed = {
        "time_to_first_token_s": columns["first_token"] - columns["scheduled"],
        "time_per_output_token_s": spans / counts,
        "end_to_end_latency_s": columns["end"] - columns["scheduled"],
    }
    for name, values in observed.items():
        bound = getattr(slo, name)
        if bound is not None:
            kept &= values <= bound
    return kept
