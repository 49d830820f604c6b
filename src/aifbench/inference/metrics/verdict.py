"""Reasons against the figures of a repetition, and cautions that a reader should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from aifbench.checks.load import SteadyWindow
from aifbench.core.notes import Note
from aifbench.core.records import Metric
from aifbench.inference import kinds
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


def failures(requests: Requests) -> list[Note]:
    """Return the reason that names failed requests by class, if there are any."""
    classes = Counter(error or "no_token" for error, ok in zip(requests.errors, requests.ok, strict=True) if not ok)
    if not classes:
        return []
    errors = dict(sorted(classes.items()))
    return [kinds.REQUESTS_FAILED.against(failed=classes.total(), requests=len(requests.errors), errors=errors)]


def closed_loop(window: SteadyWindow | None, params: InferenceParams) -> list[Note]:
    """Return the reason, if any, why the asked number of clients was not kept busy (Little's law, steady window)."""
    if not isinstance(params.schedule, Closed):
        return []
    if window is None:
        return [kinds.NEVER_TOGETHER.against()]
    return window.reasons(params.clients, params.schedule.think_s)


def on_time(requests: Requests, params: InferenceParams) -> list[Note]:
    """Return the reason, if any, why the load was not that of its schedule: requests were sent late.

    A closed loop without a think has no times of its own: Little's law watches it. The limit is the larger of 1 ms and
    1 % of the mean time to first token: what is sent later than that is another load than the one that was asked for.
    """
    lags = requests.columns["send"] - requests.columns["scheduled"]
    lags = lags[~np.isnan(lags)]
    if not lags.size or (isinstance(params.schedule, Closed) and not params.schedule.think_s):
        return []
    waits = requests.good("first_token") - requests.good("send")
    limit = max(MOST_LAG_S, MOST_LAG_SHARE * float(waits.mean()) if waits.size else 0.0)
    late = float(np.quantile(lags, 0.99, method="inverted_cdf"))
    if late <= limit:
        return []
    found = {"late_ms": late * 1e3, "limit_ms": limit * 1e3}
    if isinstance(params.schedule, Closed):
        return [kinds.SENT_LATE.against(**found)]
    return [kinds.SENT_LATE_OPEN.against(**found, connections=params.clients)]


def piles_up(requests: Requests, params: InferenceParams) -> list[Note]:
    """Return a caution when an open load grew without end: its times depend on how long was measured."""
    if isinstance(params.schedule, Closed):
        return []
    scheduled, end = requests.columns["scheduled"], requests.columns["end"]
    last = float(np.nanmax(scheduled))
    half, whole = (int(np.count_nonzero((scheduled <= t) & ~(end <= t))) for t in (last / 2, last))
    if whole <= PILE_FACTOR * half + PILE_LEAST:
        return []
    return [kinds.PILES_UP.caution(half=half, whole=whole)]


def calibrated_range(requests: Requests, facts: Mapping[str, Any]) -> list[Note]:
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
    return [kinds.BEYOND_CALIBRATION.against(events_per_s=rate, calibrated_per_s=known)]


def rates_agree(requests: Requests) -> list[Note]:
    """Return the reason, if any, why client and server do not tell the same time for the same tokens (means)."""
    spans = np.array([row[-1] - row[0] for row in requests.good_tokens_s], dtype=np.float64)
    decode = requests.good("server_decode_ms") / 1e3
    known = ~np.isnan(decode)
    if not known.any():
        return []
    ours, theirs = float(spans[known].mean()), float(decode[known].mean())
    if abs(ours - theirs) <= max(MOST_RATE_DIFFERENCE * theirs, LEAST_DIFFERENCE_S):
        return []
    return [kinds.CLOCKS_DISAGREE.against(client_s=ours, server_s=theirs, tolerance=MOST_RATE_DIFFERENCE)]


def unexplained(metrics: Mapping[str, Metric]) -> list[Note]:
    """Return a caution when client and server do not account for the same time to first token."""
    whole, rest = (metrics[f"time_to_first_token_{name}s"].value for name in ("", "residual_"))
    if not whole or rest is None or abs(rest) <= MOST_RESIDUAL * whole:
        return []
    kind = kinds.SERVER_TELLS_MORE if rest < 0 else kinds.UNEXPLAINED
    return [kind.caution(rest_ms=abs(rest) * 1e3, share=abs(rest) / whole)]


def length_reached(requests: Requests, output_tokens: int, *, fixed: bool) -> list[Note]:
    """Return what is to be said of answers of another length than asked: a caution where the engine cannot fix it."""
    counts = requests.counts
    other = counts[counts != output_tokens]
    if not other.size:
        return []
    note = kinds.OTHER_LENGTH.against if fixed else kinds.OTHER_LENGTH.caution
    found = {"other": other.size, "answers": counts.size, "shortest": int(counts.min()), "longest": int(counts.max())}
    return [note(asked=output_tokens, **found)]


def cautions(params: InferenceParams, requests: Requests, facts: Mapping[str, Any]) -> list[Note]:
    """Return what a reader should know but what does not make the figures wrong."""
    notes = []
    served = params.served_at_once
    if served is not None and params.clients > served:
        notes.append(kinds.QUEUE.caution(clients=params.clients, served=served))
    if params.clients < params.servers:
        notes.append(kinds.IDLE_SERVERS.caution(idle=params.servers - params.clients, servers=params.servers))
    if facts["warmup_failed"]:
        notes.append(kinds.WARMUP_FAILED.caution(failed=facts["warmup_failed"], requests=facts["warmup_requests"]))
    step_s = (facts["clock_offset_end_ns"] - facts["clock_offset_start_ns"]) / 1e9
    if abs(step_s) > MOST_CLOCK_STEP_S:
        notes.append(kinds.CLOCK_STEPPED.caution(step_s=step_s))
    events = sum(len(row) for row in requests.tokens_s)
    together = int(np.nansum(requests.columns["reads_with_several_events"]))
    if events and together / events > MOST_COALESCED:
        notes.append(kinds.COALESCED.caution(reads=together, events=events))
    if requests.retried:
        notes.append(kinds.SENT_AGAIN.caution(again=requests.retried, requests=len(requests.errors)))
    again = int(np.nansum(requests.columns["retransmits"]))
    if again:
        notes.append(kinds.RETRANSMITS.caution(segments=again))
    if requests.ok.any() and np.isnan(requests.good("tokens")).any():
        notes.append(kinds.NO_TOKEN_COUNT.caution())
    notes += [
        kinds.ERROR_MESSAGE.caution(error=error, message=message)
        for error, message in sorted(facts["error_messages"].items())
    ]
    return notes
