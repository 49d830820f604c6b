"""How a browser gets to what is shown here: it is on this machine, or at the other end of an SSH login."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import threading
import webbrowser
from pathlib import Path

_ELSEWHERE = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SLURM_JOB_ID")
"""Variables of a login from another machine, and of a job, which runs where nobody sits."""


def browser_is_here() -> bool:
    """Return whether the user sits at this machine: nothing says that the login came through SSH."""
    return not any(os.environ.get(name) for name in _ELSEWHERE) and not _is_below_sshd(os.getpid())


def _is_below_sshd(pid: int) -> bool:
    """Return whether SSH's server has started a process: `sudo -i` and the like take the variables away."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        while pid > 1:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            if name.startswith("sshd"):
                return True
            pid = int(rest.split()[1])
    return False


def can_show() -> bool:
    """Return whether a browser with windows can be opened here."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return False
    in_terminal = type(found) is webbrowser.GenericBrowser and not os.environ.get("BROWSER")
    return not in_terminal


def show(address: str) -> None:
    """Open an address in the user's browser, and do not wait for it."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def tunnel(near: int, far: Path | str) -> str:
    """Return the command for the user's own machine that makes `far` a port there."""
    return f"ssh -N -L {near}:{far} {_name()}@{socket.gethostname()}"


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without an entry, as in some containers
        return os.environ.get("USER", "you")
