"""Ollama's native answers."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from aifbench.core.benchmark import Place
from aifbench.core.system import System
from aifbench.engines.base import Answer, Ask
from aifbench.engines.ollama import OllamaAdapter, command
from aifbench.engines.settings import Ollama

MS = 1_000_000


def adapter(**values: object) -> OllamaAdapter:
    return OllamaAdapter("http://h:11434", Ollama.model_validate({"kind": "ollama", "model": "m", **values}))


def line(**values: object) -> bytes:
    return orjson.dumps({"model": "m", **values}) + b"\n"


def last(**values: object) -> bytes:
    times = {
        "total_duration": 1000 * MS,
        "load_duration": 30 * MS,
        "prompt_eval_count": 14,
        "prompt_eval_duration": 20 * MS,
        "eval_count": 3,
        "eval_duration": 200 * MS,
    }
    return line(done=True, done_reason="length", **{**times, **values})


def parse(*pieces: bytes, **settings: object) -> Answer:
    return adapter(**settings).parse([(100 * (i + 1), piece) for i, piece in enumerate(pieces)])


def test_generate() -> None:
    answer = parse(line(response="a", done=False), line(response="b", done=False), last(response=""))
    assert (answer.token_ns, answer.text, answer.first_visible_ns) == ([100, 200], "ab", 100)
    assert (answer.tokens, answer.prompt_tokens, answer.cached_tokens) == (3, 14, None)
    assert (answer.finish_reason, answer.complete) == ("length", True)


def test_times_and_the_queue_that_only_the_total_holds() -> None:
    answer = parse(line(response="a"), last())
    assert (answer.load_ms, answer.prefill_ms, answer.decode_ms) == pytest.approx((30, 20, 200))
    assert answer.queue_ms == pytest.approx(1000 - 30 - 20 - 200)
    assert parse(last(total_duration=100 * MS)).queue_ms == 0.0


def test_absent_times_are_absent() -> None:
    answer = parse(line(response="a"), line(done=True, done_reason="stop"))
    assert (answer.queue_ms, answer.load_ms, answer.prefill_ms, answer.decode_ms, answer.tokens) == (None,) * 5
    assert parse(last(load_duration=None)).queue_ms is None


def test_chat_and_thinking() -> None:
    answer = parse(
        line(message={"role": "assistant", "content": ""}),
        line(message={"role": "assistant", "content": "", "thinking": "hm"}),
        line(message={"role": "assistant", "content": "a"}),
        last(message={"role": "assistant", "content": ""}),
        api="chat",
    )
    assert answer.token_ns == [200, 300]
    assert (answer.first_event_ns, answer.first_visible_ns, answer.text) == (100, 300, "hma")


def test_errors() -> None:
    assert parse(line(response="a"), b'{"error":"model runner has stopped"}\n').error == "model runner has stopped"
    assert "not understood" in str(parse(b"<html>\n").error)
    assert not parse(line(response="a")).complete


def test_request_sets_what_sites_default_differently() -> None:
    head, body = adapter(context=1024, keep_alive="5m").request(Ask("Hi", 8, 0.5, 7)).split(b"\r\n\r\n")
    assert head.startswith(b"POST /api/generate HTTP/1.1\r\nHost: h:11434")
    assert orjson.loads(body) == {
        "model": "m",
        "prompt": "Hi",
        "stream": True,
        "keep_alive": "5m",
        "options": {"num_predict": 8, "num_ctx": 1024, "temperature": 0.5, "seed": 7},
    }


def test_seed_zero_would_be_random() -> None:
    _, body = adapter(api="chat").request(Ask("Hi", 8, 0.0, 0)).split(b"\r\n\r\n")
    values = orjson.loads(body)
    assert values["options"]["seed"] == 1
    assert values["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("gpus", "visible"), [(2, "2,3"), (0, "-1")])
def test_a_server_sees_its_own_gpus_and_no_other(tmp_path, gpus, visible):
    place = Place("127.0.0.1", 4711, System(name="here"), tmp_path, ("2", "3")[:gpus])
    made = command(Ollama.model_validate({"kind": "ollama", "model": "m", "gpus": gpus}), place)
    assert (made.gpus, made.environment["CUDA_VISIBLE_DEVICES"]) == (gpus, visible)


def test_threads_are_left_to_ollama_unless_they_are_given():
    assert b"num_thread" not in adapter().request(Ask("a", 8, 0.0, 1))
    assert b'"num_thread":6' in adapter(threads=6).request(Ask("a", 8, 0.0, 1))


def described(answers: dict[str, tuple[int, bytes]]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what is told of a server that answers so, and the state of its model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))) == {"model": "m"}
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{httpd.server_port}"
        engine = OllamaAdapter(url, Ollama.model_validate({"kind": "ollama", "url": url, "model": "m"}))
        return engine.describe(), engine.state()
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


WHOLE = {
    "/api/version": {"version": "0.17.4"},
    "/api/tags": {"models": [{"name": "other"}, {"name": "m:latest", "digest": "abc", "size": 7}]},
    "/api/ps": {"models": [{"name": "m:latest", "size": 9, "size_vram": 4, "context_length": 512}]},
    "/api/show": {"details": {"family": "llama", "parameter_size": "7B", "quantization_level": "Q4", "format": "gguf"}},
}


def test_a_server_describes_itself_also_without_model_info() -> None:
    facts, state = described({path: (200, orjson.dumps(value)) for path, value in WHOLE.items()})
    assert facts == {
        "engine": "ollama", "version": "0.17.4", "model": "m", "parallel": None, "model_digest": "abc",
        "model_bytes": 7, "loaded_bytes": 9, "loaded_gpu_bytes": 4, "loaded_context": 512, "family": "llama",
        "parameter_size": "7B", "quantization_level": "Q4", "format": "gguf",
    }  # fmt: skip
    assert state == {"context": 512, "bytes": 9, "gpu_bytes": 4}


ODD = [
    b"", b"null", b"[]", b"3", b'"text"', b"<html>", b"{", b"{}", b"[" * 5000, b'{"models": null}', b'{"models": {}}',
    b'{"models": [null, 3, [], {"name": []}, {"name": {}}]}', b'{"models": [{"name": "m", "size": "big"}]}',
    b'{"details": null}', b'{"details": []}', b'{"details": {"family": 3}}', b'{"version": {}}', b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("path", [*WHOLE])
def test_an_odd_answer_is_no_fault_of_ours(path: str) -> None:
    for body in ODD:
        answers = {other: (200, orjson.dumps(value)) for other, value in WHOLE.items()}
        facts, _ = described({**answers, path: (200, body)})
        assert facts["model"] == "m"
        lost = {"/api/version": "version", "/api/tags": "model_digest", "/api/ps": "loaded_bytes"}.get(path, "family")
        assert facts.get(lost) is None
        orjson.dumps(facts)


def test_a_server_that_says_nothing_of_itself_is_said_to() -> None:
    facts, state = described({})
    assert facts["problem"] == "no answer that makes sense from /api/tags, /api/show"
    assert state is None
