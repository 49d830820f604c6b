"""What is known of a campaign: its plan, whether its launched run is at work or cancelled, and who owns its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.files.beneath import Signature, is_name
from aifbench.files.bounded import parse, read_beneath
from aifbench.processes.identity import alive
from aifbench.services.client.folder import LAUNCH, RunFolder
from aifbench.services.monitor.jobs import Job
from aifbench.services.monitor.series import LONGEST_NAME
from aifbench.services.monitor.slurm import Queue
from aifbench.services.values import count, text
from aifbench.slurm.ask import LIVE

LOCK_BYTES = 1 << 16


@dataclass
class Campaign:
    """What is remembered of a campaign between two looks."""

    plan: Signature | None = None
    seen_at: float = 0.0
    """Wall time of the last thing that happened in it, as its files tell."""
    folder: tuple[int, int] | None = None
    launched: bool | None = None
    """The client has launched it and its supervisor lives (True) or not (False); None: it was started by hand."""
    cancelled: bool = False
    """Somebody has cancelled it, and it was not continued since."""


@dataclass(frozen=True)
class PlannedBatch:
    """A batch as plan.json has it: its entry there, and what is told of its cases."""

    name: str
    entry: dict[str, Any]
    repetitions: int
    """The fewest of all its cases."""
    slurm: bool
    params: list[Any]
    """Of each case."""


def planned_batches(data: bytes) -> Iterator[PlannedBatch]:
    """Yield the batches of plan.json. Raises ValueError, KeyError, TypeError or AttributeError where it is no plan."""
    plan = parse(data)
    slurm = plan["system"].get("slurm") is not None
    fewest = {case["case"]: count(case["repetitions"]["min"]) or 0 for case in plan["cases"]}
    params: dict[str, list[Any]] = {}
    for case in plan["cases"]:
        params.setdefault(str(case.get("batch")), []).append(case.get("params"))
    for entry in plan["batches"]:
        name = entry["batch"]
        if is_name(name):
            least = sum(fewest.get(case, 0) for case in entry["cases"])
            yield PlannedBatch(name, entry, least, slurm, params.get(name, []))


def supervised(results: Path, run: str) -> bool | None:
    """Return whether the supervisor of a launched run lives; None when there is none, or on another host."""
    folder = RunFolder(results, run)
    supervisor = folder.read("keeper.json")
    if supervisor is None:
        return None
    return False if folder.has(LAUNCH, "exit.json") else alive(supervisor)


def was_cancelled(results: Path, run: str) -> bool:
    """Return whether somebody has cancelled a launched run."""
    return RunFolder(results, run).has(LAUNCH, "cancel.json")


def judge_owner(job: Job, folder: int, queue: Queue) -> None:
    """Find out from `owner.lock` in the folder of a live job whether its runner lives: sets `lost`, `owner_unknown`."""
    job.lost = job.owner_unknown = None
    try:
        content = read_beneath(folder, "owner.lock", most=LOCK_BYTES)
    except OSError:
        job.lost = "its runner is gone: it has left no owner.lock and no end in batch.json"
        return
    try:
        owner = parse(content)
    except ValueError:
        owner = None
    if not isinstance(owner, dict) or "host" not in owner:
        job.owner_unknown = "owner.lock cannot be read"
        return
    lives, slurm_job = alive(owner), text(owner.get("slurm_job"), LONGEST_NAME)
    if lives is None:
        told = queue.job(slurm_job) if slurm_job else None
        if told is not None and told["state"] in LIVE:
            return
        if slurm_job and queue.answered:
            how = "does not know it any more" if told is None else f"says {told['state']}"
            job.lost = f"its Slurm job {slurm_job} is gone: Slurm {how}"
            return
        job.owner_unknown = "its runner is on another host, and cannot be checked from here"
    elif not lives:
        job.lost = f"its runner (process {count(owner.get('pid'))} on this host) is gone without a word"
