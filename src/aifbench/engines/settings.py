"""What a user says about an engine (pure). Each kind has its own strict model; `kind` tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from aifbench.campaign.strict import Strict


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not a URL such as http://host:8000")
    if parts.username is not None:
        raise ValueError("a URL must not carry a user or a key; name a variable in api_key_env")
    return value.rstrip("/")


Url = Annotated[str, AfterValidator(_check_url)]


class LlamaCpp(Strict):
    """The embedded engine: llama.cpp's own server, started and stopped by the batch on 127.0.0.1."""

    kind: Literal["llamacpp"] = Field(description="embedded llama.cpp server")
    model: str = Field(
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
    url: Url = Field(description="base URL, such as http://host:8000 (then /v1 is added) or http://host:8000/v1")
    model: str = Field(min_length=1, description="name of the model as the server knows it")
    api: Literal["chat", "completions"] = Field("chat", description="endpoint: /chat/completions or /completions")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of the environment variable that holds the key"
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="more fields of the request's body, such as {ignore_eos: true}"
    )


class Ollama(Strict):
    """An Ollama server through its native API: one of the batch's own, or one that is already there (`url`)."""

    kind: Literal["ollama"] = Field(description="Ollama server, native API")
    url: Url | None = Field(
        None, description="base URL of a server that is already there; absent: the batch starts and stops its own"
    )
    model: str = Field(
        "mistral",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9._-]+)?$",
        description="name of a model that the server has, such as mistral or mistral:7b",
    )
    gguf: str | None = Field(
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
