"""The jobs that Slurm has: those of this user, whether one of them lives, and to cancel some."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.slurm.ask import LIVE, SlurmError, ask

_CELLS = ("%i", "%T", "%r", "%P", "%l", "%k")


@dataclass(frozen=True)
class QueuedJob:
    """A job as `squeue` shows it. `limit_s` is None where there is no limit."""

    job: str
    state: str
    reason: str
    partition: str
    limit_s: float | None
    comment: str


def own_jobs() -> list[QueuedJob]:
    """Return the jobs of this user that Slurm has not forgotten, in whatever state. Raises `SlurmError`."""
    answer = ask("squeue", "--noheader", "--me", "--states=all", f"--format={'|'.join(_CELLS)}")
    rows = [line.split("|", len(_CELLS) - 1) for line in answer.splitlines()]
    cells = ([cell.strip() for cell in row] for row in rows if len(row) == len(_CELLS))
    return [
        QueuedJob(job, state, reason, partition, seconds(limit), comment)
        for job, state, reason, partition, limit, comment in cells
    ]


def job_lives(job: str) -> bool:
    """Return whether a job waits, runs or is ending. Raises `SlurmError` when Slurm does not answer."""
    try:
        states = ask("squeue", "--noheader", "--jobs", job, "--states=all", "--format", "%T").split()
    except SlurmError as error:
        if error.kind == "unknown_job":  # so old that the controller has forgotten it
            return False
        raise
    return not LIVE.isdisjoint(states)


def jobs_named(names: Sequence[str]) -> list[str]:
    """Return the ids of the jobs with these names that Slurm still has. Raises `SlurmError`."""
    return ask("squeue", "--noheader", f"--name={','.join(names)}", "--format", "%i").split() if names else []


def cancel_named(names: Sequence[str]) -> None:
    """Cancel the jobs with these names, as far as Slurm answers."""
    for name in names:
        with contextlib.suppress(SlurmError):
            ask("scancel", f"--name={name}")


def seconds(text: str) -> float | None:
    """Return the seconds of a time limit such as `1-02:00:00`, `02:00:00` or `30:00`; None for UNLIMITED and others."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
