"""Processes of a batch: each in its own session, ended by TERM to its group, then KILL to its whole session."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from aifbench.processes.watchdog import end_session, members

GRACE_S = 10.0
STRAY_GRACE_S = 1.0


def free_port(host: str) -> int:
    """Return a TCP port of `host` that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Group:
    """One started command and all its descendants that stay in its session."""

    def __init__(
        self, command: Sequence[str], *, stderr: Path, environment: Mapping[str, str] | None = None, pipes: bool = False
    ) -> None:
        tied = [sys.executable, "-m", "aifbench.processes.die_with_parent", str(os.getpid())]
        self._errors = stderr.open("ab")
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*tied, *command],
            stdin=pipe,
            stdout=pipe if pipes else self._errors,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the group."""
        return self.process.pid

    @property
    def stdin(self) -> IO[Any]:
        """The command's standard input."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[Any]:
        """The command's standard output."""
        assert self.process.stdout is not None
        return self.process.stdout

    def alive(self) -> bool:
        """Return whether the command itself still runs."""
        return self.process.poll() is None

    def end(self, grace_s: float = GRACE_S) -> int:
        """Let a command that is finishing exit by itself, then end what is left of its group; return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        return self.stop(grace_s)

    def stop(self, grace_s: float = GRACE_S) -> int:
        """End the whole session (TERM, then KILL after `grace_s`) and return the command's exit code."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._group_lives() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.02)
        if self._group_lives():
            self._signal(signal.SIGKILL)
        code = self.process.wait()
        self._end_strays()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._errors.close()
        return code

    def _end_strays(self) -> None:
        """End what has a group of its own, such as the program that mounts a container's image, if it does not go."""
        deadline = time.monotonic() + STRAY_GRACE_S
        while (left := members(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            end_session(self.pid, 1.0)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _group_lives(self) -> bool:
        self.process.poll()
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True
