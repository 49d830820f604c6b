"""Does the prompt cache's observed state agree with the mode that was asked for? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aifbench.checks.kinds import CACHE_NOT_COLD, CACHE_NOT_CONFIRMED, CACHE_NOT_SHARED, CACHE_NOT_WARM
from aifbench.core.notes import Note

TEMPLATE_TOKENS = 64
"""Tokens of a chat template and system prompt that may stand before a nonce and be shared by every prompt."""
BLOCK_TOKENS = 16
"""Engines that cache in blocks leave the last, unfilled block of a prompt out."""


def cache_state(
    mode: str, prompt_tokens: Sequence[float | None], cached_tokens: Sequence[float | None], shared: int = 0
) -> list[Note]:
    """Return what the server's own counts, one pair per request, say against the mode; a caution where they are none.

    `cold`: no request may take more than 64 tokens (a chat template) or half of its prompt from the cache.
    `warm-same`: each request must take at least half of its prompt, or all but one block of 16, from the cache.
    `shared-prefix`: each must take about `shared` tokens from it: at least half of them but one block, and no more than
    twice as many and a chat template.
    """
    known = [
        (prompt, cached)
        for prompt, cached in zip(prompt_tokens, cached_tokens, strict=True)
        if prompt is not None and cached is not None and prompt == prompt and cached == cached  # noqa: PLR0124
    ]
    if not known:
        return [CACHE_NOT_CONFIRMED.caution(mode=mode)]
    kind, more = CACHE_NOT_WARM, {}
    if mode == "cold":
        kind = CACHE_NOT_COLD
        wrong = [(p, c) for p, c in known if c > TEMPLATE_TOKENS or c > p / 2]
    elif mode == "shared-prefix":
        kind, more = CACHE_NOT_SHARED, {"shared_tokens": shared}
        wrong = [
            (p, c) for p, c in known if not shared / 2 - BLOCK_TOKENS <= c <= 2 * shared + TEMPLATE_TOKENS or c >= p - 1
        ]
    else:
        wrong = [(p, c) for p, c in known if c < min(p / 2, p - BLOCK_TOKENS - 1)]
    if not wrong:
        return []
    prompt, cached = wrong[0]
    return [kind.against(wrong=len(wrong), known=len(known), cached_tokens=cached, prompt_tokens=prompt, **more)]
