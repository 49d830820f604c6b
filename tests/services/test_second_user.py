"""Another user of the same login node: refused on the socket, at the files, at the process, and on every TCP route."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aifbench.core.errors import ConfigError
from aifbench.services.app import create_app, make_services, routes_of
from aifbench.services.serve import bind_unix
from aifbench.services.settings import Settings, private_folder
from aifbench.services.tokens import Tokens
from tests.services.live import SOURCE, Live
from tests.services.stranger import UID, as_stranger, needs_root, stranger_at_work

ROOT = Path(__file__).parents[2]
pytestmark = needs_root


@pytest.fixture
def folder():
    """A folder that everybody can enter, as a login node's file system is."""
    made = Path(tempfile.mkdtemp(prefix="aifbench-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder):
    before = os.umask(0o022)
    try:
        with Live(folder, "log") as live:
            yield live
    finally:
        os.umask(before)


def talk(path):
    """Connect, ask, and return how many bytes came back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        try:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return len(client.recv(1000))
        except (BrokenPipeError, ConnectionResetError):
            return 0


def test_the_stranger_is_one(folder):
    assert as_stranger(os.getuid) == UID
    assert as_stranger(lambda: os.listdir(folder)) == []


def test_socket_and_folder(server):
    assert as_stranger(lambda: talk(server.socket)) == "PermissionError"
    assert as_stranger(lambda: os.listdir(server.runtime)) == "PermissionError"
    assert as_stranger(lambda: os.unlink(server.socket)) == "PermissionError"
    assert as_stranger(lambda: os.rename(server.runtime, server.runtime.with_name("x"))) == "PermissionError"
    assert talk(server.socket) > 0


def test_the_kernel_says_who_connects_when_the_modes_do_not_help(server):
    server.runtime.chmod(0o755)
    server.runtime.parent.chmod(0o755)
    server.socket.chmod(0o666)
    assert as_stranger(lambda: talk(server.socket)) == 0
    assert as_stranger(lambda: [talk(server.socket) for _ in range(20)]) == [0] * 20
    assert talk(server.socket) > 0
    server.stop()
    assert "Traceback" not in server.said()


def test_a_report_is_shown_to_its_owner_alone_by_the_kernel_too(folder):
    (folder / "results" / "report").mkdir(parents=True)
    (folder / "results" / "report" / "index.html").write_text("<h1>mine</h1>")
    command = [sys.executable, "-m", "aifbench", "view", str(folder / "results"), "--socket-folder", f"{folder}/own"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([*command, "--no-open"], env=environment, stdout=subprocess.PIPE, text=True) as view:
        try:
            path = Path(view.stdout.readline().split("8080:")[1].split()[0])
            assert as_stranger(lambda: talk(path)) == "PermissionError"
            path.parent.chmod(0o755)
            path.chmod(0o666)
            assert as_stranger(lambda: talk(path)) == 0
            assert talk(path) > 0
        finally:
            view.send_signal(signal.SIGHUP)  # its terminal is closed: nobody could end it any more
        assert view.wait(20) == 0
        assert not path.exists()


def test_tokens_statements_and_state(server):
    for scope in ("launch", "read", "ingest"):
        file = server.state / f"token-{scope}"
        assert as_stranger(file.read_text) == "PermissionError"
        assert as_stranger(lambda file=file: os.unlink(file)) == "PermissionError"
    log = server.results / ".services" / "log"
    assert as_stranger(lambda: os.listdir(log)) == "PermissionError"
    assert as_stranger((log / "statements.jsonl").read_text) == "PermissionError"
    configs = server.results / ".services" / "log-configs.json"
    server.ask("PUT", "/api/v1/log/configs/x", {"logLevel": 0, "expires_at": "2036-01-01T00:00:00Z"})
    assert as_stranger(lambda: configs.write_text("{}")) == "PermissionError"


def test_the_process(server):
    pid = server.process.pid
    assert as_stranger(lambda: os.kill(pid, signal.SIGTERM)) == "PermissionError"
    for name in ("environ", "mem", "maps"):
        assert as_stranger(Path(f"/proc/{pid}/{name}").read_bytes) == "PermissionError"
    assert as_stranger(lambda: os.listdir(f"/proc/{pid}/fd")) == "PermissionError"
    command = as_stranger(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().decode())
    assert "aifbench" in command
    assert server.token() not in command


def test_every_route_on_a_tcp_port(folder):
    settings = Settings(project=ROOT, results=folder / "r", state=folder / "s", runtime=folder / "t")
    routes = routes_of(create_app(settings, make_services(settings, ["client", "monitor", "log"])))
    targets = sorted(
        {(method, route.path.replace("{", "").replace("}", "")) for route in routes for method in route.methods}
    )
    assert len(targets) > 25
    with Live(folder, tcp=0, project=ROOT) as live:
        port = int(live.said().split("127.0.0.1:")[1].split("/")[0])

        def attack():
            found = {}
            for method, path in targets:
                for headers in ({}, {"Authorization": "Bearer " + "A" * 43}, {"X-Forwarded-User": "root"}):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request(method, path, headers=headers)
                    status = connection.getresponse().status
                    connection.close()
                    found.setdefault(status, []).append(path)
            return found

        found = as_stranger(attack)
        assert set(found.pop("200")) == {"/healthz", "/"}
        assert set(found.pop("404", [])) <= {"/file"}
        assert set(found) <= {"401", "429"}
        assert len(found["401"]) > 20
        own = socket.getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM)
        for family, kind, _, _, address in own:
            if not address[0].startswith("127.") and address[0] != "::1":
                with socket.socket(family, kind) as other:
                    assert other.connect_ex(address) != 0, f"the port is open on {address}"


@pytest.fixture
def port(folder):
    """A server on a port, of the log alone."""
    with Live(folder, "log", tcp=0) as live:
        yield live


def test_a_start_on_a_port_has_tokens_of_its_own_and_they_end_with_it(port):
    first, folder = port.token(), port.tokens
    assert as_stranger((folder / "token-launch").read_text) == "PermissionError"
    assert port.get("/api/v1/services").status == 200
    kept = (port.state / "token-launch").read_text().strip()
    bearer = {"Authorization": f"Bearer {kept}"}
    assert port.get("/api/v1/services", token=None, headers=bearer).status == 401
    port.tcp = port.port
    assert port.stop() == 0
    assert not folder.exists()
    port.start()
    assert first not in {port.token(), kept}
    bearer = {"Authorization": f"Bearer {first}"}
    assert port.get("/api/v1/services", token=None, headers=bearer).status == 401
    port.stop(signal.SIGKILL)  # what it leaves is of no use either
    assert port.token() != first
    second = port.token()
    port.start()
    assert port.token() != second


def test_a_flood_of_a_stranger_takes_nothing_from_the_owner(port):
    """520 requests that never end were 503 for everyone, and tokenless ones shared the owner's bucket."""
    number = port.port

    def flood():
        held = [socket.create_connection(("127.0.0.1", number)) for _ in range(520)]
        for one in held:
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        statuses = []
        for _ in range(150):
            connection = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
            connection.request("GET", "/healthz")
            statuses.append(connection.getresponse().status)
            connection.close()
        os.kill(os.getpid(), signal.SIGSTOP)  # it holds all that it has while the owner asks
        return [statuses.count(status) for status in (200, 429, 503)]

    with stranger_at_work(flood) as (stopped, found):
        stopped()
        assert [port.get("/", token=None).status for _ in range(60)] == [200] * 60
        assert [port.get("/api/v1/services").status for _ in range(60)] == [200] * 60
        held = [line.split()[7] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if ours(line, number)]
        assert held.count(str(UID)) <= 32
        answered, told_to_wait, unavailable = found()
        assert unavailable == 0
        assert told_to_wait > 0
        assert answered >= 100


def ours(line, port):
    """Whether a line of /proc/net/tcp is an open connection to a port."""
    fields = line.split()
    return fields[2] == f"0100007F:{port:04X}" and fields[3] == "01"


def test_the_code_that_opens_the_page_is_good_once_and_for_the_owner_alone(folder):
    seen, browser = folder / "seen", folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}.new && mv {seen}.new {seen}\n')
    browser.chmod(0o755)
    with Live(folder, "log", tcp=0, here=True, environment={"DISPLAY": ":99", "BROWSER": str(browser)}) as server:
        deadline = time.monotonic() + 30
        while not seen.exists():
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.05)
        (shown,) = seen.read_text().split()
        address, code = shown.split("#once=")
        assert address == f"http://127.0.0.1:{server.port}/"
        assert server.token() not in shown
        headers, proof = server.signature("POST", "/api/v1/session", key=code)

        def ask(more=headers):
            answer = server.ask("POST", "/api/v1/session", token=None, headers=more)
            return answer.status, answer.body.decode(), answer.headers["aifbench-proof"]

        assert as_stranger(ask)[0] == 401
        assert as_stranger(lambda: ask({"Authorization": f"Bearer {code}"}))[0] == 401
        wrong, _ = server.signature("GET", "/api/v1/services", key=code)
        assert server.get("/api/v1/services", token=None, headers=wrong).status == 401
        assert ask() == (200, f'{{"token":"{server.token()}"}}', proof)
        assert ask()[0] == 401


def start(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "XDG_STATE_HOME": str(folder / "state")}
    environment["XDG_RUNTIME_DIR"] = str(folder / "run")
    command = [sys.executable, "-m", "aifbench", "serve", "log", "--project", str(folder), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("which", ["run", "state"])
def test_a_folder_that_somebody_else_made_first_is_refused(folder, which):
    (folder / which).mkdir()
    (folder / which / "aifbench").mkdir(mode=0o777)
    os.chown(folder / which / "aifbench", UID, UID)
    code, said = start(folder)
    assert code == 2
    assert said.count("\n") == 1
    assert "must be a folder of your own" in said


def test_a_link_instead_of_the_folder_is_refused(folder):
    (folder / "run").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "run" / "aifbench").symlink_to(folder / "elsewhere")
    code, said = start(folder)
    assert (code, said.count("\n")) == (2, 1)
    assert "not a link" in said
    assert os.listdir(folder / "elsewhere") == []


@pytest.mark.parametrize("how", ["readable", "foreign", "link", "short"])
def test_a_token_that_others_planted_or_can_read_is_not_used(folder, how):
    state = folder / "state"
    state.mkdir(mode=0o700)
    file = state / "token-launch"
    file.write_text("A" * 43)
    file.chmod(0o644 if how == "readable" else 0o600)
    if how == "foreign":
        os.chown(file, UID, UID)
    elif how == "link":
        file.rename(folder / "planted")
        file.symlink_to(folder / "planted")
    elif how == "short":
        file.write_text("A" * 42)
    with pytest.raises(ConfigError, match="delete the file, a new one is made"):
        Tokens(state)
    file.unlink()
    assert Tokens(state)["launch"] != "A" * 43


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o1777])
def test_a_socket_s_folder_that_others_can_enter_is_refused_and_left_as_it_is(folder, mode):
    """It may be their common folder, or /tmp: `--socket` names any file."""
    (folder / "own").mkdir()
    (folder / "own").chmod(mode)
    with pytest.raises(ConfigError, match="can be entered by others"):
        bind_unix(folder / "own" / "serve.sock")
    assert (folder / "own").stat().st_mode & 0o7777 == mode
    assert private_folder(folder / "own" / "new", ours=False).stat().st_mode & 0o777 == 0o700


def test_a_folder_of_ours_that_is_open_is_closed(folder):
    (folder / "own").mkdir(mode=0o777)
    (folder / "own").chmod(0o777)
    assert private_folder(folder / "own").stat().st_mode & 0o777 == 0o700
