"""What a user says about an engine (pure). Each kind has its own strict model; `kind` tells them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from aifbench.core.paths import FilePath, PathText
from aifbench.core.strict import Strict
from aifbench.load.urls import UrlError, parse, shown

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")
_OURS = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "content-type", "content-encoding", "accept-encoding",
    "expect", "te", "trailer", "upgrade", "keep-alive",
})  # fmt: skip
"""Headers that a request has anyway, or must not have."""
_SECRET = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature|^sig$|^code$", re.IGNORECASE)
"""Names whose values are, most likely, secrets."""
_ENDPOINTS = {
    "openai": ("/chat/completions", "/completions", "/responses", "/embeddings", "/models"),
    "ollama": ("/api/chat", "/api/generate", "/api/tags", "/api/version", "/api/ps", "/api/show", "/api"),
}
_OTHERS = {"openai": ("/api/chat", "/api/generate"), "ollama": ("/v1", "/chat/completions", "/completions")}
"""Ends of paths that only the other kind has."""
_BASES = {"openai": "http://host:8000/v1", "ollama": "http://host:11434"}


def refused(problem: str, value: str | None = None, at: str = "") -> PydanticCustomError:
    """Return the error of a value that a message must not repeat.

    `value` is what it may show instead, `at` the key below the one that is looked at.
    """
    texts = {"problem": problem, "shown": value, "at": at[:60]}
    whole = {name: text and text.encode(errors="backslashreplace").decode() for name, text in texts.items()}
    return PydanticCustomError("refused", "{problem}", whole)


def base_of(url: str, kind: str) -> str | None:
    """Return the base URL to which an address of one endpoint belongs; None where it is none."""
    end = next((end for end in _ENDPOINTS[kind] if url.rstrip("/").lower().endswith(end)), None)
    return None if end is None else url.rstrip("/")[: -len(end)]


def _base_url(value: str, kind: str) -> str:
    try:
        parse(value)
    except UrlError as error:
        raise refused(str(error), error.shown) from None
    if (base := base_of(value, kind)) is not None:
        raise refused(f"is the address of one endpoint; give its base: {base}", shown(value))
    if value.rstrip("/").lower().endswith(_OTHERS[kind]):
        other = "Ollama's own API (kind: ollama)" if kind == "openai" else "OpenAI's API (kind: openai)"
        raise refused(f"is an address of {other}; this kind needs a base such as {_BASES[kind]}", shown(value))
    return value.rstrip("/")


def _variable(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(VARIABLE.strip("^$"), value):
        raise refused("is no name of an environment variable; a key itself does not belong into a file")
    return value


VariableName = Annotated[str, Field(pattern=VARIABLE), BeforeValidator(_variable)]


class Variable(Strict):
    """A value that stands in an environment variable: no file, id, log or record holds it."""

    env: VariableName = Field(description="name of the environment variable")


def _pairs(value: Any) -> Any:
    """Return names and values, each text or a variable; pydantic would tell of every form that one does not have."""
    return {name: _value(name, given) for name, given in value.items()} if isinstance(value, Mapping) else value


def _value(name: Any, given: Any) -> str | Variable:
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise refused(f"{str(name)[:60]!r} is no name")
    if isinstance(given, Mapping | Variable):
        try:
            return Variable.model_validate(given)
        except ValidationError:
            raise refused("needs {env: NAME}, with the name of an environment variable", at=name) from None
    if not isinstance(given, str):
        raise refused("needs text in quotes, or {env: NAME} for what stands in a variable", at=name)
    if _SECRET.search(name):
        raise refused("a secret does not belong into a file: give {env: NAME}, and set that variable", at=name)
    if not given.isprintable():
        raise refused("has control characters in it", at=name)
    return given


def _headers(value: dict[str, str | Variable]) -> dict[str, str | Variable]:
    for name, given in value.items():
        if not _FIELD_NAME.fullmatch(name):
            raise refused(f"{name[:60]!r} is no name of a header")
        if name.lower() in _OURS:
            raise refused("is set for each request, and not to be given", at=name)
        if isinstance(given, str) and (problem := header_problem(given)):
            raise refused(problem, at=name)
    names = [name.lower() for name in value]
    if len(set(names)) < len(names):
        raise refused("a header stands twice: upper and lower case are the same")
    return value


def header_problem(value: str) -> str | None:
    """Return what is wrong with the value of a header, None where nothing is."""
    return None if _FIELD_VALUE.fullmatch(value) else "needs printable ASCII without white space around it"


OpenAIUrl = Annotated[str, AfterValidator(lambda value: _base_url(value, "openai"))]
OllamaUrl = Annotated[str, AfterValidator(lambda value: _base_url(value, "ollama"))]
_Pairs = dict[str, str | Variable]
Headers = Annotated[
    _Pairs,
    BeforeValidator(_pairs),
    AfterValidator(_headers),
    Field(description="more headers of each request: text, or {env: NAME} for the value of a variable"),
]
Query = Annotated[
    _Pairs,
    BeforeValidator(_pairs),
    Field(description="query of each request, such as {api-version: '2024-06-01'}; {env: NAME}: a variable's value"),
]
CaFile = Annotated[
    FilePath | None,
    Field(description="PEM file of the authority that vouches for an https server; absent: those of the system"),
]


class LlamaCpp(Strict):
    """The embedded engine: llama.cpp's own server, started and stopped by the batch on 127.0.0.1."""

    kind: Literal["llamacpp"] = Field(description="embedded llama.cpp server")
    model: PathText = Field(
        "smollm2-135m",
        min_length=1,
        description="`smollm2-135m` (from an installed package) or the path of a .gguf file",
    )
    slots: int = Field(
        8, ge=1, le=256, description="sequences that are decoded in parallel; more clients wait in a queue"
    )
    threads: int = Field(
        0, ge=0, le=1024, description="compute threads; 0: one per core that the job may use, shared by all `servers`"
    )
    context: int = Field(2048, ge=128, description="context per slot in tokens (prompt and answer)")


class OpenAI(Strict):
    """A server that is already there and speaks OpenAI's API (vLLM, SGLang, TGI, llama.cpp)."""

    kind: Literal["openai"] = Field(description="OpenAI-compatible server")
    url: OpenAIUrl = Field(description="base URL, such as http://host:8000 (then /v1 is added) or http://host:8000/v1")
    model: str = Field(min_length=1, description="name of the model as the server knows it")
    api: Literal["chat", "completions"] = Field("chat", description="endpoint: /chat/completions or /completions")
    api_key_env: VariableName | None = Field(None, description="name of the environment variable that holds the key")
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="more fields of the request's body, such as {ignore_eos: true}; null leaves a field out",
    )
    headers: Headers = Field(default_factory=dict)
    query: Query = Field(default_factory=dict)
    ca_file: CaFile = None

    @model_validator(mode="after")
    def _agrees(self) -> OpenAI:
        own = "messages" if self.api == "chat" else "prompt"
        if self.extra.get("stream", True) is not True:
            raise refused("must stay true: an answer is timed as it streams", at="extra.stream")
        if self.extra.get(own, own) is None:
            raise refused("holds the prompt, without which there is nothing to answer", at=f"extra.{own}")
        if self.api_key_env and any(name.lower() == "authorization" for name in self.headers):
            raise refused("is set by api_key_env already", at="headers.Authorization")
        _check_gateway(self)
        return self


class Ollama(Strict):
    """An Ollama server through its native API: one of the batch's own, or one that is already there (`url`)."""

    kind: Literal["ollama"] = Field(description="Ollama server, native API")
    url: OllamaUrl | None = Field(
        None, description="base URL of a server that is already there; absent: the batch starts and stops its own"
    )
    model: str = Field(
        "mistral",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9._-]+)?$",
        description="name of a model that the server has, such as mistral or mistral:7b",
    )
    gguf: PathText | None = Field(
        None,
        min_length=1,
        description="where there is no network: a local .gguf file, or `smollm2-135m`, that is imported as `model`",
    )
    parallel: int = Field(
        4, ge=1, le=512, description="requests that the batch's own server answers at once (OLLAMA_NUM_PARALLEL)"
    )
    gpus: int = Field(0, ge=0, le=16, description="GPUs of each server of the batch; 0: it computes on the cores")
    threads: int = Field(
        0, ge=0, le=1024, description="compute threads (num_thread) of each server; 0: as Ollama chooses"
    )
    api: Literal["generate", "chat"] = Field("generate", description="endpoint: /api/generate or /api/chat")
    context: int = Field(2048, ge=128, description="context in tokens (num_ctx), set in each request")
    keep_alive: str = Field(
        "30m", pattern=r"^-?[0-9]+(ms|s|m|h)$", description="how long the model stays loaded after a request"
    )
    headers: Headers = Field(default_factory=dict)
    query: Query = Field(default_factory=dict)
    ca_file: CaFile = None

    @model_validator(mode="after")
    def _agrees(self) -> Ollama:
        for name in ("headers", "query", "ca_file"):
            if self.url is None and getattr(self, name):
                raise refused("goes with the `url` of a server that is already there", at=name)
        _check_gateway(self)
        return self


def _check_gateway(engine: OpenAI | Ollama) -> None:
    if engine.ca_file is not None and not (engine.url and parse(engine.url).tls):
        raise refused("goes with a url that begins with https://", str(engine.ca_file), at="ca_file")


def variables(engine: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that an engine, as plain data, takes values from, by the key that names each."""
    named = {"api_key_env": engine.get("api_key_env")}
    for part in ("headers", "query"):
        given = engine.get(part)
        for name, value in given.items() if isinstance(given, Mapping) else ():
            named[f"{part}.{name}"] = value.get("env") if isinstance(value, Mapping) else None
    return {key: name for key, name in named.items() if isinstance(name, str)}


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"[{kind}]"


Engine = Annotated[
    Annotated[LlamaCpp, Tag("[llamacpp]")] | Annotated[OpenAI, Tag("[openai]")] | Annotated[Ollama, Tag("[ollama]")],
    Discriminator(
        _tag,
        custom_error_type="engine_kind",
        custom_error_message="needs a mapping with a `kind`: llamacpp, openai or ollama",
    ),
]
"""One engine, told apart by `kind`. Tags in brackets stay out of the key that an error names."""
