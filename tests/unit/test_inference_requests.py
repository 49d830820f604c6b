"""The requests of a case, and exchanges as raw columns."""

import orjson
import pytest

from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import OpenAI
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, event_rate, payloads, scheduled_payloads, start_offsets, understand
from aifbench.load.client import Exchange

ENGINE = OpenAIAdapter("http://h", OpenAI(kind="openai", url="http://h", model="m"))
WARM = InferenceParams(prompt_text="Tell me", clients=2, requests=3)
COLD = WARM.model_copy(update={"cache": "cold"})


def content(payload: bytes) -> str:
    return str(orjson.loads(payload.split(b"\r\n\r\n", 1)[1])["messages"][0]["content"])


def test_warm_same_sends_one_and_the_same_request() -> None:
    measured, warmup = payloads([ENGINE], WARM, 7, "measure"), payloads([ENGINE], WARM, 7, "warmup")
    assert [len(row) for row in measured] == [3, 3]
    assert [len(row) for row in warmup] == [1, 1]
    assert len({payload for row in measured + warmup for payload in row}) == 1
    assert content(measured[0][0]) == "Tell me"


def test_each_client_asks_his_own_server() -> None:
    other = OpenAIAdapter("http://other", OpenAI(kind="openai", url="http://other", model="m"))
    rows = payloads([ENGINE, other], WARM.model_copy(update={"clients": 3}), 7, "measure")
    assert [b"Host: other" in row[0] for row in rows] == [False, True, False]


def test_cold_puts_another_nonce_in_front_of_each_request() -> None:
    both = [content(p) for part in ("measure", "warmup") for row in payloads([ENGINE], COLD, 7, part) for p in row]
    assert len(set(both)) == 8
    assert all(text.startswith("[") and text.endswith("] Tell me") for text in both)
    assert len({text[:3] for text in both}) > 1  # they differ from the first characters on
    again = [content(p) for row in payloads([ENGINE], COLD, 7, "measure") for p in row]
    assert again == both[:6]
    assert content(payloads([ENGINE], COLD, 8, "measure")[0][0]) != again[0]


def test_starts_are_staggered_and_seeded() -> None:
    assert start_offsets(1, 7) == [0.0]
    offsets = start_offsets(8, 7)
    assert offsets == start_offsets(8, 7) != start_offsets(8, 8)
    assert sorted(int(offset / 0.01) for offset in offsets) == list(range(8))
    assert max(start_offsets(1000, 7)) < 0.7


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def exchange(status: int | None, *pieces: bytes, error: str | None = None) -> Exchange:
    made = Exchange(0, 0, 5, send_ns=10, sent_ns=11, end_ns=99, status=status, error=error)
    made.pieces = [(20 + 10 * i, piece) for i, piece in enumerate(pieces)]
    return made


def test_classes_of_errors() -> None:
    cases = {
        None: exchange(200, HEAD, TOKEN, DONE),
        "early_close": exchange(200, HEAD, TOKEN),
        "no_token": exchange(200, HEAD, DONE),
        "server_error": exchange(200, HEAD, b'data: {"error":"x"}\n\n'),
        "http_503": exchange(503, b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"),
        "protocol": exchange(None, b"nonsense\r\n\r\n"),
        "protocol ": exchange(200, HEAD, TOKEN, b'data: {"choices":3}\n\n', DONE),
        "reset": exchange(200, HEAD, TOKEN, error="reset"),
        "timeout": exchange(None, error="timeout"),
    }
    for expected, made in cases.items():
        assert understand(ENGINE, made)[2] == (expected and expected.strip())


def test_an_answer_that_still_flowed_when_its_time_was_up_is_no_stall() -> None:
    """Reads at 20, 30 and 40 ns of a request that was sent at 10; silent for a tenth of its time or not."""
    for end, (expected, said) in {
        43: ("timeout", "still flowing"),
        44: ("stall", "nothing came in the last"),
        1000: ("stall", "nothing came in the last"),
    }.items():
        made = exchange(200, HEAD, TOKEN, TOKEN, error="stall")
        made.end_ns = end
        _, answer, error = understand(ENGINE, made)
        assert (error, len(answer.token_ns)) == (expected, 2)
        assert said in str(answer.error)


def test_a_message_is_told_though_the_first_of_its_class_has_none() -> None:
    flowing = exchange(200, HEAD, TOKEN, error="stall")
    flowing.end_ns = 31
    _, messages = columns(ENGINE, [exchange(None, error="timeout"), flowing])
    assert list(messages) == ["timeout"]
    assert messages["timeout"].startswith("still flowing after")


def test_what_came_before_a_failure_is_kept() -> None:
    raw, messages = columns(
        ENGINE,
        [
            exchange(200, HEAD, TOKEN, TOKEN, error="reset"),
            exchange(503, b"HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nbusy"),
        ],
    )
    assert raw["token_ns"] == [[30, 40], []]
    assert raw["first_byte_ns"] == [20, 20]
    assert raw["first_token_ns"] == [30, None]
    assert raw["error"] == ["reset", "http_503"]
    assert messages == {"http_503": "busy"}


def test_absent_is_none_and_never_zero() -> None:
    raw, _ = columns(ENGINE, [exchange(None, error="timeout")])
    absent = [name for name, (value,) in raw.items() if value is None]
    assert {
        "first_byte_ns", "first_event_ns", "first_token_ns", "first_visible_ns", "tokens", "prompt_tokens",
        "cached_tokens", "status", "finish_reason", "server_queue_ms", "server_load_ms", "server_prefill_ms",
        "server_decode_ms", "answer_sha256", "probe", "round_trip_ns", "retransmits",
    } == set(absent)  # fmt: skip


def test_scheduled_requests_have_a_form_for_each_server() -> None:
    other = OpenAIAdapter("http://other", OpenAI(kind="openai", url="http://other", model="m"))
    rows = scheduled_payloads([ENGINE, other], COLD, 7)
    assert len(rows) == 3
    assert [[b"Host: other" in form for form in row] for row in rows] == [[False, True]] * 3
    assert len({content(row[0]) for row in rows}) == 3
    assert all(content(row[0]) == content(row[1]) for row in rows)
    same = scheduled_payloads([ENGINE], WARM, 7)
    assert {row[0] for row in same} == {payloads([ENGINE], WARM, 7, "measure")[0][0]}


@pytest.mark.parametrize(
    ("engine", "servers", "busy"),
    [
        ({"kind": "openai", "url": "http://h", "model": "m"}, 1, 1),
        ({"kind": "ollama", "model": "m", "url": "http://h", "parallel": 4}, 1, 1),  # another's: its slots are unknown
        ({"kind": "ollama", "model": "m", "parallel": 2}, 2, 4),
        ({"kind": "llamacpp", "slots": 1}, 2, 2),
        ({"kind": "llamacpp", "slots": 8}, 1, 5),
    ],
)
def test_as_many_clients_as_are_served_at_once_warm_servers_up_before_a_schedule(
    engine: dict[str, object], servers: int, busy: int
) -> None:
    schedule = {"kind": "poisson", "rate": 1}
    params = InferenceParams.model_validate(
        {**WARM.model_dump(), "engine": engine, "servers": servers, "clients": 5, "schedule": schedule}
    )
    other = OpenAIAdapter("http://other", OpenAI(kind="openai", url="http://other", model="m"))
    for cache in ("warm-same", "cold"):
        adapters = [ENGINE, other][:servers]
        rows = payloads(adapters, params.model_copy(update={"cache": cache}), 7, "warmup")
        assert [len(row) for row in rows] == [1] * busy + [0] * (5 - busy)


def test_a_shared_prefix_stands_before_the_nonce() -> None:
    params = InferenceParams(
        prompt_text="x" * 40 + "y" * 40, cache="shared-prefix", shared_prefix_tokens=10, clients=2, requests=2
    )
    texts = [content(payload) for row in payloads([ENGINE], params, 7, "measure") for payload in row]
    assert len(set(texts)) == 4
    assert {text[:41] for text in texts} == {"x" * 40 + "["}
    assert {text.split("] ")[1] for text in texts} == {"y" * 40}


def test_the_rate_of_events_is_that_of_all_streams() -> None:
    assert event_rate([[0, 500_000_000], [], [1_000_000_000]]) == 2.0
    assert event_rate([[5], []]) == 0.0
