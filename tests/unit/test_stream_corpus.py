"""Each stream of the corpus is taken for what it is, however the network cuts it."""

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifbench.engines.base import Answer
from aifbench.inference.metrics import evaluate
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, understand
from aifbench.load.client import Exchange
from aifbench.load.events import Pieces
from aifbench.load.http import FramingError, Response
from aifbench.records.store import plain_columns, typed_columns
from tests.fixtures.notes import said
from tests.fixtures.streams import EXPECTED, FOLDER, MESSAGES, Expected, adapter, wires

SENT_NS = 7_000_000_000_000
STEP_NS = 1_000_000
WIRES = {name: dict(wires(name)) for name in EXPECTED}
each_stream = pytest.mark.parametrize("name", EXPECTED)
tries = settings(max_examples=20, deadline=None, derandomize=True)
PARAMS = InferenceParams(prompt_text="x", clients=1, requests=1, output_tokens=2)
FACTS: dict[str, Any] = {
    "calibration": None, "fixes_length": False, "server_states_before": [None], "server_states_after": [None],
    "warmup_requests": 0, "warmup_failed": 0, "clock_offset_start_ns": 0, "clock_offset_end_ns": 0,
    "error_messages": {},
}  # fmt: skip


def received(pieces: Pieces) -> Exchange:
    """Return the exchange that the client makes of these reads and a close after the last of them."""
    made = Exchange(0, 0, SENT_NS, send_ns=SENT_NS, sent_ns=SENT_NS)
    response = Response()
    for stamp, data in pieces:
        made.pieces.append((stamp, data))
        made.end_ns = stamp
        try:
            response.feed(data)
        except FramingError:
            made.error = "protocol"
            break
        if response.complete:
            break
    else:
        response.end()
        made.error = None if response.complete else "early_close"
    made.status = response.status
    return made


def by_block(blocks: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return the reads when each brings one block: the stamp tells the block."""
    return [(SENT_NS + (number + 1) * STEP_NS, block) for number, block in enumerate(blocks)]


def a_wire(name: str, data: st.DataObject) -> list[bytes]:
    return data.draw(st.sampled_from(list(WIRES[name].values())))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    whole = sorted({0, len(data), *places})
    return [data[a:b] for a, b in itertools.pairwise(whole)]


def meaning(answer: Answer, error: str | None) -> tuple[object, ...]:
    """Return what must not depend on how the bytes came."""
    return len(answer.token_ns), answer.text, answer.tokens, answer.finish_reason, error


def test_the_table_is_that_of_the_folder() -> None:
    kinds = {".sse", ".ndjson", ".json", ".html", ".http"}
    assert {path.name for path in FOLDER.iterdir() if path.suffix in kinds} == EXPECTED.keys()
    assert MESSAGES.keys() <= EXPECTED.keys()


@each_stream
def test_each_stream_is_what_it_is(name: str) -> None:
    def block(stamp: int | None) -> int | None:
        return None if stamp is None else (stamp - SENT_NS) // STEP_NS - 1

    found = {}
    for framing, blocks in WIRES[name].items():
        _, answer, error = understand(adapter(name), received(by_block(blocks)))
        found[framing] = Expected(
            "".join(str(block(stamp)) for stamp in answer.token_ns),
            block(answer.first_event_ns), block(answer.first_visible_ns),
            answer.text, answer.tokens, answer.finish_reason, error,
        )  # fmt: skip
        assert MESSAGES.get(name, "") in (answer.error or "")
    assert found == dict.fromkeys(found, EXPECTED[name])


@each_stream
@tries
@given(st.data())
def test_reads_change_stamps_and_nothing_else(name: str, data: st.DataObject) -> None:
    blocks, expected = a_wire(name, data), EXPECTED[name]
    wire = b"".join(blocks)
    places = data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=30))
    pieces = [(SENT_NS + (i + 1) * STEP_NS, part) for i, part in enumerate(cut(wire, places))]
    _, answer, error = understand(adapter(name), received(pieces))
    assert meaning(answer, error) == (len(expected.tokens), *expected[3:])
    ends = list(itertools.accumulate(len(block) for block in blocks))
    reads = list(itertools.accumulate(len(part) for _, part in pieces))

    def stamp(block: int | None) -> int | None:
        """Return the stamp of the read that brings the last byte of a block."""
        return None if block is None else pieces[bisect_left(reads, ends[block])][0]

    assert answer.token_ns == [stamp(int(block)) for block in expected.tokens]
    assert answer.first_event_ns == stamp(expected.first_event)
    assert answer.first_visible_ns == stamp(expected.first_visible)


@each_stream
@tries
@given(st.data())
def test_a_boundary_inside_an_event_changes_no_metric(name: str, data: st.DataObject) -> None:
    blocks = a_wire(name, data)
    last = data.draw(st.lists(st.booleans(), min_size=len(blocks), max_size=len(blocks)))  # of its group of blocks
    groups: list[list[bytes]] = [[]]
    for block, ends in zip(blocks, last, strict=True):
        groups[-1].append(block)
        if ends:
            groups.append([])
    groups = [group for group in groups if group]
    reads, moved = [b"".join(group) for group in groups], []
    late = b""
    for group, after in itertools.zip_longest(groups, groups[1:]):
        kept = data.draw(st.integers(0, len(after[0]) - 1)) if after else 0  # of the next event come with this group
        whole = b"".join(group)[len(late) :]
        late = after[0][:kept] if after else b""
        moved.append(cut(whole + late, data.draw(st.lists(st.integers(1, max(1, len(whole) - 1)), max_size=3))))
    assert b"".join(itertools.chain(*moved)) == b"".join(blocks)
    found = [
        columns(adapter(name), [received([(SENT_NS + (i + 1) * STEP_NS, part) for i, part in pieces])])[0]
        for pieces in (list(enumerate(reads)), [(i, part) for i, parts in enumerate(moved) for part in parts])
    ]
    (metrics, verdict), (same, same_verdict) = (evaluate(PARAMS, raw, FACTS) for raw in found)
    assert metrics == same
    assert verdict.reasons == same_verdict.reasons
    assert metrics["success_rate"].value == float(EXPECTED[name].error is None)


def test_a_head_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    endless = b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000
    assert received([(1, endless)]).error == "protocol"
    assert len(received([(i, b"x: y\r\n" * 500 if i else b"HTTP/1.1 200 OK\r\n") for i in range(100)]).pieces) < 50


def test_all_streams_together_make_one_table() -> None:
    names = [name for name in EXPECTED if name.startswith("chat-")]
    exchanges = [received(by_block(next(iter(WIRES[name].values())))) for name in names]
    raw, messages = columns(adapter("chat-"), exchanges)
    metrics, verdict = evaluate(PARAMS, typed_columns(plain_columns(raw)), {**FACTS, "error_messages": messages})
    errors = Counter(error for name in names if (error := EXPECTED[name].error) is not None)
    good = len(names) - errors.total()
    assert (metrics["success_rate"].n, metrics["success_rate"].value) == (len(names), good / len(names))
    listed = ", ".join(f"{count} {error}" for error, count in sorted(errors.items()))
    assert said(verdict.reasons)[0] == f"{errors.total()} of {len(names)} requests failed: {listed}"


@pytest.mark.parametrize(
    ("name", "load_ms", "prefill_ms", "decode_ms", "prompt_tokens", "cached_tokens"),
    [
        ("llamacpp-recorded.http", None, 739.443, 95.83, 33, 0),
        ("ollama-recorded-generate.http", 501.138504, 282.993217, 1849.956182, 12, None),
        ("ollama-recorded-chat.http", 55.109164, 130.465044, 156.226687, 12, None),
    ],
)
def test_the_engines_own_times_are_those_they_sent(
    name: str, load_ms: float | None, prefill_ms: float, decode_ms: float, prompt_tokens: int, cached_tokens: int | None
) -> None:
    _, answer, _ = understand(adapter(name), received(by_block(WIRES[name]["as it is"])))
    assert answer.load_ms == (None if load_ms is None else pytest.approx(load_ms))
    assert (answer.prefill_ms, answer.decode_ms) == pytest.approx((prefill_ms, decode_ms))
    assert (answer.prompt_tokens, answer.cached_tokens) == (prompt_tokens, cached_tokens)
