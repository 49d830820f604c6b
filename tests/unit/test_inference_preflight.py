"""What only this machine can tell: each problem is one line that names the key."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aifbench.core.system import System
from aifbench.inference.params import InferenceParams
from aifbench.inference.preflight import check

SYSTEM = System(name="here")


def problems(**engine: object) -> list[str]:
    return [str(error) for error in check(InferenceParams.model_validate({"engine": engine}), SYSTEM)]


@contextlib.contextmanager
def server(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def test_missing_model_and_wrong_file(tmp_path: Path) -> None:
    (line,) = problems(kind="llamacpp", model="nothing")
    assert line == "engine.model = 'nothing': no such model here (allowed: smollm2-135m, the path of a .gguf file)"
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a model")
    assert "not a GGUF file" in problems(kind="llamacpp", model=str(file))[0]
    file.write_bytes(b"GGUF....")
    assert problems(kind="llamacpp", model=str(file)) == []


def test_nobody_listens() -> None:
    for engine in ({"kind": "openai", "model": "m"}, {"kind": "ollama"}):
        (line,) = problems(**engine, url="http://127.0.0.1:9")
        assert line.startswith("engine.url = 'http://127.0.0.1:9': does not answer within 2 s")


def test_openai_answers() -> None:
    with server({"/v1/models": (401, b"{}")}) as url:
        assert problems(kind="openai", url=url, model="m") == []
    with server({"/v1/models": (502, b"")}) as url:
        assert "answers GET /v1/models with status 502" in problems(kind="openai", url=url, model="m")[0]


def test_key_must_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with server({}) as url:
        (line,) = problems(kind="openai", url=url, model="m", api_key_env="NO_SUCH_KEY")
    assert line == "engine.api_key_env = 'NO_SUCH_KEY': this environment variable is not set"


def test_ollama_has_the_model() -> None:
    answers = {"/api/version": (200, b"{}"), "/api/tags": (200, b'{"models":[{"name":"mistral:latest"}]}')}
    with server(answers) as url:
        assert problems(kind="ollama", url=url, model="mistral") == []
        (line,) = problems(kind="ollama", url=url, model="other")
    assert line == "engine.model = 'other': the server does not have this model (allowed: mistral:latest)"
    with server({}) as url:
        assert "does not list its models" in problems(kind="ollama", url=url)[0]
