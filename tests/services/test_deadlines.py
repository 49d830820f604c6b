"""Clients that send half of a request, or nothing, or that read nothing: each is ended, and nobody waits for them."""

import select
import socket
import sys

import pytest

from tests.services.live import Live

HEAD = b"POST /api/v1/log HTTP/1.1\r\nHost: localhost\r\n"
QUICK = """
import sys
from dataclasses import replace
from pathlib import Path
from aifbench.services.serve import serve
from aifbench.services.settings import Limits, Settings
settings = Settings.find(Path(sys.argv[1]), Path(sys.argv[2]))
limits = Limits(head_seconds=0.6, unread_seconds=0.6, body_seconds=0.6, connections_own=40)
port = int(sys.argv[3]) if sys.argv[3:] else None
serve(replace(settings, limits=limits), ["log"], lambda text: print(text, flush=True), port=port, here=False)
"""


class Quick(Live):
    """A server whose deadlines are short, with 40 places."""

    def command(self):
        port = [] if self.tcp is None else [str(self.tcp)]
        return [sys.executable, "-c", QUICK, str(self.project), str(self.results), *port]


@pytest.fixture(scope="module", params=["socket", "port"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with Quick(folder, "log", tcp=0 if request.param == "port" else None) as live:
        yield live


def connected(server):
    connection = server.connection()
    connection.connect()
    return connection.sock


def until_the_end(client):
    """Return what comes until the server ends the connection; fails when it does not within ten seconds."""
    client.settimeout(10)
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except (ConnectionResetError, BrokenPipeError):
        pass
    return found


def drip(client, data):
    """Send one byte after the other, a tenth of a second apart; return how many it were before the server ended it."""
    client.settimeout(0.1)
    for number, byte in enumerate(data):
        try:
            client.sendall(bytes([byte]))
            if client.recv(1000) == b"":
                return number
        except TimeoutError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return number
    return len(data)


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"X: " + b"y" * 1000], ids=["nothing", "G", "half", "long"])
def test_a_head_that_does_not_come_is_not_waited_for(server, sent):
    with connected(server) as client:
        client.sendall(sent)
        assert until_the_end(client) == b""
    assert server.get("/healthz").status == 200


def test_a_byte_now_and_then_puts_nothing_off(server):
    with connected(server) as client:
        assert drip(client, HEAD + b"X-Long: " + b"y" * 400) < 100


@pytest.mark.parametrize("known", [True, False])
def test_a_body_that_does_not_come_is_not_waited_for(server, known):
    token = f"Authorization: Bearer {server.token()}\r\n".encode() if known else b""
    with connected(server) as client:
        client.sendall(HEAD + token + b"Content-Length: 100\r\n\r\n{")
        assert until_the_end(client).startswith(b"HTTP/1.1 408 " if known else b"HTTP/1.1 401 ")


def test_bytes_of_a_body_after_its_answer_hold_nothing(server):
    with connected(server) as client:
        client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert drip(client, b"x" * 400) < 100


def test_an_answer_that_nobody_reads_is_not_kept(server):
    with socket.socket(socket.AF_UNIX if server.tcp is None else socket.AF_INET) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(str(server.socket) if server.tcp is None else ("127.0.0.1", server.port))
        client.sendall(b"GET /launch.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        gone = select.poll()
        gone.register(client, 0)  # an end by the other side is told without a word from here
        assert gone.poll(10_000) != []


def test_an_idle_connection_goes_after_its_answer(server):
    with connected(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert until_the_end(client).startswith(b"HTTP/1.1 200 ")


def test_where_all_places_are_taken_the_one_that_keeps_us_waiting_goes(server):
    """Of one user: 520 half requests are as good as none. An answer that goes on is not cut for them."""
    headers = {"Authorization": f"Bearer {server.token()}"}
    stream = server.connection()
    stream.request("GET", "/api/v1/log/stream", headers=headers)
    answer = stream.getresponse()
    held = []
    try:
        for number in range(520):
            held.append(connected(server))
            held[-1].sendall(HEAD)
            if number % 50 == 0:
                assert server.get("/api/v1/services").status == 200
        assert server.get("/api/v1/services").status == 200
        assert answer.readline() == b":\n"
    finally:
        for one in held:
            one.close()
        stream.close()


def test_where_all_places_are_taken_by_answers_a_further_one_is_refused(server):
    headers = {"Authorization": f"Bearer {server.token()}"}
    streams = []
    try:
        for _ in range(40):
            streams.append(server.connection())
            streams[-1].request("GET", "/api/v1/log/stream", headers=headers)
            assert streams[-1].getresponse().status == 200
        with connected(server) as client:
            assert until_the_end(client) == b""
    finally:
        for one in streams:
            one.close()
