"""The instrument's own error: the client's figures against a server that says when it really wrote.

Both run on one machine and read one clock. The error of a time to first token is what the client adds at both ends:
(stamp of the first token - the server's write of it) + (request given to the kernel, or in the server's hands if that
was sooner - stamp before that). The wake-up of the reference server is none of it. The error of a gap is the client's
gap minus the server's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from aifbench.load.client import Exchange
from aifbench.load.client_processes import load_client
from aifbench.load.events import sse
from aifbench.load.http import Target, body_pieces
from aifbench.load.reference_server import reference_server
from aifbench.stats.quantiles import needed

TTFT_MS, GAP_MS, TOKENS, TURN_MS = 6.0, 4.0, 3, 2.0
"""Short answers, so that a second holds many first tokens; 16 ms per request with its turn-around."""
SECONDS = 1.8
FAST_TOKENS, LEAST_GAP_MS, MARGIN = 16, 0.1, 1.2
"""Longer answers with shorter gaps, where more tokens per second are needed than those give."""
RUNGS = (1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 80_000)
"""Token events per second that `ladder` tries."""
DELIVERED, WORST_TTFT_S = 0.9, 1e-3
QUANTILES = (0.99, 0.95, 0.9, 0.5)


def shape(clients: int, tokens_per_s: float) -> tuple[int, float]:
    """Return (tokens, gap in ms) of answers with which `clients` streams bring `tokens_per_s`, with a margin."""
    wanted = MARGIN * tokens_per_s / clients / 1e3  # per stream and ms
    if wanted <= TOKENS / (TTFT_MS + (TOKENS - 1) * GAP_MS + TURN_MS):
        return TOKENS, GAP_MS
    gap = (FAST_TOKENS / wanted - TTFT_MS - TURN_MS) / (FAST_TOKENS - 1)
    return FAST_TOKENS, max(LEAST_GAP_MS, gap)


def calibrate(clients: int, seed: int, tokens_per_s: float = 0.0, processes: int = 1) -> dict[str, Any]:
    """Measure the error of the streaming client at `clients` concurrent streams on this machine.

    `tokens_per_s` is the load of token events, over all streams, that the error shall be known at. Returns clients,
    requests, failed, asked_tokens_per_s, tokens_per_s (the load that came about), stamp_source, client_cpu_s and, for
    `ttft_error_s` and `gap_error_s`, the figures of `summary` in seconds. Raises RuntimeError when nothing is answered.
    """
    count, gap_ms = shape(clients, tokens_per_s)
    answer_s = (TTFT_MS + (count - 1) * gap_ms) / 1e3
    requests = max(2, int(SECONDS / (answer_s + TURN_MS / 1e3)))
    body = orjson.dumps({"stream": True, "planted": {"ttft_ms": TTFT_MS, "gap_ms": gap_ms, "tokens": count}})
    offsets = [random.Random(seed + client).uniform(0, answer_s) for client in range(clients)]
    with reference_server() as url:
        target = Target.of(url)
        payload = target.request("/v1/chat/completions", body)
        with load_client([target], clients, processes) as client:
            client.run([[payload] * 2] * clients, offsets, timeout_s=10)
            load = client.run([[payload] * requests] * clients, offsets, timeout_s=10)
    pairs = [errors for exchange in load.exchanges if (errors := exchange_errors(exchange)) is not None]
    if not pairs:
        raise RuntimeError(f"calibration: no request of {len(load.exchanges)} was answered")
    tokens = sum(len(gaps) + 1 for _, gaps in pairs)
    return {
        "clients": clients,
        "requests": len(pairs),
        "failed": len(load.exchanges) - len(pairs),
        "asked_tokens_per_s": tokens_per_s,
        "tokens_per_s": tokens / ((load.end_ns - load.start_ns) / 1e9),
        "stamp_source": load.stamp_source,
        "client_cpu_s": load.cpu_s,
        "ttft_error_s": summary(np.array([ttft for ttft, _ in pairs]) / 1e9),
        "gap_error_s": summary(np.concatenate([gaps for _, gaps in pairs]) / 1e9),
    }


def ladder(clients: int, seed: int) -> Iterator[dict[str, Any]]:
    """Calibrate at ever higher loads of `clients` streams; the last is the first that the client does not carry.

    Each has the figures of `calibrate` and `carried`: at least `DELIVERED` of the load came about, and the error of the
    time to first token stayed below `WORST_TTFT_S`.
    """
    reached = 0.0
    for tokens_per_s in RUNGS:
        if reached >= tokens_per_s:  # so many streams bring as much with the slowest answers
            continue
        figures = calibrate(clients, seed, tokens_per_s / MARGIN)
        reached = figures["tokens_per_s"]
        whole = reached >= DELIVERED * tokens_per_s
        figures["carried"] = whole and figures["ttft_error_s"]["bound"] <= WORST_TTFT_S
        yield figures
        if not figures["carried"]:
            return


def stamps_and_truth(exchange: Exchange) -> tuple[list[int], dict[str, Any] | None]:
    """Return the stamps of the tokens of one answer of the reference server in ns, and what it says that it did."""
    stamps, truth = [], None
    for event in sse(body_pieces(exchange.pieces)[1]):
        if event.data == b"[DONE]":
            continue
        value = orjson.loads(event.data)
        truth = value.get("planted", truth)
        if value["choices"] and value["choices"][0]["delta"].get("content"):
            stamps.append(event.stamp_ns)
    return stamps, truth


def exchange_errors(exchange: Exchange) -> tuple[int, NDArray[np.int64]] | None:
    """Return (error of the time to first token, errors of the gaps) of one answer in ns, or None if it failed."""
    if exchange.error or exchange.status != 200 or exchange.send_ns is None or exchange.sent_ns is None:
        return None
    stamps, truth = stamps_and_truth(exchange)
    if truth is None or len(truth["written_ns"]) != len(stamps):
        return None
    written = np.array(truth["written_ns"], dtype=np.int64)
    lateness = np.array(stamps, dtype=np.int64) - written
    handed_over = min(exchange.sent_ns, truth["received_ns"]) - exchange.send_ns
    return int(lateness[0]) + handed_over, lateness[1:] - lateness[:-1]


def summary(errors: NDArray[np.float64]) -> dict[str, Any]:
    """Return n, median (signed), quantiles of the absolute error that n supports, its maximum and `bound`.

    `bound` is the largest quantile of the absolute error that n supports (`bound_quantile`): the figure that stands
    behind a result as the instrument's error. Below 20 observations it is the maximum.
    """
    size = np.abs(errors)
    n = int(size.size)
    known = {f"p{q * 100:g}": float(np.quantile(size, q)) for q in QUANTILES if n >= needed(q)}
    name = next(iter(known), "max")
    return {
        "n": n,
        "median": float(np.median(errors)),
        **known,
        "max": float(size.max()),
        "bound": known.get(name, float(size.max())),
        "bound_quantile": name,
    }
