"""Start the services on a Unix socket of one's own, or on the loopback on request: `aifbench serve`.

On a login node a port is open to everybody who is logged in there. A Unix socket with mode 0600 in a folder with mode
0700 is not, and the kernel says who connects. SSH carries it to a port of the reader's own machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import logging
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from aifbench.campaign.errors import ConfigError
from aifbench.services.app import create_app, make_services, running
from aifbench.services.settings import Settings, private_folder
from aifbench.services.tokens import Tokens

GRACE_S = 1
"""Seconds that open requests have to end after SIGTERM."""
SOCKET_NAME = "serve.sock"


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a Unix socket, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


class OwnPeersOnly(H11Protocol):
    """HTTP for connections of our own user; another's is closed before a byte of it is read."""

    refused = False

    def connection_made(self, transport: Any) -> None:
        """Take or close a new connection."""
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX and peer_uid(connection) != os.geteuid():
            self.refused = True
            transport.abort()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read what a taken connection sends."""
        if not self.refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a taken connection."""
        if not self.refused:
            super().connection_lost(exc)


class Server(uvicorn.Server):
    """A uvicorn that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Change no signal handler."""
        yield


def bind_unix(path: Path) -> tuple[socket.socket, int]:
    """Bind a listening socket with mode 0600 in a folder with mode 0700; return it and the lock that keeps it ours.

    The socket of a dead server is replaced; that of a live one never. Raises ConfigError with what to do.
    """
    private_folder(path.parent, ours=False)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(str(path), None, "a server of yours has this socket; end it, or use --socket") from None
        _remove_dead(path)
        return _bind_private(path), lock
    except BaseException:
        os.close(lock)
        raise


def _remove_dead(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(str(path), None, "is there and is no socket; move it away, or use --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass  # a backlog that is full is alive as well
    raise ConfigError(str(path), None, "another program listens on this socket; end it, or use --socket")


def _bind_private(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigError(str(path), None, f"cannot be bound: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return listener


def bind_loopback(port: int) -> socket.socket:
    """Bind 127.0.0.1; port 0 takes a free one. Raises ConfigError when it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ConfigError("--tcp", port, f"cannot be bound: {error.strerror}", "a free port, or 0 for any") from None
    return listener


def serve(
    settings: Settings,
    names: Sequence[str],
    say: Callable[[str], None],
    *,
    path: Path | None = None,
    port: int | None = None,
    show_token: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, on the socket `path` (default: in the runtime folder) or on a loopback port.

    `show_token`: the address that is printed carries the token; only for a terminal, never for a file.
    """
    if "client" in names and not (settings.project / "workflow" / "Snakefile").is_file():
        say(f"{settings.project} is no checkout of aifbench: nothing can be launched from here (see --project)")
    tokens = Tokens(settings.state)
    path = path or settings.runtime / SOCKET_NAME
    lock = None
    if port is None:
        listener, lock = bind_unix(path)
        local = "localhost:8080"
        say("on your own machine:")
        say(f"  ssh -N -L 8080:{path} {getpass.getuser()}@{socket.gethostname()}")
        say("  (with the options and the address that you log in with)")
    else:
        listener = bind_loopback(port)
        local = f"127.0.0.1:{listener.getsockname()[1]}"
        say("others who are logged in here reach this port too; the token alone keeps them out")
    secret = tokens["launch"] if show_token else f"$(cat {tokens.files['launch']})"
    say(f"open:  http://{local}/#token={secret}")
    try:
        asyncio.run(_run(settings, names, tokens, listener))
    finally:
        listener.close()
        if lock is not None:
            path.unlink(missing_ok=True)
            os.close(lock)
    say("ended")


async def _run(settings: Settings, names: Sequence[str], tokens: Tokens, listener: socket.socket) -> None:
    services = make_services(settings, names)
    app = create_app(settings, services, tokens)
    _quiet_logging()
    config = uvicorn.Config(
        app,
        http=OwnPeersOnly,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        use_colors=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=512,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def end() -> None:
        server.should_exit = True
        for stream in list(app.state.streams):
            stream.end()

    def reload() -> None:
        for service in services:
            task = loop.create_task(service.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    async with running(services):
        await server.serve(sockets=[listener])


class _OneLine(logging.Formatter):
    """One line per statement, without anything that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "\n".join(
            "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) for line in text.split("\n")
        )


def _quiet_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name in ("uvicorn", "aifbench.services"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
