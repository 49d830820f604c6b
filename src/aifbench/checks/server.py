"""Did the servers stay what they were while they were measured? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RELOAD_MS = 1000.0
"""A request that spent more on loading found the model not loaded; with a loaded one Ollama says 30 to 250 ms."""

State = Mapping[str, Any] | None
"""{context, bytes, gpu_bytes} of the loaded model; None where the server does not tell or has none loaded."""


def servers_changed(
    before: Sequence[State], after: Sequence[State], gpus: int | None, load_ms: Sequence[float | None]
) -> list[str]:
    """Return the reasons against figures of servers that moved, lost or reloaded their model, or left GPUs unused.

    `before` and `after` have one entry per server, from both ends of the repetition; `gpus` is how many the servers
    were given, None where that is not ours to know; `load_ms` are the loading times that the requests report.
    """
    reasons = []
    for number, (first, last) in enumerate(zip(before, after, strict=True), 1):
        of = f" of server {number}" if len(before) > 1 else ""
        if (first is None) != (last is None):
            reasons.append(f"the model{of} was {'loaded' if first is None else 'unloaded'} while it was measured")
        elif first is not None and last is not None and dict(first) != dict(last):
            changed = ", ".join(f"{key} {first[key]} to {last[key]}" for key in first if first[key] != last.get(key))
            reasons.append(f"the loaded model{of} changed while it was measured: {changed}")
        if gpus is not None and last is not None and last["bytes"]:
            share = (last["gpu_bytes"] or 0) / last["bytes"]
            if gpus and share < 1:
                reasons.append(f"only {share:.0%} of the model{of} is on a GPU: the rest is computed on the cores")
            elif not gpus and share > 0:
                reasons.append(f"{share:.0%} of the model{of} is on a GPU, but the server was given none")
    again = sum(value is not None and value == value and value > RELOAD_MS for value in load_ms)  # noqa: PLR0124
    if again:
        reasons.append(f"{again} of {len(load_ms)} requests had to load the model (over {RELOAD_MS:g} ms)")
    return reasons
