"""Start the services on a Unix socket of one's own: `aifbench serve`.

On a login node a port is open to everybody who is logged in there. A Unix socket with mode 0600 in a folder with mode
0700 is not, and the kernel says who connects. SSH carries it to a port of the reader's own machine. A browser on this
machine opens no Unix socket: it gets a port of the loopback besides. `--tcp` asks for one instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shlex
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from aifbench.core.errors import ConfigError
from aifbench.services.app import create_app, make_services, running
from aifbench.services.peers import Connection, Places
from aifbench.services.reach import browser_is_here, can_show, show, tunnel
from aifbench.services.service import Service
from aifbench.services.settings import Limits, Settings, private_folder
from aifbench.services.tokens import Tokens

GRACE_S = 1
"""Seconds that open requests have to end after SIGTERM."""
ACCEPTED = 64
"""Connections that are taken in one go: a crowd of them needs no more open files than a process usually may have."""
QUEUE = 2048
"""Connections that may wait to be taken."""
NEAR_PORT = 8080
"""The port of the reader's own machine to which SSH carries the socket."""


class Server(uvicorn.Server):
    """A uvicorn that leaves signals to us, and takes fewer connections in one go than may wait."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUE)

    @contextmanager
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
        return bind_private(path), lock
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


def bind_private(path: Path) -> socket.socket:
    """Bind a listening socket with mode 0600. Raises ConfigError when something is there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(QUEUE)
    except OSError as error:
        listener.close()
        raise ConfigError(str(path), None, f"cannot be bound: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return listener


def bind_loopback(port: int) -> socket.socket:
    """Listen on 127.0.0.1; port 0 takes a free one. Raises ConfigError when it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(QUEUE)  # until then another user could still take the port
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
    here: bool | None = None,
    show_token: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, on the socket `path` (default: in the runtime folder) or on a loopback port.

    `here`: the browser is on this machine (default: found out); it opens no Unix socket, so it gets a port besides.
    `show_token`: the address that is printed carries the token; only for a terminal, never for a file.
    """
    here = browser_is_here() if here is None else here
    path = path or settings.socket

    def tell(tokens: Tokens, port_tokens: Tokens | None, at: int) -> None:
        if "client" in names and not (settings.project / "workflow" / "Snakefile").is_file():
            say(f"{settings.project} is no checkout of aifbench: nothing can be launched from here (see --project)")
        if port_tokens is None:
            say("on your own machine:")
            say(f"  {tunnel(NEAR_PORT, path)}")
            say("  (with the options and the address that you log in with)")
            say(f"open:  http://localhost:{NEAR_PORT}/#token={_secret(tokens, show_token)}")
        else:
            _tell_port(say, port_tokens, at, here, show_token)

    with ExitStack() as doors:
        listeners = [doors.enter_context(_unix_door(path))] if port is None else []
        if port is not None or here:
            listeners.append(doors.enter_context(closing(bind_loopback(port or 0))))
        asyncio.run(_run(settings, names, listeners, tell))
    say("ended")


def _tell_port(say: Callable[[str], None], tokens: Tokens, port: int, here: bool, show_token: bool) -> None:
    """Say how to open a port, and open it where the browser is on this machine."""
    address = f"http://127.0.0.1:{port}/"
    if not here:
        say("others who are logged in here reach this port too; docs/security.md says what keeps them out")
    say(f"open:  {address}#token={_secret(tokens, show_token)}")
    if here:
        say("from another machine:  aifbench serve --no-open tells how")
    else:
        say(f"  where the browser is on your own machine, first:  {tunnel(port, f'127.0.0.1:{port}')}")
    if here and can_show():
        say("  (a browser opens it now, by a link that is good once)")
        show(f"{address}#once={tokens.new_code()}")
    say(f"tokens for programs, as long as this goes on:  {tokens.files['launch'].parent}")


def _secret(tokens: Tokens, show_token: bool) -> str:
    return tokens["launch"] if show_token else f"$(cat {shlex.quote(str(tokens.files['launch']))})"


@contextmanager
def _unix_door(path: Path) -> Iterator[socket.socket]:
    listener, lock = bind_unix(path)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)
        os.close(lock)


async def _run(
    settings: Settings,
    names: Sequence[str],
    listeners: list[socket.socket],
    tell: Callable[[Tokens, Tokens | None, int], None],
) -> None:
    quiet_logging()
    services = make_services(settings, names)
    ended = end_on(signal.SIGINT, signal.SIGTERM)
    _reload_on_hangup(services)
    async with running(services):  # a service that cannot work refuses before there are tokens and an address
        tokens = Tokens(settings.state)
        ports = [listener.getsockname()[1] for listener in listeners if listener.family == socket.AF_INET]
        with ExitStack() as held:
            port_tokens = Tokens.fresh(settings.port_state(ports[0])) if ports else None
            if port_tokens is not None:
                held.callback(port_tokens.forget)
            app = create_app(settings, services, tokens, port_tokens)
            tell(tokens, port_tokens, ports[0] if ports else 0)
            await carry(app, listeners, settings.limits, ended)


async def carry(app: FastAPI, listeners: list[socket.socket], limits: Limits, ended: asyncio.Event) -> None:
    """Answer requests on these sockets until `ended` is set; open streams get their end."""
    server = Server(_config(app, limits))
    ending = asyncio.create_task(_end(ended, server, app))
    await server.serve(sockets=listeners)
    ending.cancel()


def _config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    connection: Any = partial(Connection, Places(limits), limits)
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        use_colors=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPTED,
        timeout_graceful_shutdown=GRACE_S,
    )


def end_on(*numbers: signal.Signals) -> asyncio.Event:
    """Return what these signals set."""
    ended = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


def _reload_on_hangup(services: Sequence[Service]) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        for service in services:
            task = loop.create_task(service.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)


async def _end(ended: asyncio.Event, server: uvicorn.Server, app: FastAPI) -> None:
    await ended.wait()
    server.should_exit = True
    for stream in list(app.state.streams):
        stream.end()


class _OneLine(logging.Formatter):
    """One line per statement, without anything that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "\n".join(
            "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) for line in text.split("\n")
        )


def quiet_logging() -> None:
    """Let a stranger's nonsense fill no disk: one line per error, none per request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    levels = {"uvicorn": logging.ERROR, "aifbench.services": logging.WARNING}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
