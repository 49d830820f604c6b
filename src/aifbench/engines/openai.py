"""OpenAI-compatible servers: /v1/chat/completions and /v1/completions, streamed as Server-Sent Events."""

from __future__ import annotations

import os
from typing import Any

import orjson

from aifbench.engines.base import Adapter, Answer, Ask, loads, tolerant
from aifbench.engines.settings import OpenAI
from aifbench.load.events import Pieces, sse
from aifbench.load.http import Target
from aifbench.load.plain import get_json


class OpenAIAdapter(Adapter):
    """Speaks to vLLM, SGLang, TGI, llama.cpp and others. The key is read from its variable at each start."""

    def __init__(self, endpoint: str, settings: OpenAI) -> None:
        super().__init__(endpoint)
        if not self.target.path:
            self.target = Target.of(f"{endpoint}/v1")
        self.settings = settings

    @property
    def headers(self) -> dict[str, str]:
        """The header with the key, if a variable for it is named."""
        name = self.settings.api_key_env
        return {"Authorization": f"Bearer {os.environ[name]}"} if name else {}

    def body(self, ask: Ask) -> dict[str, Any]:
        """Return the request's body; fields of `extra` win."""
        chat = self.settings.api == "chat"
        content = {"messages": [{"role": "user", "content": ask.text}]} if chat else {"prompt": ask.text}
        return {
            "model": self.settings.model,
            **content,
            "max_tokens": ask.output_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings.extra,
        }

    def request(self, ask: Ask) -> bytes:
        """Return the whole HTTP request for `ask`."""
        path = "/chat/completions" if self.settings.api == "chat" else "/completions"
        return self.target.request(path, orjson.dumps(self.body(ask)), self.headers)

    @tolerant
    def parse(self, body: Pieces) -> Answer:
        """Return the meaning of the events: tokens, finish reason, and usage from whichever event carries it."""
        answer = Answer()
        for event in sse(body):
            answer.first_event_ns = answer.first_event_ns or event.stamp_ns
            if event.data.strip() == b"[DONE]":
                answer.complete = True
                continue
            value = loads(event)
            if event.type == "error" or value.get("error"):
                answer.error = str(_message(value))[:200]
                continue
            for choice in value.get("choices") or []:
                delta = choice.get("delta") or {}
                visible = delta.get("content") or choice.get("text") or ""
                hidden = delta.get("reasoning_content") or delta.get("reasoning") or _tool_text(delta)
                if visible or hidden:
                    answer.token(event, visible or hidden, visible=bool(visible))
                if choice.get("finish_reason"):
                    answer.finish_reason = choice["finish_reason"]
                    answer.complete = True
            usage = value.get("usage") or {}
            answer.tokens = usage.get("completion_tokens", answer.tokens)
            answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            answer.cached_tokens = answer.cached_tokens if cached is None else cached
            self.timings(value, answer)
        return answer

    def timings(self, value: dict[str, Any], answer: Answer) -> None:
        """Take the server's own times from an event, where an engine has them."""

    def fixes_length(self) -> bool:
        """Return whether `extra` tells the engine to ignore the end of an answer."""
        return bool(self.settings.extra.get("ignore_eos"))

    def describe(self) -> dict[str, Any]:
        """Return what /models and the usual places for a version say; absent where a server does not answer."""
        models = get_json(self.target, "/models", self.headers)
        known = [
            {
                key: entry[key]
                for key in ("id", "owned_by", "root", "max_model_len", "meta")
                if entry.get(key) is not None
            }
            for entry in (models or {}).get("data", [])
            if isinstance(entry, dict) and entry.get("id") == self.settings.model
        ]
        return {
            "model": self.settings.model,
            "models": known or None,
            "version": get_json(self.target.root, "/version", self.headers),
        }


def _message(value: dict[str, Any]) -> Any:
    error = value.get("error", value)
    return error.get("message", error) if isinstance(error, dict) else error


def _tool_text(delta: dict[str, Any]) -> str:
    calls = delta.get("tool_calls") or []
    parts = [call.get("function") or {} for call in calls]
    return "".join((part.get("name") or "") + (part.get("arguments") or "") for part in parts)
