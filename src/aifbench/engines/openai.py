"""OpenAI-compatible servers: /v1/chat/completions and /v1/completions, streamed as Server-Sent Events."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import orjson

from aifbench.engines.base import Adapter, Answer, Ask, printable, target_of, tolerant
from aifbench.engines.settings import OpenAI
from aifbench.load.events import Event, Pieces, sse
from aifbench.load.fetch import ask_json, objects

SHOWN = ("id", "owned_by", "root", "max_model_len", "meta")
_DONE = b"[DONE]"
_DONE_AT_END = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]\s*$")
"""The end of an answer needs no blank line: cut off it would not be whole."""
_FIELDS = (b"data", b"event", b"id", b"retry")


class OpenAIAdapter(Adapter):
    """Speaks to vLLM, SGLang, TGI, llama.cpp and others. The key is read from its variable at each start."""

    def __init__(self, endpoint: str, settings: OpenAI) -> None:
        target = target_of(endpoint, settings)
        super().__init__(target if target.path else replace(target, path="/v1"))
        self.settings = settings

    def body(self, ask: Ask) -> dict[str, Any]:
        """Return the request's body; fields of `extra` win, and those that are null there are left out."""
        chat = self.settings.api == "chat"
        content = {"messages": [{"role": "user", "content": ask.text}]} if chat else {"prompt": ask.text}
        fields = {
            "model": self.settings.model,
            **content,
            "max_tokens": ask.output_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings.extra,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def request(self, ask: Ask) -> bytes:
        """Return the whole HTTP request for `ask`."""
        path = "/chat/completions" if self.settings.api == "chat" else "/completions"
        return self.target.request(path, orjson.dumps(self.body(ask)))

    def parse(self, body: Pieces) -> Answer:
        """Return the meaning of the events up to `[DONE]`: tokens, finish reason, and usage from whichever carries it.

        An event that makes no sense is an error; what the others say is kept.
        """
        answer = Answer()
        for event in sse(body):
            answer.first_event_ns = answer.first_event_ns or event.stamp_ns
            data = event.data.strip()
            if data == _DONE:
                answer.complete = True
                break
            if data:
                tolerant(self._take, event, answer)
        rest = b"".join(data for _, data in body)
        if answer.first_event_ns is None:
            _no_stream(rest, answer)
        answer.complete = answer.complete or _DONE_AT_END.search(rest) is not None
        return answer

    def _take(self, value: dict[str, Any], event: Event, answer: Answer) -> None:
        if event.type == "error" or _tells_failure(value):
            answer.fail(str(_message(value)))
            return
        for choice in value.get("choices") or []:
            delta = choice.get("delta") or {}
            visible = delta.get("content") or choice.get("text") or ""
            hidden = (delta.get("reasoning_content") or delta.get("reasoning") or "") + _tool_text(delta)
            if visible or hidden:
                answer.token(event, hidden + visible, visible=bool(visible))
            if choice.get("finish_reason"):
                answer.finish_reason = choice["finish_reason"]
                answer.complete = True
        usage = value.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        answer.tokens = _known(usage.get("completion_tokens"), answer.tokens)
        answer.prompt_tokens = _known(usage.get("prompt_tokens"), answer.prompt_tokens)
        answer.cached_tokens = _known(details.get("cached_tokens"), answer.cached_tokens)
        self.timings(value, answer)

    def timings(self, value: dict[str, Any], answer: Answer) -> None:
        """Take the server's own times from an event, where an engine has them."""

    def fixes_length(self) -> bool:
        """Return whether `extra` tells the engine to ignore the end of an answer."""
        return bool(self.settings.extra.get("ignore_eos"))

    def describe(self) -> dict[str, Any]:
        """Return what /models and the usual places for a version say; absent where a server does not answer."""
        known = [
            {key: entry[key] for key in SHOWN if entry.get(key) is not None}
            for entry in objects(ask_json(self.target, "/models"), "data")
            if entry.get("id") == self.settings.model
        ]
        return {
            "model": self.settings.model,
            "models": known or None,
            "version": _short(ask_json(self.target.root, "/version")),
        }


def _short(answer: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the texts and numbers of what a server says, None where it says none."""
    values = {
        key: printable(value) if isinstance(value, str) else value
        for key, value in (answer or {}).items()
        if isinstance(value, str | int | float)
    }
    return values or None


def _known(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _no_stream(body: bytes, answer: Answer) -> None:
    """Put into `answer` what a body without any event says, unless it may be the beginning of a stream."""
    name = body.lstrip().split(b"\n", 1)[0].partition(b":")[0].strip()
    if any(field.startswith(name) for field in _FIELDS):
        return
    try:
        value = orjson.loads(body)
    except ValueError:
        value = None
    message = _message(value) if isinstance(value, dict) else body.decode("utf-8", "replace")
    answer.fail(f"not an event stream: {message}", misfit=not (isinstance(value, dict) and _tells_failure(value)))


def _tells_failure(value: dict[str, Any]) -> bool:
    return bool(value.get("error")) or value.get("object") == "error"


def _message(value: dict[str, Any]) -> Any:
    error = value.get("error", value)
    return error.get("message", error) if isinstance(error, dict) else error


def _tool_text(delta: dict[str, Any]) -> str:
    calls = delta.get("tool_calls") or []
    parts = [call.get("function") or {} for call in calls]
    return "".join((part.get("name") or "") + (part.get("arguments") or "") for part in parts)
