"""The folder in which campaigns run: what a user edits and what Snakemake reads, as the package brings them.

A checkout is such a folder. An installed package makes one anywhere else.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import aifbench
from aifbench.core.errors import ConfigError

BROUGHT = Path(aifbench.__file__).parent / "project"
"""The folders that a project needs: links in a checkout, copies in an installed package."""


def make_project(folder: Path) -> None:
    """Write a project into a folder. Raises `ConfigError` where something of it is there already: nothing is lost."""
    link, profile = folder / "meluxina", Path("profiles") / "meluxina"  # `snakemake --profile meluxina`
    parts = {path.name: path for path in sorted(BROUGHT.iterdir())}
    for name in (*parts, link.name):
        if os.path.lexists(folder / name):
            raise ConfigError("folder", str(folder), f"holds {name} already: name another one")
    for name, path in parts.items():
        shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    link.symlink_to(profile)
