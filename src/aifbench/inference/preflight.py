"""What only this machine can tell about an inference suite, before anything starts."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
from collections.abc import Iterator
from importlib.util import find_spec

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.engines.adapters import adapter
from aifbench.engines.base import printable
from aifbench.engines.llamacpp import PACKAGED, model_path
from aifbench.engines.settings import LlamaCpp, Ollama, OpenAI, header_problem, variables
from aifbench.inference.params import InferenceParams
from aifbench.load.fetch import ask, ask_json, objects

TIMEOUT_S = 2.0


def check(params: InferenceParams, system: System) -> Iterator[ConfigError]:
    """Yield what cannot work here: a library or model that is missing, a server that does not answer within 2 s."""
    engine = params.engine
    if isinstance(engine, LlamaCpp):
        yield from _check_llamacpp(engine)
    elif isinstance(engine, OpenAI):
        yield from _check_there(engine, system, engine.url, "/models")
    elif engine.url is None:
        yield from _check_own_ollama(engine, system)
    else:
        yield from _check_ollama(engine, system, engine.url)


def _check_llamacpp(engine: LlamaCpp) -> Iterator[ConfigError]:
    if find_spec("xllamacpp") is None:
        problem = "the package xllamacpp is not installed"
        yield ConfigError("engine.kind", engine.kind, problem, kind="not_here", choices=["openai", "ollama"])
    path = model_path(engine.model)
    if path is None:
        package = f" (package {PACKAGED[engine.model].replace('_', '-')})" if engine.model in PACKAGED else ""
        allowed = ", ".join([*PACKAGED, "the path of a .gguf file"])
        problem = f"no such model here{package}"
        yield ConfigError("engine.model", engine.model, problem, allowed, kind="not_here", choices=PACKAGED)
        return
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            yield ConfigError("engine.model", engine.model, "not a GGUF file")


def _check_there(engine: OpenAI | Ollama, system: System, url: str, path: str) -> Iterator[ConfigError]:
    """Yield why a server that is already there cannot be asked, or does not answer."""
    problems = [*_check_variables(engine), *_check_certificates(engine, system)]
    yield from problems
    if problems:
        return
    target = adapter(engine, url).target
    try:
        status, _ = ask(target, path, TIMEOUT_S)
    except ssl.SSLCertVerificationError as error:
        hint = "`ca_file` names the file of the authority that vouches for it"
        yield ConfigError(
            "engine.url", url, f"its certificate is not trusted: {error.verify_message}; {hint}", kind="not_here"
        )
        return
    except (OSError, http.client.HTTPException) as error:
        reason = printable(str(error)) or type(error).__name__
        yield ConfigError("engine.url", url, f"does not answer within {TIMEOUT_S:g} s: {reason}", kind="not_here")
        return
    if status >= 500:
        yield ConfigError("engine.url", url, f"answers GET {target.path}{path} with status {status}", kind="not_here")


def _check_variables(engine: OpenAI | Ollama) -> Iterator[ConfigError]:
    for key, name in variables(engine.model_dump(mode="json")).items():
        value = os.environ.get(name)
        if not value:
            yield ConfigError(f"engine.{key}", name, "this environment variable is not set", kind="not_here")
        elif key.startswith("query."):
            if not value.isprintable():
                yield ConfigError(f"engine.{key}", name, "this environment variable has control characters in it")
        elif problem := header_problem(value):
            yield ConfigError(f"engine.{key}", name, f"what this environment variable holds {problem}")


def _check_certificates(engine: OpenAI | Ollama, system: System) -> Iterator[ConfigError]:
    file = engine.ca_file
    if file is None:
        return
    if system.container != "none" and not file.is_absolute():
        yield ConfigError("engine.ca_file", str(file), "needs a path from / on: a container has another working folder")
        return
    if not file.is_file():
        yield ConfigError("engine.ca_file", str(file), "no such file", kind="not_here")
        return
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        yield ConfigError("engine.ca_file", str(file), "holds no certificates in PEM form")
    except OSError as error:
        yield ConfigError("engine.ca_file", str(file), f"cannot be read: {error.strerror}", kind="not_here")


def _check_own_ollama(engine: Ollama, system: System) -> Iterator[ConfigError]:
    if system.container == "none" and shutil.which("ollama") is None:
        yield ConfigError(
            "engine.kind", engine.kind, "the program `ollama` is not on PATH; or give a `url`", kind="not_here"
        )


def _check_ollama(engine: Ollama, system: System, url: str) -> Iterator[ConfigError]:
    problems = list(_check_there(engine, system, url, "/api/version"))
    yield from problems
    if problems:
        return
    listed = ask_json(adapter(engine, url).target, "/api/tags", timeout_s=TIMEOUT_S)
    if listed is None:
        problem = "does not list its models: no Ollama server, or one that wants other headers"
        yield ConfigError("engine.url", url, problem, kind="not_here")
        return
    names = [str(model.get("name")) for model in objects(listed, "models")]
    if engine.model not in names and f"{engine.model}:latest" not in names:
        yield ConfigError(
            "engine.model", engine.model, "the server does not have this model", printable(", ".join(names)) or "none"
        )
