"""Reasons against the figures of a repetition, and cautions that a reader should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from aifbench.checks.load import SteadyWindow
from aifbench.core.records import Metric
from aifbench.inference.metrics.observed import Requests
from aifbench.inference.params import InferenceParams
from aifbench.load.schedules import Closed

MOST_RATE_DIFFERENCE = 0.05
LEAST_DIFFERENCE_S = 0.005
"""Between client and server on the time from first to last token: above both, one of them is not to be believed.
Servers start their time up to some ms before the first token leaves, which is much of a very short answer."""
MOST_CLOCK_STEP_S = 0.1
MOST_COALESCED = 0.01
"""Share of reads with several token events above which gaps are mostly bounds."""
MOST_LAG_S, MOST_LAG_SHARE = 1e-3, 0.01
PILE_FACTOR, PILE_LEAST = 1.5, 3
MOST_RESIDUAL = 0.05
LEAST_EVENTS = 20
RANGE_TOLERANCE = 0.1


def failures(requests: Requests) -> list[str]:
    """Return the reason that names failed requests by class, if there are any."""
    classes = Counter(error or "no_token" for error, ok in zip(requests.errors, requests.ok, strict=True) if not ok)
    if not classes:
        return []
    listed = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    return [f"{sum(classes.values())} of {len(requests.errors)} requests failed: {listed}"]


def closed_loop(window: SteadyWindow | None, params: InferenceParams) -> list[str]:
    """Return the reason, if any, why the asked number of clients was not kept busy (Little's law, steady window)."""
    if not isinstance(params.schedule, Closed):
        return []
    if window is None:
        return ["there was no time in which all clients were at work: more requests per client are needed"]
    return window.reasons(params.clients, params.schedule.think_s)


def on_time(requests: Requests, params: InferenceParams) -> list[str]:
    """Return the reason, if any, why the load was not that of its schedule: requests were sent late.

    A closed loop without a think has no times of its own: Little's law watches it. The limit is the larger of 1 ms and
    1 % of the mean time to first token: what is sent later than that is another load than the one that was asked for.
    """
    lags = requests.columns["send"] - requests.columns["scheduled"]
    lags = lags[~np.isnan(lags)]
    closed = isinstance(params.schedule, Closed)
    if not lags.size or (isinstance(params.schedule, Closed) and not params.schedule.think_s):
        return []
    waits = requests.good("first_token") - requests.good("send")
    limit = max(MOST_LAG_S, MOST_LAG_SHARE * float(waits.mean()) if waits.size else 0.0)
    late = float(np.quantile(lags, 0.99, method="inverted_cdf"))
    if late <= limit:
        return []
    reason = f"requests were sent up to {late * 1e3:.3g} ms late (p99; limit {limit * 1e3:.3g} ms): "
    if not closed:
        reason += f"a wait for one of {params.clients} connections counts (give more `clients`), and "
    return [reason + "a wait for a core that the server has counts"]


def piles_up(requests: Requests, params: InferenceParams) -> list[str]:
    """Return a caution when an open load grew without end: its times depend on how long was measured."""
    if isinstance(params.schedule, Closed):
        return []
    scheduled, end = requests.columns["scheduled"], requests.columns["end"]
    last = float(np.nanmax(scheduled))
    half, whole = (int(np.count_nonzero((scheduled <= t) & ~(end <= t))) for t in (last / 2, last))
    if whole <= PILE_FACTOR * half + PILE_LEAST:
        return []
    return [
        f"{half} requests were under way in the middle of the schedule, {whole} at its end: the server does not keep "
        "up with this rate, and times depend on how long was measured"
    ]


def calibrated_range(requests: Requests, facts: Mapping[str, Any]) -> list[str]:
    """Return the reason, if any, why the instrument's error is not known: more events/s than it was calibrated at."""
    calibration = facts.get("calibration")
    events = np.concatenate([*requests.tokens_s, np.zeros(0)])
    span = float(np.ptp(events)) if events.size else 0.0
    if not calibration or events.size < LEAST_EVENTS or not span:
        return []
    rate = (events.size - 1) / span
    known = calibration["tokens_per_s"]
    if rate <= known * (1 + RANGE_TOLERANCE):
        return []
    return [f"{rate:.0f} token events/s arrived, but the client is calibrated up to {known:.0f}/s only"]


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


def unexplained(metrics: Mapping[str, Metric]) -> list[str]:
    """Return a caution when client and server do not account for the same time to first token."""
    whole, rest = (metrics[f"time_to_first_token_{name}s"].value for name in ("", "residual_"))
    if not whole or rest is None or abs(rest) <= MOST_RESIDUAL * whole:
        return []
    size = f"{abs(rest) * 1e3:.3g} ms, {abs(rest) / whole:.0%} of the time to first token"
    if rest < 0:
        return [f"the server's own times for it add up to {size}, more than the client waited"]
    return [
        f"{size}, stand in none of the server's own times: HTTP, template, sampling, or a wait that it does not tell"
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
    served = params.served_at_once
    if served is not None and params.clients > served:
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
    if requests.retried:
        notes.append(
            f"{requests.retried} of {len(requests.errors)} requests were sent again: the server had closed their kept "
            "connections without an answer; their times run from the first sending"
        )
    again = int(np.nansum(requests.columns["retransmits"]))
    if again:
        notes.append(f"the client's host sent {again} TCP segments again: the path to the server loses some")
    if requests.ok.any() and np.isnan(requests.good("tokens")).any():
        notes.append("the server gives no token count: token events are counted instead")
    notes += [f"{name}: {message}" for name, message in sorted(facts["error_messages"].items())]
    return notes
