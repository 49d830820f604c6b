"""The campaign as the Snakefile sees it: a plan, or one line and the end."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.campaign.config import load_config
from aifbench.campaign.errors import ConfigError
from aifbench.campaign.plan import Plan, check, make_plan, write_specs


def offer_interpreter() -> None:
    """Put the interpreter and the package that Snakemake runs with first on the paths of the rules' commands.

    With `--sdm conda` the rule's environment comes before them.
    """
    import aifbench

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ["PYTHONPATH"] = str(Path(aifbench.__file__).parents[1])


def as_setting(key: str, value: Any) -> str:
    """Return what `aifbench plan --set` reads as this value: JSON is YAML in which a text has quotes."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def load_campaign(files: Sequence[Path], overrides: Mapping[str, Any], *, main: bool) -> Plan:
    """Return the plan of a campaign; a configuration error ends the process with one line and exit code 2.

    The `main` process also checks the machine and writes the specs that changed. They are written here and not by a
    rule because Snakemake would run every batch again after a rule that wrote them all.
    """
    try:
        plan = make_plan(load_config([Path(os.path.relpath(file)) for file in files], overrides))
        check(plan, machine=main)
        if main:
            write_specs(plan, plan.config.results)
    except ConfigError as error:
        print(f"aifbench: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    return plan


def end_timers() -> None:
    """End the timers of this process: Snakemake leaves one per ended job, and its process would wait for the last."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
