"""One door for all services: who asks, from where, how much. What is not allowed here reaches no route.

A pure ASGI layer, so that streams and errors pass it as well. Each route says which scope it needs by
`needs("read" | "launch" | "ingest")`; `create_app` refuses a route that does not.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aifbench.services.peers import peer_of
from aifbench.services.problems import Problem
from aifbench.services.settings import Limits
from aifbench.services.tokens import SCOPES, Caller, Signature, Tokens

_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?\Z")
"""Names under which a tunnel or the loopback is opened. Another name is that of a page that rebinds its own."""
SAFE = frozenset({"GET", "HEAD"})
METHODS = SAFE | {"POST", "PUT", "DELETE"}

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
REPORTS = "/api/v1/reports/"
SESSION = "/api/v1/session"
"""Where a page that was opened by a code gets its token."""
SIGNED = "aifbench-hmac"
PROOF = "aifbench-proof"
"""The header that tells a page which has signed its request that the server knows the key too."""
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer; a route may set its own value for one of them."""

_log = logging.getLogger("aifbench.services")


@dataclass(frozen=True)
class _Needs:
    scope: str

    def __call__(self, request: Request) -> None:
        granted: frozenset[str] = request.scope["aifbench.scopes"]
        if not granted:
            raise _unauthorised(request.headers)
        if self.scope not in granted:
            raise Problem(403, f"this token may not do that; it needs the scope '{self.scope}'")
        known = _parameters(request.scope["route"].dependant)
        for name in request.query_params:
            if name not in known:
                allowed = f"allowed: {', '.join(sorted(known))}" if known else "there are none here"
                shown = ascii(name[:60])
                raise Problem(422, f"query.{shown[1:-1]}: no such parameter; {allowed}", field="query")


def needs(scope: str) -> Any:
    """Return the dependency of a route that only bearers of `scope` may use: `dependencies=[needs("read")]`.

    A parameter of the query that the route does not have is refused too: it would be left out without a word.
    """
    if scope not in SCOPES:
        raise ValueError(f"no scope {scope!r}; there are {sorted(SCOPES)}")
    return Depends(_Needs(scope))


def _parameters(dependant: Dependant) -> set[str]:
    """Return the names of a route's parameters of the query."""
    inner = (name for dependency in dependant.dependencies for name in _parameters(dependency))
    return {*(field.alias for field in dependant.query_params), *inner}


def _credentials(headers: Headers) -> tuple[str, str]:
    """Return the kind of credentials that were sent, and these; empty texts where there are none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    return (kind.lower(), value.strip()) if value.strip() else ("", "")


def _target(scope: Scope) -> str:
    """Return path and query of a request as they were sent."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


def _unauthorised(headers: Headers) -> Problem:
    if _credentials(headers)[0] in {"bearer", SIGNED}:
        detail = "this token is not the server's; take the one in the file token-launch that aifbench serve names"
    else:
        detail = "send the token as 'Authorization: Bearer <token>'"
    return Problem(401, detail, {"www-authenticate": "Bearer"})


class Bucket:
    """Allows `rate` things per second, and `burst` at once."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Return whether one more is allowed now, and count it."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Guard:
    """The ASGI layer. Refuses by Host, method, Origin, rate and size; finds out who asks; adds security headers."""

    def __init__(self, app: ASGIApp, tokens: Tokens | None, port_tokens: Tokens | None, limits: Limits) -> None:
        self.app, self._tokens, self._port_tokens, self._limits = app, tokens, port_tokens, limits
        self._friends = Bucket(limits.requests_per_s, limits.requests_burst)
        self._ourselves = Bucket(limits.strangers_per_s, limits.strangers_burst)
        self._strangers = Bucket(limits.strangers_per_s, limits.strangers_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the problem it has."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        started = False
        caller = self._caller(scope)
        scope["aifbench.scopes"] = caller.scopes

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if caller.proof:
                    headers[PROOF] = caller.proof
            await send(message)

        try:
            self._check(scope, caller)
            body = await self._body(scope, receive, caller)
            await self.app(scope, body, guarded_send)
        except Problem as problem:
            await problem.response()(scope, receive, guarded_send)
        except Exception:
            _log.exception("%s: unexpected error", scope["method"])
            if started:
                raise
            detail = "unexpected error; the server's own output has the details"
            await Problem(500, detail).response()(scope, receive, guarded_send)

    def _caller(self, scope: Scope) -> Caller:
        """Find out who asks: a program that sends a token, or a page that has signed with one or with a code."""
        kind, value = _credentials(Headers(scope=scope))
        peer = peer_of(scope)
        tokens = self._port_tokens if peer.port else self._tokens
        if tokens is None:  # of a socket without tokens the kernel alone says who asks
            return Caller(frozenset({"read"}) if peer.own and not peer.port else frozenset())
        if kind == "bearer":
            return Caller(tokens.scopes(value.encode()))
        signature = Signature.parse(value) if kind == SIGNED else None
        if signature is None:
            return Caller()
        asked = scope["method"], _target(scope)
        if peer.own and asked == ("POST", SESSION):  # others may have seen the code in the list of processes
            redeemed = tokens.redeem(signature, *asked)
            if redeemed.scopes:
                return redeemed
        return tokens.caller(signature, *asked)

    def _check(self, scope: Scope, caller: Caller) -> None:
        headers = Headers(scope=scope)
        method = scope["method"]
        host = headers.get("host", "").lower()
        if not _HOST.match(host):
            raise Problem(400, "open it as localhost: the Host of the request is another one")
        if method not in METHODS:
            raise Problem(405, "this method is not used here", {"allow": ", ".join(sorted(METHODS))})
        page = method in SAFE and not scope["path"].startswith(("/api/", "/metrics", "/openapi.json", "/readyz"))
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        # A report is a page in a sandbox, so of no origin; where it leads to needs its ticket, not who asks.
        led = method == "GET" and scope["path"].startswith(REPORTS) and headers.get("sec-fetch-mode") == "navigate"
        strange = origin not in {None, f"http://{host}"} or (site not in {"same-origin", "none"} and not led)
        if not self._bucket(caller, peer_of(scope).own and not strange).take():
            raise Problem(429, "too many requests; wait a second", {"retry-after": "1"})
        if not page and strange:
            raise Problem(403, "a page of another origin may not ask here")
        if method not in SAFE and not caller.scopes:
            raise _unauthorised(headers)

    def _bucket(self, caller: Caller, ourselves: bool) -> Bucket:
        """Return the share that a request is taken from: no stranger takes from the owner's."""
        if caller.scopes:
            return self._friends
        return self._ourselves if ourselves else self._strangers

    async def _body(self, scope: Scope, receive: Receive, caller: Caller) -> Receive:
        """Read the body (so its size is known before any route runs) and return a `receive` that gives it again."""
        most = self._limits.body_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        too_large = Problem(413, f"the body may have at most {most} bytes")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Problem(408, "the body did not arrive in time") from None
        if not caller.has_sent(b"".join(parts)):
            raise Problem(400, "the body is not the one that was signed")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}

        return again
