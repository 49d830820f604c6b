"""Small real campaigns for the tests of the workflow, and ways to run and read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import yaml

ROOT = Path(__file__).parents[2]
HOSTILE = """it's a "tést" $(touch PWNED) {y}; touch PWNED"""
"""A name that a shell, Snakemake and Apptainer could each take for something else."""
SNAKEMAKE = Path(sys.executable).with_name("snakemake")

RETRIEVAL = {
    "name": "ann",
    "benchmark": "retrieval",
    "dataset": "synthetic",
    "vectors": 6000,
    "dim": 64,
    "queries": 2000,
    "axes": {"index": ["Flat", "HNSW16"], "top_k": [1, 10]},
    "search": {"HNSW16": {"efSearch": 256}},
    "repetitions": 2,
}
STORAGE = {
    "name": "disk",
    "benchmark": "storage",
    "file_size": "16MiB",
    "block_size": "1MiB",
    "axes": {"mode": ["warm", "buffered-cold"]},
    "repetitions": 3,
}
INFERENCE = {
    "name": "chat",
    "benchmark": "inference",
    "engine": {"kind": "llamacpp", "slots": 2, "threads": 2},
    "prompt": "Why is the sky blue?",
    "axes": {"clients": [1, 2]},
    "output_tokens": 8,
    "requests": 2,
    "repetitions": 2,
}


def write(folder: Path, *suites: dict, campaign: str = "small") -> Path:
    """Write a campaign whose results, cache and target lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"cache": str(folder / "cache"), "target": str(folder / "target")}
    data = {
        "campaign": campaign,
        "results": str(folder / "results"),
        "system": {"name": "test", "paths": paths},
        "suites": list(suites),
    }
    file = folder / f"{campaign}.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file


def checkout(folder: Path) -> Path:
    """Make a folder that is a checkout by links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("workflow", "profiles", "config", "meluxina"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def command(file: Path, *arguments: str, project: Path = ROOT) -> list[str]:
    """Return the command that a user would type, with Snakemake's own state kept beside the results."""
    profile = ["--profile", "profiles/laptop", "--configfile", str(file)]
    return [str(SNAKEMAKE), *profile, "--directory", str(project), *arguments]


def run(file: Path, *arguments: str, project: Path = ROOT, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the campaign with the laptop profile."""
    return subprocess.run(
        command(file, *arguments, project=project),
        cwd=project,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def records(folder: Path, campaign: str = "small") -> list[dict]:
    """Return all recorded repetitions."""
    files = sorted((folder / "results" / campaign / "batches").glob("*/cases.jsonl"))
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


def measured(folder: Path, campaign: str = "small") -> Counter:
    """Return how often each (case, repetition) was recorded."""
    return Counter((record["case"], record["repetition"]) for record in records(folder, campaign))
