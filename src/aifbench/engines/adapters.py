"""From an engine's settings to its adapter."""

from __future__ import annotations

from aifbench.engines.base import Adapter
from aifbench.engines.llamacpp import LlamaCppAdapter
from aifbench.engines.ollama import OllamaAdapter
from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import LlamaCpp, Ollama, OpenAI


def adapter(settings: LlamaCpp | OpenAI | Ollama, endpoint: str) -> Adapter:
    """Return the adapter of an engine at its base URL."""
    if isinstance(settings, LlamaCpp):
        return LlamaCppAdapter(endpoint, settings)
    if isinstance(settings, Ollama):
        return OllamaAdapter(endpoint, settings)
    return OpenAIAdapter(endpoint, settings)
