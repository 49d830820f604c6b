"""The client against sockets that misbehave: each failure has its class, and none is lost."""

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from aifbench.load.client import LEAD_NS, StreamingClient, _kernel_stamp, clock_offset_ns
from aifbench.load.http import Target, body_pieces

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
Handler = Callable[[socket.socket, int], None]


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None], accepted: list[int] | None = None) -> Iterator[Target]:
    """Give each connection to `serve` in a thread, after its time was put down."""
    sock = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = sock.accept()[0]
                if accepted is not None:
                    accepted.append(time.monotonic_ns())
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Target("127.0.0.1", sock.getsockname()[1], False, "")
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join(5)


@contextlib.contextmanager
def server(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[Target]:
    """Serve each connection in a thread; `handler(connection, number)` answers the server's request `number`."""
    counter = iter(range(10**6))

    def serve(plain: socket.socket) -> None:
        with tls.wrap_socket(plain, True) if tls else plain as connection:
            while data := connection.recv(65536):
                while not data.endswith(b"\r\n\r\n"):
                    data += connection.recv(65536)
                handler(connection, next(counter))

    with listener(serve) as target:
        yield target


def answer_once(connection: socket.socket) -> None:
    with connection:
        connection.recv(65536)
        connection.sendall(OK)


def run(handler: Handler, requests: int = 3, clients: int = 1, timeout_s: float = 5.0, reuse: bool = True):
    with server(handler) as target, StreamingClient([target], clients, reuse=reuse) as client:
        return client.run([[REQUEST] * requests] * clients, [0.0] * clients, timeout_s)


def test_connections_are_reused_and_order_is_kept() -> None:
    load = run(lambda connection, _: connection.sendall(OK), requests=4, clients=3)
    assert [(e.client, e.index) for e in load.exchanges] == [(c, i) for c in range(3) for i in range(4)]
    assert all(e.status == 200 and e.error is None for e in load.exchanges)
    assert [e.connection_reused for e in load.exchanges] == [False, True, True, True] * 3
    assert load.connections_opened == 0  # all were opened before the run
    for exchange in load.exchanges:
        assert exchange.send_ns is not None
        assert exchange.sent_ns is not None
        assert exchange.end_ns is not None
        assert load.start_ns <= exchange.scheduled_ns <= exchange.send_ns <= exchange.sent_ns <= load.end_ns
        assert exchange.send_ns <= exchange.pieces[0][0] <= exchange.end_ns <= load.end_ns
        assert body_pieces(exchange.pieces)[1][-1][1] == b"ok"


def test_the_kernel_tells_the_round_trip_but_not_before_the_end() -> None:
    """The server waits 50 ms: that is no part of the path."""

    def slow(connection: socket.socket, _: int) -> None:
        time.sleep(0.05)
        connection.sendall(OK)

    for exchange in run(slow).exchanges:
        assert exchange.round_trip_ns is not None
        assert 0 < exchange.round_trip_ns < 40_000_000
        assert exchange.retransmits == 0


def test_clients_are_spread_over_the_servers() -> None:
    asked: list[set[int]] = [set(), set()]

    def handler(place: int) -> Handler:
        def answer(connection: socket.socket, number: int) -> None:
            asked[place].add(connection.getpeername()[1])
            connection.sendall(OK)

        return answer

    with server(handler(0)) as one, server(handler(1)) as two, StreamingClient([one, two], 5) as client:
        load = client.run([[REQUEST] * 2] * 5, [0.0] * 5, 5.0)
    assert [e.error for e in load.exchanges] == [None] * 10
    assert [len(ports) for ports in asked] == [3, 2]


def test_a_client_thinks_before_its_next_request() -> None:
    with server(lambda connection, _: connection.sendall(OK)) as target, StreamingClient([target], 2) as client:
        load = client.run([[REQUEST] * 3] * 2, [0.0] * 2, 5.0, think_s=0.05)
    for number in range(2):
        mine = [e for e in load.exchanges if e.client == number]
        for last, now in pairwise(mine):
            assert now.scheduled_ns >= last.end_ns + 50_000_000
            assert now.send_ns >= now.scheduled_ns


def test_a_schedule_is_kept_whatever_the_server_does() -> None:
    def slow(connection: socket.socket, number: int) -> None:
        time.sleep(0.2 if number == 0 else 0)
        connection.sendall(OK)

    at_s = [0.0, 0.02, 0.021, 0.06]
    with server(slow) as target, StreamingClient([target], 3) as client:
        load = client.run_schedule([[REQUEST]] * 4, at_s, 5.0)
    asked = sorted(load.exchanges, key=lambda e: e.index)
    assert [round((e.scheduled_ns - load.start_ns) / 1e9, 3) for e in asked] == at_s
    assert [e.error for e in asked] == [None] * 4
    assert all(e.send_ns >= e.scheduled_ns for e in asked)
    assert asked[3].send_ns < asked[0].end_ns  # it did not wait for the slow one
    assert asked[3].connection_reused


def test_a_request_without_a_free_connection_waits_and_is_not_dropped() -> None:
    def slow(connection: socket.socket, number: int) -> None:
        time.sleep(0.05)
        connection.sendall(OK)

    with server(slow) as target, StreamingClient([target], 1) as client:
        load = client.run_schedule([[REQUEST]] * 4, [0.0] * 4, 5.0)
    assert [(e.index, e.error) for e in sorted(load.exchanges, key=lambda e: e.send_ns)] == [
        (i, None) for i in range(4)
    ]
    late = [e.send_ns - e.scheduled_ns for e in sorted(load.exchanges, key=lambda e: e.index)]
    assert late[3] > 150_000_000
    assert late == sorted(late)


def test_a_schedule_goes_on_after_a_lost_connection() -> None:
    def cut(connection: socket.socket, number: int) -> None:
        if number == 0:
            connection.close()
        else:
            connection.sendall(OK)

    with server(cut) as target, StreamingClient([target], 1) as client:
        load = client.run_schedule([[REQUEST]] * 3, [0.0, 0.01, 0.02], 5.0)
    assert [e.error for e in sorted(load.exchanges, key=lambda e: e.index)] == ["early_close", None, None]


def test_the_last_request_may_be_given_up() -> None:
    def mute(connection: socket.socket, number: int) -> None:
        time.sleep(0.5)

    with server(mute) as target, StreamingClient([target], 1) as client:
        load = client.run_schedule([[REQUEST]], [0.0], 0.1)
        assert [e.error for e in load.exchanges] == ["timeout"]
        assert [e.error for e in client.run([[REQUEST]], [0.0], 0.1).exchanges] == ["timeout"]


def test_without_reuse_each_request_has_its_own_connection() -> None:
    load = run(lambda connection, _: connection.sendall(OK), reuse=False)
    assert [e.connection_reused for e in load.exchanges] == [False] * 3
    assert [e.error for e in load.exchanges] == [None] * 3
    assert load.connections_opened == 2


@pytest.mark.parametrize("think", [True, False])
def test_the_next_connection_is_opened_in_the_pause(think: bool) -> None:
    """A connection is accepted before its request is due."""
    accepted: list[int] = []

    with listener(answer_once, accepted) as target, StreamingClient([target], 1, reuse=False) as client:
        if think:
            load = client.run([[REQUEST] * 4], [0.0], 5.0, think_s=0.1)
        else:
            load = client.run_schedule([[REQUEST]] * 4, [0.0, 0.1, 0.2, 0.3], 5.0)
    assert [e.error for e in load.exchanges] == [None] * 4
    assert [e.connection_reused for e in load.exchanges] == [False] * 4
    assert len(accepted) == 4  # none for a request that does not come
    for exchange, at in list(zip(load.exchanges, accepted, strict=True))[1:]:  # the first one is opened just before
        assert at < exchange.scheduled_ns


@pytest.mark.parametrize("closed", [True, False])
def test_no_connection_waits_idle_for_a_request_that_is_not_near(closed: bool) -> None:
    """A server with a thread for each connection would leave others waiting."""
    accepted: list[int] = []

    with listener(answer_once, accepted) as target, StreamingClient([target], 3, reuse=False) as client:
        if closed:
            load = client.run([[REQUEST]] * 3, [0.0, 0.2, 0.4], 5.0)
        else:
            load = client.run_schedule([[REQUEST]] * 3, [0.0, 0.2, 0.4], 5.0)
    ahead = [exchange.scheduled_ns - at for exchange, at in zip(load.exchanges, accepted, strict=True)]
    assert all(0 < early <= LEAD_NS for early in ahead[1:])


def test_requests_that_are_due_together_each_have_a_connection_ahead() -> None:
    accepted: list[int] = []

    with listener(answer_once, accepted) as target, StreamingClient([target], 4, reuse=False) as client:
        load = client.run_schedule([[REQUEST]] * 4, [0.2, 0.2, 0.2, 0.21], 5.0)
    assert len(accepted) == 4
    assert max(accepted) < min(exchange.scheduled_ns for exchange in load.exchanges)


def test_a_connection_that_is_closed_in_the_pause_is_opened_again() -> None:
    def cut(connection: socket.socket, _: int) -> None:
        connection.sendall(OK)
        connection.close()  # unannounced, while the client thinks

    with server(cut) as target, StreamingClient([target], 1) as client:
        load = client.run([[REQUEST] * 3], [0.0], 5.0, think_s=0.1)
    assert [e.error for e in load.exchanges] == [None] * 3
    assert [e.connection_reused for e in load.exchanges] == [False] * 3


def test_announced_close_is_no_error() -> None:
    def handler(connection: socket.socket, number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")
        connection.close()

    load = run(handler)
    assert [(e.status, e.error, e.connection_reused) for e in load.exchanges] == [(200, None, False)] * 3


def faulty(number_of_fault: int, fault: Handler) -> Handler:
    def handler(connection: socket.socket, number: int) -> None:
        if number == number_of_fault:
            fault(connection, number)
        else:
            connection.sendall(OK)

    return handler


def reset(connection: socket.socket, _: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_inside(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    time.sleep(0.05)  # a reset overtakes bytes that nobody has read yet
    reset(connection, 0)


def early_close(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    connection.close()


def silent_close(connection: socket.socket, _: int) -> None:
    connection.close()


def nonsense(connection: socket.socket, _: int) -> None:
    connection.sendall(b"hello?\r\n\r\n")


def silence(connection: socket.socket, _: int) -> None:
    connection.recv(1)


def stall(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    connection.recv(1)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (reset_inside, "reset"),
        (early_close, "early_close"),
        (nonsense, "protocol"),
        (silence, "timeout"),
        (stall, "stall"),
    ],
)
def test_a_fault_has_its_class_and_the_client_goes_on(fault: Handler, error: str) -> None:
    load = run(faulty(1, fault), timeout_s=1.0)
    assert [e.error for e in load.exchanges] == [None, error, None]
    assert [e.connection_reused for e in load.exchanges] == [False, True, False]
    assert all(e.end_ns is not None for e in load.exchanges)


@pytest.mark.parametrize("fault", [reset, silent_close])
def test_a_kept_connection_that_brings_no_byte_is_tried_once_more_on_a_new_one(fault: Handler) -> None:
    """The times are those of a user: from before the first sending."""
    asked: list[int] = []

    def handler(connection: socket.socket, number: int) -> None:
        asked.append(time.monotonic_ns())
        faulty(1, fault)(connection, number)

    load = run(handler)
    assert [e.error for e in load.exchanges] == [None] * 3
    assert [e.retried for e in load.exchanges] == [False, True, False]
    assert [e.connection_reused for e in load.exchanges] == [False, False, True]
    assert load.connections_opened == 1
    assert len(asked) == 4
    again = load.exchanges[1]
    assert again.send_ns is not None
    assert again.sent_ns is not None
    assert again.send_ns <= asked[1] <= again.sent_ns
    assert again.pieces[0][0] >= asked[2] - 50_000


def test_the_second_try_is_the_last_one_and_keeps_its_class() -> None:
    load = run(lambda connection, number: connection.sendall(OK) if number == 0 else reset(connection, number))
    assert [(e.error, e.retried, e.connection_reused) for e in load.exchanges] == [
        (None, False, False),
        ("reset", True, False),
        ("reset", False, False),  # on a fresh connection
    ]


def test_a_second_try_is_bound_by_the_time_of_its_request() -> None:
    def handler(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.close()
        elif number == 2:
            connection.recv(1)
        else:
            connection.sendall(OK)

    load = run(handler, timeout_s=0.5)
    assert [(e.error, e.retried) for e in load.exchanges] == [(None, False), ("timeout", True), (None, False)]


def test_a_second_try_finds_nobody() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    target = Target("127.0.0.1", listening.getsockname()[1], False, "")

    def serve() -> None:
        connection = listening.accept()[0]
        connection.recv(65536)
        connection.sendall(OK)
        connection.recv(65536)
        listening.close()
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with StreamingClient([target], 1) as client:
        load = client.run([[REQUEST] * 2], [0.0], 5.0)
    thread.join(5)
    assert [(e.error, e.retried, e.problem) for e in load.exchanges] == [
        (None, False, None),
        ("connect", True, "Connection refused"),
    ]


def test_an_open_schedule_tries_again_too() -> None:
    with server(faulty(1, silent_close)) as target, StreamingClient([target], 1) as client:
        load = client.run_schedule([[REQUEST]] * 3, [0.0, 0.02, 0.04], 5.0)
    asked = sorted(load.exchanges, key=lambda e: e.index)
    assert [(e.error, e.retried) for e in asked] == [(None, False), (None, True), (None, False)]


IPV6_FIRST = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]


def name_has(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[socket.AddressFamily, str]) -> None:
    """Let every name have these addresses, in this order."""

    def found(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("first_s", [0.0, 0.2])
def test_every_address_is_tried_and_the_one_used_is_told(
    monkeypatch: pytest.MonkeyPatch, reuse: bool, first_s: float
) -> None:
    name_has(monkeypatch, *IPV6_FIRST)
    with server(lambda c, _: c.sendall(OK)) as plain:
        target = Target("localhost", plain.port, False, "")
        with StreamingClient([target], 2, reuse=reuse) as client:
            load = client.run([[REQUEST] * 2] * 2, [first_s] * 2, 5.0)
    assert [e.error for e in load.exchanges] == [None] * 4
    assert load.addresses == [f"127.0.0.1:{plain.port}"]
    assert all(e.retried is False for e in load.exchanges)


def test_where_no_address_answers_the_last_one_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name_has(monkeypatch, *IPV6_FIRST)
    with StreamingClient([Target("localhost", port, False, "")], 1) as client:
        load = client.run([[REQUEST] * 2], [0.0], 5.0)
    assert [(e.error, e.problem) for e in load.exchanges] == [("connect", "Connection refused")] * 2
    assert load.addresses == [None]


def test_a_name_that_nobody_knows() -> None:
    with StreamingClient([Target("nobody.invalid", 80, False, "")], 1) as client:
        (exchange,) = client.run([[REQUEST]], [0.0], 5.0).exchanges
    assert exchange.error == "connect"
    assert exchange.problem


def test_status_is_not_an_error_of_the_transport() -> None:
    load = run(lambda c, _: c.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
    assert [(e.status, e.error, e.connection_reused) for e in load.exchanges][1:] == [(503, None, True)] * 2


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with StreamingClient([Target("127.0.0.1", port, False, "")], 2) as client:
        load = client.run([[REQUEST] * 1500] * 2, [0.0, 0.0], 5.0)
    assert len(load.exchanges) == 3000
    assert {e.error for e in load.exchanges} == {"connect"}
    assert all(e.send_ns is None and e.pieces == [] and e.end_ns is not None for e in load.exchanges)


def test_large_request_and_answer_in_pieces() -> None:
    body = b"x" * 3_000_000

    def handler(connection: socket.socket, _: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    request = b"GET / HTTP/1.1\r\nX: " + b"y" * 6_000_000 + b"\r\n\r\n"
    with server(handler) as target, StreamingClient([target], 1) as client:
        (exchange,) = client.run([[request]], [0.0], 30.0).exchanges
    assert exchange.error is None
    assert sum(len(data) for _, data in body_pieces(exchange.pieces)[1]) == len(body)


def test_connection_closed_while_idle_is_opened_again_before_the_run() -> None:
    def handler(connection: socket.socket, number: int) -> None:
        connection.sendall(OK)
        if number == 0:
            connection.close()

    with server(handler) as target, StreamingClient([target], 1) as client:
        client.run([[REQUEST]], [0.0], 5.0)
        sock = client._clients[0].sock
        assert sock is not None
        sock.setblocking(True)
        assert sock.recv(1, socket.MSG_PEEK) == b""
        sock.setblocking(False)
        load = client.run([[REQUEST] * 2], [0.0], 5.0)
    assert [(e.error, e.connection_reused) for e in load.exchanges] == [(None, False), (None, True)]


def test_a_client_without_requests_is_left_alone() -> None:
    with server(lambda c, _: c.sendall(OK)) as target, StreamingClient([target], 2) as client:
        load = client.run([[], [REQUEST]], [0.0, 0.0], 5.0)
    assert [(e.client, e.error) for e in load.exchanges] == [(1, None)]


def test_kernel_stamp_is_turned_to_the_monotonic_clock() -> None:
    data = struct.pack("@ll", 100, 500)
    assert _kernel_stamp([(socket.SOL_SOCKET, 35, data)], 40_000_000_000) == 60_000_000_500
    assert _kernel_stamp([(socket.SOL_SOCKET, 1, data)], 0) is None
    assert _kernel_stamp([], 0) is None


def test_clock_offset_is_that_of_the_two_clocks() -> None:
    low = time.time_ns() - time.monotonic_ns()
    assert abs(clock_offset_ns() - low) < 1e9


def test_tls_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl binary to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    body = b"x" * 200_000

    def handler(connection: socket.socket, number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if number == 1:
            connection.close()

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with server(handler, context) as plain:
        target = Target("localhost", plain.port, True, "")
        with StreamingClient([target], 1) as client:
            load = client.run([[REQUEST] * 3], [0.0], 10.0)
        assert load.stamp_source == "read"
        # The second answer's connection ends without a word: the third request finds out, or opens a new one.
        assert [e.error for e in load.exchanges[:2]] == [None, None]
        assert load.exchanges[2].error in {None, "early_close", "reset"}
        assert sum(len(data) for _, data in body_pieces(load.exchanges[0].pieces)[1]) == len(body)
        with StreamingClient([target], 1, reuse=False) as client:
            load = client.run([[REQUEST] * 3], [0.0], 10.0)
        assert [(e.error, e.connection_reused) for e in load.exchanges] == [(None, False)] * 3
        monkeypatch.delenv("SSL_CERT_FILE")
        with StreamingClient([target], 1) as client:
            load = client.run([[REQUEST] * 2], [0.0], 10.0)
        assert [e.error for e in load.exchanges] == ["tls"] * 2  # nobody vouches for this certificate
        assert {e.problem for e in load.exchanges} == {"self-signed certificate"}
