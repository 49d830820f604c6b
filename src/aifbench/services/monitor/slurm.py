"""What Slurm says about all jobs together: one `squeue` at most every 30 s, never more, and less when it fails."""

from __future__ import annotations

import re
import subprocess
from typing import Any

EVERY_S = 30.0
LONGEST_PAUSE_S = 600.0
TIMEOUT_S = 20.0
FORMAT = "%i|%T|%r|%P|%l|%k"
COMMAND = ("squeue", "--noheader", "--me", "--states=all", f"--format={FORMAT}")
WAITING = frozenset({"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"})
LIVE = WAITING | {"COMPLETING"}
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
            said = subprocess.run(COMMAND, capture_output=True, timeout=TIMEOUT_S, check=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            self.failures += 1
            self.answered = False
            text = getattr(error, "stderr", None)
            detail = text.decode("utf-8", "replace") if isinstance(text, bytes) and text.strip() else str(error)
            self.problem = f"squeue: {' '.join(detail.split())[:300]}"
            pause = EVERY_S * 2 ** min(self.failures - 1, 10)
            self.due = now + min(pause, LONGEST_PAUSE_S)
            return
        self.problem, self.failures, self.answered, self.due = None, 0, True, now + EVERY_S
        self._take(said.stdout.decode("utf-8", "replace"))
        self.answers += 1

    def _take(self, text: str) -> None:
        jobs: dict[str, dict[str, Any]] = {}
        batches: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            parts = line.split("|", 5)
            if len(parts) != 6:
                continue
            job, state, reason, partition, limit, comment = (part.strip() for part in parts)
            known = {"job": job, "state": state, "reason": reason, "partition": partition, "limit_s": seconds(limit)}
            jobs[job] = known
            found = _COMMENT.match(comment)
            if found and state in WAITING:
                batches[found[1]] = known
        self._jobs, self._batches = jobs, batches

    def job(self, job: str) -> dict[str, Any] | None:
        """Return what is known of a job: `{job, state, reason, partition, limit_s}`."""
        return self._jobs.get(job)

    def waiting(self, batch: str) -> dict[str, Any] | None:
        """Return the job that is to run a batch, while it waits or runs."""
        return self._batches.get(batch)


def seconds(text: str) -> float | None:
    """Return the seconds of a time limit such as `1-02:00:00`, `02:00:00` or `30:00`; None for UNLIMITED and others."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
