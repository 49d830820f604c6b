"""One live writer per batch: `owner.lock` names the process that owns the folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import orjson

from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import read_beneath
from aifbench.files.written import write_beneath
from aifbench.processes.identity import alive, identity
from aifbench.slurm.ask import SlurmError
from aifbench.slurm.queue import job_lives

MOST_BYTES = 1 << 16
"""Of a lock."""


class Locked(Exception):
    """Another live process owns the batch. `job` is the Slurm job that it belongs to, if it is known to live."""

    def __init__(self, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job


class OwnerLock:
    """Holds `owner.lock`.

    It is taken over from a process that is dead on this host, and from a Slurm job that has ended on any host; one of
    another host without a job is respected.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "owner.lock"
        self._held = False

    def acquire(self) -> None:
        """Take the lock. Raises `Locked` with who holds it."""
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        mine = orjson.dumps({**identity(os.getpid()), "slurm_job": os.environ.get("SLURM_JOB_ID")})
        while not self._held:
            try:
                write_beneath(folder, self._path.name, data=mine, new=True)
                self._held = True
            except FileExistsError:
                self._take_over_or_refuse()

    def _take_over_or_refuse(self) -> None:
        try:
            owner = orjson.loads(read_beneath(self._path.parent, self._path.name, most=MOST_BYTES))
        except Unreadable as error:
            raise Locked(f"{self._path} {error.problem}; if nobody measures here, delete it") from None
        except FileNotFoundError:
            return
        except orjson.JSONDecodeError:
            owner = {}
        owner = owner if isinstance(owner, dict) else {}
        lives, job = alive(owner), owner.get("slurm_job")
        job = job if isinstance(job, str) else None
        if lives:
            raise Locked(f"process {owner['pid']} on this host is running it", job)
        if lives is None:
            if not job:
                raise Locked(f"host {owner['host']} owns it; if its process is gone, delete {self._path}")
            try:
                lives = job_lives(job)
            except SlurmError as error:
                owns = f"host {owner['host']} owns it (Slurm job {job}), and Slurm does not say whether that lives"
                raise Locked(f"{owns} ({error}); if it is gone, delete {self._path}") from None
            if lives:
                raise Locked(f"Slurm job {job} on host {owner['host']} is running it", job)
        # Rename first: of two processes that see the same dead owner only one gets its lock.
        grave = self._path.with_name(f".dead.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(grave)
            grave.unlink()

    def release(self) -> None:
        """Give the lock back."""
        if self._held:
            self._path.unlink(missing_ok=True)
            self._held = False
