"""A real Grafana Loki of the test's own, with the configuration that the project ships."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aifbench"
BINARY = CACHE / "loki" / "loki"
READY_S = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def running_loki(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run Loki with its data in `folder` (it may be one of before); give its base URL. Skips where it is not built."""
    if not BINARY.exists():
        pytest.skip("Loki is not built: tests/tools/build-loki")
    port = port or free_port()
    variables = {"DATA": str(folder), "PORT": str(port), "GRPC_PORT": str(free_port())}
    command = [str(BINARY), f"-config.file={ROOT / 'deploy/loki/loki.yaml'}", "-config.expand-env=true"]
    folder.mkdir(exist_ok=True)
    with open(folder / "output.txt", "ab") as output:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, folder / "output.txt")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until Loki is ready; fail with its own words when it ends before, or takes too long."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                return
        assert process.poll() is None, output.read_text()[-2000:]
        time.sleep(0.1)
    raise AssertionError(f"Loki was not ready after {READY_S} s: {output.read_text()[-2000:]}")


def query(url: str, expression: str, since_s: float = 3600) -> list[dict[str, object]]:
    """Return the streams or series of a LogQL expression over the last `since_s` seconds."""
    now = time.time()
    times = {"start": str(int((now - since_s) * 1e9)), "end": str(int((now + 60) * 1e9))}
    answer = httpx.get(
        f"{url}/loki/api/v1/query_range", params={"query": expression, "limit": 5000, **times}, timeout=30
    )
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    return list(answer.json()["data"]["result"])
