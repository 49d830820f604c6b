"""The live stream of the services: from a file to a real browser, to many readers at once, and after a restart.

One server process of the real application (guard, routes, Unix socket), its readers in another process; both share
this machine, so times are upper bounds.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ROOT = Path(__file__).parents[1]
SAMPLES = 60
READERS, RATE_HZ, SECONDS, EVENT_BYTES = 100, 10.0, 20.0, 350
RUNS = 1000
MOST_FILE_S, MOST_EVENT_MS, MOST_CORES, MOST_START_S = 1.5, 15.0, 0.05, 2.0
BLOCK = 1 << 16
_STAMP = re.compile(rb'"t":(\d+)')


def measure() -> list[dict[str, Any]]:
    """Return the rows: file to browser, fan-out alone and beside a stuck reader, start with many runs."""
    rows = [_row("file_to_browser_p99", _file_to_browser(), "s", MOST_FILE_S)]
    calm, cores = _fan_out(stuck=0)
    rows.append(_row(f"event_delay_p99_{READERS}_readers", calm, "ms", MOST_EVENT_MS))
    rows.append(_row(f"server_cpu_{READERS}_readers_10_hz", cores, "cores", MOST_CORES))
    beside, _ = _fan_out(stuck=1)
    rows.append(_row(f"event_delay_p99_{READERS}_readers_and_a_stuck_one", beside, "ms", MOST_EVENT_MS))
    rows.append(_row(f"start_of_monitor_with_{RUNS}_runs", _start_with_runs(), "s", MOST_START_S))
    return rows


# -- file to browser ----------------------------------------------------------------------------------------------

_WATCH = """() => {
  window.seen = {};
  const value = document.querySelector(".chart .value");
  const look = () => {
    const found = /worker ([0-9.]+) cores/.exec(value.textContent);
    if (found && !(found[1] in window.seen)) window.seen[found[1]] = Date.now() / 1000;
  };
  new MutationObserver(look).observe(value, { childList: true, characterData: true, subtree: true });
}"""


def _file_to_browser() -> float | None:
    """Return the p99 of the time from the write of a sample to its value on the page, with samples at about 1 Hz."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    from tests.browser.chromium import ARGUMENTS, EXECUTABLE
    from tests.services.batches import Batch
    from tests.services.live import Live

    if not EXECUTABLE.exists():
        return None
    written: dict[str, float] = {}
    pause = random.Random(1)
    with tempfile.TemporaryDirectory() as name, Live(name, "monitor", tcp=0) as server, sync_playwright() as started:
        batch = Batch(server.results).start()
        batch.sample(0.0)
        batch.sample(1.0)
        address = server.said().split("127.0.0.1:")[1].split("/")[0]
        browser = started.chromium.launch(executable_path=str(EXECUTABLE), args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{address}/#token={server.token()}")
        page.locator("nav a").first.wait_for()
        page.evaluate("location.hash = '#/monitor'")
        page.locator("tr[data-job] a").first.click()
        page.locator(".chart .value").first.wait_for()
        page.evaluate(_WATCH)
        for number in range(2, SAMPLES + 2):
            page.wait_for_timeout(1000 * pause.uniform(0.8, 1.2))
            value = number / 100
            written[f"{value:.2f}"] = time.time()
            batch.sample(float(number), cpu=value)
        page.wait_for_timeout(3000)
        seen = page.evaluate("window.seen")
        browser.close()
    # A value that a later one replaced within the same poll was never on the page by itself: its delay is the later's.
    moments = sorted((float(value), moment) for value, moment in seen.items())
    delays = []
    for value, moment in written.items():
        shown = [at for later, at in moments if later >= float(value)]
        if not shown:
            return None
        delays.append(min(shown) - moment)
    return float(np.quantile(delays, 0.99))


# -- fan-out ------------------------------------------------------------------------------------------------------


def _fan_out(stuck: int) -> tuple[float, float]:
    """Return the p99 of the delay of all events at all readers in ms, and the server's CPU in cores."""
    with tempfile.TemporaryDirectory() as name, _pulse_server(Path(name)) as (process, token):
        path = Path(name) / "s.sock"
        readers = [_connect(path, token, "pulse") for _ in range(READERS)]
        idle = [_connect(path, token, "pulse,block") for _ in range(stuck)]
        _read(readers, 1.5)  # what waited while they connected is not late
        before, began = _cpu_s(process.pid), time.monotonic()
        delays = _read(readers, SECONDS)
        cores = (_cpu_s(process.pid) - before) / (time.monotonic() - began)
        for each in (*readers, *idle):
            each.close()
    expected = READERS * RATE_HZ * (SECONDS - 1)
    if len(delays) < expected:
        raise RuntimeError(f"{len(delays)} events came, at least {expected:.0f} were sent")
    return 1e3 * float(np.quantile(delays, 0.99)), cores


@contextmanager
def _pulse_server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = [sys.executable, "-m", "benchmarks.services_stream", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        token = process.stdout.readline().decode().strip()
        try:
            yield process, token
        finally:
            process.send_signal(signal.SIGTERM)


def _connect(path: Path, token: str, topics: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.connect(str(path))
    head = f"GET /api/v1/pulse?topics={topics} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    found.sendall(head.encode())
    return found


def _read(readers: list[socket.socket], seconds: float) -> list[float]:
    """Return the delays in s of all events that arrive within `seconds` (CLOCK_MONOTONIC of one machine)."""
    poll = select.epoll()
    by_number = {reader.fileno(): reader for reader in readers}
    rest = dict.fromkeys(by_number, b"")
    for reader in readers:
        reader.setblocking(False)
        poll.register(reader.fileno(), select.EPOLLIN)
    delays = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left):
            data = rest[number] + by_number[number].recv(1 << 20)
            now = time.monotonic_ns()
            *events, rest[number] = data.split(b"\n\n")
            for event in events:
                if (found := _STAMP.search(event)) is not None:
                    delays.append((now - int(found[1])) / 1e9)
    poll.close()
    return delays


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve_pulse(folder: Path) -> None:
    """Serve one event of `EVENT_BYTES` at 10 Hz, and, for a reader that is stuck, blocks that fill it."""
    import uvicorn

    from aifbench.services.app import create_app
    from aifbench.services.guard import needs
    from aifbench.services.serve import OwnPeersOnly, bind_unix
    from aifbench.services.service import Service
    from aifbench.services.settings import Limits, Settings
    from aifbench.services.stream import EventStream, Hub
    from aifbench.services.tokens import Tokens

    class Pulse(Service):
        name: ClassVar[str] = "pulse"

        async def start(self) -> None:
            self.task = asyncio.get_running_loop().create_task(self.beat())

        async def stop(self) -> None:
            self.task.cancel()

        async def beat(self) -> None:
            due = time.monotonic()
            block = b'{"block":"' + b"x" * BLOCK + b'"}'
            while True:
                now = b'{"t":%d,"x":"' % time.monotonic_ns()
                hub.publish(now + b"x" * (EVENT_BYTES - len(now)) + b'"}', "pulse", "pulse")
                hub.publish(block, "block", "block")
                due += 1 / RATE_HZ
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    settings = Settings(folder, folder, folder / "state", folder, Limits(streams=2 * READERS))
    hub, service = Hub(), Pulse(settings)

    @service.router.get("/pulse", dependencies=[needs("read")])
    async def pulse(topics: str) -> Any:
        stream: EventStream = hub.subscribe(frozenset(topics.split(",")).__contains__)
        return stream

    tokens = Tokens(settings.state)
    listener, _ = bind_unix(folder / "s.sock")
    listener.listen(2 * READERS)
    app = create_app(settings, [service], tokens)
    print(tokens["read"], flush=True)
    config = uvicorn.Config(app, http=OwnPeersOnly, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve([listener]))


# -- restart ------------------------------------------------------------------------------------------------------


def _start_with_runs() -> float:
    """Return the time from the start of the server's process until it has read the files of all runs, best of three."""
    from tests.services.batches import Batch
    from tests.services.live import Live

    with tempfile.TemporaryDirectory() as name:
        server = Live(name, "monitor")
        for number in range(RUNS):
            batch = Batch(server.results, campaign=f"run-{number}", name=f"storage-x-{number:08x}").start()
            for second in range(30):
                batch.sample(float(second), records=second)
            if number % 50:
                batch.end()
            else:
                batch.lock.release()
                batch.own(host="elsewhere")
        times = []
        for _ in range(3):
            began = time.monotonic()
            with server:
                while server.get("/readyz").status != 200:
                    time.sleep(0.01)
                times.append(time.monotonic() - began)
                count = len(server.get("/api/v1/jobs?state=all&most=1000").json()["jobs"])
                if count != RUNS:
                    raise RuntimeError(f"{count} of {RUNS} runs are shown")
    return min(times)


def _row(name: str, value: float | None, unit: str, most: float) -> dict[str, Any]:
    met = None if value is None else value <= most
    return {"id": name, "value": value, "unit": unit, "goal": f"<= {most:g}", "met": met}


if __name__ == "__main__":
    _serve_pulse(Path(sys.argv[1]))
