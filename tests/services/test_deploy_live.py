"""Every expression of the dashboards on a real Prometheus or VictoriaLogs, behind a real `aifbench serve` at work."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.services.busy import busy_batch
from tests.services.deployed import DEPLOY, METRICS, RULES, expressions, filled, in_logsql
from tests.services.live import Live
from tests.services.victoria_logs import BINARY, MISSING, PUSH, Store, free_port, running

RUN = "demo"
PARTS = ("fleet", "run", "job", "services")


@dataclass(frozen=True)
class At:
    """Where everything answers, and the values of the dashboards' variables."""

    server: Live
    prometheus: str
    logs: Store | None
    values: dict[str, str]


@contextlib.contextmanager
def prometheus(folder: Path, server: Live, target: str) -> Iterator[str]:
    """Run Prometheus with our configuration, but a step of one second; give its base URL."""
    folder.mkdir()
    shutil.copytree(DEPLOY / "prometheus" / "rules", folder / "rules")
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(re.sub(r"_interval: 15s", "_interval: 1s", text))
    (folder / "token-read").symlink_to(server.tokens / "token-read")
    (folder / "targets.json").write_text(f'[{{"targets": ["{target}"]}}]')
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        await_ready(f"http://127.0.0.1:{port}", folder / "output.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def await_ready(url: str, output: Path) -> None:
    """Wait until a Prometheus answers."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/-/ready", timeout=10).status_code == 200:
                return
        assert time.monotonic() < end, output.read_text()
        time.sleep(0.2)


def instant(url: str, expression: str) -> list[object]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10)
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    return list(answer.json()["data"]["result"])


@pytest.fixture(scope="module")
def at_work(tmp_path_factory) -> Iterator[At]:
    """A server with a batch that runs, a launch, a log configuration, statements; Prometheus; VictoriaLogs if built."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed")
    folder = tmp_path_factory.mktemp("at-work")
    with contextlib.ExitStack() as stack:
        logs = stack.enter_context(running(folder / "logs")) if BINARY.exists() else None
        project = folder / "server" / "project"
        (project / "config").mkdir(parents=True)
        if logs is not None:
            target = f"{{url: '{logs.url}{PUSH}', credentials: '{logs.credentials}'}}"
            (project / "config" / "logging.yaml").write_text(f"loki: {target}\n")
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        server = Live(folder / "server", tcp=free_port())
        server.results.mkdir(parents=True)
        batch = stack.enter_context(busy_batch(server.results, RUN, monkeypatch))
        stack.enter_context(server)
        talk(server, batch)
        target = server.said().split("http://")[1].split("/")[0]
        url = stack.enter_context(prometheus(folder / "prometheus", server, target))
        await_metrics(url)
        yield At(server, url, logs, {"run_id": RUN, "task": batch})


def talk(server: Live, batch: str) -> None:
    """Make the server count something of everything."""
    assert server.post("/api/v1/runs", {"benchmark": "none-such"}).status >= 400
    assert [run["id"] for run in server.get("/api/v1/runs").json()["runs"]] == [RUN]
    soon = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    assert server.ask("PUT", "/api/v1/log/configs/all", {"logLevel": 0, "expires_at": soon}).status in {200, 201}
    for level in range(3):
        said = {"level": level, "msg": f"level {level}", "run": RUN, "batch": batch, "service": "job"}
        answer = server.post("/api/v1/log", said)
        assert answer.json()["written"] == 1, answer.body


def await_metrics(url: str) -> None:
    """Wait until rates of one minute have what they need, and rules that build on rules are known."""
    end = time.monotonic() + 60
    while not instant(url, "task:aif_task_cpu_used:ratio > 0"):
        assert time.monotonic() < end, "no rates came about"
        time.sleep(0.5)
    time.sleep(3)


def test_a_real_server_has_every_metric_that_may_be_asked_for(at_work: At) -> None:
    text = at_work.server.get("/metrics", token="read").body.decode()
    there = set(re.findall(r"^(aif_\w+)(?:\{| )", text, re.MULTILINE))
    assert METRICS - {"up", "ALERTS"} <= there, f"gone: {METRICS - there}"
    for name in RULES | {"up"}:
        assert instant(at_work.prometheus, name), f"{name} has no value"


@pytest.mark.parametrize("part", PARTS)
def test_every_expression_of_prometheus_has_an_answer(at_work: At, part: str) -> None:
    asked = [(title, filled(text, **at_work.values)) for title, kind, text in expressions(part) if kind == "prometheus"]
    assert not [(title, expression) for title, expression in asked if not instant(at_work.prometheus, expression)]


def test_alerts_are_evaluated_without_errors(at_work: At) -> None:
    groups = httpx.get(f"{at_work.prometheus}/api/v1/rules", timeout=10).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
    assert states.pop("AifGpuIdle") == "pending"  # the planted second GPU; it fires after ten minutes
    assert states.pop("AifLogConfigExpiresSoon") == "firing"
    assert set(states.values()) == {"inactive"}, states


@pytest.mark.parametrize("part", PARTS)
def test_every_expression_of_the_log_finds_what_was_pushed(at_work: At, part: str) -> None:
    """Labels and fields that the dashboards ask for are those of the lines; that Loki understands them is not asked."""
    if at_work.logs is None:
        pytest.skip(MISSING)
    asked = [
        (title, in_logsql(filled(text, **at_work.values))) for title, kind, text in expressions(part) if kind == "loki"
    ]
    assert asked or part == "fleet"
    for title, expression in asked:
        end = time.monotonic() + 20
        while not (found := at_work.logs.query(expression)):
            assert time.monotonic() < end, f"{title}: {expression} has no answer"
            time.sleep(0.5)
        if "stats by" in expression:
            assert all(len(one) == 2 and all(one.values()) for one in found), found
        else:
            assert all(set(one) <= FIELDS for one in found), found


FIELDS = {
    "_time", "_msg", "_stream", "_stream_id", "app", "cluster", "service", "level", "run_id", "benchmark", "batch",
    "case", "node", "sender",
}  # fmt: skip
"""What a line has: VictoriaLogs' own, then our labels and metadata."""


def test_a_line_says_which_run_it_belongs_to(at_work: At) -> None:
    if at_work.logs is None:
        pytest.skip(MISSING)
    found = at_work.logs.query(in_logsql(f'{{app="aifbench", level="warning"}} | run_id=`{RUN}`'))
    assert [line["_msg"] for line in found] == ["level 1"]
