"""Ollama's native API: /api/generate and /api/chat, streamed as newline-delimited JSON.

Of its times only `total_duration` holds the wait for a free slot, so queue = total - load - prompt_eval - eval.
`load_duration` is some ten ms even when the model is loaded. `prompt_eval_count` counts cached tokens too, and how many
of them were cached is not said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from aifbench.core.benchmark import Command, Place
from aifbench.engines.base import Adapter, Answer, Ask, number, printable, target_of, tolerant, total
from aifbench.engines.settings import Ollama
from aifbench.load.events import Event, Pieces, ndjson
from aifbench.load.fetch import ask_json, objects

MS_PER_NS = 1e-6
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
NO_DEVICE = "-1"
"""Ollama takes every GPU that it finds; with this it finds none."""
SHOWN = ("family", "parameter_size", "quantization_level", "format")


def manifest(models: Path, model: str) -> Path:
    """Return the file of Ollama's model folder that says that it holds `model`."""
    name, _, tag = model.partition(":")
    parts = name.split("/")
    owner = parts if len(parts) > 1 else ["library", *parts]
    host = owner if len(owner) > 2 else ["registry.ollama.ai", *owner]
    return models.joinpath("manifests", *host, tag or "latest")


def command(settings: Ollama, place: Place) -> Command:
    """Return the command that serves the models of the system's folder at `place`, every default that matters set."""
    models = place.system.paths.models.absolute()
    return Command(
        ("ollama", "serve"),
        image="ollama",
        environment={
            "OLLAMA_HOST": f"{place.host}:{place.port}",
            "OLLAMA_MODELS": str(models),
            "OLLAMA_NUM_PARALLEL": str(settings.parallel),
            "OLLAMA_CONTEXT_LENGTH": str(settings.context),
            "OLLAMA_KEEP_ALIVE": settings.keep_alive,
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_NO_CLOUD": "1",
            **{name: ",".join(place.devices) if settings.gpus else NO_DEVICE for name in DEVICES},
            "HOME": str(place.home),
        },
        reads=(models,),
        gpus=settings.gpus,
    )


class OllamaAdapter(Adapter):
    """Speaks to an Ollama server. It cannot be told to ignore the end of an answer."""

    def __init__(self, endpoint: str, settings: Ollama) -> None:
        super().__init__(target_of(endpoint, settings))
        self.settings = settings

    def request(self, ask: Ask) -> bytes:
        """Return the whole HTTP request for `ask`; all options that have site-dependent defaults are set."""
        chat = self.settings.api == "chat"
        body = {
            "model": self.settings.model,
            **({"messages": [{"role": "user", "content": ask.text}]} if chat else {"prompt": ask.text}),
            "stream": True,
            "keep_alive": self.settings.keep_alive,
            "options": {
                "num_predict": ask.output_tokens,
                "num_ctx": self.settings.context,
                "temperature": ask.temperature,
                "seed": ask.seed or 1,  # 0 asks for a random seed
                **({"num_thread": self.settings.threads} if self.settings.threads else {}),
            },
        }
        return self.target.request(f"/api/{self.settings.api}", orjson.dumps(body))

    def parse(self, body: Pieces) -> Answer:
        """Return the meaning of the lines up to `done`, which carries the counts and the server's times.

        A line that makes no sense is an error; what the others say is kept.
        """
        answer = Answer()
        for event in ndjson(body):
            answer.first_event_ns = answer.first_event_ns or event.stamp_ns
            tolerant(self._take, event, answer)
            if answer.complete:
                break
        rest = b"".join(data for _, data in body).strip()
        if answer.first_event_ns is None and rest and not rest.startswith(b"{"):
            answer.fail(f"not understood: {rest.decode('utf-8', 'replace')}", misfit=True)
        return answer

    def _take(self, value: dict[str, Any], event: Event, answer: Answer) -> None:
        if value.get("error"):
            answer.fail(str(value["error"]))
            return
        message = value.get("message") or value
        visible = message.get("content") or value.get("response") or ""
        hidden = message.get("thinking") or ""
        if visible or hidden:
            answer.token(event, hidden + visible, visible=bool(visible))
        if value.get("done"):
            answer.complete = True
            answer.finish_reason = value.get("done_reason")
            answer.tokens = value.get("eval_count")
            answer.prompt_tokens = value.get("prompt_eval_count")
            answer.load_ms = number(value, "load_duration", MS_PER_NS)
            answer.prefill_ms = number(value, "prompt_eval_duration", MS_PER_NS)
            answer.decode_ms = number(value, "eval_duration", MS_PER_NS)
            whole = number(value, "total_duration", MS_PER_NS)
            known = total([answer.load_ms, answer.prefill_ms, answer.decode_ms])
            answer.queue_ms = None if whole is None or known is None else max(0.0, whole - known)

    def fixes_length(self) -> bool:
        """Return False: an answer may end before the tokens asked for."""
        return False

    def state(self) -> dict[str, Any] | None:
        """Return where the model is loaded now: {context, bytes, gpu_bytes}; None when it is not loaded."""
        loaded = self._own(objects(ask_json(self.target, "/api/ps"), "models"))
        return loaded and {
            "context": _whole(loaded, "context_length"),
            "bytes": _whole(loaded, "size"),
            "gpu_bytes": _whole(loaded, "size_vram"),
        }

    def describe(self) -> dict[str, Any]:
        """Return the server's version, the model's digest and where the model is loaded, as far as it tells them."""
        version = ask_json(self.target, "/api/version") or {}
        listed = ask_json(self.target, "/api/tags")
        shown = ask_json(self.target, "/api/show", {"model": self.settings.model})
        details = (shown or {}).get("details")
        details = details if isinstance(details, dict) else {}
        facts: dict[str, Any] = {
            "engine": "ollama",
            "version": _text(version, "version"),
            "model": self.settings.model,
            "parallel": self.settings.parallel if self.settings.url is None else None,  # another's does not tell
        }
        unanswered = [path for path, answer in (("/api/tags", listed), ("/api/show", shown)) if answer is None]
        if unanswered:
            facts["problem"] = f"no answer that makes sense from {', '.join(unanswered)}"
        if own := self._own(objects(listed, "models")):
            facts |= {"model_digest": _text(own, "digest"), "model_bytes": _whole(own, "size")}
        if loaded := self.state():
            facts |= {
                "loaded_bytes": loaded["bytes"],
                "loaded_gpu_bytes": loaded["gpu_bytes"],
                "loaded_context": loaded["context"],
            }
        return facts | {key: _text(details, key) for key in SHOWN}

    def _own(self, models: list[dict[str, Any]]) -> dict[str, Any] | None:
        names = {self.settings.model, f"{self.settings.model}:latest"}
        return next((model for model in models if str(model.get("name")) in names), None)


def _whole(values: dict[str, Any], key: str) -> int | None:
    """Return a whole number of a JSON object, None where it is absent or anything else."""
    value = values.get(key)
    return value if type(value) is int else None


def _text(values: dict[str, Any], key: str) -> str | None:
    """Return the beginning of a text in a JSON object, None where it is absent or anything else."""
    value = values.get(key)
    return printable(value) if isinstance(value, str) else None
