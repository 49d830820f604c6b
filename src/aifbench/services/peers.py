"""Who is connected: the user at the other end, as the kernel knows it, a place for each, and a deadline for a request.

A connection waits for its client until a whole request is there. Only such a one is ever cut: after a deadline, or to
make a place for another of the same user. So nobody holds the door, and no user holds the places of another.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from aifbench.services.settings import Limits

_DIAGNOSIS = 4
"""NETLINK_SOCK_DIAG."""
_BY_FAMILY, _REQUEST = 20, 1
_HEAD = struct.Struct("=IHHII")
_ANY = 0xFFFFFFFF
_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: its user (None where the kernel does not tell), and whether it came by a port."""

    uid: int | None
    port: bool

    @property
    def own(self) -> bool:
        """Whether it is a process of our own user."""
        return self.uid == os.geteuid()


def peer_of(scope: Scope) -> Peer:
    """Return who sent a request. Without a connection (an application called directly) it is ourselves."""
    found: Peer = scope.get("state", {}).get("peer") or Peer(os.geteuid(), False)
    return found


def find_peer(connection: socket.socket) -> Peer:
    """Return the peer of an accepted connection."""
    if connection.family == socket.AF_UNIX:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return Peer(struct.unpack("3i", raw)[1], False)
    try:
        return Peer(_uid_of(connection), True)
    except OSError:
        return Peer(None, True)


def _uid_of(connection: socket.socket) -> int | None:
    """Return whose socket is connected to this one of the loopback.

    The kernel is asked for this one pair of addresses: /proc/net/tcp, which tells the same, lists the whole machine.
    """
    (own_host, own_port), (host, port) = connection.getsockname(), connection.getpeername()
    pair = struct.pack("!HH4s12x4s12x", port, own_port, socket.inet_aton(host), socket.inet_aton(own_host))
    wanted = (
        struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY) + pair + struct.pack("=3I", 0, _ANY, _ANY)
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _DIAGNOSIS) as kernel:
        kernel.settimeout(1.0)
        kernel.send(_HEAD.pack(_HEAD.size + len(wanted), _BY_FAMILY, _REQUEST, 0, 0) + wanted)
        answer = kernel.recv(4096)
    if len(answer) < 88 or _HEAD.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    uid, inode = struct.unpack_from("=2I", answer, 80)
    return uid if inode else None  # a socket that its process has closed is nobody's, and told as root's


class Places:
    """The places for connections: `own` ones for our own user, `each` for any other, `others` for all of those."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: dict[int | None, set[Connection]] = {}

    def take(self, connection: Connection) -> bool:
        """Give a connection a place, for which one that waits may have to go; return whether there is one."""
        peer = connection.peer
        theirs = self._taken.get(peer.uid, set())
        if peer.own:
            crowded = theirs if len(theirs) >= self._limits.connections_own else None
        elif len(theirs) >= self._limits.connections_each:
            crowded = theirs
        else:
            others = [taken for uid, taken in self._taken.items() if uid != os.geteuid()]
            full = sum(map(len, others)) >= self._limits.connections_others
            crowded = max(others, key=len) if full else None
        if crowded is not None:
            longest = min((one for one in crowded if one.waits), key=lambda one: one.since, default=None)
            if longest is None:
                return False
            longest.cut()
        self._taken.setdefault(peer.uid, set()).add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Free a place."""
        theirs = self._taken.get(connection.peer.uid, set())
        theirs.discard(connection)
        if not theirs:
            self._taken.pop(connection.peer.uid, None)


class Connection(H11Protocol):
    """HTTP for a peer that has a place, and that sends its requests in time."""

    def __init__(self, places: Places, limits: Limits, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._places, self._limits = places, limits
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._unsent = 0
        self.since = 0.0
        """Since when it waits."""

    @property
    def waits(self) -> bool:
        """Whether its client has to do something: send a request or the rest of it, or take what it was sent."""
        return not self._answers or self.cycle.more_body or self.flow.write_paused

    @property
    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Take or close a new connection; on a Unix socket, another user's before a byte of it is read."""
        self.peer = find_peer(transport.get_extra_info("socket"))
        if not (self.peer.own or self.peer.port) or not self._places.take(self):
            self._refused = True
            transport.abort()
            return
        self.app_state = {**self.app_state, "peer": self.peer}
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read what a taken connection sends."""
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come of a request."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._stop_watch()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a taken connection."""
        if not self._refused:
            self._stop_watch()
            self._places.leave(self)
            super().connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once; the kernel too forgets what its client does not take."""
        self._places.leave(self)
        if self.transport.get_write_buffer_size():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def pause_writing(self) -> None:
        """Wait for the client to take what it was sent."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Let the deadline run while no head of a request is there, or what was sent is not taken.

        A byte of a head does not put it off; the body of a request has a deadline of the guard's.
        """
        if self._answers and not self.flow.write_paused:
            self._stop_watch()
        elif self._deadline is None:
            self.since = time.monotonic()
            self._unsent = self.transport.get_write_buffer_size()
            seconds = self._limits.unread_seconds if self._unsent else self._limits.head_seconds
            self._deadline = self.loop.call_later(seconds, self._late)

    def _stop_watch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        """End the connection, unless its client has taken some of what it was sent."""
        self._deadline = None
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._watch()
        else:
            self.cut()
