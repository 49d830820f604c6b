"""Where the browser is, what is said about the way to it, and that it is opened where it is."""

import http.client
import os
import subprocess
import sys

import pytest

from aifbench.services.reach import browser_is_here, can_show
from aifbench.services.view import serve as view
from tests.services.live import SOURCE, Live

REMOTE = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SLURM_JOB_ID")


@pytest.fixture(autouse=True)
def no_login(monkeypatch):
    for name in (*REMOTE, "DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", REMOTE)
def test_a_login_through_ssh_or_a_job_has_its_browser_elsewhere(monkeypatch, name):
    assert browser_is_here()
    monkeypatch.setenv(name, "x")
    monkeypatch.setenv("DISPLAY", "localhost:10.0")  # X through SSH: a browser there would run here, and be slow
    assert not browser_is_here()


@pytest.mark.parametrize("name", ["sshd", "sshd-session"])
def test_below_the_server_of_ssh_it_is_elsewhere_without_variables_too(tmp_path, name):
    """`sudo -i` takes them away."""
    (tmp_path / name).symlink_to(sys.executable)
    ask = "from aifbench.services.reach import browser_is_here; print(browser_is_here())"
    below = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', {ask!r}], check=True)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONHOME": sys.base_prefix}
    done = subprocess.run([tmp_path / name, "-c", below], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_browser_needs_a_display_and_windows(monkeypatch):
    assert not can_show()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("BROWSER", "true")
    assert can_show()


def test_on_this_machine_an_address_is_said_that_works_as_it_is(tmp_path):
    with Live(tmp_path, "log", here=None) as server:
        said = server.said()
        assert said.startswith("open:  http://127.0.0.1:")
        assert "ssh " not in said
        folder = said.split("#token=$(cat ")[1].split("/token-launch)")[0]
        assert f"tokens for programs, as long as this goes on:  {folder}\n" in said
        token = (tmp_path / folder / "token-launch").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/api/v1/services", headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 200
        connection.close()
        assert server.get("/api/v1/services").status == 200  # the socket of programs is there too, with its own token
        assert server.get("/api/v1/services", token=None, headers={"Authorization": f"Bearer {token}"}).status == 401


def test_a_port_reached_through_ssh_is_said_with_its_tunnel(tmp_path):
    with Live(tmp_path, "log", tcp=0, here=None, environment={"SSH_CONNECTION": "x"}) as server:
        assert f"ssh -N -L {server.port}:127.0.0.1:{server.port} " in server.said()
        assert "docs/security.md" in server.said()


@pytest.mark.parametrize("here", [True, False])
def test_a_report_on_this_machine_is_a_file(tmp_path, here):
    """`ssh -L` to oneself helps nobody."""
    said = []

    def say(text):
        said.append(text)
        if "Ctrl-C" in text:
            raise KeyboardInterrupt

    view(tmp_path / "a b", tmp_path / "own", say, here)
    report = f"open:                  {(tmp_path / 'a b/report/index.html').as_uri()}"
    assert (said[0] == report) == here
    assert [text.split(":")[0] for text in said if "ssh -N -L 8080:" in text] == [
        "from another machine" if here else "on your own machine"
    ]


def test_the_browser_is_opened_at_the_file_of_the_report(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/seen; kill $(cat {tmp_path}/pid)\n')
    browser.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DISPLAY": ":0", "BROWSER": str(browser)}
    command = [sys.executable, "-m", "aifbench", "view", str(tmp_path), "--socket-folder", str(tmp_path / "own")]
    shell = ["sh", "-c", 'echo $$ > "$0/pid"; exec "$@"', str(tmp_path), *command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == (tmp_path / "report" / "index.html").as_uri()
