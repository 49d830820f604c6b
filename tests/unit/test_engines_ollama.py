"""Ollama's native answers."""

import orjson
import pytest

from aifbench.benchmark import Place
from aifbench.campaign.system import System
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
