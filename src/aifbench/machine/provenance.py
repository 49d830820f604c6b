"""What was run: versions of the code and of the libraries that measure, and the job. What cannot be told is null."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aifbench

PACKAGES = (
    "aifbench",
    "faiss-cpu",
    "h5py",
    "numpy",
    "nvidia-ml-py",
    "ollama",
    "orjson",
    "psutil",
    "pyarrow",
    "pydantic",
    "snakemake",
    "xllamacpp",
)

SOURCES = ("src", "workflow", "containers", "requirements")
"""What of the checkout decides a number. A campaign file of the user beside them changes no source."""

_GIT_TIMEOUT_S = 10


def provenance() -> dict[str, Any]:
    """Return git commit and state, package versions, Python, command line, and Slurm's facts of the job."""
    return {
        "git": _git(Path(aifbench.__file__).resolve().parent),
        "packages": packages(),
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "slurm": {
            "job_id": os.environ.get("SLURM_JOB_ID"),
            "nodelist": os.environ.get("SLURM_JOB_NODELIST"),
            "partition": os.environ.get("SLURM_JOB_PARTITION"),
        },
        "modules": [name for name in os.environ.get("LOADEDMODULES", "").split(":") if name] or None,
    }


def packages(*more: str) -> dict[str, str | None]:
    """Return the versions of the libraries that this process measures with, and of `more` packages."""
    return {name: _version(name) for name in (*PACKAGES, *more)}


def _git(package: Path) -> dict[str, Any]:
    """Return {commit, dirty} of the checkout that holds the package; both null outside one.

    A package that is installed into an environment below some other checkout does not belong to that one.
    """
    top = _ask(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) / "src" / package.name != package:
        return {"commit": None, "dirty": None}
    status = _ask(Path(top), "status", "--porcelain", "--", *SOURCES)
    return {
        "commit": _ask(package, "rev-parse", "--verify", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _ask(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
