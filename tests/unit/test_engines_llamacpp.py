"""The embedded engine: its command, its model, its body and its own times."""

from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from aifbench.core.benchmark import Place
from aifbench.core.system import System
from aifbench.engines.base import Ask
from aifbench.engines.llamacpp import LlamaCppAdapter, command, model_path, sha256_of, threads
from aifbench.engines.settings import LlamaCpp, Ollama, OpenAI


def settings(**values: object) -> LlamaCpp:
    return LlamaCpp.model_validate({"kind": "llamacpp", **values})


def test_timings_are_the_servers_truth() -> None:
    timings = {"cache_n": 66, "prompt_n": 1, "prompt_ms": 11.2, "predicted_n": 64, "predicted_ms": 500.5}
    events = [
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [], "usage": {"completion_tokens": 64, "prompt_tokens": 67}, "timings": timings},
    ]
    body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    answer = LlamaCppAdapter("http://h:1", settings()).parse([(1, body)])
    assert (answer.prefill_ms, answer.decode_ms, answer.cached_tokens) == (11.2, 500.5, 66)
    assert (answer.tokens, answer.prompt_tokens, answer.queue_ms, answer.load_ms) == (64, 67, None, None)


@pytest.mark.parametrize(("nonce", "cached"), [(None, True), ("n", False)])
def test_body_fixes_length_and_cache(nonce: str | None, cached: bool) -> None:
    _, body = LlamaCppAdapter("http://h:1", settings()).request(Ask("Hi", 8, 0.0, 7, nonce)).split(b"\r\n\r\n")
    values = orjson.loads(body)
    assert (values["ignore_eos"], values["cache_prompt"]) == (True, cached)


def test_model_by_path_and_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUFabc")
    assert model_path(str(file)) == file
    assert model_path(str(tmp_path / "none.gguf")) is None
    assert model_path("no-such-name") is None
    assert sha256_of(file) == "23087cd7c7b269c4552f0bd250e0f42c736ae0387c17ce3c3a49c47bfdc763b8"
    place = Place("127.0.0.1", 4711, System(name="here"), tmp_path)
    found = command(settings(model=str(file), slots=3, threads=2), place)
    assert found.argv[:3] == ("python", "-m", "aifbench.engines.llamacpp_server")
    assert (found.image, found.reads) == ("aifbench", (file,))
    pairs = dict(zip(found.argv[3::2], found.argv[4::2], strict=True))
    assert pairs == {
        "--model": str(file), "--host": "127.0.0.1", "--port": "4711", "--slots": "3", "--context": "2048",
        "--threads": "2",
    }  # fmt: skip
    with pytest.raises(FileNotFoundError):
        command(settings(model="no-such-name"), place)


def test_threads_are_at_least_one() -> None:
    assert threads(settings(threads=5)) == 5
    assert threads(settings()) >= 1


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (LlamaCpp, {"kind": "llamacpp", "slots": 0}),
        (LlamaCpp, {"kind": "llamacpp", "slot": 1}),
        (OpenAI, {"kind": "openai", "model": "m", "url": "ftp://h"}),
        (OpenAI, {"kind": "openai", "model": "m", "url": "http://user:key@h"}),
        (OpenAI, {"kind": "openai", "model": "m", "url": "http://h", "api_key_env": "sk-123 456"}),
        (Ollama, {"kind": "ollama", "keep_alive": "soon"}),
    ],
)
def test_settings_refuse_nonsense(model: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(values)
