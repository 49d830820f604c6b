"""One live writer per batch: `owner.lock` names the process that owns the folder."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import orjson

from aifbench.slurm import job as nodes


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
        self._path.parent.mkdir(parents=True, exist_ok=True)
        mine = orjson.dumps(_identity(os.getpid()))
        while not self._held:
            # Written aside and linked: the lock never exists without its content, and link() fails if it exists.
            aside = self._path.with_name(f".owner.{os.getpid()}")
            aside.write_bytes(mine)
            try:
                os.link(aside, self._path)
                self._held = True
            except FileExistsError:
                self._take_over_or_refuse()
            finally:
                aside.unlink()

    def _take_over_or_refuse(self) -> None:
        try:
            content = self._path.read_bytes()
            owner = orjson.loads(content)
        except FileNotFoundError:
            return
        except orjson.JSONDecodeError:
            owner = {}
        except OSError as error:
            raise Locked(f"{self._path} cannot be read: {error.strerror}; if nobody measures here, delete it") from None
        owner = owner if isinstance(owner, dict) else {}
        lives, job = lives_here(owner), owner.get("slurm_job")
        job = job if isinstance(job, str) else None
        if lives:
            raise Locked(f"process {owner['pid']} on this host is running it", job)
        if lives is None and owner.get("host"):
            if not job:
                raise Locked(f"host {owner['host']} owns it; if its process is gone, delete {self._path}")
            try:
                lives = nodes.job_lives(job)
            except nodes.NodesError as error:
                told = f"host {owner['host']} owns it (Slurm job {job}), and Slurm does not say whether that lives"
                raise Locked(f"{told} ({error}); if it is gone, delete {self._path}") from None
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


def lives_here(owner: dict[str, Any]) -> bool | None:
    """Return whether the process that a lock names lives; None when it is one of another host."""
    if owner.get("host") != socket.gethostname():
        return None
    pid, started = owner.get("pid"), owner.get("started")
    return isinstance(pid, int) and started is not None and _identity(pid)["started"] == started


def _identity(pid: int) -> dict[str, Any]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        started = stat.rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        started = None
    return {"pid": pid, "started": started, "host": socket.gethostname(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
