"""Did the servers stay what they were while they were measured? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifbench.checks.kinds import (
    MODEL_CHANGED,
    MODEL_LOADED,
    MODEL_ON_GPU,
    MODEL_PARTLY_ON_GPU,
    MODEL_RELOADED,
    MODEL_UNLOADED,
)
from aifbench.core.notes import Note

RELOAD_MS = 1000.0
"""A request that spent more on loading found the model not loaded; with a loaded one Ollama says 30 to 250 ms."""

State = Mapping[str, Any] | None
"""{context, bytes, gpu_bytes} of the loaded model; None where the server does not tell or has none loaded."""


def servers_changed(
    before: Sequence[State], after: Sequence[State], gpus: int | None, load_ms: Sequence[float | None]
) -> list[Note]:
    """Return the reasons against figures of servers that moved, lost or reloaded their model, or left GPUs unused.

    `before` and `after` have one entry per server, from both ends of the repetition; `gpus` is how many the servers
    were given, None where that is not ours to know; `load_ms` are the loading times that the requests report.
    """
    reasons = []
    for number, (first, last) in enumerate(zip(before, after, strict=True), 1):
        server = number if len(before) > 1 else None
        if (first is None) != (last is None):
            reasons.append((MODEL_LOADED if first is None else MODEL_UNLOADED).against(server=server))
        elif first is not None and last is not None and dict(first) != dict(last):
            changed = {key: [first[key], last[key]] for key in first if first[key] != last.get(key)}
            reasons.append(MODEL_CHANGED.against(server=server, changed=changed))
        if gpus is not None and last is not None and last["bytes"]:
            share = (last["gpu_bytes"] or 0) / last["bytes"]
            if gpus and share < 1:
                reasons.append(MODEL_PARTLY_ON_GPU.against(server=server, share=share))
            elif not gpus and share > 0:
                reasons.append(MODEL_ON_GPU.against(server=server, share=share))
    again = sum(value is not None and value == value and value > RELOAD_MS for value in load_ms)  # noqa: PLR0124
    if again:
        reasons.append(MODEL_RELOADED.against(reloads=again, requests=len(load_ms), limit_ms=RELOAD_MS))
    return reasons
