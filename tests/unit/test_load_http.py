"""Framing of responses: no split of the bytes changes what they say."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.load.http import FramingError, Response, Target, body_pieces

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CORPUS = {
    "chunked": (CHUNKED + b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n", b"hello world", True),
    "chunked with trailer": (CHUNKED + b"2\r\nhi\r\n0\r\nX: 1\r\n\r\n", b"hi", True),
    "data that look like an end": (CHUNKED + b"7\r\n0\r\n\r\n0\r\r\n0\r\n\r\n", b"0\r\n\r\n0\r", True),
    # A header's end that reads like a last chunk: `max=100` CRLF CRLF.
    "keep-alive max=100": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        True,
    ),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "interim first": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", True),
    "connection: close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", b"x", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", False),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", b"x", True),
    "surplus bytes": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxyz", b"x", False),
}


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@pytest.mark.parametrize("name", CORPUS)
@given(cuts=st.lists(st.integers(0, 500), max_size=12))
def test_splits_change_nothing(name: str, cuts: list[int]) -> None:
    data, body, reusable = CORPUS[name]
    response = Response()
    got = b"".join(response.feed(part) for part in split(data, cuts))
    assert (got, response.complete, response.status in {200, 204}) == (body, True, True)
    if name != "surplus bytes":  # whether the surplus was seen depends on when it came
        assert response.reusable is reusable


@pytest.mark.parametrize("name", CORPUS)
def test_byte_by_byte(name: str) -> None:
    data, body, _ = CORPUS[name]
    response = Response()
    assert b"".join(response.feed(bytes([byte])) for byte in data) == body
    assert response.complete


def test_incomplete_is_not_complete() -> None:
    data = CORPUS["chunked"][0]
    for end in range(len(data)):
        response = Response()
        response.feed(data[:end])
        assert not response.complete
        response.end()
        assert not response.complete


def test_close_ends_only_a_body_without_another_end() -> None:
    response = Response()
    assert response.feed(b"HTTP/1.1 200 OK\r\n\r\nabc") == b"abc"
    assert not response.complete
    response.end()
    assert response.complete
    assert not response.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-2\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"1\r\nabc\r\n",
        b"x" * 70_000,
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError):
        Response().feed(data)


def test_body_keeps_the_stamp_of_its_read() -> None:
    pieces = [(10, CHUNKED + b"2\r\nab\r\n"), (20, b"3\r"), (30, b"\ncd"), (40, b"e\r\n0\r\n\r\n")]
    response, body = body_pieces(pieces)
    assert response.complete
    assert body == [(10, b"ab"), (30, b"cd"), (40, b"e")]


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://a:8000/v1", Target("a", 8000, False, "/v1"), b"Host: a:8000\r\n"),
        ("http://a", Target("a", 80, False, ""), b"Host: a\r\n"),
        ("https://a/", Target("a", 443, True, ""), b"Host: a\r\n"),
        ("http://[::1]:80", Target("::1", 80, False, ""), b"Host: [::1]\r\n"),
    ],
)
def test_target(url: str, target: Target, host: bytes) -> None:
    assert Target.of(url) == target
    assert host in target.request("/x", b"{}")


def test_request_bytes() -> None:
    target = replace(Target.of("http://h:1/v1"), headers=(("Authorization", "Bearer k"), ("user-agent", "me")))
    head, body = target.request("/chat", b'{"a":1}').split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat HTTP/1.1\r\nHost: h:1\r\n")
    assert b"Content-Length: 7" in head
    assert b"Authorization: Bearer k" in head
    assert b"Accept-Encoding: identity" in head
    assert (b"user-agent: me" in head, b"User-Agent: aifbench" in head) == (True, False)
    assert body == b'{"a":1}'


def test_header_cannot_smuggle_a_line() -> None:
    with pytest.raises(ValueError, match="line end"):
        replace(Target.of("http://h"), headers=(("Authorization", "a\r\nEvil: 1"),)).request("/")


def test_a_query_stands_behind_every_path_and_no_secret_in_a_message() -> None:
    target = replace(Target.of("http://h/v1"), query="api-version=1&code=s3", headers=(("api-key", "s3"),))
    target = replace(target, secrets=("s3",))
    assert target.request("/chat", b"").startswith(b"POST /v1/chat?api-version=1&code=s3 HTTP/1.1\r\n")
    assert target.root.request("/version").startswith(b"GET /version?api-version=1&code=s3 ")
    assert "s3" not in repr(target)


@pytest.mark.parametrize(
    ("head", "coding"),
    [
        (b"Content-Encoding: gzip", "Content-Encoding: gzip"),
        (b"Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        (b"Content-Encoding: identity", None),
        (b"Transfer-Encoding: chunked", None),
        (b"X: 1", None),
    ],
)
def test_a_response_says_how_its_body_is_packed(head: bytes, coding: str | None) -> None:
    response = Response()
    response.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
    assert response.coding == coding
