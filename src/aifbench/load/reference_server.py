"""A server with planted truth: it streams tokens at absolute deadlines and says in each answer when it really wrote.

It speaks enough of OpenAI's chat API for the whole path of the client to be tried on it. The body's field `planted`
says what to do, see `Plan`. The last event of an answer carries `planted`: `received_ns` and `written_ns` (the time
before each token was given to the kernel), both CLOCK_MONOTONIC, comparable with a client on the same machine.
With a log file the same is kept there, a JSON line per complete answer, for clients that do not hand it on.

Run: `python -m aifbench.load.reference_server PARENT [LOG]`; it prints its port and ends on SIGTERM or with its parent.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

import orjson

from aifbench.load.timer import Timer
from aifbench.processes.die_with_parent import die_with_parent


@dataclass(frozen=True)
class Plan:
    """What one answer shall be."""

    ttft_ms: float = 10.0
    """From the request's last byte to the first token."""
    ttft_ms_per_other: float = 0.0
    """More of it for each other answer that is under way when the request comes."""
    gap_ms: float = 5.0
    tokens: int = 8
    prompt_tokens: int = 16
    cached_tokens: int | None = None
    stall_after: int | None = None
    """Token after which nothing comes for `stall_ms`."""
    stall_ms: float = 0.0
    status: int = 200
    fault: str = ""
    """`reset`: the connection is reset, `early_close`: it is closed, `error_event`: an error comes, after 2 tokens."""
    role_first: bool = False
    """Whether an empty chunk with the role is sent at once, before the first token is ready."""

    def deadlines_ns(self) -> Iterator[int]:
        """Yield when each token is due, in ns after the request."""
        late = 0.0
        for index in range(self.tokens):
            if self.stall_after is not None and index == self.stall_after:
                late = self.stall_ms
            yield int((self.ttft_ms + index * self.gap_ms + late) * 1e6)


class _Connection:
    """One connection: what of a request has come, the answer under way, bytes that the kernel would not take yet."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.got = bytearray()
        self.unsent = bytearray()
        self.plan: Plan | None = None
        self.received = 0
        self.due: list[int] = []
        self.written: list[int] = []
        self.head, self.body = b"", b""


class _Server:
    """Answers all connections in one thread, each token when it is due."""

    def __init__(self, log: IO[bytes] | None = None) -> None:
        self._log = log
        self._connections = count()
        self._selector = selectors.DefaultSelector()
        self._timer = Timer()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._listener.setblocking(False)
        self._coming: list[tuple[int, int, _Connection]] = []
        """Tokens that are due: (when, number of the connection, connection)."""
        self._numbers = count()
        self._under_way = 0
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Serve until the process ends."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._timer, selectors.EVENT_READ, self._timer.clear)
        while True:
            now = time.monotonic_ns()
            while self._coming and self._coming[0][0] <= now:
                self._token(heapq.heappop(self._coming)[2])
            if self._coming:
                self._timer.set(self._coming[0][0])
            for key, mask in self._selector.select():
                if isinstance(key.data, _Connection):
                    self._ready(key.data, mask)
                else:
                    key.data()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, _Connection(sock, next(self._connections)))

    def _ready(self, connection: _Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._send(connection, b"")
            return
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.got += data
        self._request(connection)

    def _request(self, connection: _Connection) -> None:
        """Begin the answer to a request that is there as a whole, unless one is under way."""
        head, separator, rest = connection.got.partition(b"\r\n\r\n")
        if not separator or connection.plan is not None:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":", 1)[1])
        if len(rest) < length:
            return
        connection.received = time.monotonic_ns()
        body, connection.got = bytes(rest[:length]), bytearray(rest[length:])
        plan = Plan(**orjson.loads(body).get("planted", {})) if body else Plan()
        if plan.status != 200:
            error = orjson.dumps({"error": {"message": f"planted {plan.status}"}})
            self._send(
                connection, b"HTTP/1.1 %d planted\r\nContent-Length: %d\r\n\r\n%b" % (plan.status, len(error), error)
            )
            return
        begin = connection.received + int(1e6 * plan.ttft_ms_per_other * self._under_way)
        connection.plan, connection.written = plan, []
        connection.head, connection.body = bytes(head), body
        connection.due = [begin + due for due in plan.deadlines_ns()]
        self._under_way += 1
        self._send(
            connection, HEAD + (_chunk(_delta({"role": "assistant", "content": ""})) if plan.role_first else b"")
        )
        self._await(connection)

    def _await(self, connection: _Connection) -> None:
        due = connection.due[len(connection.written)]
        heapq.heappush(self._coming, (due, next(self._numbers), connection))

    def _token(self, connection: _Connection) -> None:
        plan, index = connection.plan, len(connection.written)
        if plan is None:  # the client has gone
            return
        if plan.fault and index == 2:
            self._break_off(connection, plan.fault)
            return
        data = _token_chunk(index)
        connection.written.append(time.monotonic_ns())
        self._send(connection, data)
        if index + 1 < plan.tokens:
            self._await(connection)
        else:
            self._send(connection, _end(plan, connection))
            if self._log is not None:
                self._log.write(_log_line(connection))
            self._ended(connection)
            self._request(connection)

    def _ended(self, connection: _Connection) -> None:
        self._under_way -= connection.plan is not None
        connection.plan = None

    def _break_off(self, connection: _Connection, fault: str) -> None:
        if fault == "error_event":
            self._send(connection, _chunk({"error": {"message": "planted error", "code": 500}}) + b"0\r\n\r\n")
            self._ended(connection)
            return
        if fault == "reset":
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        connection.unsent += data
        try:
            while connection.unsent:
                del connection.unsent[: connection.sock.send(connection.unsent)]
        except BlockingIOError:
            self._selector.modify(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
            return
        except OSError:
            self._close(connection)
            return
        if not data:  # it was waiting for the kernel to take more
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _close(self, connection: _Connection) -> None:
        self._ended(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _end(plan: Plan, connection: _Connection) -> bytes:
    """Return what follows the last token: reason, usage and truth, end of the stream."""
    details = {} if plan.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": plan.cached_tokens}}
    usage = {"prompt_tokens": plan.prompt_tokens, "completion_tokens": plan.tokens, **details}
    truth = {"received_ns": connection.received, "written_ns": connection.written}
    return (
        _chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        + _chunk({"choices": [], "usage": usage, "planted": truth})
        + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )


def _log_line(connection: _Connection) -> bytes:
    """Return one answer's truth and what tells its request: number of the connection, X-Request-ID, messages."""
    ids = [
        line.split(b":", 1)[1] for line in connection.head.split(b"\r\n") if line.lower().startswith(b"x-request-id:")
    ]
    line = {
        "connection": connection.number,
        "request_id": ids[0].strip().decode() if ids else None,
        "messages": orjson.loads(connection.body).get("messages") if connection.body else None,
        "received_ns": connection.received,
        "written_ns": connection.written,
    }
    return orjson.dumps(line) + b"\n"


@cache
def _token_chunk(index: int) -> bytes:
    return _chunk(_delta({"content": f"t{index} "}))


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _chunk(event: dict[str, Any]) -> bytes:
    data = b"data: " + orjson.dumps({"object": "chat.completion.chunk", **event}) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _main(log: str | None) -> None:
    # Unbuffered, so that all is there when the server is ended.
    with open(log, "ab", buffering=0) if log else contextlib.nullcontext() as file:
        server = _Server(file)
        gc.disable()
        print(server.port, flush=True)
        server.serve()


@contextlib.contextmanager
def reference_server(log: Path | None = None) -> Iterator[str]:
    """Run the server in a process of its own; give its base URL. `log`: a file for the truth of each answer."""
    command = [sys.executable, "-m", "aifbench.load.reference_server", str(os.getpid()), *([str(log)] if log else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reference server did not start (exit code {process.wait()})")
        yield f"http://127.0.0.1:{int(line)}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    _main(sys.argv[2] if len(sys.argv) > 2 else None)
