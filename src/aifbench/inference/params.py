"""Parameters of an inference case."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from aifbench.core.errors import ConfigError, FieldError, nearest
from aifbench.core.params import Params, setup, vary
from aifbench.core.strict import Strict
from aifbench.engines.settings import Engine, LlamaCpp, Ollama, OpenAI, variables
from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import read_regular
from aifbench.load.schedules import Closed, Schedule, Trace, arrivals, read_trace

CHARACTERS_PER_TOKEN = 4
"""Rough size of a token in English."""
LENGTHS = ("max_tokens", "max_completion_tokens")
"""Fields of OpenAI's API that say how long an answer may be."""
MOST_PROMPT_BYTES = 1 << 20
"""About 250 000 tokens of English: a prompt stands in the plan once for each of its cases."""
PROMPT_FORM = "UTF-8 text of at most 1 MiB"
LONGEST_TOKEN = 128
"""Bytes of the longest tokens of tokenizers in use: runs of one sign."""
EXPECTED_PROBES = 5
"""A search tries about twice as many loads, half as large in the mean as the highest."""


class Slo(Strict):
    """Bounds of a request that is served well (service level objective). What is absent is not asked for."""

    time_to_first_token_s: float | None = Field(None, gt=0, description="longest time to first token in s")
    time_per_output_token_s: float | None = Field(None, gt=0, description="longest mean gap of one answer in s")
    end_to_end_latency_s: float | None = Field(None, gt=0, description="longest time to the end of the answer in s")

    @model_validator(mode="after")
    def _bounds_something(self) -> Slo:
        if not self.bounds:
            raise ValueError("needs at least one bound")
        return self

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are asked for."""
        return {name: bound for name, bound in self.model_dump().items() if bound is not None}

    @property
    def shown(self) -> str:
        """Such as `time to first token <= 0.5 s`."""
        return ", ".join(f"{name[:-2].replace('_', ' ')} <= {bound:g} s" for name, bound in self.bounds.items())


class InferenceParams(Params):
    """One point of an inference suite: closed loops of clients, or requests that arrive on a schedule."""

    label_fields: ClassVar[tuple[str, ...]] = (
        "engine", "servers", "topology", "prompt", "schedule", "clients", "output_tokens", "cache",
        "shared_prefix_tokens", "find", "slo", "client_processes",
    )  # fmt: skip

    metrics: ClassVar[tuple[str, ...]] = (
        "time_to_first_token_s", "time_to_first_token_p50_s", "time_to_first_token_p90_s", "time_to_first_token_p95_s",
        "time_to_first_token_p99_s", "time_to_first_byte_s", "time_to_first_event_s", "time_to_first_visible_token_s",
        "time_to_first_token_from_schedule_s", "tokens_generated_per_second", "time_per_output_token_s",
        "tokens_generated_per_second_aggregate", "inter_token_latency_mean_s", "inter_token_latency_p50_s",
        "inter_token_latency_p95_s", "inter_token_latency_p99_s", "inter_token_latency_p999_s",
        "inter_token_latency_max_s", "inter_token_stalls", "end_to_end_latency_s",
        "end_to_end_latency_from_schedule_s", "schedule_lag_p99_s", "schedule_lag_max_s", "success_rate", "makespan_s",
        "requests_per_second", "distinct_answers", "concurrency_achieved", "goodput_share",
        "goodput_requests_per_second", "server_queue_s", "server_load_s", "server_prefill_s",
        "server_tokens_per_second", "server_time_to_first_token_s", "network_round_trip_s",
        "time_to_first_token_residual_s", "prefill_tokens_per_second", "clients_under_slo", "rate_under_slo",
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
    clients: int = vary(
        1, "concurrent clients, each with one connection; in an open schedule the most connections", ge=1, le=1024
    )
    requests: int = vary(
        4,
        "measured requests per repetition: of each client, one after the other; in an open schedule of all together",
        ge=1,
        le=100_000,
    )
    output_tokens: int = vary(64, "tokens to generate per request", ge=2, le=131_072)
    cache: Literal["warm-same", "cold", "shared-prefix"] = vary(
        "warm-same",
        "prompt cache: `warm-same` sends the very same prompt each time, `cold` puts a nonce at its very front, "
        "`shared-prefix` puts it behind `shared_prefix_tokens`",
    )
    shared_prefix_tokens: int = vary(
        0,
        "length of the common beginning of all prompts in cache mode `shared-prefix`, in tokens of about 4 characters",
        ge=0,
    )
    schedule: Schedule = vary(
        Closed(kind="closed"),
        "`closed`: a client sends its next request when the last has ended; or an open one: constant, poisson, gamma, "
        "on-off, ramp, step or trace",
    )
    schedule_s: tuple[float, ...] = vary((), "send times of a trace; filled in from its file, not to be given")
    find: Literal["clients", "rate"] | None = vary(
        None,
        "search the highest number of clients, or rate of arrivals, that keeps the slo; the case's own is the most",
    )
    find_share: float = vary(0.95, "share of the requests that must keep the slo in a search", gt=0, le=1)
    slo: Slo | None = vary(None, "what a request must keep to count as goodput; times run from the schedule")
    temperature: float = vary(0.0, "sampling temperature; 0 is greedy", ge=0, le=2)
    client_processes: int = vary(
        1, "processes that the clients are spread over, where one core cannot follow all streams", ge=1, le=64
    )
    warmup_requests: int = vary(1, "requests per client before the measured ones, excluded and counted", ge=0, le=1000)
    timeout_s: float = vary(120.0, "longest time of one request in seconds", gt=0, le=3600)

    @model_validator(mode="after")
    def _fits_context(self) -> InferenceParams:
        context = getattr(self.engine, "context", None)
        if context is not None and self.output_tokens >= context:
            raise FieldError(
                "output_tokens", f"{self.output_tokens} leave no room for a prompt in a context of {context}"
            )
        return self

    @model_validator(mode="after")
    def _prefix_fits_mode(self) -> InferenceParams:
        if (self.cache == "shared-prefix") != bool(self.shared_prefix_tokens):
            raise FieldError("shared_prefix_tokens", "goes with cache shared-prefix, which needs it")
        if self.cache == "shared-prefix" and self.prefix_characters >= len(self.prompt_text):
            raise FieldError(
                "shared_prefix_tokens",
                f"the prompt has {len(self.prompt_text)} characters, "
                f"so at most {(len(self.prompt_text) - 1) // CHARACTERS_PER_TOKEN} tokens of it can be shared",
            )
        return self

    @model_validator(mode="after")
    def _search_has_what_it_needs(self) -> InferenceParams:
        if self.find is None:
            return self
        if self.slo is None:
            raise FieldError("find", "needs an slo that the load is to keep")
        if (self.find == "clients") != isinstance(self.schedule, Closed):
            raise FieldError("find", "clients goes with a closed schedule, rate with an open one")
        if self.find == "rate" and not hasattr(self.schedule, "rate"):
            raise FieldError("find", "rate goes with a schedule of one rate: constant, poisson, gamma or on-off")
        return self

    @model_validator(mode="after")
    def _trace_is_long_enough(self) -> InferenceParams:
        if isinstance(self.schedule, Trace) and self.requests > len(self.schedule_s):
            raise FieldError("requests", f"the trace has {len(self.schedule_s)} send times")
        return self

    @model_validator(mode="after")
    def _two_nodes_need_a_server_of_ours(self) -> InferenceParams:
        if self.topology == "two-node" and not self.starts_server:
            raise FieldError("topology", "two-node needs an engine that the batch starts itself, not one with a url")
        return self

    @model_validator(mode="after")
    def _servers_are_ours(self) -> InferenceParams:
        if self.servers > 1 and not self.starts_server:
            raise FieldError("servers", "more than 1 needs an engine that the batch starts itself, not one with a url")
        return self

    @property
    def starts_server(self) -> bool:
        """Whether the batch starts the engine; otherwise it is already there."""
        return isinstance(self.engine, LlamaCpp) or (isinstance(self.engine, Ollama) and self.engine.url is None)

    @property
    def served_at_once(self) -> int | None:
        """Requests that the servers which the batch starts work on at once; None where that is not ours to say."""
        if not self.starts_server:
            return None
        slots = self.engine.slots if isinstance(self.engine, LlamaCpp) else getattr(self.engine, "parallel", None)
        return self.servers * slots if slots else None

    @property
    def prefix_characters(self) -> int:
        """Characters of the prompt that all requests share in cache mode `shared-prefix`."""
        return CHARACTERS_PER_TOKEN * self.shared_prefix_tokens

    @property
    def most(self) -> float:
        """The highest load of a search."""
        return float(self.clients) if self.find == "clients" else float(getattr(self.schedule, "rate", 0.0))

    def at_load(self, load: float) -> InferenceParams:
        """Return the case at one load of its search."""
        if self.find == "clients":
            return self.model_copy(update={"clients": int(load)})
        return self.model_copy(update={"schedule": self.schedule.model_copy(update={"rate": load})})

    @property
    def total_requests(self) -> int:
        """Measured requests of one repetition."""
        return self.requests * (self.clients if isinstance(self.schedule, Closed) else 1)

    def shown(self, name: str) -> str:
        """Return the value of a field for a reader; schedule and SLO in their own short form."""
        value = getattr(self, name)
        return value.shown if name in {"schedule", "slo"} and value is not None else super().shown(name)

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
        """The variables that hold a key of the server, or other values of its headers and query."""
        return tuple(dict.fromkeys(variables(self.engine.model_dump(mode="json")).values()))

    def reads(self) -> tuple[Path, ...]:
        """The certificates that vouch for the server."""
        file = getattr(self.engine, "ca_file", None)
        return (file,) if file else ()

    def nodes(self) -> int:
        """Server and clients on one node, or one for each."""
        return 2 if self.topology == "two-node" else 1

    def gpus(self) -> int:
        """GPUs of all servers that the batch starts."""
        return self.servers * self.engine.gpus if isinstance(self.engine, Ollama) and self.starts_server else 0

    @classmethod
    def resolve(cls, point: dict[str, Any], folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Read the prompt's text and a trace's times, so that the content and not a file's name identifies the case."""
        for name, source in (("prompt_text", "prompt"), ("schedule_s", "schedule")):
            if point.get(name):
                raise ConfigError(name, None, f"is filled in from `{source}`")
        _check_length(point.get("engine"), point.get("output_tokens", cls.model_fields["output_tokens"].default))
        schedule = point.get("schedule")
        if isinstance(schedule, Trace):
            point = {**point, "schedule_s": _read_times(schedule)}
        name = text = point.get("prompt", cls.model_fields["prompt"].default)
        if any(character.isspace() for character in name):
            _check_text(name, text, "the text")
            name = f"inline-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        else:
            text = _read_prompt(name, folders)
        engine, output_tokens = (
            point.get(key, cls.model_fields[key].get_default()) for key in ("engine", "output_tokens")
        )
        _check_context(name, text, engine, output_tokens)
        return [{**point, "prompt": name, "prompt_text": text}]

    def slug(self) -> str:
        """Return a name such as `llamacpp-smollm2-135m`."""
        model = Path(self.engine.model).name if self.engine.kind == "llamacpp" else self.engine.model
        text = "".join(c if c.isalnum() and c.isascii() else "-" for c in model.lower().removesuffix(".gguf"))
        name = f"{self.engine.kind}-{'-'.join(part for part in text.split('-') if part)}"[:50].rstrip("-")
        servers = f"-{self.servers}servers" if self.servers > 1 else ""
        return f"{name}{servers}-2nodes" if self.topology == "two-node" else f"{name}{servers}"

    def expected_seconds(self, repetitions: int) -> float:
        """Return the expected time at 100 generated and 400 read tokens/s in total: a small model on two cores."""
        prompt_tokens = len(self.prompt_text) / CHARACTERS_PER_TOKEN
        reading = prompt_tokens / 400 if self.cache == "cold" else 0.0
        if self.find is not None:
            return repetitions * EXPECTED_PROBES * self.model_copy(update={"find": None}).expected_seconds(1)
        requests = self.total_requests + self.warmup_requests * self.clients
        busy_s = requests * (self.output_tokens / 100 + reading)
        if not isinstance(self.schedule, Closed):
            busy_s = max(busy_s, float(arrivals(self.schedule, self.requests, 0, np.array(self.schedule_s))[-1]))
        return repetitions * (0.5 + busy_s)

    def expected_setup_seconds(self) -> float:
        """Return the expected time to start the engine and to calibrate the instrument."""
        return 10.0


def _check_length(engine: Any, output_tokens: int) -> None:
    """Raise for an `extra` that asks for another length of the answers than the case says that it does."""
    extra = engine.extra if isinstance(engine, OpenAI) else {}
    for name in LENGTHS:
        if extra.get(name, output_tokens) not in (None, output_tokens):
            problem = f"the answers are to have output_tokens = {output_tokens}: give both the same number"
            raise ConfigError(f"engine.extra.{name}", extra[name], problem)


def _read_times(schedule: Trace) -> tuple[float, ...]:
    try:
        return tuple(read_trace(Path(schedule.file)).tolist())
    except ValueError as error:
        raise ConfigError("schedule.file", schedule.file, str(error)) from None


def _read_prompt(name: str, folders: Sequence[Path]) -> str:
    """Return the text of `prompts/<name>.txt`, with line feeds as ends of lines and no white space at its ends."""
    places = [folder / "prompts" for folder in folders]
    for prompts in places:
        path = prompts / f"{name}.txt"
        if path.parent != prompts or not os.path.lexists(path):
            continue
        if os.path.dirname(os.path.realpath(path)) != os.path.realpath(prompts):
            raise ConfigError("prompt", name, f"{path} is a link to outside of {prompts}", "the file itself")
        try:
            data = read_regular(path, MOST_PROMPT_BYTES)
        except Unreadable as error:
            raise ConfigError("prompt", name, f"{path}: {error.problem}", PROMPT_FORM) from None
        try:
            text = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").strip()
        except UnicodeDecodeError:
            raise ConfigError("prompt", name, f"{path} cannot be read as UTF-8 text", PROMPT_FORM) from None
        _check_text(name, text, str(path))
        return text
    names = sorted({path.stem for prompts in places for path in prompts.glob("*.txt")})
    near = nearest(name, names)
    problem = f"no such prompt in {' or '.join(f'{prompts}/' for prompts in places)}"
    problem = f"{problem}, did you mean '{near}'?" if near else problem
    allowed = ", ".join([*names, "or a text with white space in it"])
    raise ConfigError("prompt", name, problem, allowed, kind="unknown_name", choices=names)


def _check_text(name: str, text: str, what: str) -> None:
    """Refuse a text that would not reach a model as it stands."""
    if not text.strip():
        raise ConfigError("prompt", name, f"{what} is empty")
    if "\0" in text:
        raise ConfigError("prompt", name, f"{what} has a NUL, at which engines end a text", "a text without it")
    if text.startswith("\ufeff"):
        problem = f"{what} begins with a byte order mark, which would be sent as a part of it"
        raise ConfigError("prompt", name, problem, "UTF-8 without one")
    if len(text.encode()) > MOST_PROMPT_BYTES:
        raise ConfigError("prompt", name, f"{what} is too long", PROMPT_FORM)


@lru_cache(maxsize=64)
def least_tokens(text: str) -> int:
    """Return a number of tokens that no tokenizer in use stays below: one for each word, and for each 128 bytes."""
    return max(len(text.split()), len(text.encode()) // LONGEST_TOKEN)


def _check_context(name: str, text: str, engine: Any, output_tokens: int) -> None:
    """Refuse a prompt that an engine of known context would cut or refuse."""
    context, least = getattr(engine, "context", None), least_tokens(text)
    if context is not None and least + output_tokens > context:
        problem = f"has at least {least} tokens; with {output_tokens} of an answer they exceed the engine's context"
        raise ConfigError("prompt", name, problem, f"at most {context} together (engine.context)")
