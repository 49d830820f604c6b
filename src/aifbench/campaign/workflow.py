"""The campaign as the Snakefile sees it: a plan, or one line and the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.campaign.config import read_config
from aifbench.campaign.names import keep_braces, quote_for_shells
from aifbench.campaign.plan import Plan, check, check_room, make_plan, spec_bytes, write_specs
from aifbench.core.errors import ConfigError
from aifbench.core.paths import name_problem, operand
from aifbench.files.one_line import one_line
from aifbench.registry import left_out

WILDCARDS = ("batch", "image", "model")
LOCKS = Path(".snakemake/locks")
"""Where Snakemake notes which files the runs that go on read and write."""


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


def read_campaign(files: Sequence[Path], overrides: Mapping[str, Any], *, main: bool) -> Plan:
    """Return the plan of a campaign; a configuration error ends the process with one line and exit code 2.

    The `main` process also checks the machine.
    """
    with one_line():
        wildcard = keep_braces(WILDCARDS)
        quote_for_shells()
        look_at_jobs_often()
        plan = make_plan(read_config([Path(os.path.relpath(file)) for file in files], overrides))
        _check_names(plan, wildcard)
        check(plan, machine=main)
        if main:
            check_room(Path(), "the working folder")
            tell_left_out()
    return plan


def tell_left_out() -> None:
    """Say which benchmarks of other packages cannot be used, and why."""
    for problem in left_out().values():
        print(f"aifbench: {problem}", file=sys.stderr, flush=True)


class Specs:
    """The files with the specs of a campaign, as rules read them.

    A spec is written by the main process, not by a rule: Snakemake would run every batch again after a rule that wrote
    them all. Only a run that executes writes, and only where no other run that goes on reads the same ones; to all
    others (`-n`, `--summary` ...) a spec that is new or changed is lent from a folder that goes with the process.
    """

    def __init__(self, plan: Plan, workflow: Any) -> None:
        self._plan, self._workflow = plan, workflow
        self._executes: bool | None = None

    def file(self, batch: str) -> str:
        """Return the file with the spec of a batch."""
        path = Path(operand(self._plan.config.results), "specs", f"{batch}.json")
        if not self._workflow.is_main_process:  # the job of a batch: its run has written it
            return path.as_posix()
        if self._executes is None:
            self._executes = self._may_write()
            if self._executes:
                with one_line():
                    write_specs(self._plan, self._plan.config.results)
        content = spec_bytes(self._plan, batch)
        if path.is_file() and path.read_bytes() == content:
            return path.as_posix()
        lent = Path(self._workflow.snakemake_tmp_dir, path.name)
        if not lent.exists():
            lent.write_bytes(content)
        return lent.as_posix()

    def _may_write(self) -> bool:
        run = self._workflow
        if run.executor_plugin is None or run.dryrun or run.touch:
            return False
        if not run.execution_settings.lock:
            return True
        batches = f"{operand(self._plan.config.results)}/batches/"
        return not any(line.startswith(batches) for file in LOCKS.glob("*.lock") for line in file.open())


def tell_verdict(gate: Path) -> None:
    """Print the line to remember, if the run came so far."""
    if gate.is_file():
        print(gate.read_text(encoding="utf-8"), end="", file=sys.stderr, flush=True)


def report_what_is_there(results: Path) -> None:
    """Make the report and print the verdict of a run that broke, from whatever is recorded."""
    aifbench = [sys.executable, "-m", "aifbench"]
    made = subprocess.run([*aifbench, "report", "--", str(results)], stdout=subprocess.DEVNULL, check=False)
    if made.returncode == 0:
        subprocess.run([*aifbench, "gate", "--", str(results)], check=False)


def end_timers() -> None:
    """End the timers that Snakemake's scheduler leaves, one per ended job: its process would wait for the last.

    Each lasts a timespan of `max-jobs-per-timespan`, which always has a limit. In profiles/meluxina it is an hour: with
    a second, Snakemake would look at all waiting jobs again once per second.
    """
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and thread.function.__module__ == "snakemake.scheduling.job_scheduler":
            thread.cancel()


def look_at_jobs_often() -> None:
    """Let Snakemake look at its jobs in Slurm at least every `slurm-init-seconds-before-status-checks`, twice over.

    By itself it waits ten seconds longer after each look that finds no job ended, up to three minutes: so long an ended
    job goes unseen, and so long a broken run stays up. One look asks `squeue` once for all jobs.
    """
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    otherwise = RemoteExecutor.next_seconds_between_status_checks

    def bounded(executor: Any, seconds: float) -> None:
        first = getattr(executor.workflow.executor_settings, "init_seconds_before_status_checks", None)
        otherwise.fset(executor, seconds if first is None else min(seconds, 2 * first))

    RemoteExecutor.next_seconds_between_status_checks = property(otherwise.fget, bounded)


def _check_names(plan: Plan, wildcard: re.Pattern[str]) -> None:
    """Refuse names that Snakemake, Slurm or the paths of programs would take for something else."""
    import aifbench

    system = plan.config.system
    working = Path.cwd()
    for key, path in (
        ("the working folder", working),
        ("results", plan.config.results),
        ("paths.images", system.paths.images),
        ("paths.models", system.paths.models),
        *(("config", file) for file in plan.config.files),
    ):
        if problem := name_problem(path):
            raise ConfigError(key, str(path), problem)
        if found := wildcard.search(str(path)):
            raise ConfigError(key, str(path), f"holds {found[0]}, which the workflow replaces: give it another name")
    for folder in (Path(sys.executable).parent, Path(aifbench.__file__).parents[1]):
        if os.pathsep in str(folder):
            raise ConfigError("the checkout", str(folder), f"holds '{os.pathsep}', which ends a folder in PATH")
    if system.slurm is not None and (found := re.search(r"[%\\]", str(working))):
        raise ConfigError(
            "the working folder", str(working), f"holds '{found[0]}', which Slurm replaces in names of logs"
        )
