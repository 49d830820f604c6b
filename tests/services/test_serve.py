"""The server as a process: where it listens, what it prints, whom it replaces, how it ends."""

import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aifbench.core.errors import ConfigError
from aifbench.files.beneath import open_beneath
from aifbench.services.ids import is_id
from aifbench.services.serve import bind_loopback, bind_unix
from aifbench.services.settings import Settings, private_folder
from aifbench.services.tokens import Tokens
from tests.services.checkout import checkout
from tests.services.live import SOURCE, Live


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "log") as live:
        yield live


def environment(folder):
    (folder / "run").mkdir(exist_ok=True)
    return {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "SSH_CONNECTION": "10.0.0.2 50000 10.0.0.1 22",
    }


def command(*options):
    return [sys.executable, "-m", "aifbench", "serve", *options]


def test_socket_folder_and_tokens_are_the_owners_alone(server):
    assert stat.S_IMODE(os.stat(server.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(server.runtime).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(server.state).st_mode) == 0o700
    tokens = {server.token(scope) for scope in ("launch", "read", "ingest")}
    assert len(tokens) == 3
    for scope in ("launch", "read", "ingest"):
        assert stat.S_IMODE(os.stat(server.state / f"token-{scope}").st_mode) == 0o600
        assert len(server.token(scope)) == 43
    assert server.get("/api/v1/services").json() == {"services": ["log"]}


def test_it_says_when_there_is_no_checkout_to_launch_from(tmp_path, server):
    assert "no checkout" not in server.said()  # the log service needs none
    with Live(tmp_path / "away", "client") as live:
        assert f"{live.project} is no checkout of aifbench: nothing can be launched from here" in live.said()
    checkout(tmp_path / "here" / "project")
    with Live(tmp_path / "here", "client") as live:
        assert "no checkout" not in live.said()


def test_it_prints_how_to_reach_it_and_no_secret_into_a_file(server):
    said = server.said()
    assert f"ssh -N -L 8080:{server.socket} " in said
    assert f"http://localhost:8080/#token=$(cat {server.state}/token-launch)" in said
    assert server.token() not in said


def test_a_terminal_gets_the_whole_address(tmp_path):
    main, side = pty.openpty()
    process = subprocess.Popen(command("log", "--project", str(tmp_path)), stdout=side, env=environment(tmp_path))
    os.close(side)
    said = b""
    try:
        while b"#token=" not in said or not said.endswith(b"\n"):
            said += os.read(main, 1000)
    finally:
        process.terminate()
        process.wait()
        os.close(main)
    token = (tmp_path / "state" / "aifbench" / "token-launch").read_text().strip()
    assert f"http://localhost:8080/#token={token}" in said.decode()
    assert b"\x1b" not in said


def test_tokens_stay_the_same_over_a_restart(server):
    before = server.token()
    server.stop()
    server.start()
    assert server.token() == before


def test_it_ends_at_once_with_open_streams_and_leaves_no_socket(server):
    connections = []
    for _ in range(5):
        connection = server.connection()
        connection.request("GET", "/api/v1/log/stream", headers={"Authorization": f"Bearer {server.token()}"})
        answer = connection.getresponse()
        assert answer.status == 200
        connections.append((connection, answer))
    idle = server.connection()
    idle.connect()
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 4  # 0.4 s on a machine with nothing else to do
    for connection, answer in connections:
        assert answer.read() == b":\n\n"  # ended as a whole answer, not cut
        connection.close()
    idle.close()
    assert not server.socket.exists()
    assert server.said().endswith("ended\n")
    assert "Traceback" not in server.said()


def test_it_ends_at_once_although_a_reader_is_stuck(server):
    expiry = {"logLevel": 0, "expires_at": "2036-01-01T00:00:00Z"}
    assert server.ask("PUT", "/api/v1/log/configs/x", expiry).status == 200
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(str(server.socket))
        request = (
            f"GET /api/v1/log/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token()}\r\n\r\n"
        )
        stuck.sendall(request.encode())
        batch = {"statements": [{"level": 0, "msg": "x" * 900}] * 1000}
        for _ in range(4):
            assert server.post("/api/v1/log:batch", batch).json()["written"] == 1000
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 6  # 1.5 s on a machine with nothing else to do
    assert not server.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(server, number):
    assert server.stop(number) == 0


def test_the_socket_of_a_killed_server_is_replaced(server):
    server.stop(signal.SIGKILL)
    assert server.socket.exists()
    server.start()
    assert server.get("/healthz").status == 200


def test_a_live_server_is_never_replaced(server, tmp_path):
    inode = server.socket.stat().st_ino
    second = subprocess.run(
        command("log", "--project", str(server.project)),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "a server of yours has this socket" in second.stderr
    assert server.socket.stat().st_ino == inode
    assert server.get("/healthz").status == 200


def test_a_socket_of_another_program_is_never_replaced(tmp_path):
    path = tmp_path / "own" / "serve.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        with pytest.raises(ConfigError, match="another program listens"):
            bind_unix(path)
    listener, lock = bind_unix(path)  # the other has ended
    with pytest.raises(ConfigError, match="a server of yours"):
        bind_unix(path)
    listener.close()
    os.close(lock)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path, kind):
    path = tmp_path / "own" / "serve.sock"
    path.parent.mkdir(mode=0o700)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "none")
    with pytest.raises(ConfigError, match="is no socket"):
        bind_unix(path)
    assert path.is_symlink() or path.exists()


def test_a_second_server_on_the_same_results_does_not_write_between_the_lines_of_the_first(server, tmp_path):
    options = [
        "--project",
        str(server.project),
        "--results",
        str(server.results),
        "--socket",
        str(tmp_path / "o" / "s"),
    ]
    second = subprocess.run(
        command("log", *options), env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "another log service of yours" in second.stderr
    assert second.stdout == ""
    assert not (tmp_path / "o" / "s").exists()


@pytest.mark.parametrize("more", [[], ["--tcp", "0"], ["--open"]], ids=["socket", "port", "both"])
def test_a_second_server_says_no_address_and_makes_no_token(server, tmp_path, more):
    """It printed an address with its token first, and then that it does not work."""
    options = ["--project", str(server.project), "--results", str(server.results), *more]
    there = {**environment(tmp_path), "XDG_STATE_HOME": str(tmp_path / "other")}
    second = subprocess.run(command(*options), env=there, capture_output=True, text=True, timeout=60, check=False)
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1)
    assert list((tmp_path / "other").rglob("token-*")) == []
    assert server.get("/api/v1/services").status == 200


def test_a_runtime_folder_that_is_gone_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    found = Settings.find(tmp_path)
    assert found.runtime.parent == tmp_path / ".aifbench"
    assert found.state == tmp_path / ".local" / "state" / "aifbench"
    (tmp_path / "gone").mkdir()
    assert Settings.find(tmp_path).runtime == tmp_path / "gone" / "aifbench"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        private_folder(tmp_path / "file" / "x")


def test_a_path_that_is_too_long_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be bound"):
        bind_unix(tmp_path / ("x" * 120))


def test_tcp_is_the_loopback_alone_and_only_on_request(tmp_path):
    with Live(tmp_path, "log", tcp=0) as server:
        port = int(server.said().split("127.0.0.1:")[1].split("/")[0])
        sockets = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {local for local, _, state in sockets if local.endswith(f":{port:04X}") and state == "0A"}
        assert listening == {f"0100007F:{port:04X}"}
        assert server.get("/api/v1/services").status == 200
        assert not server.socket.exists()
        with pytest.raises(ConfigError, match="cannot be bound"):
            bind_loopback(port)


def test_an_unknown_service_is_told_in_one_line(tmp_path):
    done = subprocess.run(
        command("logs"), env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "aifbench: service = 'logs': no such service (allowed: client, monitor, log)\n"


def test_many_connections_at_once_are_all_answered(server):
    statuses = []

    def ask():
        statuses.append(server.get("/healthz").status)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


def test_a_connection_is_kept_for_further_requests(server):
    connection = server.connection()
    for _ in range(3):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
    connection.close()


def test_scopes_of_tokens(tmp_path):
    tokens = Tokens(tmp_path / "state")
    assert tokens.scopes(tokens["launch"].encode()) == {"read", "launch", "ingest"}
    assert tokens.scopes(tokens["read"].encode()) == {"read"}
    assert tokens.scopes(tokens["ingest"].encode()) == {"ingest"}
    assert tokens.scopes(b"") == tokens.scopes(b"x" * 43) == tokens.scopes("ü".encode()) == frozenset()
    assert Tokens(tmp_path / "state")["read"] == tokens["read"]


@pytest.mark.parametrize("text", ["", "A", "a.b", "..", ".", "a/b", "a\n", "\n", "a\0", "ä", "x" * 65, "-" * 65])
def test_what_is_no_id(text):
    assert not is_id(text)


def test_open_beneath_opens_files_and_nothing_else(tmp_path):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (root / "a" / "link").symlink_to(tmp_path / "secret")
    (root / "a" / "up").symlink_to(tmp_path)
    (root / "a" / "inner").symlink_to(root / "a" / "b")
    os.mkfifo(root / "a" / "fifo")
    with open_beneath(root, "a", "b", "file") as file:
        assert file.read() == b"content"
    for parts in (
        ("a", "link"), ("a", "up", "secret"), ("a", "inner", "file"), ("..", "secret"), ("a", "..", "..", "secret"),
        ("a/b/file",), ("", "a"), (".", "a", "b", "file"), ("a", "b"), ("a", "fifo"), ("a", "none"), ("a\0", "b"), (),
    ):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            open_beneath(root, *parts)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(FileNotFoundError):
            open_beneath(root, "a", "b", "none")
    assert len(os.listdir("/proc/self/fd")) == before
