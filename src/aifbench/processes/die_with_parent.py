"""Start a command that dies with its parent: `python -m aifbench.processes.die_with_parent PARENT_PID COMMAND ...`.

Sets PR_SET_PDEATHSIG to SIGKILL and replaces itself by the command, which keeps the setting: when the runner is killed
with -9 no server and no worker stays behind. What those have started is the `watchdog`'s.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; end now if `parent` is already gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
