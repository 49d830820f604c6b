"""OpenAI-compatible answers: a corpus of what servers really send."""

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.engines.base import Answer, Ask
from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import OpenAI

ASK = Ask("Hi there", 8, 0.0, 7)


def adapter(url: str = "http://h:8000", **values: object) -> OpenAIAdapter:
    return OpenAIAdapter(url, OpenAI.model_validate({"kind": "openai", "url": url, "model": "m", **values}))


def event(value: object, end: bytes = b"\n\n") -> bytes:
    return b"data: " + orjson.dumps(value) + end


def delta(**values: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": values, "finish_reason": None}]})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
DONE = b"data: [DONE]\n\n"


def usage(tokens: int, prompt: int = 5, **values: object) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": tokens, "prompt_tokens": prompt, **values}})


def parse(*pieces: bytes) -> Answer:
    return adapter().parse([(100 * (i + 1), piece) for i, piece in enumerate(pieces)])


def test_role_and_empty_chunks_are_no_tokens() -> None:
    answer = parse(delta(role="assistant", content=""), delta(role="assistant", content=None), delta(content="a"), DONE)
    assert answer.first_event_ns == 100
    assert answer.token_ns == [300]
    assert answer.first_visible_ns == 300
    assert answer.text == "a"


def test_reasoning_is_a_token_but_not_visible() -> None:
    answer = parse(delta(reasoning_content="hm"), delta(reasoning="hm"), delta(content="a"), FINISH)
    assert answer.token_ns == [100, 200, 300]
    assert answer.first_visible_ns == 300


def test_tool_call_is_a_token_but_not_visible() -> None:
    call = {"function": {"name": "f", "arguments": '{"x":'}}
    answer = parse(delta(tool_calls=[call]), delta(tool_calls=[{"function": {"arguments": "1}"}}]), FINISH)
    assert answer.token_ns == [100, 200]
    assert answer.first_visible_ns is None
    assert answer.text == 'f{"x":1}'


def test_completions_api() -> None:
    answer = parse(event({"choices": [{"text": "a"}]}), event({"choices": [{"text": "", "finish_reason": "stop"}]}))
    assert (answer.token_ns, answer.text, answer.finish_reason, answer.complete) == ([100], "a", "stop", True)


def test_usage_is_the_servers_count() -> None:
    answer = parse(delta(content="a"), delta(content="b c"), FINISH, usage(3, 5), DONE)
    assert (answer.tokens, answer.prompt_tokens, answer.cached_tokens) == (3, 5, None)
    assert (answer.finish_reason, answer.complete) == ("length", True)


def test_cached_tokens_are_read_where_told() -> None:
    answer = parse(delta(content="a"), usage(1, 9, prompt_tokens_details={"cached_tokens": 0}), DONE)
    assert answer.cached_tokens == 0
    assert parse(delta(content="a"), usage(1, 9, prompt_tokens_details=None), DONE).cached_tokens is None


def test_missing_usage_is_absent_and_not_zero() -> None:
    answer = parse(delta(content="a"), FINISH, DONE)
    assert (answer.tokens, answer.prompt_tokens, answer.prefill_ms, answer.decode_ms) == (None,) * 4


def test_continuous_usage_ends_with_the_last() -> None:
    chunk = {"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 1, "prompt_tokens": 5}}
    last = {"choices": [{"delta": {"content": "b"}}], "usage": {"completion_tokens": 2, "prompt_tokens": 5}}
    assert parse(event(chunk), event(last), DONE).tokens == 2


def test_several_events_in_one_read_are_counted() -> None:
    answer = parse(delta(content="a"), delta(content="b") + delta(content="c"), delta(content="d"), DONE)
    assert answer.token_ns == [100, 200, 200, 300]
    assert answer.reads_with_several_tokens == 1


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (event({"error": {"message": "out of memory", "code": 500}}), "out of memory"),
        (event({"error": "plain"}), "plain"),
        (b'event: error\ndata: {"message": "late"}\n\n', "late"),
        (b"data: {broken\n\n", "not understood"),
        (b"data: [1]\n\n", "not understood"),
        (event({"choices": [3]}), "not understood"),
        (event({"choices": 3}), "not understood"),
    ],
)
def test_error_events_and_nonsense(data: bytes, error: str) -> None:
    answer = parse(delta(content="a"), data)
    assert answer.error is not None
    assert error in answer.error


@pytest.mark.parametrize("data", [{"choices": 3}, {"choices": [3]}, {"choices": [{"delta": [1]}]}, [1], {"usage": 1}])
def test_one_event_of_a_wrong_shape_takes_nothing_from_the_others(data: object) -> None:
    answer = parse(delta(content="a"), event(data), delta(content="b"), FINISH, usage(2), DONE)
    assert (answer.token_ns, answer.text, answer.tokens, answer.complete) == ([100, 300], "ab", 2, True)
    assert answer.misfit
    assert str(answer.error).startswith("not understood: ")


def test_the_server_s_own_word_stands_before_what_made_no_sense() -> None:
    answer = parse(event({"choices": 3}), event({"error": "out of memory"}), event({"choices": 4}))
    assert (answer.error, answer.misfit) == ("out of memory", False)


def test_reads_with_several_tokens_are_counted_in_one_pass() -> None:
    answer = Answer(token_reads=[read for read in range(200_000) for _ in range(1 + (read % 4 == 0))])
    assert answer.reads_with_several_tokens == 50_000


def test_a_stream_that_just_stops_is_not_complete() -> None:
    assert not parse(delta(content="a"), delta(content="b")).complete
    assert not parse().complete


@given(cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_splits_change_nothing_but_stamps(cuts: list[int]) -> None:
    ready = delta(role="assistant"), delta(content="é☃"), b": ping\r\n\r\n", delta(content="𝄞"), FINISH, usage(2), DONE
    data = b"".join(ready)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    answer = parse(*(data[a:b] for a, b in itertools.pairwise(places)))
    assert answer.text == "é☃𝄞"
    assert (len(answer.token_ns), answer.tokens, answer.complete, answer.error) == (2, 2, True, None)
    assert answer.token_ns == sorted(answer.token_ns)


def test_request_says_all_that_matters() -> None:
    head, body = adapter("http://h:8000").request(ASK).split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert orjson.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi there"}],
        "max_tokens": 8,
        "temperature": 0.0,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_url_with_a_path_is_taken_as_it_is() -> None:
    assert adapter("http://h/api/v1").request(ASK).startswith(b"POST /api/v1/chat/completions ")
    assert adapter(api="completions").request(ASK).startswith(b"POST /v1/completions ")


def test_extra_fields_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    engine = adapter(extra={"ignore_eos": True, "max_tokens": 3}, api_key_env="THE_KEY", api="completions")
    head, body = engine.request(ASK).split(b"\r\n\r\n")
    assert b"Authorization: Bearer s3cret" in head
    values = orjson.loads(body)
    assert (values["ignore_eos"], values["max_tokens"], values["prompt"]) == (True, 3, "Hi there")
    assert engine.fixes_length()
    assert not adapter().fixes_length()


def test_nonce_stands_at_the_very_front() -> None:
    _, body = adapter().request(Ask("Hi", 8, 0.0, 7, nonce="abc")).split(b"\r\n\r\n")
    assert orjson.loads(body)["messages"] == [{"role": "user", "content": "[abc] Hi"}]
