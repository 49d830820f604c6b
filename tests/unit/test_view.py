"""The results folder through a socket: to its owner, under its own name, and nothing else."""

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest


@pytest.fixture
def view(tmp_path):
    """A running `aifbench view` and a function that asks it: (status, body)."""
    results = tmp_path / "results" / "small"
    (results / "report").mkdir(parents=True)
    (results / "report" / "index.html").write_text("<h1>the report</h1>")
    (tmp_path / "secret").write_text("no")
    command = [sys.executable, "-m", "aifbench", "view", str(results), "--socket-folder", str(tmp_path / "own")]
    command.append("--no-open")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    path = first.split("8080:")[1].split()[0]

    def ask(target, host="localhost:8080", method="GET"):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    yield process, path, ask
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


def test_the_owner_reads_the_report_and_nobody_else_can(view):
    _, path, ask = view
    assert ask("/report/index.html") == (200, "<h1>the report</h1>")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


@pytest.mark.parametrize("target", ["/../secret", "/../../secret", "/%2e%2e/secret", "/report/../../../secret"])
def test_nothing_outside_the_folder_is_given(view, target):
    _, _, ask = view
    status, body = ask(target)
    assert status == 404
    assert body != "no"


def test_other_names_and_other_methods_are_refused(view):
    _, _, ask = view
    assert ask("/report/index.html", host="evil.example:8080")[0] == 400
    assert ask("/report/index.html", host="")[0] == 400
    assert ask("/report/index.html", method="POST")[0] == 405
    assert ask("/report/index.html", method="TRACE")[0] == 405


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_and_takes_its_socket_along(view, number):
    process, path, _ = view
    process.send_signal(number)
    assert process.wait(10) == 0
    assert not os.path.exists(path)


def test_nothing_is_given_by_a_link_and_nothing_waits(view, tmp_path):
    _, _, ask = view
    results = tmp_path / "results" / "small"
    (results / "link").symlink_to(tmp_path / "secret")
    (results / "up").symlink_to(tmp_path)
    (results / "index.html").symlink_to(tmp_path / "secret")
    os.mkfifo(results / "fifo")
    (results / "batches").mkdir()
    (results / "batches" / "<b>.jsonl").write_text("{}")
    for target in ("/link", "/up/secret", "/up/", "/fifo", "/report/index.html/", "/%00", "/batches/none"):
        status, body = ask(target)
        assert (status, body == "no") == (404, False), target
    status, body = ask("/")
    assert status == 200
    assert [name for name in ("link", "up", "fifo", "index.html", "batches/") if f">{name}<" in body] == ["batches/"]
    assert ask("/batches") == (301, "")
    assert '<a href="%3Cb%3E.jsonl">&lt;b&gt;.jsonl</a>' in ask("/batches/")[1]
    assert ask("/batches/%3Cb%3E.jsonl") == (200, "{}")
    assert ask("/report/index.html?x=1#y", method="HEAD") == (200, "")


def test_a_report_is_in_a_sandbox_and_no_token_is_asked_for(view):
    _, path, _ = view
    connection = http.client.HTTPConnection("localhost:8080")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/report/index.html")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith(
        "sandbox allow-scripts allow-downloads; default-src 'none'"
    )
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    connection.close()


def test_a_path_that_names_another_host_leads_nowhere_else(view, tmp_path):
    _, path, _ = view
    (tmp_path / "results" / "small" / "evil.example").mkdir()
    connection = http.client.HTTPConnection("localhost:8080")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/evil.example")
    assert connection.getresponse().headers["location"] == "/evil.example/"
    connection.close()
