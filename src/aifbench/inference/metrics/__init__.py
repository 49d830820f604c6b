"""From the requests of one repetition to metrics and verdict. Pure; the raw columns are those of `requests.columns`.

A request succeeds when the server finished a streamed answer of at least one token and nothing went wrong. Times and
rates are over successful requests; failures stay in `success_rate` and in the verdict. `send` is the moment before the
request's first byte is given to the kernel: connecting is outside, queueing at the server is inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aifbench.checks.cache import cache_state
from aifbench.checks.load import arrival_window, steady_window
from aifbench.checks.server import servers_changed
from aifbench.core.benchmark import Raw
from aifbench.core.records import Metric, Validity
from aifbench.inference.metrics import verdict
from aifbench.inference.metrics.first_token import first_token_metrics
from aifbench.inference.metrics.gaps import gap_metrics
from aifbench.inference.metrics.goodput import goodput_metrics, limit_metrics, probes_of
from aifbench.inference.metrics.latency import request_metrics
from aifbench.inference.metrics.observed import Instrument, Requests
from aifbench.inference.metrics.server import server_metrics
from aifbench.inference.metrics.tokens import generation_metrics
from aifbench.inference.params import InferenceParams
from aifbench.inference.slo_search import bracket
from aifbench.load.schedules import Closed


def evaluate(params: InferenceParams, raw: Raw, facts: Mapping[str, Any]) -> tuple[dict[str, Metric], Validity]:
    """Return metrics and verdict of one repetition; of a search, those of the highest load that kept the SLO."""
    limit = limit_metrics(params, probes := probes_of(params, raw) if params.find is not None else [])
    if params.find is not None:
        kept, failed = bracket(probes, params.find_share)
        load = kept if kept is not None else failed
        chosen = [index for index, probe in enumerate(raw["probe"]) if probe == load]
        raw = {name: [column[index] for index in chosen] for name, column in raw.items()}
        params = params.at_load(load or 0.0)
    requests = Requests.of(raw)
    send, end = requests.columns["send"], requests.columns["end"]
    closed = isinstance(params.schedule, Closed)
    window = steady_window(requests.clients, send, end) if closed else arrival_window(send, end)
    errors = Instrument.of(facts)
    metrics = {
        **first_token_metrics(requests, errors),
        **generation_metrics(requests, window, errors),
        **gap_metrics(requests, errors),
        **request_metrics(requests, window, errors),
        **goodput_metrics(requests, params.slo),
        **server_metrics(requests),
        **limit,
    }
    notes = [
        *verdict.failures(requests),
        *verdict.closed_loop(window, params),
        *verdict.on_time(requests, params),
        *verdict.calibrated_range(requests, facts),
        *verdict.rates_agree(requests),
        *servers_changed(
            facts["server_states_before"],
            facts["server_states_after"],
            params.gpus() if params.starts_server else None,
            requests.good("server_load_ms").tolist(),
        ),
        *verdict.cautions(params, requests, facts),
        *verdict.piles_up(requests, params),
        *verdict.unexplained(metrics),
        *verdict.length_reached(requests, params.output_tokens, fixed=facts["fixes_length"]),
        *cache_state(
            params.cache,
            requests.good("prompt_tokens").tolist(),
            requests.good("cached_tokens").tolist(),
            params.shared_prefix_tokens,
        ),
    ]
    return metrics, Validity.of(notes)
