"""Events and their stamps: where reads are cut changes stamps, but never events."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.load.events import Event, ndjson, sse

STREAM = 'data: {"a":"é"}\n\n: a comment\n\nevent: error\r\ndata: x\r\ndata: y\r\n\r\ndata:last\r\rid: 3\n\n'.encode()
EVENTS = [(b'{"a":"\xc3\xa9"}', "message"), (b"x\ny", "error"), (b"last", "message")]


def pieces_of(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [(100 * i, data[a:b]) for i, (a, b) in enumerate(itertools.pairwise(places)) if a < b]


@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_sse_splits_change_no_event(cuts: list[int]) -> None:
    pieces = pieces_of(STREAM, cuts)
    events = sse(pieces)
    assert [(event.data, event.type) for event in events] == EVENTS
    assert [event.stamp_ns for event in events] == [pieces[event.read][0] for event in events]


def test_sse_event_has_the_stamp_of_its_last_byte() -> None:
    pieces = [(1, b"data: a"), (2, b"\n"), (3, b"\ndata: b\n\ndata: c\n\n"), (4, b"data: never ended\n")]
    assert sse(pieces) == [Event(3, 2, b"a"), Event(3, 2, b"b"), Event(3, 2, b"c")]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n\n", b": ping\n\n", b"data", b"data: x\n", b"event: x\n\n", b"retry: 3\n\n"]
)
def test_sse_without_event(data: bytes) -> None:
    assert sse([(1, data)] if data else []) == []


def test_sse_empty_data_line_is_an_event() -> None:
    assert [event.data for event in sse([(1, b"data\n\ndata:\n\n")])] == [b"", b""]


@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_ndjson_splits_change_no_event(cuts: list[int]) -> None:
    data = '{"a":"ü"}\n\n{"b":2}\r\n{"c":3}'.encode()
    events = ndjson(pieces_of(data, cuts))
    assert [event.data.strip() for event in events] == ['{"a":"ü"}'.encode(), b'{"b":2}', b'{"c":3}']


def test_ndjson_stamps() -> None:
    pieces = [(1, b'{"a"'), (2, b":1}"), (3, b"\n{}\n{"), (4, b"}")]
    assert [(event.stamp_ns, event.read) for event in ndjson(pieces)] == [(3, 2), (3, 2), (4, 3)]
