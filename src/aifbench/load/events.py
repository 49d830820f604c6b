"""Events of a streamed body with their stamps: Server-Sent Events and newline-delimited JSON. Pure.

An event has come when its last byte has come: it carries the stamp of the read that brought that byte. So where the
network splits the bytes changes stamps, but never events.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import orjson

Pieces = Sequence[tuple[int, bytes]]
_SSE_LINE_END = re.compile(rb"\r\n|\n|\r")
_LF = re.compile(rb"\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One event: when it was complete (CLOCK_MONOTONIC, ns), in which read of the body, its type and its data."""

    stamp_ns: int
    read: int
    data: bytes
    type: str = "message"


def sse(pieces: Pieces) -> list[Event]:
    """Return the Server-Sent Events of a body; an event without its blank line at the end is dropped.

    Source: WHATWG HTML, 9.2.6 (a byte order mark is passed over; lines end in CR, LF or CRLF; comments and unknown
    fields are ignored; data lines are joined by LF; an event without data is none; what is no UTF-8 becomes U+FFFD).
    """
    clock = _Clock(pieces)
    events: list[Event] = []
    data: list[bytes] = []
    kind = "message"
    start = len(_BYTE_ORDER_MARK) if clock.body.startswith(_BYTE_ORDER_MARK) else 0
    for line, end in _lines(clock.body, _SSE_LINE_END, start):
        if not line:
            if data:
                stamp, read = clock.at(end)
                events.append(Event(stamp, read, b"\n".join(data).decode("utf-8", "replace").encode(), kind))
            data, kind = [], "message"
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
    return events


def ndjson(pieces: Pieces) -> list[Event]:
    """Return one event per non-empty line; the last one needs no line end if it is whole, else it was cut off."""
    clock = _Clock(pieces)
    events = []
    start = 0
    for line, end in _lines(clock.body, _LF):
        start = end
        if line.strip():
            stamp, read = clock.at(end)
            events.append(Event(stamp, read, line))
    rest = clock.body[start:]
    if _is_json(rest):
        stamp, read = clock.at(len(clock.body))
        events.append(Event(stamp, read, rest))
    return events


class _Clock:
    """Maps a position in the joined body to the read that brought it."""

    def __init__(self, pieces: Pieces) -> None:
        self.body = b"".join(data for _, data in pieces)
        self._stamps = [stamp for stamp, _ in pieces]
        self._ends = list(accumulate(len(data) for _, data in pieces))

    def at(self, end: int) -> tuple[int, int]:
        """Return (stamp, index of the read) of the byte before position `end`."""
        read = bisect_left(self._ends, end)
        return self._stamps[read], read


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except ValueError:
        return False
    return True


def _lines(body: bytes, line_end: re.Pattern[bytes], start: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield (line, position after its line end) of each line that has an end."""
    for match in line_end.finditer(body, start):
        yield body[start : match.start()], match.end()
        start = match.end()
