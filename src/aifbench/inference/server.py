"""The servers of an inference batch: started here (llamacpp, ollama) or already there (openai, ollama with a url)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from aifbench.core.benchmark import Command, Place, Server, ServerNotReady
from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.engines import llamacpp, ollama
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Adapter, Ask
from aifbench.engines.settings import LlamaCpp, Ollama
from aifbench.inference import readiness
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import understand
from aifbench.load.client import Exchange, StreamingClient
from aifbench.load.http import body_pieces

POLL_S = 0.1
READY_TOKENS = 4


class InferenceServer(Server[InferenceParams]):
    """Starts, awaits and describes the engine of a batch."""

    def count(self, params: InferenceParams) -> int:
        """Return how many servers of the engine the batch starts."""
        return params.servers

    def command(self, params: InferenceParams, place: Place) -> Command | None:
        """Return the command of an engine that the batch starts, None for a server that is already there."""
        engine = params.engine
        if isinstance(engine, LlamaCpp):
            return llamacpp.command(engine, place, params.servers)
        return ollama.command(engine, place) if isinstance(engine, Ollama) and engine.url is None else None

    def check(self, params: InferenceParams, system: System) -> Iterator[ConfigError]:
        """Yield the model of the batch's own Ollama when its folder does not hold it: a batch never downloads."""
        for engine in params.models():
            if not ollama.manifest(system.paths.models, engine.model).is_file():
                problem = f"{system.paths.models} does not hold it; `aifbench model {engine.model}` puts it there"
                yield ConfigError("engine.model", engine.model, problem, kind="not_here")

    def endpoint(self, params: InferenceParams, place: Place) -> str:
        """Return the base URL of the engine."""
        return getattr(params.engine, "url", None) or f"http://{place.host}:{place.port}"

    def wait_ready(
        self, endpoint: str, params: InferenceParams, timeout_s: float, alive: Callable[[], bool]
    ) -> dict[str, Any]:
        """Ask for a few tokens until there is an answer, as `readiness` says.

        Returns `first_answer_s`, the time of the request that was answered, `requests_sent` and the `address` used.
        """
        settings, ours = params.engine, params.starts_server
        engine = adapter(settings, endpoint)
        payload = engine.request(Ask("Say hello.", READY_TOKENS, 0.0, 1))
        start = time.monotonic()
        tries = sent = 0
        problem, limit_s = "no answer", timeout_s
        with StreamingClient([engine.target], 1, reuse=engine.keeps_connections, connect_timeout_s=1.0) as client:
            while (left := limit_s - (time.monotonic() - start)) > 0:
                if not alive():
                    raise ServerNotReady(f"the server ended before it was ready (last seen: {problem})")
                load = client.run([[payload]], [0.0], timeout_s=left)
                (exchange,) = load.exchanges
                tries += 1
                sent += (exchange.send_ns is not None) + (exchange.retried and exchange.sent_ns is not None)
                judgement = _judged(engine, exchange, endpoint, settings.kind)
                if judgement.state == "ready" and exchange.send_ns is not None and exchange.end_ns is not None:
                    first_s = (exchange.end_ns - exchange.send_ns) / 1e9
                    return {"first_answer_s": first_s, "requests_sent": sent, "address": load.addresses[0]}
                problem = judgement.problem
                if judgement.state == "final":
                    raise ServerNotReady(f"{endpoint} will not get ready: {problem} ({_requests(sent)})")
                limit_s = timeout_s if ours or sent else min(timeout_s, readiness.LISTENS_WITHIN_S)
                left = max(0.0, limit_s - (time.monotonic() - start))
                if judgement.wait_s is not None and judgement.wait_s > left:
                    problem += f"; it asks to wait {judgement.wait_s:g} s, and {left:.0f} s are left"
                    raise ServerNotReady(f"no token from {endpoint}: {problem} ({_requests(sent)})")
                if not ours and sent >= readiness.MOST_REQUESTS:
                    raise ServerNotReady(f"no token from {endpoint}: {problem} ({_requests(sent)})")
                pause_s = readiness.wait_s(tries if sent else 1, ours=ours)
                _pause(min(max(pause_s, judgement.wait_s or 0.0), left), alive)
        raise ServerNotReady(f"no token from {endpoint} within {limit_s:g} s: {problem} ({_requests(sent)})")

    def describe(self, endpoint: str, params: InferenceParams) -> dict[str, Any]:
        """Return versions, model digest and settings as the server tells them."""
        return adapter(params.engine, endpoint).describe()


def _judged(engine: Adapter, exchange: Exchange, endpoint: str, kind: str) -> readiness.Judgement:
    _, answer, error = understand(engine, exchange)
    headers = body_pieces(exchange.pieces)[0].headers
    if (location := headers.get("location")) is not None and 300 <= (exchange.status or 0) < 400:
        answer.error = engine.words(readiness.redirected(endpoint, location, kind))
    return readiness.judge(answer, error, exchange.status, headers, datetime.now(UTC))


def _pause(seconds: float, alive: Callable[[], bool]) -> None:
    """Wait, but not for a server that has ended."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and alive():
        time.sleep(min(POLL_S, left))


def _requests(count: int) -> str:
    return f"{count or 'no'} request{'' if count == 1 else 's'} sent"


SERVER = InferenceServer
