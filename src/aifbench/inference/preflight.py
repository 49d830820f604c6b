"""What only this machine can tell about an inference suite, before anything starts."""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from aifbench.campaign.errors import ConfigError
from aifbench.campaign.system import System
from aifbench.engines.llamacpp import PACKAGED, model_path
from aifbench.engines.settings import LlamaCpp, Ollama, OpenAI
from aifbench.inference.params import InferenceParams
from aifbench.load.http import Target
from aifbench.load.plain import get, get_json

TIMEOUT_S = 2.0


def check(params: Any, system: System) -> Iterator[ConfigError]:
    """Yield what cannot work here: a library or model that is missing, a server that does not answer within 2 s."""
    assert isinstance(params, InferenceParams)
    engine = params.engine
    if isinstance(engine, LlamaCpp):
        yield from _check_llamacpp(engine)
    elif isinstance(engine, OpenAI):
        if engine.api_key_env and not os.environ.get(engine.api_key_env):
            yield ConfigError("engine.api_key_env", engine.api_key_env, "this environment variable is not set")
        yield from _check_url(engine.url, "" if Target.of(engine.url).path else "/v1", "/models")
    elif engine.url is None:
        yield from _check_own_ollama(engine, system)
    else:
        yield from _check_ollama(engine, engine.url)


def _check_llamacpp(engine: LlamaCpp) -> Iterator[ConfigError]:
    if find_spec("xllamacpp") is None:
        yield ConfigError("engine.kind", engine.kind, "the package xllamacpp is not installed", "openai, ollama")
    path = model_path(engine.model)
    if path is None:
        package = f" (package {PACKAGED[engine.model].replace('_', '-')})" if engine.model in PACKAGED else ""
        known = ", ".join([*PACKAGED, "the path of a .gguf file"])
        yield ConfigError("engine.model", engine.model, f"no such model here{package}", known)
        return
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            yield ConfigError("engine.model", engine.model, "not a GGUF file")


def _check_url(url: str, prefix: str, path: str) -> Iterator[ConfigError]:
    try:
        status, _ = get(Target.of(url), prefix + path, {}, TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        yield ConfigError("engine.url", url, f"does not answer within {TIMEOUT_S:g} s: {reason}")
        return
    if status >= 500:
        yield ConfigError("engine.url", url, f"answers GET {prefix}{path} with status {status}")


def _check_own_ollama(engine: Ollama, system: System) -> Iterator[ConfigError]:
    if system.container == "none" and shutil.which("ollama") is None:
        yield ConfigError("engine.kind", engine.kind, "the program `ollama` is not on PATH; or give a `url`")


def _check_ollama(engine: Ollama, url: str) -> Iterator[ConfigError]:
    problems = list(_check_url(url, "", "/api/version"))
    yield from problems
    if problems:
        return
    listed = get_json(Target.of(url), "/api/tags", timeout_s=TIMEOUT_S)
    if listed is None:
        yield ConfigError("engine.url", url, "does not list its models: not an Ollama server")
        return
    names = [str(model.get("name")) for model in listed.get("models") or []]
    if engine.model not in names and f"{engine.model}:latest" not in names:
        yield ConfigError(
            "engine.model", engine.model, "the server does not have this model", ", ".join(names) or "none"
        )
