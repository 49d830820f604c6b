"""Is a server ready? What one answer says about it, and how long to wait for the next. Pure.

A server that answers a request in a final way is asked no more: each request may cost money, and the next answer would
be the same. One that says it is busy or broken is asked a few times more; one that does not listen yet costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urljoin

from aifbench.engines.base import Answer, printable
from aifbench.engines.settings import base_of
from aifbench.load.urls import shown

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that a server gives for a while: it starts, loads a model, or has too much to do."""
MOST_REQUESTS = 10
"""Requests to a server that is not ours, until one is answered."""
LISTENS_WITHIN_S = 10.0
"""A server that is not ours was there when the campaign was checked."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
OWN_FIRST_WAIT_S, OWN_LONGEST_WAIT_S = 0.1, 0.5
"""Between requests to a server that the batch starts: they cost nothing."""


@dataclass(frozen=True)
class Judgement:
    """What one answer says. `unheard`: no connection, so no request was sent; `wait_s`: as the server asks for."""

    state: Literal["ready", "later", "unheard", "final"]
    problem: str = ""
    wait_s: float | None = None


def judge(
    answer: Answer, error: str | None, status: int | None, headers: Mapping[str, str], now: datetime
) -> Judgement:
    """Return what an answer says; `error` is its class, `headers` have names in lower case.

    A whole answer without a visible token is one: a model may have spent the few tokens on silent thinking.
    """
    if error is None or (error == "no_token" and (answer.finish_reason or answer.tokens)):
        return Judgement("ready")
    problem = f"{error}: {answer.error}" if answer.error else error
    if error == "connect":
        return Judgement("unheard", problem)
    if error in {"tls", "protocol", "no_token"} or (error == f"http_{status}" and status not in PASSING):
        return Judgement("final", problem)
    return Judgement("later", problem, retry_after_s(headers.get("retry-after"), now))


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header, which has seconds or a date; None where it says neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def wait_s(tries: int, *, ours: bool) -> float:
    """Return how long to wait after so many tries, where the server asks for nothing."""
    first, longest = (OWN_FIRST_WAIT_S, OWN_LONGEST_WAIT_S) if ours else (FIRST_WAIT_S, LONGEST_WAIT_S)
    return float(min(longest, first * 2 ** min(tries - 1, 30)))


def redirected(endpoint: str, location: str, kind: str) -> str:
    """Return what to do about a redirect of a request to `endpoint`."""
    try:
        place = shown(urljoin(endpoint, location))
    except ValueError:
        place = location
    base = base_of(place.partition("?")[0], kind)
    return printable(f"leads to {place}" + (f"; give that URL: {base}" if base else ""))
