"""How long the expansion of 10 000 cases takes."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan

GOAL_S = 0.5


def campaign(cases: int) -> dict[str, Any]:
    """Return a retrieval campaign of `cases` cases (a multiple of 100)."""
    axes = {"index": ["Flat"], "top_k": list(range(1, 101)), "clients": list(range(1, cases // 100 + 1))}
    suite = {"name": "grid", "benchmark": "retrieval", "dataset": "glove-50", "axes": axes, "repetitions": 1}
    system = {"name": "bench", "limits": {"clients": 10_000}}
    return {"campaign": "grid", "system": system, "suites": [suite], "budget": {"node_hours": 1e6}}


def measure() -> list[dict[str, Any]]:
    """Return the median of five expansions, from the YAML file to ids and batches."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(campaign(10_000)))
        make_plan(read_config([file]))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            plan = make_plan(read_config([file]))
            seconds.append(time.perf_counter() - start)
            assert len(plan.cases) == 10_000
    value = statistics.median(seconds)
    return [{"id": "expansion_10000_cases", "value": value, "unit": "s", "goal": f"< {GOAL_S}", "met": value < GOAL_S}]
