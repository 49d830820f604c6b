"""Readiness over real sockets: how often a server is asked, and with which words it ends."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from aifbench.core.benchmark import ServerNotReady
from aifbench.core.system import System
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Answer, Ask
from aifbench.inference import preflight, readiness
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import understand
from aifbench.inference.server import InferenceServer
from aifbench.load.client import StreamingClient

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
TOKEN = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
LENGTH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}


def response(status: int, body: object, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    head = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(head).encode() + data


def stream(*events: object, end: bytes = b"data: [DONE]\n\n") -> bytes:
    data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + end
    return response(200, data, "Content-Type: text/event-stream")


def lines(*events: object) -> bytes:
    return response(200, b"".join(orjson.dumps(event) + b"\n" for event in events))


Answers = Callable[[int, bytes], bytes]


class Asked:
    """A server and the requests that it was asked, as they came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heads: list[bytes] = []
        self.posts = 0


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[Asked]:
    """Serve `answers(number of the POST, head)` on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = Asked(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            data = b""
            while part := connection.recv(65536):
                data += part
                head, end, body = data.partition(b"\r\n\r\n")
                given = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if not end or len(body) < sum(given):
                    continue
                data = body[sum(given) :]
                asked.heads.append(head)
                asked.posts += head.startswith(b"POST")
                connection.sendall(answers(asked.posts, head))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def case(url: str, **engine: object) -> InferenceParams:
    values = {"kind": "openai", "url": url, "model": "m", **engine}
    return InferenceParams.model_validate({"engine": values, "prompt_text": "x"})


def wait(url: str, timeout_s: float = 30.0, **engine: object) -> dict[str, Any]:
    params = case(url, **engine)
    return InferenceServer().wait_ready(str(getattr(params.engine, "url", url)), params, timeout_s, lambda: True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "MOST_REQUESTS", 4)
    monkeypatch.setattr(readiness, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(readiness, "LONGEST_WAIT_S", 0.004)


PACKED = bytes.fromhex("1f8b0800000000000003") + b"\xff\xfe"
FINAL = {
    "unprocessable": (response(422, {"detail": "Extra inputs are not permitted"}), "Extra inputs are not permitted"),
    "not allowed": (response(405, {"detail": "Method Not Allowed"}), "http_405"),
    "no key": (response(401, {"error": {"message": "no key given"}}), "no key given"),
    "no model": (response(404, {"error": "model 'm' not found"}), "model 'm' not found"),
    "payment": (response(402, b"pay\x1b[2J\r\nfirst"), "http_402: pay\\x1b[2J first"),
    "no content": (response(204, b""), "http_204"),
    "moved": (
        response(307, b"", "Location: /plain/v1/chat/completions"),
        "http_307: leads to {url}/plain/v1/chat/completions; give that URL: {url}/plain/v1",
    ),
    "moved away": (response(302, b"", "Location: https://sso.example/login?next=1"), "https://sso.example/login?***"),
    "moved nowhere": (response(301, b"", "Location: http://[::1"), "leads to"),
    "events of a wrong shape": (stream({"choices": 3}), "protocol: not understood"),
    "a page": (response(200, b"<html>Please sign in</html>"), "Please sign in"),
    "not streamed": (response(200, {"choices": [{"message": {"content": "a"}}]}), "not an event stream"),
    "packed": (response(200, PACKED, "Content-Encoding: gzip"), "packed (Content-Encoding: gzip)"),
    "packed error": (response(400, PACKED, "Content-Encoding: br"), "http_400: the body is packed (Content-Encoding"),
    "nothing in it": (stream(ROLE), "no_token"),
    "no HTTP": (b"SSH-2.0-x\r\n", "not an HTTP/1.1 status line"),
}


@pytest.mark.parametrize("name", FINAL)
def test_a_final_answer_ends_it_after_one_request_with_the_server_s_words(name: str) -> None:
    answer, said = FINAL[name]
    with serving(lambda *_: answer) as server, pytest.raises(ServerNotReady) as caught:
        wait(server.url)
    assert (server.posts, "1 request sent" in str(caught.value)) == (1, True)
    assert said.replace("{url}", server.url) in str(caught.value)
    assert str(caught.value).isprintable()


def test_words_are_cut_and_hold_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "s3cret")
    body = b"s3cret is no key " + b"x" * 100_000
    with serving(lambda *_: response(401, body)) as server, pytest.raises(ServerNotReady) as caught:
        wait(server.url, api_key_env="KEY")
    assert "http_401: *** is no key xxx" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert b"Authorization: Bearer s3cret" in server.heads[0]


READY = {
    "a token": stream(TOKEN, LENGTH, USAGE),
    "four tokens of silent thinking": stream(ROLE, LENGTH, USAGE),
    "a reason to finish": stream(ROLE, LENGTH),
    "a count": stream(ROLE, USAGE),
    "a count and no end": stream(ROLE, USAGE, end=b"data: [DONE]"),
}


@pytest.mark.parametrize("name", READY)
def test_a_whole_answer_is_one_though_nothing_of_it_is_visible(name: str) -> None:
    with serving(lambda *_: READY[name]) as server:
        facts = wait(server.url)
    assert (facts["requests_sent"], f"http://{facts['address']}") == (1, server.url)
    assert facts["first_answer_s"] > 0


def test_ollama_may_think_silently_too() -> None:
    done = {"done": True, "done_reason": "length", "eval_count": 4, "response": ""}
    with serving(lambda *_: lines(done)) as server:
        assert wait(server.url, kind="ollama")["requests_sent"] == 1


@pytest.mark.parametrize("status", [429, 503, 500, 408])
@pytest.mark.usefixtures("quick")
def test_a_server_that_is_busy_is_asked_a_few_times(status: int) -> None:
    with serving(lambda *_: response(status, {"error": "busy"})) as server, pytest.raises(ServerNotReady) as caught:
        wait(server.url)
    assert server.posts == readiness.MOST_REQUESTS
    assert f"http_{status}" in str(caught.value)
    assert f"({readiness.MOST_REQUESTS} requests sent)" in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_a_server_that_was_busy_gets_ready_and_its_requests_are_counted() -> None:
    with serving(lambda n, _: response(503, b"") if n < 3 else stream(TOKEN, LENGTH)) as server:
        assert wait(server.url)["requests_sent"] == server.posts == 3


@pytest.mark.parametrize(
    "after",
    [
        pytest.param("3600", id="seconds"),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), id="date"),
    ],
)
def test_a_longer_wait_than_there_is_time_ends_it_at_once(after: str) -> None:
    with (
        serving(lambda *_: response(429, b"", f"Retry-After: {after}")) as server,
        pytest.raises(ServerNotReady, match=r"it asks to wait 3\d{3}(\.\d+)? s, and 30 s are left"),
    ):
        wait(server.url)
    assert server.posts == 1


def test_a_wait_that_the_server_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("aifbench.inference.server._pause", lambda seconds, _: waits.append(seconds))
    refusals = [response(429, b"", "Retry-After: 7"), response(503, b"", "Retry-After: soon"), response(503, b"")]
    with serving(lambda n, _: refusals[n - 1] if n < 4 else stream(TOKEN, LENGTH)) as server:
        wait(server.url)
    assert waits == [7.0, 2.0, 4.0]


def test_who_does_not_listen_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LISTENS_WITHIN_S", 0.2)
    monkeypatch.setattr(readiness, "FIRST_WAIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerNotReady, match=r"within 0.2 s: connect: Connection refused \(no requests sent\)"):
        wait(f"http://127.0.0.1:{port}")


def test_our_own_server_is_waited_for_until_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tries = iter([True, True, False])
    params = InferenceParams.model_validate({"engine": {"kind": "ollama", "model": "m"}, "prompt_text": "x"})
    with pytest.raises(ServerNotReady, match=r"ended before it was ready \(last seen: connect: Connection refused\)"):
        InferenceServer().wait_ready(f"http://127.0.0.1:{port}", params, 60.0, lambda: next(tries, False))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, 999_999_999.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 01:01:00 +0100", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert readiness.retry_after_s(value, NOW) == seconds


def test_waits_grow_to_a_limit() -> None:
    assert [readiness.wait_s(n, ours=False) for n in (1, 2, 3, 6, 10_000)] == [1.0, 2.0, 4.0, 30.0, 30.0]
    assert [readiness.wait_s(n, ours=True) for n in (1, 2, 10_000)] == [0.1, 0.2, 0.5]


def test_a_timeout_is_worth_another_request_and_a_certificate_is_not() -> None:
    assert readiness.judge(Answer(), "timeout", None, {}, NOW).state == "later"
    assert readiness.judge(Answer(error="expired"), "tls", None, {}, NOW).state == "final"
    assert readiness.judge(Answer(error="x"), "server_error", 200, {}, NOW).state == "later"


# -- servers that want something


def measured(params: InferenceParams, url: str) -> tuple[Answer, str | None]:
    """Return what the measuring client gets for one request."""
    engine = adapter(params.engine, url)
    payload = engine.request(Ask("Hi", params.output_tokens, params.temperature, 7))
    with StreamingClient([engine.target], 1) as client:
        (exchange,) = client.run([[payload]], [0.0], 5.0).exchanges
    _, answer, error = understand(engine, exchange)
    return answer, error


def azure(_: int, head: bytes) -> bytes:
    first, *fields = head.split(b"\r\n")
    if b"?api-version=2024-06-01 " not in first:
        return response(404, {"error": {"message": "Resource not found"}})
    if b"api-key: s3cret" not in fields:
        return response(401, {"error": {"message": "no key given"}})
    return stream(TOKEN, LENGTH, USAGE) if first.startswith(b"POST") else response(200, {"data": []})


def test_headers_and_query_go_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "s3cret")
    with serving(azure) as server:
        wanted = {"headers": {"api-key": {"env": "AZURE_KEY"}}, "query": {"api-version": "2024-06-01"}}
        params = case(f"{server.url}/openai/deployments/d", **wanted)
        assert list(preflight.check(params, System(name="here"))) == []
        url = str(getattr(params.engine, "url", ""))
        InferenceServer().wait_ready(url, params, 5.0, lambda: True)
        InferenceServer().describe(url, params)
        answer, error = measured(params, url)
        assert (error, answer.tokens) == (None, 4)
        paths = [head.split(b" ")[1] for head in server.heads]
        assert {path.partition(b"?")[2] for path in paths} == {b"api-version=2024-06-01"}
        for without, said in (({"query": wanted["query"]}, "http_401: "), ({"headers": wanted["headers"]}, "http_404")):
            with pytest.raises(ServerNotReady, match=said):
                wait(url, **without)


def strict(_: int, head: bytes, body: dict[str, Any]) -> bytes:
    for name in ("max_tokens", "temperature", "seed", "stream_options"):
        if name in body:
            return response(400, {"error": {"message": f"{name} is not supported"}})
    return stream(*[TOKEN] * body["max_completion_tokens"], LENGTH)


def test_fields_that_a_server_refuses_are_left_out() -> None:
    left_out = {"max_tokens": None, "temperature": None, "seed": None, "stream_options": None}
    params = case("http://h", extra={**left_out, "max_completion_tokens": 6}).model_copy(update={"output_tokens": 6})
    body = orjson.loads(adapter(params.engine, "http://h").request(Ask("Hi", 6, 0.0, 7)).split(b"\r\n\r\n")[1])
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 6,
        "stream": True,
    }
    with serving(lambda _, head: strict(_, head, body)) as server:
        answer, error = measured(params, server.url)
    assert (error, len(answer.token_ns)) == (None, 6)


# -- the check before anything starts


def problems(url: str, **engine: object) -> list[str]:
    return [str(error) for error in preflight.check(case(url, **engine), System(name="here"))]


def test_variables_are_looked_at_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD", "s3cret\n")
    monkeypatch.setenv("WIDE", "s3crét")
    monkeypatch.delenv("NONE", raising=False)
    wanted = {"headers": {"a": {"env": "NONE"}, "b": {"env": "WIDE"}}, "query": {"c": {"env": "BAD"}}}
    found = problems("http://127.0.0.1:9", api_key_env="BAD", **wanted)
    assert found == [
        "engine.api_key_env = 'BAD': what this environment variable holds needs printable ASCII without white space "
        "around it",
        "engine.headers.a = 'NONE': this environment variable is not set",
        "engine.headers.b = 'WIDE': what this environment variable holds needs printable ASCII without white space "
        "around it",
        "engine.query.c = 'BAD': this environment variable has control characters in it",
    ]


def test_certificates_are_looked_at_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("ca.pem")
    url = "https://127.0.0.1:9"
    assert problems(url, ca_file="ca.pem") == ["engine.ca_file = 'ca.pem': no such file"]
    assert problems(url, ca_file=".") == ["engine.ca_file = '.': no such file"]
    (error,) = preflight.check(case(url, ca_file="ca.pem"), System(name="here", container="apptainer"))
    assert "needs a path from / on" in str(error)
    for content in (b"", b"hello", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"):
        file.write_bytes(content)
        assert problems(url, ca_file=str(file)) == ["engine.ca_file = 'ca.pem': holds no certificates in PEM form"]
