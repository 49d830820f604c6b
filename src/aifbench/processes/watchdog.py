"""Ends the sessions of a runner that died without doing so itself, killed with -9 say.

The kernel kills the commands of a dead runner (see `die_with_parent`), but not what they have started: a container
leaves the program behind that mounts its image. The watchdog is a process of its own that reads from a pipe which
sessions there are (`+123`, `-123`), and when the pipe ends it ends those that are left.
Run: `python -m aifbench.processes.watchdog`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Self

from aifbench.processes.identity import stat_fields

GRACE_S = 5.0


class Watchdog:
    """The runner's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aifbench.processes.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end: nothing is left to watch."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def watch(self, session: int) -> None:
        """End this session when the runner is gone."""
        self._tell(f"+{session}\n")

    def forget(self, session: int) -> None:
        """Leave this session alone: it has ended, and its number may be another's soon."""
        self._tell(f"-{session}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def members(session: int) -> list[int]:
    """Return the live processes of a session, whatever group they are in."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if (fields := stat_fields(pid)) is not None and int(fields[3]) == session]


def end_session(session: int, grace_s: float) -> None:
    """End all processes of a session: TERM, and KILL after `grace_s`."""
    for number, seconds in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 1.0)):
        left = members(session)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = members(session)
        if not left:
            return


def main() -> None:
    """Read sessions until the pipe ends, then end them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a scheduler sends them to all: the runner is the one to obey
    sessions: set[int] = set()
    for line in sys.stdin:
        (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
    for session in sessions:
        end_session(session, GRACE_S)


if __name__ == "__main__":
    main()
