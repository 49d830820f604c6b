"""Does the prompt cache's observed state agree with the mode that was asked for? Pure."""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE_TOKENS = 64
"""Tokens of a chat template and system prompt that may stand before a nonce and be shared by every prompt."""
BLOCK_TOKENS = 16
"""Engines that cache in blocks leave the last, unfilled block of a prompt out."""


def cache_state(
    mode: str, prompt_tokens: Sequence[float | None], cached_tokens: Sequence[float | None], shared: int = 0
) -> tuple[list[str], list[str]]:
    """Return (reasons against, notes) from the server's own counts, one pair of counts per request.

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
        return [], [f"cache mode {mode} not confirmed: the server does not say how many prompt tokens were cached"]
    if mode == "cold":
        wrong = [(p, c) for p, c in known if c > TEMPLATE_TOKENS or c > p / 2]
        problem = "took prompt tokens from the cache"
    elif mode == "shared-prefix":
        wrong = [
            (p, c) for p, c in known if not shared / 2 - BLOCK_TOKENS <= c <= 2 * shared + TEMPLATE_TOKENS or c >= p - 1
        ]
        problem = f"did not take about {shared} prompt tokens from the cache"
    else:
        wrong = [(p, c) for p, c in known if c < min(p / 2, p - BLOCK_TOKENS - 1)]
        problem = "did not find the prompt in the cache"
    if not wrong:
        return [], []
    prompt, cached = wrong[0]
    return [
        f"cache mode {mode} contradicted: {len(wrong)} of {len(known)} requests {problem} "
        f"(first: {cached:.0f} of {prompt:.0f} tokens cached)"
    ], []
