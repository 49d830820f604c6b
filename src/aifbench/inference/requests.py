"""The requests of a case, and what came back as raw columns: one row per request. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from aifbench.engines.base import Adapter, Answer, Ask
from aifbench.inference.params import InferenceParams
from aifbench.load.client import Exchange
from aifbench.load.http import body_pieces
from aifbench.load.schedules import Closed

STAGGER_S, LONGEST_STAGGER_S = 0.01, 0.7
"""Clients start one in each 10 ms, all within 0.7 s, so that they do not run in lockstep."""
MOST_TOKENS = 2**53
"""Counts from here on are no counts: they are not exact in float64."""
STALL_PART = 0.1
"""An answer that began and was given up is a stall when nothing came for this last part of its time, or longer."""


def ask(params: InferenceParams, seed: int, client: int, index: int, part: str) -> Ask:
    """Return one generation to ask for. `part` (`warmup`, `measure`) keeps the nonces of both apart."""
    if params.cache == "warm-same":
        return Ask(params.prompt_text, params.output_tokens, params.temperature, seed)
    nonce = hashlib.sha256(f"{seed} {part} {client} {index}".encode()).hexdigest()[:16]
    return Ask(params.prompt_text, params.output_tokens, params.temperature, seed, nonce, params.prefix_characters)


def payloads(adapters: Sequence[Adapter], params: InferenceParams, seed: int, part: str) -> list[list[bytes]]:
    """Return the requests of each client, who asks the server of his number modulo theirs.

    Those with the same content are one object. Before an open schedule as many clients as are served at once warm the
    servers up; where that is not known, one for each server.
    """
    count = params.warmup_requests if part == "warmup" else params.requests
    busy = params.clients if isinstance(params.schedule, Closed) else params.served_at_once or len(adapters)
    of_client = [adapters[client % len(adapters)] for client in range(params.clients)]
    if params.cache == "warm-same":
        same = {adapter: [adapter.request(ask(params, seed, 0, 0, part))] * count for adapter in adapters}
        return [same[adapter] if client < busy else [] for client, adapter in enumerate(of_client)]
    return [
        [adapter.request(ask(params, seed, client, index, part)) for index in range(count if client < busy else 0)]
        for client, adapter in enumerate(of_client)
    ]


def scheduled_payloads(adapters: Sequence[Adapter], params: InferenceParams, seed: int) -> list[list[bytes]]:
    """Return, for each request of an open schedule, its form for each server."""
    if params.cache == "warm-same":
        return [[adapter.request(ask(params, seed, 0, 0, "measure")) for adapter in adapters]] * params.requests
    return [
        [adapter.request(ask(params, seed, 0, index, "measure")) for adapter in adapters]
        for index in range(params.requests)
    ]


def start_offsets(clients: int, seed: int) -> list[float]:
    """Return when each client sends its first request, in seconds: seeded random order and place in its slot."""
    if clients == 1:
        return [0.0]
    slot_s = min(STAGGER_S, LONGEST_STAGGER_S / clients)
    generator = random.Random(seed)
    slots = list(range(clients))
    generator.shuffle(slots)
    return [(slot + generator.random()) * slot_s for slot in slots]


def understand(adapter: Adapter, exchange: Exchange) -> tuple[int | None, Answer, str | None]:
    """Return (first byte, answer, class of the error) of one exchange; the server's words are fit for a record."""
    first_byte = exchange.pieces[0][0] if exchange.pieces else None
    answer, error = _understood(adapter, exchange)
    if answer.error is not None:
        answer.error = adapter.words(answer.error)
    return first_byte, answer, error


def _understood(adapter: Adapter, exchange: Exchange) -> tuple[Answer, str | None]:
    response, body = body_pieces(exchange.pieces)
    answer = _checked(adapter.parse(body)) if exchange.status == 200 else Answer()
    if response.broken is not None:
        answer.error = response.broken
        return answer, exchange.error or "protocol"
    if exchange.error in {"stall", "timeout"} and exchange.pieces:
        answer.error, error = _out_of_time(exchange)
        return answer, error
    if exchange.error is not None:
        answer.error = answer.error or exchange.problem
        return answer, exchange.error
    text, packed = _text(b"".join(data for _, data in body), response.coding)
    if exchange.status != 200:
        leads = response.headers.get("location") if 300 <= (exchange.status or 0) < 400 else None
        return Answer(error=f"leads to {leads}" if leads else text), f"http_{exchange.status}"
    if packed:
        answer = Answer(error=text, misfit=True)
    return answer, _class(answer)


def _text(body: bytes, coding: str | None) -> tuple[str, bool]:
    """Return the text of a body, and whether there is none because it came packed: then the text says so."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        if coding is None:
            return body.decode("utf-8", "replace"), False
        return f"the body is packed ({coding}), which was not asked for: nothing can be timed in it", True


def _class(answer: Answer) -> str | None:
    """Return the class of the error of an answer that came whole, None where there is none."""
    if answer.error is not None:
        return "protocol" if answer.misfit else "server_error"
    if not answer.complete:
        return "early_close"
    return None if answer.token_ns else "no_token"


def _out_of_time(exchange: Exchange) -> tuple[str, str]:
    """Return (message, class) of an answer that had begun when its time was up: a stall, or one that still flowed."""
    assert exchange.send_ns is not None
    assert exchange.end_ns is not None
    given, silent = exchange.end_ns - exchange.send_ns, exchange.end_ns - exchange.pieces[-1][0]
    if silent >= STALL_PART * given:
        return f"nothing came in the last {silent / 1e9:.3g} s of {given / 1e9:.3g} s", "stall"
    return f"still flowing after {given / 1e9:.3g} s", "timeout"


def _checked(answer: Answer) -> Answer:
    """Put None and an error where a server said something that is no count or no text: columns have one type."""
    for name in ("tokens", "prompt_tokens", "cached_tokens"):
        count = getattr(answer, name)
        if count is not None and not (type(count) is int and 0 <= count < MOST_TOKENS):
            setattr(answer, name, None)
            answer.fail(f"not a count of tokens: {count!r}", misfit=True)
    if not isinstance(answer.finish_reason, str | None):
        answer.fail(f"not a reason to finish: {answer.finish_reason!r}", misfit=True)
        answer.finish_reason = None
    return answer


def columns(adapter: Adapter, exchanges: Sequence[Exchange]) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return (raw columns, first message of each class of error). Stamps are CLOCK_MONOTONIC in ns, absent is None.

    client, index; scheduled_ns, send_ns, sent_ns, first_byte_ns, first_event_ns, first_token_ns, first_visible_ns,
    end_ns; token_ns (a list: the stamp of each token event); tokens, prompt_tokens, cached_tokens (as the server
    counts); connection_reused; retried (on a fresh connection, see `load.client`); round_trip_ns, retransmits (of the
    connection, as the kernel tells); status; error (class); finish_reason; server_queue_ms, server_load_ms,
    server_prefill_ms, server_decode_ms; answer_sha256; reads_with_several_events; bytes_received; probe (the load that
    a search tried, set by the search).
    """
    rows: list[dict[str, Any]] = []
    messages: dict[str, str] = {}
    for exchange in exchanges:
        first_byte, answer, error = understand(adapter, exchange)
        if error is not None and answer.error:
            messages.setdefault(error, answer.error)
        rows.append(_row(exchange, first_byte, answer, error))
    return {name: [row[name] for row in rows] for name in rows[0]}, messages


def event_rate(token_ns: Sequence[Sequence[int]]) -> float:
    """Return token events per second over all streams, from the first to the last; 0 for less than two."""
    stamps = [stamp for row in token_ns for stamp in row]
    span = max(stamps) - min(stamps) if stamps else 0
    return (len(stamps) - 1) * 1e9 / span if span else 0.0


def _row(exchange: Exchange, first_byte: int | None, answer: Answer, error: str | None) -> dict[str, Any]:
    return {
        "client": exchange.client,
        "index": exchange.index,
        "scheduled_ns": exchange.scheduled_ns,
        "send_ns": exchange.send_ns,
        "sent_ns": exchange.sent_ns,
        "first_byte_ns": first_byte,
        "first_event_ns": answer.first_event_ns,
        "first_token_ns": answer.token_ns[0] if answer.token_ns else None,
        "first_visible_ns": answer.first_visible_ns,
        "end_ns": exchange.end_ns,
        "token_ns": answer.token_ns,
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "connection_reused": exchange.connection_reused,
        "retried": exchange.retried,
        "round_trip_ns": exchange.round_trip_ns,
        "retransmits": exchange.retransmits,
        "status": exchange.status,
        "error": error,
        "finish_reason": answer.finish_reason,
        "server_queue_ms": answer.queue_ms,
        "server_load_ms": answer.load_ms,
        "server_prefill_ms": answer.prefill_ms,
        "server_decode_ms": answer.decode_ms,
        "answer_sha256": answer.text_sha256 if answer.token_ns else None,
        "reads_with_several_events": answer.reads_with_several_tokens,
        "probe": None,
        "bytes_received": sum(len(data) for _, data in exchange.pieces),
    }
