"""A server with planted truth: it streams tokens at absolute deadlines and says in each answer when it really wrote.

It speaks enough of OpenAI's chat API for the whole path of the client to be tried on it. The body's field `planted`
says what to do, see `Plan`. The last event of an answer carries `planted`: `received_ns` and `written_ns` (the time
before each token was given to the kernel), both CLOCK_MONOTONIC, comparable with a client on the same machine.

Run: `python -m aifbench.load.planted`; it prints its port and ends on SIGTERM or with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from aifbench.runner.leash import die_with_parent


@dataclass(frozen=True)
class Plan:
    """What one answer shall be."""

    ttft_ms: float = 10.0
    """From the request's last byte to the first token."""
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


async def _answer(plan: Plan, writer: asyncio.StreamWriter, received: int) -> bool:
    """Write one answer; return whether the connection may be used again."""
    if plan.status != 200:
        body = orjson.dumps({"error": {"message": f"planted {plan.status}"}})
        writer.write(b"HTTP/1.1 %d planted\r\nContent-Length: %d\r\n\r\n%b" % (plan.status, len(body), body))
        return True
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    if plan.role_first:
        writer.write(_chunk(_delta({"role": "assistant", "content": ""})))
    written: list[int] = []
    for index, due in enumerate(plan.deadlines_ns()):
        if plan.fault and index == 2:
            return _break_off(plan.fault, writer)
        data = _chunk(_delta({"content": f"t{index} "}))
        await asyncio.sleep(max(0, received + due - time.monotonic_ns()) / 1e9)
        written.append(time.monotonic_ns())
        writer.write(data)
    details = {} if plan.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": plan.cached_tokens}}
    usage = {"prompt_tokens": plan.prompt_tokens, "completion_tokens": plan.tokens, **details}
    writer.write(_chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))
    truth = {"received_ns": received, "written_ns": written}
    writer.write(_chunk({"choices": [], "usage": usage, "planted": truth}))
    done = b"data: [DONE]\n\n"
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
    return True


def _break_off(fault: str, writer: asyncio.StreamWriter) -> bool:
    if fault == "error_event":
        writer.write(_chunk({"error": {"message": "planted error", "code": 500}}) + b"0\r\n\r\n")
    if fault == "reset":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return fault == "error_event"


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _chunk(event: dict[str, Any]) -> bytes:
    data = b"data: " + orjson.dumps(event) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        again = True
        while again:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":", 1)[1])
            body = await reader.readexactly(length)
            received = time.monotonic_ns()
            plan = Plan(**orjson.loads(body).get("planted", {})) if body else Plan()
            again = await _answer(plan, writer, received)
            await writer.drain()
    writer.close()


async def _main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    server.close()


@contextlib.contextmanager
def planted_server() -> Iterator[str]:
    """Run the server in a process of its own; give its base URL."""
    command = [sys.executable, "-m", "aifbench.load.planted", str(os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the planted server did not start (exit code {process.wait()})")
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
    asyncio.run(_main())
