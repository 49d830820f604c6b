"""The servers of an inference batch: started here (llamacpp, ollama) or already there (openai, ollama with a url)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from aifbench.benchmark import Command, Place, Server, ServerNotReady
from aifbench.campaign.errors import ConfigError
from aifbench.campaign.params import Params
from aifbench.campaign.system import System
from aifbench.engines import llamacpp, ollama
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Ask
from aifbench.engines.settings import LlamaCpp, Ollama
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import understand
from aifbench.load.client import StreamingClient

POLL_S = 0.1
READY_TOKENS = 4


class InferenceServer(Server):
    """Starts, awaits and describes the engine of a batch."""

    def count(self, params: Params) -> int:
        """Return how many servers of the engine the batch starts."""
        return _of(params).servers

    def command(self, params: Params, place: Place) -> Command | None:
        """Return the command of an engine that the batch starts, None for a server that is already there."""
        engine = _of(params).engine
        if isinstance(engine, LlamaCpp):
            return llamacpp.command(engine, place, _of(params).servers)
        return ollama.command(engine, place) if isinstance(engine, Ollama) and engine.url is None else None

    def check(self, params: Params, system: System) -> Iterator[ConfigError]:
        """Yield the model of the batch's own Ollama when its folder does not hold it: a batch never downloads."""
        for engine in _of(params).models():
            if not ollama.manifest(system.paths.models, engine.model).is_file():
                problem = f"{system.paths.models} does not hold it; `aifbench model {engine.model}` puts it there"
                yield ConfigError("engine.model", engine.model, problem)

    def endpoint(self, params: Params, place: Place) -> str:
        """Return the base URL of the engine."""
        return getattr(_of(params).engine, "url", None) or f"http://{place.host}:{place.port}"

    def wait_ready(self, endpoint: str, params: Params, timeout_s: float, alive: Callable[[], bool]) -> dict[str, Any]:
        """Ask for a few tokens until they come. Returns `first_answer_s`, the time of the request that was answered."""
        engine = adapter(_of(params).engine, endpoint)
        payload = engine.request(Ask("Say hello.", READY_TOKENS, 0.0, 1))
        start = time.monotonic()
        seen = "no answer"
        with StreamingClient([engine.target], 1, reuse=engine.keeps_connections, connect_timeout_s=1.0) as client:
            while (left := timeout_s - (time.monotonic() - start)) > 0:
                if not alive():
                    raise ServerNotReady(f"the server ended before it was ready (last seen: {seen})")
                exchange = client.run([[payload]], [0.0], timeout_s=left).exchanges[0]
                _, answer, error = understand(engine, exchange)
                if error is None and exchange.send_ns is not None and exchange.end_ns is not None:
                    return {"first_answer_s": (exchange.end_ns - exchange.send_ns) / 1e9}
                seen = f"{error}: {answer.error}" if answer.error else str(error)
                if error in {"http_400", "http_401", "http_403", "http_404"}:
                    break
                time.sleep(min(POLL_S, max(0.0, left)))
        raise ServerNotReady(f"no token from {endpoint} within {timeout_s:g} s (last seen: {seen})")

    def describe(self, endpoint: str, params: Params) -> dict[str, Any]:
        """Return versions, model digest and settings as the server tells them."""
        return adapter(_of(params).engine, endpoint).describe()


def _of(params: Params) -> InferenceParams:
    assert isinstance(params, InferenceParams)
    return params


SERVER = InferenceServer
