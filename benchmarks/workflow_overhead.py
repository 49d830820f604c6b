"""What the workflow adds around the measured time: a whole `snakemake` run of a small storage campaign."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).parents[1]
GOAL_S = 1.5


def measure() -> list[dict[str, Any]]:
    """Return (wall time of the run - time inside measured repetitions) / cases, for 12 cases of 5 repetitions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite = {
            "name": "disk",
            "benchmark": "storage",
            "file_size": "1MiB",
            "block_size": "64KiB",
            "axes": {"mode": ["warm", "buffered-cold"], "clients": [1, 2, 3, 4, 5, 6]},
            "layout": "file-per-client",
            "repetitions": 5,
        }
        campaign = {
            "campaign": "overhead",
            "results": str(folder / "results"),
            "system": {
                "name": "bench",
                "paths": {"cache": str(folder / "cache"), "target": str(folder / "target")},
            },
            "suites": [suite],
        }
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(campaign, sort_keys=False))
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        start = time.perf_counter()
        command = [snakemake, "--profile", "profiles/laptop", "--configfile", str(file)]
        subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
        wall = time.perf_counter() - start
        lines = [path.read_bytes().splitlines() for path in (folder / "results").glob("*/batches/*/cases.jsonl")]
        records = [orjson.loads(line) for part in lines for line in part]
    measured = sum(record["t_end_s"] - record["t_start_s"] for record in records)
    cases = len({record["case"] for record in records})
    value = (wall - measured) / cases if cases == 12 else None
    met = value is not None and value <= GOAL_S
    row = {"id": "workflow_overhead_per_case", "value": value, "unit": "s", "goal": f"<= {GOAL_S}", "met": met}
    return [row]
