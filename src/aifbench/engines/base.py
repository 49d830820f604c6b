"""What an adapter has to know about its engine: the request for a prompt, and the meaning of the answer's events."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import orjson

from aifbench.engines.settings import Ollama, OpenAI, Variable
from aifbench.load.events import Event, Pieces
from aifbench.load.http import Target

MOST_WORDS = 200
"""Characters that are kept of what a server says."""


@dataclass(frozen=True)
class Ask:
    """One generation to ask for."""

    prompt: str
    output_tokens: int
    temperature: float
    seed: int
    nonce: str | None = None
    """Put into the prompt, so that no cache holds what follows it; None lets the cache serve."""
    shared: int = 0
    """Characters of the prompt before the nonce; 0: it stands at the very front."""

    @property
    def text(self) -> str:
        """The prompt as it is sent."""
        if self.nonce is None:
            return self.prompt
        return f"{self.prompt[: self.shared]}[{self.nonce}] {self.prompt[self.shared :]}"


@dataclass
class Answer:
    """What the events of one answer say. Stamps are CLOCK_MONOTONIC in ns; None: the server did not say.

    A token event is one that carries text of any channel (answer, reasoning, tool call); an empty or role-only event is
    none. One event may hold several tokens: `tokens` is the server's count.
    """

    first_event_ns: int | None = None
    first_visible_ns: int | None = None
    """First event with text of the answer itself (not reasoning, not a tool call)."""
    token_ns: list[int] = field(default_factory=list)
    token_reads: list[int] = field(default_factory=list)
    """Index of the read that brought each token event."""
    text: str = ""
    finish_reason: str | None = None
    complete: bool = False
    """Whether the engine said that the answer is finished."""
    error: str | None = None
    misfit: bool = False
    """Whether `error` tells of something that made no sense, and not what the server itself says of a failure."""
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    queue_ms: float | None = None
    load_ms: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None

    @property
    def text_sha256(self) -> str:
        """Digest of the text, to count distinct answers."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def reads_with_several_tokens(self) -> int:
        """Reads that brought more than one token event: their gaps are bounds, not measurements."""
        return sum(count > 1 for count in Counter(self.token_reads).values())

    def token(self, event: Event, text: str, *, visible: bool) -> None:
        """Count one token event."""
        self.token_ns.append(event.stamp_ns)
        self.token_reads.append(event.read)
        self.text += text
        if visible and self.first_visible_ns is None:
            self.first_visible_ns = event.stamp_ns

    def fail(self, message: str, *, misfit: bool = False) -> None:
        """Keep the first thing that went wrong; what the server itself says stands before what made no sense."""
        if self.error is None or (self.misfit and not misfit):
            self.error, self.misfit = message, misfit


class Adapter(ABC):
    """One engine at one base URL."""

    keeps_connections: ClassVar[bool] = True
    """Whether the engine keeps a connection after a streamed answer, or says that it does not."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def request(self, ask: Ask) -> bytes:
        """Return the whole HTTP request for `ask`."""

    @abstractmethod
    def parse(self, body: Pieces) -> Answer:
        """Return the meaning of a streamed body. Bytes that make no sense give an answer with an error."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return versions, model digest and settings as far as the server tells them (not while it is measured)."""

    def state(self) -> dict[str, Any] | None:
        """Return what must not change while it is measured, such as where the model is loaded; None: not told."""
        return None

    @abstractmethod
    def fixes_length(self) -> bool:
        """Return whether the engine was told to go on past the end of an answer up to the tokens asked for."""

    def words(self, text: str) -> str:
        """Return what a server says for a message or a record: one short printable line without our own secrets."""
        for secret in self.target.secrets:
            for form in (secret, quote(secret, safe=""), orjson.dumps(secret).decode()[1:-1]):
                text = text.replace(form, "***")
        return printable(text)


def target_of(endpoint: str, settings: OpenAI | Ollama) -> Target:
    """Return where the requests of an engine go; what stands in environment variables is read now."""
    secrets: list[str] = []

    def resolved(value: str | Variable) -> str:
        if isinstance(value, str):
            return value
        secrets.append(os.environ[value.env])
        return secrets[-1]

    headers = {name: resolved(value) for name, value in settings.headers.items()}
    if isinstance(settings, OpenAI) and settings.api_key_env:
        headers["Authorization"] = f"Bearer {resolved(Variable(env=settings.api_key_env))}"
    query = urlencode({name: resolved(value) for name, value in settings.query.items()}, quote_via=quote)
    return replace(
        Target.of(endpoint),
        query=query,
        headers=tuple(headers.items()),
        ca_file=settings.ca_file,
        secrets=tuple(sorted(filter(None, secrets), key=len, reverse=True)),
    )


def printable(text: str) -> str:
    """Return the beginning of a text as one line, its control characters escaped."""
    line = " ".join(text[: 10 * MOST_WORDS].split())
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return escaped[:MOST_WORDS]


def object_of(event: Event) -> dict[str, Any]:
    """Return an event's JSON object. Raises ValueError for anything else."""
    value = orjson.loads(event.data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def tolerant(take: Callable[[dict[str, Any], Event, Answer], None], event: Event, answer: Answer) -> None:
    """Let `take` put an event's JSON object into `answer`. An event of a wrong shape is data, not a crash.

    What was understood, of the other events and of this one, is kept.
    """
    try:
        take(object_of(event), event, answer)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        answer.fail(f"not understood: {event.data.decode('utf-8', 'replace')}", misfit=event.type != "error")


def number(values: dict[str, Any], key: str, scale: float = 1.0) -> float | None:
    """Return a number of a JSON object times `scale`, or None where it is absent."""
    value = values.get(key)
    return None if value is None else float(value) * scale


def total(values: Sequence[float | None]) -> float | None:
    """Return the sum, or None where a part is absent."""
    return (
        None if any(value is None for value in values) else float(sum(value for value in values if value is not None))
    )
