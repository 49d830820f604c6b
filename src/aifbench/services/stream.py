"""Server-sent events: encoded once, fanned out to many; a slow reader loses the oldest and is told so.

A service makes one `Hub`, publishes to it, and returns `hub.subscribe(...)` from a route: an `EventStream` is the
response. Ids of events let a reader resume with `Last-Event-ID`; a comment each 15 s keeps tunnels open.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aifbench.services.problems import Problem

HEARTBEAT_S = 15.0
HEARTBEAT = b":\n\n"
CAPACITY = 1024
CAPACITY_BYTES = 4 << 20
"""Frames, and their bytes, that a reader may lag behind before it loses the oldest."""

Wants = Callable[[str], bool]


def frame(data: bytes, event: str = "", id: str = "") -> bytes:
    """Return one event as bytes. `data` is JSON on one line; neither `event` nor `id` may hold a line break."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return head.encode() + b"data: " + data + b"\n\n"


class Hub:
    """One source of events for many readers. All methods belong to the event loop; none of them waits."""

    def __init__(self, capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._epoch = secrets.token_hex(4)
        self._number = 0
        self._recent: deque[tuple[int, str, bytes]] = deque()
        self._recent_bytes = 0
        self._streams: set[EventStream] = set()
        self._beat: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def publish(self, data: bytes, event: str = "", topic: str = "", id: str = "") -> None:
        """Send one event (`data`: JSON on one line) to all readers that want its topic.

        Without an `id` of its own the event gets the next of the hub, from which a reader can resume.
        """
        self._number += 1
        encoded = frame(data, event, id or f"{self._epoch}-{self._number}")
        self._recent.append((self._number, topic, encoded))
        self._recent_bytes += len(encoded)
        while len(self._recent) > self._capacity or self._recent_bytes > self._capacity_bytes:
            self._recent_bytes -= len(self._recent.popleft()[2])
        for stream in self._streams:
            if stream.wants is None or stream.wants(topic):
                stream.push(encoded)

    def subscribe(
        self, wants: Wants | None = None, last_id: str | None = None, first: Iterable[bytes] = ()
    ) -> EventStream:
        """Return the response that gives `first` (frames), what `last_id` of this hub has not seen, then all to come.

        It listens from this moment on, so a replay that is read afterwards and given to `stream.first` misses nothing.
        A `last_id` that this hub no longer knows gives an event `gap`.
        """
        stream = EventStream(self, wants, self._capacity, self._capacity_bytes)
        stream.first = [*first, *self._since(last_id, wants)]
        self._streams.add(stream)
        if self._beat is None:
            self._beat = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._heartbeat)
        return stream

    def leave(self, stream: EventStream) -> None:
        """Forget a reader."""
        self._streams.discard(stream)
        if not self._streams and self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _since(self, last_id: str | None, wants: Wants | None) -> list[bytes]:
        if not last_id:
            return []
        epoch, _, text = last_id.partition("-")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        oldest = self._recent[0][0] if self._recent else self._number + 1
        if epoch != self._epoch or not oldest - 1 <= number <= self._number:
            return [frame(b"{}", "gap")]
        return [encoded for known, topic, encoded in self._recent if known > number and (wants is None or wants(topic))]

    def _heartbeat(self) -> None:
        for stream in self._streams:
            stream.push(HEARTBEAT)
        self._beat = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._heartbeat)


class EventStream(Response):
    """One reader of a hub, as the response of its request. Ends when the reader leaves or the server closes."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, wants: Wants | None, capacity: int, capacity_bytes: int) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.hub, self.wants = hub, wants
        self.first: list[bytes] = []
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = self._missed = 0
        self._ended = False
        self._wake = asyncio.Event()

    def push(self, encoded: bytes) -> None:
        """Queue one frame; the oldest goes when the reader is too slow."""
        self._waiting.append(encoded)
        self._waiting_bytes += len(encoded)
        while len(self._waiting) > self._capacity or self._waiting_bytes > self._capacity_bytes:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._missed += 1
        self._wake.set()

    def end(self) -> None:
        """End the stream after what is queued."""
        self._ended = True
        self._wake.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until the end; at most `limits.streams` of them at a time on one server."""
        state: Any = scope["app"].state
        if len(state.streams) >= state.settings.limits.streams:
            self.hub.leave(self)
            detail = f"{len(state.streams)} streams are open already; close one, or try again later"
            await Problem(503, detail, {"retry-after": "5"}).response()(scope, receive, send)
            return
        state.streams.add(self)
        leaving = asyncio.ensure_future(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(b"".join(self.first) or HEARTBEAT, send)
            while not self._ended or self._waiting:
                await self._wake.wait()
                self._wake.clear()
                if self._waiting:
                    missed = [frame(b'{"missed":%d}' % self._missed, "missed")] if self._missed else []
                    data = b"".join([*missed, *self._waiting])
                    self._waiting_bytes = self._missed = 0
                    self._waiting.clear()
                    await self._send(data, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            state.streams.discard(self)
            self.hub.leave(self)

    async def _send(self, data: bytes, send: Send) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._waiting.clear()
        self.end()
