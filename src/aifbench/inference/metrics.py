"""From the requests of one repetition to metrics and verdict. Pure; the raw columns are those of `requests.columns`.

A request succeeds when the server finished a streamed answer of at least one token and nothing went wrong. Times and
rates are over successful requests; failures stay in `success_rate` and in the verdict. `send` is the moment before the
request's first byte is given to the kernel: connecting is outside, queueing at the server is inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.benchmark import Raw
from aifbench.checks.cache import cache_state
from aifbench.checks.load import SteadyWindow, steady_window
from aifbench.checks.server import servers_changed
from aifbench.inference.params import InferenceParams
from aifbench.records.models import Metric, Validity
from aifbench.stats.quantiles import quantile_metric

Floats = NDArray[np.float64]
TTFT_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
MOST_RATE_DIFFERENCE = 0.05
LEAST_DIFFERENCE_S = 0.005
"""Between client and server on the time from first to last token: above both, one of them is not to be believed.
Servers start their time up to some ms before the first token leaves, which is much of a very short answer."""
MOST_CLOCK_STEP_S = 0.1
MOST_COALESCED = 0.01
"""Share of reads with several token events above which gaps are mostly bounds."""


def evaluate(params: InferenceParams, raw: Raw, facts: Mapping[str, Any]) -> tuple[dict[str, Metric], Validity]:
    """Return metrics and verdict of one repetition."""
    requests = Requests.of(raw)
    window = steady_window(requests.clients, requests.columns["send"], requests.columns["end"])
    errors = Instrument.of(facts)
    metrics = {
        **first_token_metrics(requests, errors),
        **generation_metrics(requests, window, errors),
        **gap_metrics(requests, errors),
        **request_metrics(requests, window, errors),
        **server_metrics(requests),
    }
    reasons = [
        *failures(requests),
        *closed_loop(window, params.clients),
        *rates_agree(requests),
        *servers_changed(
            facts["server_states_before"],
            facts["server_states_after"],
            params.gpus() if params.starts_server else None,
            requests.good("server_load_ms").tolist(),
        ),
        *(length_reached(requests, params.output_tokens) if facts["fixes_length"] else []),
    ]
    notes = [*cautions(params, requests, facts)]
    if not facts["fixes_length"]:
        notes += length_reached(requests, params.output_tokens)
    cache_reasons, cache_notes = cache_state(
        params.cache, requests.good("prompt_tokens").tolist(), requests.good("cached_tokens").tolist()
    )
    return metrics, Validity.of(reasons + cache_reasons, notes + cache_notes)


@dataclass(frozen=True)
class Instrument:
    """Error of the client in seconds, from its calibration at this number of clients; None: not calibrated."""

    ttft_s: float | None
    gap_s: float | None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Instrument:
        """Take the bounds from the facts of a repetition."""
        calibration = facts.get("calibration")
        if not calibration:
            return cls(None, None)
        return cls(calibration["ttft_error_s"]["bound"], calibration["gap_error_s"]["bound"])


@dataclass(frozen=True)
class Requests:
    """Raw columns as arrays: numbers as float64 with NaN for absent, stamps in seconds since the first one sent."""

    columns: dict[str, Floats]
    clients: NDArray[np.int64]
    errors: list[str | None]
    answers: list[str | None]
    tokens_s: list[Floats]
    """Per request, the time of each token event."""
    ok: NDArray[np.bool_]

    @classmethod
    def of(cls, raw: Raw) -> Requests:
        """Take the raw columns of one repetition."""
        origin = min((stamp for stamp in _plain(raw["send_ns"]) if stamp is not None), default=0)
        stamps = {
            name: np.array([np.nan if s is None else (s - origin) / 1e9 for s in _plain(raw[f"{name}_ns"])])
            for name in ("scheduled", "send", "first_token", "end")
        }
        numbers = {
            name: np.array([np.nan if value is None else float(value) for value in _plain(raw[name])])
            for name in (
                "tokens", "prompt_tokens", "cached_tokens", "reads_with_several_events",
                "server_queue_ms", "server_load_ms", "server_prefill_ms", "server_decode_ms",
            )
        }  # fmt: skip
        tokens_s = [(np.array(_plain(row), dtype=np.int64) - int(origin)) / 1e9 for row in raw["token_ns"]]
        errors = _plain(raw["error"])
        ok = np.array([error is None and len(row) > 0 for error, row in zip(errors, tokens_s, strict=True)], dtype=bool)
        clients = np.array(_plain(raw["client"]), dtype=np.int64)
        return cls({**stamps, **numbers}, clients, errors, _plain(raw["answer_sha256"]), tokens_s, ok)

    def good(self, name: str) -> Floats:
        """Return a column of the successful requests."""
        return self.columns[name][self.ok]

    @property
    def good_tokens_s(self) -> list[Floats]:
        """Return the times of the token events of the successful requests."""
        return [row for row, ok in zip(self.tokens_s, self.ok, strict=True) if ok]

    @property
    def counts(self) -> Floats:
        """Return the tokens of each successful request: as the server counts, else its token events."""
        events = np.array([len(row) for row in self.good_tokens_s], dtype=np.float64)
        said = self.good("tokens")
        return np.where(np.isnan(said), events, said)

    @property
    def count_method(self) -> str:
        """Say who counted the tokens."""
        return "token events (the server gives no count)" if np.isnan(self.good("tokens")).any() else "server's count"


def first_token_metrics(requests: Requests, errors: Instrument) -> dict[str, Metric]:
    """Time to first token: from send to the stamp of the first token event (any channel, role and empty ones not)."""
    ttft = requests.good("first_token") - requests.good("send")
    metrics = {"time_to_first_token_s": _mean(ttft, "s", "send to first token, mean of requests", errors.ttft_s)}
    for name, q in TTFT_QUANTILES.items():
        metrics[f"time_to_first_token_{name}_s"] = _quantile(ttft, q, "requests", errors.ttft_s)
    return metrics


def generation_metrics(requests: Requests, window: SteadyWindow | None, errors: Instrument) -> dict[str, Metric]:
    """Rates of generation.

    `tokens_generated_per_second`: per stream (tokens - 1) / (last token - first token), mean of the streams.
    `time_per_output_token_s`: per stream (last token - first token) / (tokens - 1), mean (MLPerf's TPOT).
    `tokens_generated_per_second_aggregate`: tokens stamped in the steady window by its length; where the server counts
    more tokens than there are events, each event of a request weighs alike.
    """
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
        "tokens_generated_per_second": _mean(
            rates, "tokens/s", f"(tokens - 1) / (last - first token), {how}", rate_error
        ),
        "time_per_output_token_s": _mean(times, "s", f"(last - first token) / (tokens - 1), {how}", time_error),
    }
    name = "tokens_generated_per_second_aggregate"
    if window is None:
        metrics[name] = Metric.absent("tokens/s", "no time in which all clients were at work")
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


def gap_metrics(requests: Requests, errors: Instrument) -> dict[str, Metric]:
    """Inter-token latency: every gap between successive token events of a stream, all streams together."""
    rows = requests.good_tokens_s
    gaps = np.concatenate([np.diff(row) for row in rows]) if rows else np.zeros(0)
    metrics = {
        "inter_token_latency_mean_s": _mean(gaps, "s", "mean of all gaps between token events", errors.gap_s),
        "inter_token_latency_p50_s": _quantile(gaps, 0.5, "gaps between token events", errors.gap_s),
        "inter_token_latency_p99_s": _quantile(gaps, 0.99, "gaps between token events", errors.gap_s),
    }
    name = "inter_token_latency_max_s"
    if not gaps.size:
        return {**metrics, name: Metric.absent("s", "no gap between tokens")}
    longest = Metric(
        value=float(gaps.max()), unit="s", n=int(gaps.size), method="longest gap seen", instrument=errors.gap_s
    )
    return {**metrics, name: longest}


def request_metrics(requests: Requests, window: SteadyWindow | None, errors: Instrument) -> dict[str, Metric]:
    """Figures of whole requests: end-to-end latency, rate, success, makespan, concurrency, distinct answers."""
    send, end = requests.columns["send"], requests.columns["end"]
    n, good = len(requests.errors), int(requests.ok.sum())
    metrics = {
        "end_to_end_latency_s": _mean(
            requests.good("end") - requests.good("send"), "s", "send to end of the answer, mean", errors.ttft_s
        ),
        "success_rate": Metric(value=good / n, unit="1", n=n, method="successful requests by all requests")
        if n
        else Metric.absent("1", "no request"),
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
        why = "no request succeeded"
        for name, unit in {"makespan_s": "s", "requests_per_second": "1/s", "distinct_answers": "1"}.items():
            metrics[name] = Metric.absent(unit, why)
    if window is None:
        metrics["concurrency_achieved"] = Metric.absent("1", "no time in which all clients were at work")
    else:
        metrics["concurrency_achieved"] = Metric(
            value=window.in_flight,
            unit="1",
            n=window.touched,
            method="time average of requests in flight in the steady window",
        )
    return metrics


def server_metrics(requests: Requests) -> dict[str, Metric]:
    """The server's own times beside ours.

    `server_tokens_per_second`: (tokens - 1) / decode time, as engines start that time at the first token.
    `server_time_to_first_token_s`: the sum of queue, load and prefill, of those that the server tells.
    `time_to_first_token_residual_s`: our time to first token minus that: network, HTTP, template, sampling, and a
    queue where the server does not tell it.
    `prefill_tokens_per_second`: prompt tokens that were not cached by prefill time.
    """
    counts = requests.counts
    decode, prefill = requests.good("server_decode_ms") / 1e3, requests.good("server_prefill_ms") / 1e3
    parts = {name: requests.good(f"server_{name}_ms") / 1e3 for name in ("queue", "load", "prefill")}
    told = {name: values for name, values in parts.items() if values.size and not np.isnan(values).all()}
    own = sum(told.values(), np.zeros(len(counts))) if told else np.full(len(counts), np.nan)
    ttft = requests.good("first_token") - requests.good("send")
    fresh = requests.good("prompt_tokens") - requests.good("cached_tokens")
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where((decode > 0) & (counts > 1), (counts - 1) / decode, np.nan)
        reading = np.where((prefill > 0) & (fresh > 0), fresh / prefill, np.nan)
    sum_of = " + ".join(told) or "nothing"
    silent = "the server does not tell it"
    return {
        "server_tokens_per_second": _known_mean(rate, "tokens/s", "(tokens - 1) / server's decode time, mean", silent),
        "server_time_to_first_token_s": _known_mean(own, "s", f"server's {sum_of}, mean", silent),
        "time_to_first_token_residual_s": _known_mean(
            ttft - own, "s", f"time to first token - server's {sum_of}, mean", silent
        ),
        "prefill_tokens_per_second": _known_mean(
            reading, "tokens/s", "uncached prompt tokens by server's prefill time, mean", silent
        ),
    }


def failures(requests: Requests) -> list[str]:
    """Return the reason that names failed requests by class, if there are any."""
    classes = Counter(error or "no_token" for error, ok in zip(requests.errors, requests.ok, strict=True) if not ok)
    if not classes:
        return []
    listed = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    return [f"{sum(classes.values())} of {len(requests.errors)} requests failed: {listed}"]


def closed_loop(window: SteadyWindow | None, clients: int) -> list[str]:
    """Return the reason, if any, why the asked number of clients was not kept busy (Little's law, steady window)."""
    if window is None:
        return ["there was no time in which all clients were at work: more requests per client are needed"]
    return window.reasons(clients)


def rates_agree(requests: Requests) -> list[str]:
    """Return the reason, if any, why client and server do not tell the same time for the same tokens (means)."""
    spans = np.array([row[-1] - row[0] for row in requests.good_tokens_s], dtype=np.float64)
    decode = requests.good("server_decode_ms") / 1e3
    known = ~np.isnan(decode)
    if not known.any():
        return []
    ours, theirs = float(spans[known].mean()), float(decode[known].mean())
    if abs(ours - theirs) <= max(MOST_RATE_DIFFERENCE * theirs, LEAST_DIFFERENCE_S):
        return []
    return [
        f"first to last token took {ours:.4g} s at the client, {theirs:.4g} s by the server's own clock "
        f"(tolerance {MOST_RATE_DIFFERENCE:.0%})"
    ]


def length_reached(requests: Requests, output_tokens: int) -> list[str]:
    """Return a statement when successful answers have another length than was asked for."""
    counts = requests.counts
    other = counts[counts != output_tokens]
    if not other.size:
        return []
    return [
        f"{other.size} of {counts.size} answers do not have the {output_tokens} tokens asked for "
        f"(shortest {int(counts.min())}, longest {int(counts.max())})"
    ]


def cautions(params: InferenceParams, requests: Requests, facts: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know but what does not make the figures wrong."""
    notes = []
    slots = {"llamacpp": "slots", "ollama": "parallel"}.get(params.engine.kind)
    served = params.servers * getattr(params.engine, slots, 0) if slots else 0
    if params.starts_server and slots and params.clients > served:
        notes.append(f"{params.clients} clients, {served} served at once: times to first token contain a queue")
    if params.clients < params.servers:
        notes.append(f"{params.servers - params.clients} of {params.servers} servers had no client")
    if facts["warmup_failed"]:
        notes.append(f"{facts['warmup_failed']} of {facts['warmup_requests']} warm-up requests failed")
    step_s = (facts["clock_offset_end_ns"] - facts["clock_offset_start_ns"]) / 1e9
    if abs(step_s) > MOST_CLOCK_STEP_S:
        notes.append(f"the wall clock stepped by {step_s:+.3f} s: no figure depends on it")
    events = sum(len(row) for row in requests.tokens_s)
    together = float(np.nansum(requests.columns["reads_with_several_events"]))
    if events and together / events > MOST_COALESCED:
        notes.append(f"{together:.0f} reads brought several of {events} token events: their gaps are bounds")
    if requests.ok.any() and np.isnan(requests.good("tokens")).any():
        notes.append("the server gives no token count: token events are counted instead")
    notes += [f"{name}: {message}" for name, message in sorted(facts["error_messages"].items())]
    return notes


def _mean(values: Floats, unit: str, method: str, instrument: float | None = None) -> Metric:
    if not values.size:
        return Metric.absent(unit, "no request gave a value")
    return Metric(value=float(values.mean()), unit=unit, n=int(values.size), method=method, instrument=instrument)


def _quantile(values: Floats, q: float, of: str, instrument: float | None) -> Metric:
    metric = quantile_metric(values, q, "s", instrument)
    return metric.model_copy(update={"method": metric.method.replace("operations", of)})


def _known_mean(values: Floats, unit: str, method: str, reason: str) -> Metric:
    known = values[~np.isnan(values)]
    return _mean(known, unit, method) if known.size else Metric.absent(unit, reason, n=int(values.size))


def _plain(column: Any) -> list[Any]:
    """Return a column as a list with None for absent, whether it comes from a worker or from a file."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if isinstance(value, float) and value != value else value for value in values]  # noqa: PLR0124
