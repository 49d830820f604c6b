"""Faults over real sockets, all in one run: each has its class, none is lost, and who has none is not disturbed.

Each client asks three times, and the second request meets the client's fault. The server is a thread for each
connection. It lets the faults happen while the second answers of the healthy clients are under way, each after its
first token, and notes when it wrote what.
"""

import contextlib
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from aifbench.engines.base import Answer, Ask
from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import OpenAI
from aifbench.inference.metrics import evaluate
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, understand
from aifbench.load.client import Exchange, Load, StreamingClient
from aifbench.load.http import Target
from tests.fixtures.notes import said
from tests.fixtures.streams import EXPECTED, MESSAGES, adapter, wires

TIMEOUT_S = 3.0
REQUESTS, HEALTHY, TOKENS = 3, 3, 4
CLOCKS_NS = 50_000
"""The kernel's stamps are CLOCK_REALTIME, turned with an offset that is known to some µs."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Truth:
    """What the server did for one request (CLOCK_MONOTONIC, ns): the stamps are from before each write."""

    received_ns: int
    head_ns: list[int] = field(default_factory=list)
    """Of the first and the last byte of the head."""
    written_ns: list[int] = field(default_factory=list)
    """Of each token."""
    fault_ns: int | None = None


def chunk(value: Any) -> bytes:
    data = b"data: " + (value if isinstance(value, bytes) else orjson.dumps(value)) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


class Served:
    """One request, its connection and its truth."""

    def __init__(self, connection: socket.socket, truth: Truth) -> None:
        self.connection = connection
        self.truth = truth

    def head(self, gap_s: float = 0.0) -> None:
        parts = [bytes([byte]) for byte in HEAD] if gap_s else [HEAD]
        for part in parts:
            time.sleep(gap_s)
            self.truth.head_ns = [*self.truth.head_ns[:1], time.monotonic_ns()]
            self.connection.sendall(part)

    def tokens(self, n: int) -> None:
        for _ in range(n):
            time.sleep(0.002)
            data = chunk({"choices": [{"index": 0, "delta": {"content": f"t{len(self.truth.written_ns)} "}}]})
            self.truth.written_ns.append(time.monotonic_ns())
            self.connection.sendall(data)

    def rest(self) -> None:
        self.tokens(TOKENS - len(self.truth.written_ns))
        usage = {"prompt_tokens": 5, "completion_tokens": TOKENS}
        finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": usage}
        self.connection.sendall(chunk(finish) + chunk(b"[DONE]") + b"0\r\n\r\n")

    def refuse(self, status: bytes, *headers: bytes) -> None:
        body = orjson.dumps({"error": {"message": "queue is full"}})
        lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body]
        self.connection.sendall(b"\r\n".join(lines))

    def wait_for_close(self) -> None:
        self.connection.recv(1)


def stall(served: Served) -> None:
    served.head()
    served.tokens(2)


def silence(served: Served) -> None:
    pass


def reset(served: Served) -> None:
    served.head()
    served.tokens(2)
    served.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    served.connection.close()


def cut_in_chunk(served: Served) -> None:
    served.head()
    served.tokens(1)
    served.connection.sendall(chunk({"choices": [{"delta": {"content": "never whole"}}]})[:-20])
    served.connection.close()


def garbage(served: Served) -> None:
    served.connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")


def garbage_inside(served: Served) -> None:
    served.head()
    served.tokens(1)
    served.connection.sendall(b"data: this is no chunk\n\n")


def busy(served: Served) -> None:
    served.refuse(b"503 Service Unavailable", b"Retry-After: 1")


def too_many(served: Served) -> None:
    served.refuse(b"429 Too Many Requests", b"Retry-After: 20")


def slow_head(served: Served) -> None:
    served.head(gap_s=0.002)


@dataclass(frozen=True)
class Fault:
    """What the server does, the class that it must have (None: a success), and what came before it."""

    act: Callable[[Served], None]
    error: str | None
    tokens: int = 0
    status: int | None = 200
    keeps: bool = False
    """Whether the connection is kept after it."""


FAULTS = {
    "stall": Fault(stall, "stall", 2),
    "silence": Fault(silence, "timeout", status=None),
    "reset": Fault(reset, "reset", 2),
    "cut_in_chunk": Fault(cut_in_chunk, "early_close", 1),
    "garbage": Fault(garbage, "protocol", status=None),
    "garbage_inside": Fault(garbage_inside, "protocol", 1),
    "busy": Fault(busy, "http_503", status=503, keeps=True),
    "too_many": Fault(too_many, "http_429", status=429, keeps=True),
    "slow_head": Fault(slow_head, None, TOKENS, keeps=True),
}
CLOSED = "closed"
"""The client whose connection is closed after its first answer: its second request comes twice, the second time on a
new connection."""
KINDS = [*FAULTS, *["healthy"] * HEALTHY, CLOSED]


class Server:
    """Answers as `FAULTS` say; `truths` holds what it did by (client, index)."""

    def __init__(self) -> None:
        self.truths: dict[tuple[int, int], Truth] = {}
        self.lost_ns = 0
        """When the request of `CLOSED` came that nobody answered."""
        self.under_way = threading.Barrier(len(FAULTS) + HEALTHY)
        self.all_made = threading.Barrier(len(FAULTS) + HEALTHY)

    def serve(self, connection: socket.socket) -> None:
        closed = False
        while (request := read_request(connection)) is not None:
            kind, client, index = request["messages"][0]["content"].split()
            if closed:
                self.lost_ns = time.monotonic_ns()
                return
            truth = self.truths[int(client), int(index)] = Truth(time.monotonic_ns())
            served = Served(connection, truth)
            if index != "1" or kind == CLOSED:
                served.head()
                served.rest()
            else:
                self.second(served, kind)
            if kind == CLOSED and index == "0":
                truth.fault_ns = time.monotonic_ns()
                connection.shutdown(socket.SHUT_WR)
                closed = True

    def second(self, served: Served, kind: str) -> None:
        if kind == "healthy":
            served.head()
            served.tokens(1)
            self.under_way.wait(TIMEOUT_S)
            self.all_made.wait(TIMEOUT_S)
            served.rest()
            return
        fault = FAULTS[kind]
        self.under_way.wait(TIMEOUT_S)
        served.truth.fault_ns = time.monotonic_ns()
        fault.act(served)
        self.all_made.wait(TIMEOUT_S)
        if fault.error is None:
            served.rest()
        elif not fault.keeps:
            served.wait_for_close()


def read_request(connection: socket.socket) -> dict[str, Any] | None:
    """Return the JSON of the next request, None where there is no more."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    value: dict[str, Any] = orjson.loads(body)
    return value


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Give the URL of a server that calls `serve` with each connection, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, threading.BrokenBarrierError), connection:
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=one, args=(listener.accept()[0],), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(TIMEOUT_S)


@dataclass
class Run:
    """What came of it on both sides."""

    engine: OpenAIAdapter
    load: Load
    truths: dict[tuple[int, int], Truth]
    lost_ns: int

    def of(self, client: int, index: int) -> tuple[Exchange, Answer, str | None, Truth]:
        exchange = self.load.exchanges[client * REQUESTS + index]
        assert (exchange.client, exchange.index) == (client, index)
        _, answer, error = understand(self.engine, exchange)
        return exchange, answer, error, self.truths[client, index]


@pytest.fixture(scope="module")
def run() -> Run:
    server = Server()
    with listening(server.serve) as url:
        engine = OpenAIAdapter(url, OpenAI.model_validate({"kind": "openai", "url": url, "model": "m"}))
        asks = [
            [engine.request(Ask(f"{kind} {client} {index}", TOKENS, 0.0, 1)) for index in range(REQUESTS)]
            for client, kind in enumerate(KINDS)
        ]
        with StreamingClient([engine.target], len(KINDS)) as client:
            load = client.run(asks, [0.0] * len(KINDS), TIMEOUT_S)
    return Run(engine, load, server.truths, server.lost_ns)


def assert_right_times(exchange: Exchange, answer: Answer, truth: Truth) -> None:
    """Assert that every stamp lies between what the server wrote and the end, in the right order."""
    assert exchange.send_ns is not None
    assert exchange.end_ns is not None
    assert exchange.scheduled_ns <= exchange.send_ns <= truth.received_ns
    assert all(a >= b - CLOCKS_NS for a, b in zip(answer.token_ns, truth.written_ns, strict=True))
    stamps = [exchange.send_ns, *(stamp for stamp, _ in exchange.pieces), exchange.end_ns]
    assert stamps == sorted(stamps)
    assert answer.token_ns == sorted(answer.token_ns)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_has_its_class_and_its_client_goes_on(run: Run, kind: str) -> None:
    fault, client = FAULTS[kind], KINDS.index(kind)
    exchange, answer, error, truth = run.of(client, 1)
    assert (error, exchange.status, len(answer.token_ns)) == (fault.error, fault.status, fault.tokens)
    assert exchange.connection_reused
    assert_right_times(exchange, answer, truth)
    assert truth.fault_ns is not None
    assert exchange.end_ns is not None
    assert exchange.end_ns >= truth.fault_ns
    for index, reused in ((0, False), (2, fault.keeps)):
        other, other_answer, none, other_truth = run.of(client, index)
        assert (none, len(other_answer.token_ns), other.connection_reused) == (None, TOKENS, reused)
        assert_right_times(other, other_answer, other_truth)


@pytest.mark.parametrize("kind", ["stall", "silence"])
def test_who_says_nothing_is_waited_for_as_long_as_was_asked(run: Run, kind: str) -> None:
    exchange, answer, _, _ = run.of(KINDS.index(kind), 1)
    assert exchange.end_ns is not None
    assert exchange.end_ns - exchange.scheduled_ns >= TIMEOUT_S * 1e9
    assert bool(exchange.pieces) == bool(answer.token_ns) == (kind == "stall")


def test_a_slow_head_is_in_the_time_to_first_token(run: Run) -> None:
    exchange, answer, _, truth = run.of(KINDS.index("slow_head"), 1)
    first, last = truth.head_ns
    assert first - CLOCKS_NS <= exchange.pieces[0][0] <= answer.token_ns[0]
    assert last <= truth.written_ns[0] <= answer.token_ns[0] + CLOCKS_NS
    assert exchange.send_ns is not None
    assert answer.token_ns[0] - exchange.send_ns >= (len(HEAD) - 1) * 2_000_000


def test_a_request_on_a_connection_that_the_server_had_closed_is_sent_once_more(run: Run) -> None:
    first, second, third = (run.of(KINDS.index(CLOSED), index) for index in range(REQUESTS))
    assert [error for _, _, error, _ in (first, second, third)] == [None] * REQUESTS
    assert [exchange.retried for exchange, _, _, _ in (first, second, third)] == [False, True, False]
    assert [exchange.connection_reused for exchange, _, _, _ in (first, second, third)] == [False, False, True]
    exchange, answer, _, truth = second
    assert len(answer.token_ns) == TOKENS
    assert_right_times(exchange, answer, truth)
    # Its time runs from the first sending, which the server saw but did not answer.
    assert (first[3].fault_ns or 0) > 0
    assert 0 < (exchange.send_ns or 0) <= run.lost_ns
    assert (exchange.sent_ns or 0) <= truth.written_ns[0] + CLOCKS_NS


def test_no_other_failure_is_sent_again(run: Run) -> None:
    assert [exchange.client for exchange in run.load.exchanges if exchange.retried] == [KINDS.index(CLOSED)]


def test_the_others_go_on_undisturbed(run: Run) -> None:
    faults = [run.of(client, 1) for client, kind in enumerate(KINDS) if kind in FAULTS]
    waited = [exchange.end_ns for exchange, _, error, _ in faults if error in {"stall", "timeout"}]
    assert len(waited) == 2
    for client, kind in enumerate(KINDS):
        if kind != "healthy":
            continue
        for index in range(REQUESTS):
            exchange, answer, error, truth = run.of(client, index)
            assert (error, answer.text, answer.tokens) == (None, "t0 t1 t2 t3 ", TOKENS)
            assert exchange.connection_reused == (index > 0)
            assert_right_times(exchange, answer, truth)
            assert all((exchange.end_ns or 0) < end for end in waited if end is not None)
        _, _, _, truth = run.of(client, 1)
        begun, went_on = truth.written_ns[:2]
        assert all(begun <= (fault.fault_ns or 0) <= went_on for _, _, _, fault in faults)


def test_failures_stay_in_the_denominator(run: Run) -> None:
    raw, messages = columns(run.engine, run.load.exchanges)
    facts = {
        "calibration": None, "fixes_length": True, "server_states_before": [None], "server_states_after": [None],
        "warmup_requests": 0, "warmup_failed": 0, "clock_offset_start_ns": 0, "clock_offset_end_ns": 0,
        "error_messages": messages,
    }  # fmt: skip
    params = InferenceParams(prompt_text="x", clients=len(KINDS), requests=REQUESTS, output_tokens=TOKENS)
    metrics, verdict = evaluate(params, raw, facts)
    n, failed = len(KINDS) * REQUESTS, sum(fault.error is not None for fault in FAULTS.values())
    assert (metrics["success_rate"].n, metrics["success_rate"].value) == (n, (n - failed) / n)
    assert metrics["time_to_first_token_s"].n == n - failed
    assert said(verdict.reasons)[0] == (
        f"{failed} of {n} requests failed: "
        "1 early_close, 1 http_429, 1 http_503, 2 protocol, 1 reset, 1 stall, 1 timeout"
    )
    assert f"1 of {n} requests were sent again" in " ".join(said(verdict.notes))
    assert "queue is full" in messages["http_503"]
    assert "not an HTTP/1.1 status line" in messages["protocol"]


def test_the_corpus_is_the_same_over_a_socket() -> None:
    generator = random.Random(7)
    chosen = {name: generator.choice(list(wires(name))) for name in EXPECTED}
    parts = {}
    for name, (_, blocks) in chosen.items():
        wire = b"".join(blocks)
        places = sorted({0, len(wire), *(generator.randrange(len(wire)) for _ in range(8))})
        parts[name] = [wire[a:b] for a, b in itertools.pairwise(places)]

    def serve(connection: socket.socket) -> None:
        request = read_request(connection)
        assert request is not None
        for part in parts[request["stream"]]:
            connection.sendall(part)
            time.sleep(0.001)

    with listening(serve) as url:
        target = Target.of(url)
        asks = [[target.request("/", orjson.dumps({"stream": name}))] for name in EXPECTED]
        with StreamingClient([target], len(asks)) as client:
            load = client.run(asks, [0.0] * len(asks), TIMEOUT_S)
    for exchange, (name, expected) in zip(load.exchanges, EXPECTED.items(), strict=True):
        _, answer, error = understand(adapter(name), exchange)
        found = (len(answer.token_ns), answer.text, answer.tokens, answer.finish_reason, error)
        assert (name, chosen[name][0], *found) == (name, chosen[name][0], len(expected.tokens), *expected[3:])
        assert MESSAGES.get(name, "") in (answer.error or "")
