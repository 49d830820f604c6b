"""Goodput: what of the load was served as well as its users need (the SLO), failures and late ones counting as not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aifbench.core.benchmark import Raw
from aifbench.core.records import Metric
from aifbench.inference.kinds import NO_LIMIT, NO_REQUEST, NO_SLO, NONE_KEEPS_IT, NOT_SEARCHED
from aifbench.inference.metrics.observed import Requests
from aifbench.inference.params import InferenceParams, Slo
from aifbench.inference.slo_search import Probe, bracket


def goodput_metrics(requests: Requests, slo: Slo | None) -> dict[str, Metric]:
    """Return the share of all requests that kept every bound of `slo`, and their rate (by makespan).

    Times run from the schedule: a user who had to wait before the request was sent has waited.
    """
    names = {"goodput_share": "1", "goodput_requests_per_second": "1/s"}
    if slo is None:
        return {name: Metric.absent(unit, NO_SLO.absent()) for name, unit in names.items()}
    if not requests.errors:
        return {name: Metric.absent(unit, NO_REQUEST.absent()) for name, unit in names.items()}
    kept = kept_requests(requests, slo)
    n, good = int(kept.size), int(kept.sum())
    makespan = float(np.nanmax(requests.columns["end"]) - np.nanmin(requests.columns["scheduled"]))
    within = f"requests with {slo.shown}"
    return {
        "goodput_share": Metric(value=good / n, unit="1", n=n, method=f"{within}, by all requests"),
        "goodput_requests_per_second": Metric(value=good / makespan, unit="1/s", n=n, method=f"{within}, by makespan"),
    }


def limit_metrics(params: InferenceParams, probes: Sequence[Probe]) -> dict[str, Metric]:
    """Return the highest load that kept the SLO. No limit up to the highest tried is an answer, no load at all too."""
    units = {"clients_under_slo": "clients", "rate_under_slo": "1/s"}
    metrics = {name: Metric.absent(unit, NOT_SEARCHED.absent()) for name, unit in units.items()}
    if params.find is None:
        return metrics
    name, n = f"{params.find}_under_slo", len(probes)
    kept, failed = bracket(probes, params.find_share)
    if kept is None:
        reason = NONE_KEEPS_IT.absent(lowest=failed)
    elif failed is None:
        reason = NO_LIMIT.absent(highest=kept)
    else:
        method = f"highest of {n} tried that kept the slo for {params.find_share:.0%}; the next, {failed:g}, did not"
        metrics[name] = Metric(value=kept, unit=units[name], n=n, method=method, instrument=failed - kept)
        return metrics
    metrics[name] = Metric.absent(units[name], reason, n=n)
    return metrics


def probes_of(params: InferenceParams, raw: Raw) -> list[Probe]:
    """Return the loads that a search tried and the share of requests that kept the SLO at each."""
    assert params.slo is not None
    requests = Requests.of(raw)
    kept, loads = kept_requests(requests, params.slo), np.asarray(raw["probe"], dtype=np.float64)
    return [Probe(float(load), float(kept[loads == load].mean())) for load in dict.fromkeys(loads.tolist())]


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
