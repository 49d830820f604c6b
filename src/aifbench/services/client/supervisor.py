"""The parent of one run: `python -m aifbench.services.client.supervisor FOLDER`, in a session of its own.

It starts the command of `command.json`, waits, and writes down how it ended, so that nobody else needs to be there: the
service and the login shell may end. It also ends the run when `cancel.json` appears, as Ctrl-C would, then harder.

FOLDER/keeper.json   this process; a second supervisor of the folder sees it and goes
       process.json  the command's process
       exit.json     {code, ended_at}; code is negative for a signal, None when it was cancelled before its start
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from aifbench.processes.identity import identity
from aifbench.services.client.folder import COMMAND, LAUNCH, RunFolder
from aifbench.slurm.queue import cancel_named

POLL_S = 1.0
"""Between two looks for `cancel.json`."""
STEPS = ((signal.SIGINT, 60.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))
"""How a run is ended, and the time in s that each signal has. Snakemake cancels its jobs in Slurm on the first."""


def keep(folder: RunFolder) -> None:
    """Run the command of a folder and write down its end."""
    os.umask(os.umask(0o077) | 0o022)  # what is run next, and how, others may read and not change
    try:
        folder.write("keeper.json", identity(os.getpid()), new=True)
    except FileExistsError:
        return
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    if folder.has(LAUNCH, "cancel.json"):
        _end(folder, None)
        return
    command = folder.read(COMMAND)
    assert command is not None
    with folder.append("snakemake.log") as log:
        process = subprocess.Popen(
            command["argv"],
            cwd=command["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    folder.write("process.json", identity(process.pid))
    steps = iter(STEPS)
    deadline: float | None = None
    cancelled = False
    while process.poll() is None:
        select.select([awake], [], [], POLL_S)
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(awake, False)
            os.read(awake, 64)
        cancelled = cancelled or folder.has(LAUNCH, "cancel.json")
        if cancelled and (deadline is None or time.monotonic() > deadline):
            number, seconds = next(steps, (signal.SIGKILL, 10.0))
            deadline = time.monotonic() + seconds
            end_group(process.pid, number)
    if cancelled:
        end_group(process.pid, signal.SIGKILL)
        cancel_left(folder)
    elif process.returncode < 0:  # killed: its batch on this machine ends as well, in order
        end_group(process.pid, signal.SIGTERM)
    _end(folder, process.returncode)


def end_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def cancel_left(folder: RunFolder) -> None:
    """Cancel the jobs in Slurm that the run of a folder has left."""
    cancel_named(folder.slurm_runs())


def _end(folder: RunFolder, code: int | None) -> None:
    folder.write("exit.json", {"code": code, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")})


if __name__ == "__main__":
    launch = Path(sys.argv[1])
    keep(RunFolder(launch.parent.parent, launch.parent.name))
