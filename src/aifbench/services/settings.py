"""Where the services find and keep their files, and what they refuse to carry."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aifbench.core.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What one server carries at most. More than that is refused, and said."""

    head_seconds: float = 10.0
    unread_seconds: float = 60.0
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    connections_own: int = 256
    connections_each: int = 32
    connections_others: int = 128
    batch: int = 1000
    message_bytes: int = 4096
    streams: int = 64
    requests_per_s: float = 500.0
    requests_burst: int = 1000
    strangers_per_s: float = 20.0
    strangers_burst: int = 100


@dataclass(frozen=True)
class Settings:
    """Folders and limits of one server. All paths are absolute.

    `project` is the checkout (workflow, profiles, config), `results` the folder of all campaigns, `state` keeps what
    must survive a restart (tokens, log configurations; 0700), `runtime` holds the socket (0700, of this host alone).
    """

    project: Path
    results: Path
    state: Path
    runtime: Path
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time

    @property
    def socket(self) -> Path:
        """The Unix socket on which the services are found where none is named."""
        return self.runtime / "serve.sock"

    def port_state(self, port: int) -> Path:
        """Return the folder of the tokens of a server on a port of this host: each start makes new ones."""
        return self.state / f"tcp-{_host()}-{port}"

    @classmethod
    def find(cls, project: Path | None = None, results: Path | None = None) -> Settings:
        """Return the settings of this user for a checkout (default: the current folder), from the XDG variables."""
        root = (project or Path.cwd()).absolute()
        state = (_xdg("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "aifbench"
        shared = Path.home() / ".aifbench" / _host()  # homes are shared by the nodes of a cluster, sockets are not
        runtime = _xdg("XDG_RUNTIME_DIR")
        if runtime and not os.access(runtime, os.W_OK | os.X_OK):  # of the user before `su`, or gone with a session
            runtime = None
        return cls(
            project=root,
            results=root / (results or Path("results")),
            state=state,
            runtime=runtime / "aifbench" if runtime else shared,
        )


def private_folder(folder: Path, *, ours: bool = True) -> Path:
    """Make a folder that its owner alone can enter, or check that it is one; return it.

    One of `ours` is closed to others; one that the user named may be theirs too, so its mode is not ours to change.
    Raises ConfigError when it is a link, belongs to somebody else, or is not ours and open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(str(folder), None, f"cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(str(folder), None, "must be a folder of your own, not a link and not somebody else's")
    if stat.S_IMODE(found.st_mode) & 0o077 and ours:
        folder.chmod(0o700)
    elif stat.S_IMODE(found.st_mode) & 0o077:
        problem = "can be entered by others: name a folder that is not there yet, or close it yourself (chmod 700)"
        raise ConfigError(str(folder), None, problem)
    return folder


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _xdg(name: str) -> Path | None:
    value = os.environ.get(name, "")
    return Path(value) if value.startswith("/") else None
