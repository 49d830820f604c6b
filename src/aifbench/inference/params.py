"""Parameters of an inference case."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from aifbench.campaign.errors import ConfigError
from aifbench.campaign.params import Params, setup, vary
from aifbench.engines.settings import Engine, LlamaCpp, Ollama

CHARACTERS_PER_TOKEN = 4
"""Rough size of a token in English, for the expected time only."""


class InferenceParams(Params):
    """One point of an inference suite: `clients` closed loops of `requests` requests each."""

    label_fields: ClassVar[tuple[str, ...]] = (
        "engine", "servers", "topology", "prompt", "clients", "output_tokens", "cache",
    )  # fmt: skip

    metrics: ClassVar[tuple[str, ...]] = (
        "time_to_first_token_s", "time_to_first_token_p50_s", "time_to_first_token_p90_s", "time_to_first_token_p95_s",
        "time_to_first_token_p99_s", "tokens_generated_per_second", "time_per_output_token_s",
        "tokens_generated_per_second_aggregate", "inter_token_latency_mean_s", "inter_token_latency_p50_s",
        "inter_token_latency_p99_s", "inter_token_latency_max_s", "end_to_end_latency_s", "success_rate", "makespan_s",
        "requests_per_second", "distinct_answers", "concurrency_achieved", "server_tokens_per_second",
        "server_time_to_first_token_s", "time_to_first_token_residual_s", "prefill_tokens_per_second",
    )  # fmt: skip

    engine: Engine = setup(LlamaCpp(kind="llamacpp"), "the inference server, told apart by `kind`")
    servers: int = setup(
        1,
        "servers that the batch starts, each with `engine.gpus` GPUs of its own; clients are spread over them",
        ge=1,
        le=16,
    )
    topology: Literal["same-node", "two-node"] = setup(
        "same-node", "`same-node`: clients beside the server; `two-node`: on a node of their own (Slurm only)"
    )

    prompt: str = vary(
        "short", "name of a file prompts/<name>.txt, or the text itself when it contains white space", min_length=1
    )
    prompt_text: str = vary("", "text of the prompt; filled in from `prompt`, not to be given")
    clients: int = vary(1, "concurrent clients, each with one connection", ge=1, le=1024)
    requests: int = vary(4, "measured requests per client and repetition, one after the other", ge=1, le=100_000)
    output_tokens: int = vary(64, "tokens to generate per request", ge=2, le=131_072)
    cache: Literal["warm-same", "cold"] = vary(
        "warm-same",
        "prompt cache: `warm-same` sends the very same prompt each time, `cold` puts a nonce at its very front",
    )
    schedule: Literal["closed"] = vary("closed", "`closed`: a client sends its next request when the last has ended")
    temperature: float = vary(0.0, "sampling temperature; 0 is greedy", ge=0, le=2)
    warmup_requests: int = vary(1, "requests per client before the measured ones, excluded and counted", ge=0, le=1000)
    timeout_s: float = vary(120.0, "longest time of one request in seconds", gt=0, le=3600)

    @model_validator(mode="after")
    def _fits_context(self) -> InferenceParams:
        context = getattr(self.engine, "context", None)
        if context is not None and self.output_tokens >= context:
            raise ValueError(
                f"output_tokens: {self.output_tokens} leave no room for a prompt in a context of {context}"
            )
        return self

    @model_validator(mode="after")
    def _two_nodes_need_a_server_of_ours(self) -> InferenceParams:
        if self.topology == "two-node" and not self.starts_server:
            raise ValueError("topology: two-node needs an engine that the batch starts itself, not one with a url")
        return self

    @model_validator(mode="after")
    def _servers_are_ours(self) -> InferenceParams:
        if self.servers > 1 and not self.starts_server:
            raise ValueError("servers: more than 1 needs an engine that the batch starts itself, not one with a url")
        return self

    @property
    def starts_server(self) -> bool:
        """Whether the batch starts the engine; otherwise it is already there."""
        return isinstance(self.engine, LlamaCpp) or (isinstance(self.engine, Ollama) and self.engine.url is None)

    def images(self) -> list[str]:
        """The image of Ollama, where the batch starts it."""
        return ["ollama"] if self._own_ollama else []

    def models(self) -> list[Any]:
        """The model of Ollama, where the batch starts it."""
        return [self.engine] if self._own_ollama else []

    @property
    def _own_ollama(self) -> bool:
        return isinstance(self.engine, Ollama) and self.starts_server

    def secrets(self) -> tuple[str, ...]:
        """The variable that holds the key of an OpenAI-compatible server."""
        name = getattr(self.engine, "api_key_env", None)
        return (name,) if name else ()

    def nodes(self) -> int:
        """Server and clients on one node, or one for each."""
        return 2 if self.topology == "two-node" else 1

    def gpus(self) -> int:
        """GPUs of all servers that the batch starts."""
        return self.servers * self.engine.gpus if isinstance(self.engine, Ollama) and self.starts_server else 0

    @classmethod
    def resolve(cls, point: dict[str, Any], folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Read the prompt's text, so that the text itself and not a file's name identifies the case."""
        if point.get("prompt_text"):
            raise ConfigError("prompt_text", None, "is filled in from `prompt`; give the text there")
        name = point.get("prompt", cls.model_fields["prompt"].default)
        if any(character.isspace() for character in name):
            inline = hashlib.sha256(name.encode()).hexdigest()[:8]
            return [{**point, "prompt": f"inline-{inline}", "prompt_text": name}]
        return [{**point, "prompt": name, "prompt_text": _read_prompt(name, folders)}]

    def slug(self) -> str:
        """Return a name such as `inference-llamacpp-smollm2-135m`."""
        model = Path(self.engine.model).name if self.engine.kind == "llamacpp" else self.engine.model
        text = "".join(c if c.isalnum() and c.isascii() else "-" for c in model.lower().removesuffix(".gguf"))
        name = f"inference-{self.engine.kind}-{'-'.join(part for part in text.split('-') if part)}"[:60].rstrip("-")
        servers = f"-{self.servers}servers" if self.servers > 1 else ""
        return f"{name}{servers}-2nodes" if self.topology == "two-node" else f"{name}{servers}"

    def expected_seconds(self, repetitions: int) -> float:
        """Return the expected time at 100 generated and 400 read tokens/s in total: a small model on two cores."""
        prompt_tokens = len(self.prompt_text) / CHARACTERS_PER_TOKEN
        reading = prompt_tokens / 400 if self.cache == "cold" else 0.0
        requests = self.clients * (self.requests + self.warmup_requests)
        return repetitions * (0.5 + requests * (self.output_tokens / 100 + reading))

    def expected_setup_seconds(self) -> float:
        """Return the expected time to start the engine and to calibrate the instrument."""
        return 10.0


def _read_prompt(name: str, folders: Sequence[Path]) -> str:
    names: set[str] = set()
    for folder in folders:
        prompts = folder / "prompts"
        path = prompts / f"{name}.txt"
        if path.parent == prompts and path.is_file():
            try:
                text = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise ConfigError("prompt", name, f"{path} cannot be read as UTF-8 text") from None
            if not text:
                raise ConfigError("prompt", name, f"{path} is empty")
            return text
        names.update(found.stem for found in prompts.glob("*.txt"))
    raise ConfigError("prompt", name, "no such prompt", ", ".join(sorted(names)) or "text with white space in it")
