"""How long a launch that cannot work waits for its ko, over a real socket of a real server."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tests.services.checkout import checkout
from tests.services.live import Live

GOAL_KO_MS = 300.0
ROUNDS = 40
WRONG: tuple[dict[str, Any], ...] = (
    {"preset": "storage-quik"},
    {"preset": "storage-full", "config": {"axes": {"mode": ["drect"]}}},
    {"preset": "retrieval-full", "clients": [1, 65]},
    {"preset": "inference-full", "node_hours": 0.001},
    {"preset": "inference-full", "config": {"axes": {"output_tokens": list(range(2, 60))}}},
)
"""Refused ever later: by the request alone, by a value, by the system, by the whole plan, by a plan of 928 cases."""


def measure() -> list[dict[str, Any]]:
    """Return the 95th percentile of the wall time of a ko in ms, new connection each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout(folder / "project")
        with Live(folder, "client") as live:
            times = []
            for number in range(ROUNDS * len(WRONG)):
                begin = time.perf_counter()
                answer = live.post("/api/v1/runs", WRONG[number % len(WRONG)])
                times.append(1e3 * (time.perf_counter() - begin))
                assert answer.json()["status"] == "ko", answer.body
    value = float(np.quantile(times, 0.95))
    return [
        {"id": "launch_ko_p95", "value": value, "unit": "ms", "goal": f"<= {GOAL_KO_MS:g}", "met": value <= GOAL_KO_MS}
    ]
