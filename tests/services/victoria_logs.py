"""A real VictoriaLogs of the test's own, as `deploy/start` runs it: it takes what Grafana Loki takes."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BINARY = CACHE / "aifbench" / "victoria-logs" / "victoria-logs"
MISSING = "VictoriaLogs is not built: tests/tools/build-victoria-logs"
PUSH = "/insert/loki/api/v1/push"
READY_S = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Store:
    """Where it answers, and how it is asked."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.url, self.pid = f"http://127.0.0.1:{port}", pid
        self.credentials = folder / "aifbench" / "deploy" / "credentials-victoria-logs"

    @property
    def headers(self) -> dict[str, str]:
        text = self.credentials.read_bytes().strip()
        return {"Authorization": "Basic " + base64.b64encode(text).decode()}

    def query(self, expression: str) -> list[dict[str, str]]:
        """Return the lines that a LogsQL expression finds, oldest first."""
        answer = httpx.post(
            f"{self.url}/select/logsql/query", data={"query": expression}, headers=self.headers, timeout=30
        )
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return sorted(map(json.loads, answer.text.splitlines()), key=lambda line: line.get("_time", "").rstrip("Z"))


@contextlib.contextmanager
def running(folder: Path, port: int | None = None) -> Iterator[Store]:
    """Run `deploy/start victoria-logs` with `folder` as the state of the user (it may be one of before).

    Skips where it is not built.
    """
    if not BINARY.exists():
        pytest.skip(MISSING)
    port = port or free_port()
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CACHE_HOME": str(CACHE)}
    command = [str(ROOT / "deploy" / "start"), "victoria-logs", "--port", str(port)]
    folder.mkdir(exist_ok=True)
    with open(folder / "output.txt", "ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    store = Store(folder, port, process.pid)
    try:
        await_ready(store, process, folder / "output.txt")
        yield store
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(store: Store, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until it answers; fail with its own words when it ends before, or takes too long."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError, FileNotFoundError):
            if httpx.get(f"{store.url}/metrics", headers=store.headers, timeout=2).status_code == 200:
                return
        assert process.poll() is None, output.read_text()[-2000:]
        time.sleep(0.1)
    raise AssertionError(f"not ready after {READY_S} s: {output.read_text()[-2000:]}")
