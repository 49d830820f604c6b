"""Did the server stay what it was while it was measured? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RELOAD_MS = 1000.0
"""A request that spent more on loading found the model not loaded; with a loaded one Ollama says 30 to 250 ms."""

State = Mapping[str, Any] | None
"""{context, bytes, gpu_bytes} of the loaded model; None where the server does not tell or has none loaded."""


def server_changed(before: State, after: State, gpus: int, load_ms: Sequence[float | None]) -> list[str]:
    """Return the reasons against figures of a server that moved, lost or reloaded its model, or left its GPUs unused.

    `before` and `after` are from both ends of the repetition, `load_ms` the loading times that its requests report.
    """
    reasons = []
    if (before is None) != (after is None):
        reasons.append(f"the model was {'loaded' if before is None else 'unloaded'} while it was measured")
    elif before is not None and after is not None and dict(before) != dict(after):
        changed = ", ".join(f"{key} {before[key]} to {after[key]}" for key in before if before[key] != after.get(key))
        reasons.append(f"the loaded model changed while it was measured: {changed}")
    if gpus and after is not None and after["bytes"] and after["gpu_bytes"] < after["bytes"]:
        share = after["gpu_bytes"] / after["bytes"]
        reasons.append(f"only {share:.0%} of the model is on a GPU: the rest is computed on the cores")
    again = sum(value is not None and value == value and value > RELOAD_MS for value in load_ms)  # noqa: PLR0124
    if again:
        reasons.append(f"{again} of {len(load_ms)} requests had to load the model (over {RELOAD_MS:g} ms)")
    return reasons
