"""Streaming client: one thread, non-blocking sockets, stamps at the receive, nothing parsed on the way.

Closed loop: each client sends its next request when its last has ended. Open loop: requests are sent at the times of a
schedule, whatever became of those before them. Each client owns one connection, opened before the run and kept. Where
the server closes it after an answer, the next one is opened shortly before the next request is due, and not earlier: a
server with a thread for each connection leaves requests waiting while its threads listen to idle ones. While requests
are under way the receive path appends (stamps, bytes) and looks for the end of the response; events are parsed
after the run. Where the kernel stamps received segments (SO_TIMESTAMPNS, CLOCK_REALTIME) those stamps are turned to
CLOCK_MONOTONIC and used, unless the distance of the two clocks moved by more than 0.1 ms during the run. TLS and other
systems use the time after the read. A kernel stamp is that of the last segment in a read, so a read with several events
bounds their times from above.

A server may close a kept connection just when a request is on its way. Where such a connection ends before a byte of
the answer has come, the request is sent once more, on a fresh one, and counted; its times run from the first sending,
as its user would feel it. What ends on a fresh connection, or after a byte, is a failure.

Where a host has several addresses they are tried in turn, and the one that answered is tried first from then on.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import heapq
import os
import select
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aifbench.load.http import FramingError, Response, Target
from aifbench.load.timer import Timer

READ_BYTES = 16384
"""Python takes this much from its heap for each read; what is more comes with the next one."""
ANCILLARY_BYTES = 64
SO_TIMESTAMPNS = 35
"""Linux, also the type of the control message; the socket module of this Python has no name for it."""
MAX_CLOCK_STEP_NS = 100_000
LEAD_NS = 50_000_000
"""A connection that is missing is opened as long before its request is due."""
_TIMESPEC = struct.Struct("@ll")
_TCP_INFO_BYTES, _TOTAL_RETRANSMITS, _SHORTEST_RTT_US = 152, 100, 148
"""Of Linux's `struct tcp_info`: how much of it is asked for, and where two 32-bit fields of it begin."""
_UNKNOWN_RTT = 2**32 - 1


@dataclass
class Exchange:
    """One request and what came back. Times are CLOCK_MONOTONIC in ns; None: it did not come to that."""

    client: int
    index: int
    scheduled_ns: int
    """When the schedule wanted it sent; in a closed loop at the client's start, or a think after its last request."""
    connection_reused: bool = False
    """Whether the connection had carried a request before; a new one is opened outside of send to end."""
    retried: bool = False
    """Whether a reused connection had ended before a byte came, and this is what came over a new one."""
    send_ns: int | None = None
    """Before the first byte was given to the kernel, for the first time if it was retried."""
    sent_ns: int | None = None
    """After the last byte was given to the kernel."""
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    """(stamp, bytes) of each read, response head included."""
    end_ns: int | None = None
    """Stamp of the read that completed the response, or when it was given up."""
    status: int | None = None
    round_trip_ns: int | None = None
    """Shortest round trip of the connection that the kernel has seen; None where it does not tell."""
    retransmits: int | None = None
    """Segments that this host sent again on the connection since its last request ended."""
    error: str | None = None
    """Class of the error: connect, tls, reset, early_close, protocol; given up at its time without a byte (timeout) or
    with some (stall; `inference.requests.understand` tells it from an answer that still flowed)."""
    problem: str | None = None
    """Why no connection could be opened, as the system says it."""


@dataclass
class Load:
    """One run of the client."""

    exchanges: list[Exchange]
    start_ns: int
    end_ns: int
    cpu_s: float
    """CPU time of this process while the run lasted."""
    stamp_source: str
    """`kernel` or `read`; with `kernel`, exchanges whose reads were not all stamped use read stamps."""
    exchanges_with_read_stamps: int
    clock_offset_start_ns: int
    clock_offset_end_ns: int
    """CLOCK_REALTIME minus CLOCK_MONOTONIC before and after."""
    connections_opened: int
    addresses: list[str | None] = field(default_factory=list)
    """Of each target, the one that a connection was opened to; None: none was."""


def clock_offset_ns() -> int:
    """Return CLOCK_REALTIME minus CLOCK_MONOTONIC, from the tightest of 20 pairs of readings."""
    best, offset = None, 0
    for _ in range(20):
        before = time.monotonic_ns()
        wall = time.time_ns()
        width = time.monotonic_ns() - before
        if best is None or width < best:
            best, offset = width, wall - before - width // 2
    return offset


_Ancillary = tuple[int, int, bytes]
_Read = tuple[int, Sequence[_Ancillary], bytes]
"""Time after the read, control messages, bytes."""
_Address = tuple[Any, ...]
"""One of `socket.getaddrinfo`."""


@dataclass
class _Host:
    """The addresses of a target, the one that answered last at the front."""

    addresses: list[_Address] = field(default_factory=list)
    problem: str = "no address is known"
    answered: str | None = None

    def look_up(self, target: Target) -> None:
        """Ask for the addresses, where none has answered yet."""
        if self.answered is not None:
            return
        try:
            self.addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            self.problem = error.strerror or str(error)

    def opened(self, address: _Address) -> None:
        """Put down that a connection to this address was opened."""
        if self.answered is None or address != self.addresses[0]:
            self.addresses = [address, *(other for other in self.addresses if other != address)]
            host, port = address[4][:2]
            self.answered = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Client:
    """One connection to its target, the requests of its closed loop if it has one, and the exchange under way."""

    def __init__(self, number: int, place: int, target: Target, host: _Host, tls: ssl.SSLContext | None) -> None:
        self.number = number
        self.place = place
        self.target = target
        self.host = host
        self.tls = tls
        self.untried: list[_Address] = []
        """Addresses for the connection that is being opened; the first one is under way."""
        self.sock: socket.socket | None = None
        self.events = 0
        """Of the connection, that epoll tells; 0: it does not know it."""
        self.used = False
        self.retransmits = 0
        self.requests: Sequence[bytes] = ()
        self.next = 0
        self.exchange: Exchange | None = None
        self.response = Response()
        self.reads: list[_Read] = []
        self.request = b""
        self.unsent = memoryview(b"")
        self.connecting = False
        self.handshaking = False


@dataclass
class _Schedule:
    """An open loop: what is to be sent when, and the clients that are free."""

    requests: Sequence[Sequence[bytes]]
    at_ns: Sequence[int]
    indices: Sequence[int]
    idle: deque[_Client]
    next: int = 0
    prepared: int = 0
    """Requests whose connection was looked after ahead of time."""

    def due(self, now: int) -> bool:
        return self.next < len(self.at_ns) and self.at_ns[self.next] <= now

    def nearing(self, now: int) -> Iterator[_Client]:
        """Yield the free clients that will send what is due within `LEAD_NS`, each request's once."""
        self.prepared = max(self.prepared, self.next)
        while (at := self.preparation()) is not None and at <= now:
            self.prepared += 1
            yield self.idle[self.prepared - 1 - self.next]

    def preparation(self) -> int | None:
        """Return when the next connection is to be looked after, None if there is no free client or no request."""
        if self.prepared == len(self.at_ns) or self.prepared - self.next >= len(self.idle):
            return None
        return self.at_ns[self.prepared] - LEAD_NS

    def upcoming(self) -> int | None:
        """Return when there is next to do if a client is free for it; without one, the end of another tells."""
        if not self.idle or self.next == len(self.at_ns):
            return None
        preparation = self.preparation()
        return self.at_ns[self.next] if preparation is None else min(self.at_ns[self.next], preparation)


class StreamingClient:
    """Keeps one connection for each client and runs loads over them; client k asks target k modulo their number.

    `clients` is how many there are, or the numbers of those that are this process's (see `load.client_processes`).

    `reuse=False` is for servers that close a connection after an answer without saying so: each request then has a
    connection of its own, opened shortly before its timed span.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        clients: int | Sequence[int],
        *,
        reuse: bool = True,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self._targets = list(targets)
        self._reuse = reuse
        self.connections_opened = 0
        self._connect_timeout_s = connect_timeout_s
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, _Client] = {}
        self._hosts = {target: _Host() for target in self._targets}
        files = {target.ca_file for target in self._targets if target.tls}
        tls = {file: ssl.create_default_context(cafile=file) for file in files}
        self._clients: list[_Client] = []
        for number in range(clients) if isinstance(clients, int) else clients:
            target = self._targets[number % len(self._targets)]
            context = tls[target.ca_file] if target.tls else None
            self._clients.append(_Client(number, len(self._clients), target, self._hosts[target], context))
        self._raw: list[tuple[Exchange, list[_Read]]] = []
        self._waiting: list[tuple[int, int, int]] = []
        """Closed loops that begin or think: (when to look after them, place of the client, when its request is due)."""
        self._schedule: _Schedule | None = None
        self._deadlines: deque[tuple[int, Exchange, _Client]] = deque()
        self._timer = Timer()
        self._timeout_ns = 0
        self._think_ns = 0
        self._active = 0
        """Closed loops, or requests of a schedule, that have not ended."""

    def __enter__(self) -> StreamingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            self._drop(client)
        self._epoll.close()
        self._timer.close()

    def run(
        self,
        requests: Sequence[Sequence[bytes]],
        offsets_s: Sequence[float],
        timeout_s: float,
        think_s: float = 0.0,
        gate: Callable[[], int] = time.monotonic_ns,
    ) -> Load:
        """Send each client's requests in a row, the first of them `offsets_s` after the start; return all exchanges.

        `requests[k]` are the whole HTTP requests of the client in place k, who thinks `think_s` after each. A request
        that fails is kept and the client goes on. `gate` is called when all is prepared and returns the start.
        """

        def begin(start: int) -> None:
            self._think_ns = int(think_s * 1e9)
            for client, payloads, offset in zip(self._clients, requests, offsets_s, strict=True):
                client.requests, client.next = payloads, 0
                if payloads:
                    self._wait(client, start + int(offset * 1e9))
            self._active = len(self._waiting)

        at_once = [client for client, offset in zip(self._clients, offsets_s, strict=True) if offset * 1e9 < LEAD_NS]
        return self._run(begin, at_once, timeout_s, gate)

    def run_schedule(
        self,
        requests: Sequence[Sequence[bytes]],
        at_s: Sequence[float],
        timeout_s: float,
        indices: Sequence[int] | None = None,
        gate: Callable[[], int] = time.monotonic_ns,
    ) -> Load:
        """Send request i at `at_s[i]` (seconds after the start, in order) on a connection that is free then.

        Where none is free it waits for one, and is sent late: nothing is left out. `requests[i]` has the request for
        each target. `index` of an exchange is i, or `indices[i]`; `client` is its connection.
        """

        def begin(start: int) -> None:
            at_ns, numbers = [start + int(at * 1e9) for at in at_s], range(len(at_s)) if indices is None else indices
            self._schedule = _Schedule(requests, at_ns, numbers, deque(self._clients))
            self._active = len(at_s)

        at_once = self._clients[: sum(at * 1e9 < LEAD_NS for at in at_s)]
        return self._run(begin, at_once, timeout_s, gate)

    def _run(
        self,
        begin: Callable[[int], None],
        at_once: Sequence[_Client],
        timeout_s: float,
        gate: Callable[[], int],
    ) -> Load:
        self._raw = []
        self._waiting.clear()
        self._deadlines.clear()
        self._schedule, self._think_ns = None, 0
        self._timeout_ns = int(timeout_s * 1e9)
        self._open_connections(self._clients if self._reuse else at_once)
        opened = self.connections_opened
        collecting = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            offset_start = clock_offset_ns()
            start = gate()
            cpu = time.process_time_ns()
            begin(start)
            self._loop()
            end = time.monotonic_ns()
            cpu = time.process_time_ns() - cpu
            offset_end = clock_offset_ns()
        finally:
            gc.unfreeze()
            if collecting:
                gc.enable()
        source, fallbacks = self._stamp(offset_start, offset_end)
        exchanges = sorted((exchange for exchange, _ in self._raw), key=lambda e: (e.client, e.index))
        return Load(
            exchanges,
            start,
            end,
            cpu / 1e9,
            source,
            fallbacks,
            offset_start,
            offset_end,
            self.connections_opened - opened,
            [self._hosts[target].answered for target in self._targets],
        )

    # -- connections

    def _open_connections(self, wanted: Sequence[_Client]) -> None:
        """Open what is missing, before the run. What cannot be opened now is tried again for its first request."""
        self._epoll.close()
        self._epoll = select.epoll()
        self._epoll.register(self._timer, select.EPOLLIN)
        self._by_descriptor.clear()
        for target, host in self._hosts.items():
            host.look_up(target)
        for client in self._clients:
            client.events = 0
            if client.sock is not None and _closed_by_peer(client.sock):
                self._drop(client)
        for client in wanted:
            if client.sock is None:
                self._connect_blocking(client)
        for client in self._clients:
            if client.sock is not None:
                self._await(client, select.EPOLLIN)

    def _await(self, client: _Client, events: int) -> None:
        """Be told of these events of a client's connection."""
        assert client.sock is not None
        if client.events:
            self._epoll.modify(client.sock, events)
        else:
            self._epoll.register(client.sock, events)
            self._by_descriptor[client.sock.fileno()] = client
        client.events = events

    def _connect_blocking(self, client: _Client) -> None:
        for address in list(client.host.addresses):
            try:
                client.sock = sock = _new_socket(client, address)
                sock.settimeout(self._connect_timeout_s)
                sock.connect(address[4])
                client.host.opened(address)
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                sock.setblocking(False)
            except OSError:
                self._drop(client)
            else:
                self.connections_opened += 1
                return

    def _drop(self, client: _Client) -> None:
        if client.sock is None:
            return
        if client.events:
            self._by_descriptor.pop(client.sock.fileno(), None)
        client.sock.close()  # epoll forgets it
        client.sock, client.used, client.connecting, client.handshaking, client.events = None, False, False, False, 0
        client.retransmits = 0

    # -- the loop

    def _loop(self) -> None:
        waiting, deadlines, schedule = self._waiting, self._deadlines, self._schedule
        while self._active:
            now = time.monotonic_ns()
            if schedule is not None:
                self._keep(schedule, now)
            while waiting and waiting[0][0] <= now:
                at, place, due = heapq.heappop(waiting)
                if at < due:
                    self._prepare(self._clients[place])
                    heapq.heappush(waiting, (due, place, due))
                else:
                    self._next(self._clients[place], due)
            while deadlines and (deadlines[0][1].end_ns is not None or deadlines[0][0] <= now):
                _, exchange, client = deadlines.popleft()
                if exchange.end_ns is None:
                    self._fail(client, self._timeout_class(client), now)
            if not self._active:  # the last one has just been given up
                return
            upcoming = waiting[0][0] if waiting else schedule.upcoming() if schedule is not None else None
            if upcoming is not None:
                self._timer.set(upcoming)
            limit = max(0, deadlines[0][0] - time.monotonic_ns()) / 1e9 if deadlines else None
            for descriptor, events in self._epoll.poll(limit, len(self._clients) + 1):
                ready = self._by_descriptor.get(descriptor)
                if ready is not None:
                    self._ready(ready, events)
                elif descriptor == self._timer.fileno():
                    self._timer.clear()

    def _keep(self, schedule: _Schedule, now: int) -> None:
        """Send what is due and prepare what is near, as far as clients are free."""
        for client in schedule.nearing(now):
            self._prepare(client)
        while schedule.idle and schedule.due(now):
            client, place = schedule.idle.popleft(), schedule.next
            schedule.next += 1
            request = schedule.requests[place][client.number % len(self._targets)]
            self._begin(client, schedule.indices[place], request, schedule.at_ns[place])

    def _wait(self, client: _Client, due: int) -> None:
        """Let a closed loop go on when its next request is due."""
        heapq.heappush(self._waiting, (due - LEAD_NS, client.place, due))

    def _prepare(self, client: _Client) -> None:
        """Begin to open the connection of a client whose next request is near, if it has none."""
        if client.sock is None:
            self._connect(client)

    def _next(self, client: _Client, scheduled_ns: int) -> None:
        index = client.next
        client.next += 1
        self._begin(client, index, client.requests[index], scheduled_ns)

    def _timeout_class(self, client: _Client) -> str:
        if client.connecting:
            return "connect"
        if client.handshaking:
            return "tls"
        return "stall" if client.reads else "timeout"

    def _begin(self, client: _Client, index: int, request: bytes, scheduled_ns: int) -> None:
        exchange = Exchange(client.number, index, scheduled_ns, connection_reused=client.used)
        client.exchange, client.response, client.reads = exchange, Response(), []
        client.request, client.unsent = request, memoryview(request)
        self._raw.append((exchange, client.reads))
        self._deadlines.append((time.monotonic_ns() + self._timeout_ns, exchange, client))
        if client.sock is None:
            self._connect(client)
        elif not client.connecting and not client.handshaking:
            self._send(client)

    def _connect(self, client: _Client) -> None:
        """Begin to open a connection: for the exchange under way, or for the next one."""
        client.untried = list(client.host.addresses)
        self._connect_next(client, client.host.problem)

    def _connect_next(self, client: _Client, problem: str) -> None:
        """Begin with the next address of the host; where none is left, `problem` is why there is no connection."""
        while client.untried:
            try:
                client.sock = _new_socket(client, client.untried[0])
                client.sock.setblocking(False)
                error = client.sock.connect_ex(client.untried[0][4])
            except OSError as failure:
                error = failure.errno or errno.EIO
            if error in {0, errno.EINPROGRESS}:
                client.connecting = True
                self._await(client, select.EPOLLOUT)
                return
            problem = os.strerror(error)
            self._drop(client)
            client.untried.pop(0)
        self._lose(client, "connect", problem)

    def _ready(self, client: _Client, events: int) -> None:
        if client.connecting:
            self._connected(client)
        elif client.handshaking:
            self._handshake(client)
        elif events & ~select.EPOLLOUT:  # an error or the peer's end is read too
            self._receive(client)
        elif client.exchange is not None:
            self._send(client)

    def _connected(self, client: _Client) -> None:
        assert client.sock is not None
        if error := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._drop(client)
            client.untried.pop(0)
            self._connect_next(client, os.strerror(error))
            return
        client.connecting = False
        client.host.opened(client.untried[0])
        self.connections_opened += 1
        if isinstance(client.sock, ssl.SSLSocket):
            client.handshaking = True
            self._handshake(client)
        else:
            self._opened(client)

    def _opened(self, client: _Client) -> None:
        self._await(client, select.EPOLLIN)
        if client.exchange is not None:
            self._send(client)

    def _handshake(self, client: _Client) -> None:
        assert isinstance(client.sock, ssl.SSLSocket)
        try:
            client.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._await(client, select.EPOLLIN)
            return
        except ssl.SSLWantWriteError:
            self._await(client, select.EPOLLOUT)
            return
        except OSError as error:
            self._lose(client, "tls", getattr(error, "verify_message", None) or error.strerror or str(error))
            return
        client.handshaking = False
        self._opened(client)

    def _send(self, client: _Client) -> None:
        exchange, sock = client.exchange, client.sock
        assert exchange is not None
        assert sock is not None
        if exchange.send_ns is None:
            exchange.send_ns = time.monotonic_ns()
        try:
            sent = sock.send(client.unsent)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError:
            self._broke(client, "reset", time.monotonic_ns())
            return
        client.used = True
        client.unsent = client.unsent[sent:]
        if not client.unsent:
            exchange.sent_ns = time.monotonic_ns()
        wanted = select.EPOLLIN | (select.EPOLLOUT if client.unsent else 0)
        if client.events != wanted:
            self._await(client, wanted)

    def _receive(self, client: _Client) -> None:
        sock = client.sock
        assert sock is not None
        failed = False
        try:
            data, ancillary = _read(sock)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data, ancillary, failed = b"", (), True
        now = time.monotonic_ns()
        if client.exchange is None:
            self._drop(client)
            return
        if failed:
            self._broke(client, "reset", now)
            return
        if not data:
            client.response.end()
            if not client.response.complete:
                self._broke(client, "early_close", now)
                return
        else:
            client.reads.append((now, ancillary, data))
            try:
                client.response.feed(data)
            except FramingError:
                self._fail(client, "protocol", now)
                return
        if client.response.complete:
            self._finish(client, now)

    def _finish(self, client: _Client, now: int) -> None:
        _ask_kernel(client)
        if client.unsent or not self._reuse or not client.response.reusable:
            self._drop(client)
        if self._end(client, now):
            if self._think_ns:
                self._wait(client, now + self._think_ns)
            else:
                self._next(client, now)

    def _broke(self, client: _Client, error: str, now: int) -> None:
        """The connection ended under a request: if it was a kept one and brought no byte, ask again on a new one."""
        exchange = client.exchange
        assert exchange is not None
        if not exchange.connection_reused or client.reads:
            self._fail(client, error, now)
            return
        exchange.retried, exchange.connection_reused, exchange.sent_ns = True, False, None
        client.response, client.unsent = Response(), memoryview(client.request)
        self._drop(client)
        self._connect(client)

    def _fail(self, client: _Client, error: str, now: int, problem: str | None = None) -> None:
        assert client.exchange is not None
        client.exchange.error, client.exchange.problem = error, problem
        _ask_kernel(client)
        self._drop(client)
        if self._end(client, now):
            self._wait(client, now + self._think_ns)

    def _lose(self, client: _Client, error: str, problem: str) -> None:
        """A connection could not be opened: the exchange that waits for it fails, if there is one."""
        if client.exchange is not None:
            self._fail(client, error, time.monotonic_ns(), problem)
        else:
            self._drop(client)

    def _end(self, client: _Client, now: int) -> bool:
        """End the exchange under way; return whether the client's closed loop has another request."""
        assert client.exchange is not None
        client.exchange.end_ns = now
        client.exchange.status = client.response.status
        client.exchange = None
        if self._schedule is not None:
            self._schedule.idle.append(client)
            self._active -= 1
            return False
        more = client.next < len(client.requests)
        self._active -= not more
        return more

    # -- after the run

    def _stamp(self, offset_start: int, offset_end: int) -> tuple[str, int]:
        """Give each exchange its pieces with the best stamps; return (source, exchanges with read stamps)."""
        steady = abs(offset_end - offset_start) <= MAX_CLOCK_STEP_NS
        offset = (offset_start + offset_end) // 2
        kernel, fallbacks = 0, 0
        for exchange, reads in self._raw:
            if not reads:
                continue
            stamped = [(_kernel_stamp(ancillary, offset), read_ns, data) for read_ns, ancillary, data in reads]
            if not steady or any(stamp is None or stamp > read_ns for stamp, read_ns, _ in stamped):
                fallbacks += 1
                exchange.pieces = [(read_ns, data) for read_ns, _, data in reads]
                continue
            kernel += 1
            exchange.pieces = [(stamp, data) for stamp, _, data in stamped if stamp is not None]
            if exchange.error is None and exchange.end_ns == reads[-1][0]:
                exchange.end_ns = exchange.pieces[-1][0]
        return ("kernel", fallbacks) if kernel else ("read", fallbacks)


def _new_socket(client: _Client, address: _Address) -> socket.socket:
    sock = socket.socket(*address[:3])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if client.tls is not None:
        return client.tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=client.target.name)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


def _read(sock: socket.socket) -> tuple[bytes, Sequence[_Ancillary]]:
    if isinstance(sock, ssl.SSLSocket):
        data = sock.recv(READ_BYTES)
        while sock.pending():
            data += sock.recv(READ_BYTES)
        return data, ()
    data, ancillary, _, _ = sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
    return data, ancillary


def _ask_kernel(client: _Client) -> None:
    """Put down what the kernel knows of the path to the server, after the request has ended."""
    if client.sock is None or client.exchange is None or not hasattr(socket, "TCP_INFO"):
        return
    info = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return
    shortest = int.from_bytes(info[_SHORTEST_RTT_US : _SHORTEST_RTT_US + 4], sys.byteorder)
    again = int.from_bytes(info[_TOTAL_RETRANSMITS : _TOTAL_RETRANSMITS + 4], sys.byteorder)
    client.exchange.round_trip_ns = None if shortest == _UNKNOWN_RTT else shortest * 1000
    client.exchange.retransmits = again - client.retransmits
    client.retransmits = again


def _kernel_stamp(ancillary: Sequence[_Ancillary], offset_ns: int) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds - offset_ns)
    return None


def _closed_by_peer(sock: socket.socket) -> bool:
    """Return whether an idle connection has been closed or has bytes that nobody asked for."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.recv(1)
        else:
            sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True
