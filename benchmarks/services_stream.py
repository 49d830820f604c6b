"""What an event stream costs: 100 readers at 10 Hz over the Unix socket, beside one that reads nothing.

Readers and server are processes of their own; CPU is the server's, latency is from the reader's clock, which on one
machine is the server's (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.responses import Response

from aifbench.services import serve as server
from aifbench.services.guard import needs
from aifbench.services.service import Service
from aifbench.services.settings import Limits, Settings
from aifbench.services.stream import Hub

READERS = 100
RATE_HZ = 10
SECONDS = 10
EVENT_BYTES = 350
BLOCK_BYTES = 1 << 16
"""What the stuck reader is sent besides, so that its socket is full at once."""
GOAL_P99_MS = 15.0
GOAL_CPU = 0.05


def measure() -> list[dict[str, Any]]:
    """Return the 99th percentile of the time from publishing to reading, and the server's part of a core."""
    with tempfile.TemporaryDirectory(prefix="aif-") as folder:
        root = Path(folder)
        command = [sys.executable, "-m", "benchmarks.services_stream", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        try:
            path = root / "run" / "serve.sock"
            while not path.exists():
                time.sleep(0.05)
            time.sleep(1.0)
            token = (root / "state" / "token-read").read_text().strip()
            stuck = connect(path, token, "?blocks=true")
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            readers = [connect(path, token) for _ in range(READERS)]
            time.sleep(1.0)
            before, start = cpu_seconds(process.pid), time.monotonic()
            late = read(readers, start, start + SECONDS)
            cpu = (cpu_seconds(process.pid) - before) / (time.monotonic() - start)
            for connection in [stuck, *readers]:
                connection.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    expected = READERS * RATE_HZ * SECONDS
    assert len(late) > 0.9 * expected, f"{len(late)} of {expected} events arrived"
    p99 = statistics.quantiles(late, n=100)[98] * 1e3
    rows = (("p99", p99, "ms", GOAL_P99_MS), ("cpu", cpu, "cores", GOAL_CPU))
    return [
        {"id": f"stream_100_readers_{name}", "value": value, "unit": unit, "goal": f"<= {goal:g}", "met": value <= goal}
        for name, value, unit, goal in rows
    ]


def connect(path: Path, token: str, query: str = "") -> socket.socket:
    """Open one stream."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    head = f"GET /api/v1/ticks{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def read(readers: list[socket.socket], since: float, until: float) -> list[float]:
    """Read all streams until a time (CLOCK_MONOTONIC, s); return how late each event published `since` came (s)."""
    stamp = re.compile(rb'"t":(\d+)')
    late = []
    with selectors.DefaultSelector() as waiting:
        for reader in readers:
            reader.setblocking(False)
            waiting.register(reader, selectors.EVENT_READ)
        while (now := time.monotonic()) < until:
            for key, _ in waiting.select(until - now):
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                arrived = time.monotonic_ns()
                late += [(arrived - int(found)) / 1e9 for found in stamp.findall(data) if int(found) >= since * 1e9]
    return late


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads (s)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ticks(Service):
    """Publishes an event of 350 bytes ten times a second."""

    name = "ticks"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.hub = Hub()

        @self.router.get("/ticks", dependencies=[needs("read")], response_class=Response)
        async def ticks(blocks: bool = False) -> Response:
            return self.hub.subscribe(lambda topic: blocks or topic == "tick")

    async def start(self) -> None:
        """Begin to publish."""
        self.task = asyncio.create_task(self.publish())

    async def stop(self) -> None:
        """End the publishing."""
        self.task.cancel()

    async def publish(self) -> None:
        """Publish for ever."""
        while True:
            await asyncio.sleep(1 / RATE_HZ)
            head = b'{"t":%d,"x":"' % time.monotonic_ns()
            self.hub.publish(head + b"x" * (EVENT_BYTES - len(head) - 2) + b'"}', topic="tick")
            self.hub.publish(b'"%s"' % (b"x" * BLOCK_BYTES), topic="block")


if __name__ == "__main__":
    base = Path(sys.argv[1])
    limits = Limits(streams=READERS + 10)
    where = Settings(project=base, results=base, state=base / "state", runtime=base / "run", limits=limits)
    server.make_services = lambda settings, _names: [Ticks(settings)]
    server.serve(where, ["ticks"], lambda _text: None, here=False)
