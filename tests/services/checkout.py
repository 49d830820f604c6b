"""A checkout of its own for a test: workflow and profiles of this one, a copy of config, paths below a folder."""

import shlex
import shutil
import sys
from pathlib import Path

import yaml

from aifbench.services.client.check import Checker
from aifbench.services.client.launch import Launcher, LaunchLimits
from aifbench.services.client.runs import Runs
from aifbench.services.client.slurm import SlurmClient
from aifbench.services.settings import Settings

ROOT = Path(__file__).parents[2]
TINY = {"preset": "storage-quick", "config": {"axes": {"file_size": "1MiB"}, "repetitions": 2}}
"""A request that takes some seconds: two cases, two repetitions each."""


def checkout(project: Path) -> Path:
    project.mkdir(parents=True, exist_ok=True)
    for name in ("workflow", "profiles"):
        (project / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", project / "config")
    return project


def change_system(project: Path, name: str, **changes) -> None:
    path = project / "config" / "systems" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def settings(folder: Path) -> Settings:
    """Settings as `Live(folder)` has them."""
    project = folder / "project"
    return Settings(project, project / "results", folder / "state" / "aifbench", folder / "run" / "aifbench")


def launcher(folder: Path, limits: LaunchLimits | None = None) -> Launcher:
    """A launcher without a service; the test's working folder must be the checkout."""
    found = settings(folder)
    return Launcher(Checker(found, SlurmClient()), Runs(found), limits)


def program(folder: Path) -> Path:
    """Put `.venv/bin/aifbench` into a folder, as `make` does in a checkout."""
    path = folder / ".venv" / "bin" / "aifbench"
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT / "src"))} exec {sys.executable} -m aifbench "$@"\n')
    path.chmod(0o755)
    return path
