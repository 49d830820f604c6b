"""Prometheus as `deploy/start` runs it: promtool is content, the rules do what they say, nobody else can ask."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.services.deployed import DEPLOY
from tests.services.live import Live
from tests.services.victoria_logs import PUSH, free_port, running

PROMETHEUS = DEPLOY / "prometheus"
pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_are_clean(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    shutil.copy(PROMETHEUS / "prometheus.yml", tmp_path)
    (tmp_path / "token-read").write_text("secret\n")
    (tmp_path / "targets.json").write_text('[{"targets": ["127.0.0.1:8091"]}]')
    said = promtool("check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))
    assert "2 rule files found" in said


def test_each_rule_and_alert_does_what_it_says() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(PROMETHEUS / "tests" / "rules_test.yml"))


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    tested = (PROMETHEUS / "tests" / "rules_test.yml").read_text()
    alerts = [
        line.split()[-1] for line in (PROMETHEUS / "rules" / "alerts.yml").read_text().splitlines() if "alert:" in line
    ]
    assert len(alerts) >= 10
    for alert in alerts:
        assert f"alertname: {alert}\n" in tested, f"{alert} is not tested"


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Path]:
    """Run `deploy/start prometheus` with `folder` as the state of the user; give its own folder."""
    command = [str(DEPLOY / "start"), "prometheus", *arguments]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    with (folder / "prometheus.txt").open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield folder / "state" / "aifbench" / "deploy"
        assert listens_at(process.pid) == {"127.0.0.1"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def listens_at(pid: int) -> set[str]:
    """Return the addresses at which a process takes connections."""
    found = psutil.Process(pid).net_connections("inet")
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


def ask(port: int, auth: tuple[str, str] | None, path: str = "/api/v1/targets") -> httpx.Response:
    end = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}", auth=auth, timeout=5)
        except httpx.HTTPError:
            assert time.monotonic() < end, "Prometheus does not answer"
            time.sleep(0.1)


def health(port: int, auth: tuple[str, str]) -> dict[str, str]:
    """Wait for the first scrape of the target and return it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for target in ask(port, auth).json()["data"]["activeTargets"]:
            if target["health"] != "unknown":
                return target
        time.sleep(0.2)
    raise AssertionError("nothing was scraped")


def test_scrapes_a_server_with_the_token_that_only_reads(tmp_path: Path) -> None:
    port = free_port()
    with Live(tmp_path, "monitor", tcp=free_port()) as server:
        target = server.said().split("http://")[1].split("/")[0]
        with started(tmp_path, "--target", target, "--port", str(port)) as folder:
            ask(port, None)
            auth = ("aifbench", (folder / "password-prometheus").read_text().strip())
            found = health(port, auth)
            assert found["health"] == "up", found["lastError"]
            assert found["scrapeUrl"] == f"http://{target}/metrics"

            assert ask(port, None).status_code == 401
            assert ask(port, ("aifbench", "wrong")).status_code == 401
            loaded = ask(port, auth, "/api/v1/rules").json()["data"]["groups"]
            assert {rule["health"] for group in loaded for rule in group["rules"]} <= {"ok", "unknown"}
            assert sum(len(group["rules"]) for group in loaded) >= 16

            secrets = [folder / "password-prometheus", folder / "prometheus" / "web.yml"]
            assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in (folder, *secrets)} == {0}
            assert auth[1] not in (folder / "prometheus" / "web.yml").read_text()
            assert auth[1] not in (tmp_path / "prometheus.txt").read_text()


def test_a_wrong_token_shows_as_a_server_that_is_down(tmp_path: Path) -> None:
    port = free_port()
    token = tmp_path / "another-token"
    token.write_text("x" * 43 + "\n")
    with Live(tmp_path, "monitor", tcp=free_port()) as server:
        target = server.said().split("http://")[1].split("/")[0]
        with started(tmp_path, "--target", target, "--port", str(port), "--token", str(token)) as folder:
            ask(port, None)
            auth = ("aifbench", (folder / "password-prometheus").read_text().strip())
            found = health(port, auth)
            assert found["health"] == "down"
            assert "401" in found["lastError"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prometheus"], "token-read: cannot be read; start 'aifbench serve' once"),
        (["prometheus", "--port", "80a"], "80a: a port is a number"),
        (["prometheus", "--target", "a b"], "a b: a target is HOST:PORT"),
        (["prometheus", "--target", '1:2"]}, {"x"'], "a target is HOST:PORT"),
        (["loki", "--what", "1"], "usage: deploy/start"),
        (["nginx"], "usage: deploy/start"),
        ([], "usage: deploy/start"),
    ],
)
def test_a_wrong_start_says_what_is_wrong(tmp_path: Path, arguments: list[str], said: str) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [str(DEPLOY / "start"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert said in done.stderr


def test_victoria_logs_is_started_on_the_loopback_with_a_password(tmp_path: Path) -> None:
    with running(tmp_path / "state") as store:
        folder = tmp_path / "state" / "aifbench" / "deploy"
        assert listens_at(store.pid) == {"127.0.0.1"}
        assert httpx.get(f"{store.url}/select/vmui/", timeout=5).status_code == 401
        assert httpx.post(f"{store.url}{PUSH}", json={"streams": []}, timeout=5).status_code == 401
        assert httpx.get(f"{store.url}/select/vmui/", headers=store.headers, timeout=5).status_code == 200
        secrets = [folder / "password-victoria-logs", store.credentials]
        assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in (folder, *secrets)} == {0}
        secret = secrets[0].read_text().strip()
        assert secret not in " ".join(psutil.Process(store.pid).cmdline())
        assert secret not in (tmp_path / "state" / "output.txt").read_text()


def test_loki_gets_its_configuration_its_folder_and_the_loopback(tmp_path: Path) -> None:
    """Loki is not built here: a program of its name says how it was started."""
    fake = tmp_path / "bin" / "loki"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\n[ "$1" = -version ] && { echo "loki, version 3.7.8"; exit; }\necho "arguments: $*"\nenv\n'
    )
    fake.chmod(0o755)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PATH": f"{fake.parent}:/usr/bin:/bin"}
    command = [str(DEPLOY / "start"), "loki", "--port", "3199"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert f"-config.file={DEPLOY}/loki/loki.yaml -config.expand-env=true" in said
    assert (found["DATA"], found["PORT"]) == (str(tmp_path / "aifbench" / "deploy" / "loki"), "3199")
    server = yaml.safe_load((DEPLOY / "loki" / "loki.yaml").read_text())["server"]
    assert {server["http_listen_address"], server["grpc_listen_address"]} == {"127.0.0.1"}
    fake.write_text("#!/bin/sh\n")  # another program of that name, such as Debian's
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)
    assert (refused.returncode, "Grafana Loki is not installed" in refused.stderr) == (1, True)


def test_grafana_gets_its_files_and_no_secret_on_its_command_line(tmp_path: Path) -> None:
    """Grafana cannot be installed here: a program of its name says how it was started."""
    fake = tmp_path / "bin" / "grafana"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "arguments: $*"\nenv\n')
    fake.chmod(0o755)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    command = [str(DEPLOY / "start"), "grafana", "--port", "3999", "--prometheus-port", "9999"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    secret = (tmp_path / "aifbench/deploy/password-grafana").read_text().strip()
    assert found["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert found["GF_SERVER_HTTP_PORT"] == "3999"
    assert found["PROMETHEUS_PORT"] == "9999"
    assert Path(found["GF_PATHS_PROVISIONING"], "datasources", "aifbench.yml").is_file()
    assert Path(found["DASHBOARDS"], "fleet.json").is_file()
    assert found["GF_SECURITY_ADMIN_PASSWORD"] == f"$__file{{{tmp_path}/aifbench/deploy/password-grafana}}"
    assert found["PROMETHEUS_PASSWORD"] == (tmp_path / "aifbench/deploy/password-prometheus").read_text().strip()
    assert secret not in said
