"""What Slurm says about all jobs together: one `squeue` at most every 30 s, never more, and less when it fails."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from aifbench.slurm.ask import LIVE, SlurmError
from aifbench.slurm.queue import QueuedJob, own_jobs

EVERY_S = 30.0
LONGEST_PAUSE_S = 600.0
_COMMENT = re.compile(r"rule_\w+_wildcards_(.+)\Z")


class Queue:
    """The last answer of `squeue`, by job and by batch (which Snakemake's Slurm plugin writes into the comment)."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.failures = 0
        self.calls = 0
        self.answers = 0
        self.answered = False
        self.due = 0.0
        self._jobs: dict[str, dict[str, Any]] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def ask(self, now: float) -> None:
        """Ask, if it is time (`now`: monotonic seconds). A failure is kept as `problem`, and waits longer each time."""
        if now < self.due:
            return
        self.calls += 1
        try:
            jobs = own_jobs()
        except SlurmError as error:
            self.failures += 1
            self.answered = False
            self.problem = str(error)
            pause = EVERY_S * 2 ** min(self.failures - 1, 10)
            self.due = now + min(pause, LONGEST_PAUSE_S)
            return
        self.problem, self.failures, self.answered, self.due = None, 0, True, now + EVERY_S
        self._take(jobs)
        self.answers += 1

    def _take(self, jobs: list[QueuedJob]) -> None:
        rows: dict[str, dict[str, Any]] = {}
        batches: dict[str, dict[str, Any]] = {}
        for each in jobs:
            row = rows[each.job] = asdict(each)
            batch = _COMMENT.match(row.pop("comment"))
            if batch and each.state in LIVE and each.state != "COMPLETING":
                batches[batch[1]] = row
        self._jobs, self._batches = rows, batches  # at once: they are read in another thread

    def job(self, job: str) -> dict[str, Any] | None:
        """Return what is known of a job: `{job, state, reason, partition, limit_s}`."""
        return self._jobs.get(job)

    def waiting(self, batch: str) -> dict[str, Any] | None:
        """Return the job that is to run a batch, while it waits or runs."""
        return self._batches.get(batch)
