"""Event streams: encoded once, sent to many; a slow reader loses the oldest and is told, and slows nobody."""

import asyncio
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from aifbench.services import stream as module
from aifbench.services.stream import Hub, frame
from tests.services.live import Live


class Reader:
    """Runs one stream as its server would; `stuck` lets no data through until it is cleared."""

    def __init__(self, stream, limit=64, streams=None):
        self.data = b""
        self.status = None
        self.may_send, self.leaves = asyncio.Event(), asyncio.Event()
        self.may_send.set()
        limits = SimpleNamespace(streams=limit)
        state = SimpleNamespace(streams=set() if streams is None else streams, settings=SimpleNamespace(limits=limits))
        self.state = state
        scope = {"type": "http", "app": SimpleNamespace(state=state)}
        self.task = asyncio.ensure_future(stream(scope, self._receive, self._send))

    async def _receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        await self.may_send.wait()
        self.status = message.get("status", self.status)
        self.data += message.get("body", b"")

    def events(self):
        return [json.loads(line[6:]) for line in self.data.decode().splitlines() if line.startswith("data: ")]


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_frame_is_what_browsers_read():
    assert frame(b'{"a":1}', "note", "7") == b'id: 7\nevent: note\ndata: {"a":1}\n\n'
    assert frame(b"{}") == b"data: {}\n\n"


def test_all_readers_get_what_they_want():
    async def scenario():
        hub = Hub()
        everything, some = Reader(hub.subscribe()), Reader(hub.subscribe(lambda topic: topic == "b"))
        await settle()
        for number, topic in enumerate("abab"):
            hub.publish(str(number).encode(), topic=topic)
        await settle()
        assert (everything.events(), some.events()) == ([0, 1, 2, 3], [1, 3])
        some.leaves.set()
        await settle()
        assert len(hub) == 1
        assert some.task.done()

    run(scenario)


def test_resume_gives_what_was_missed_once_and_tells_a_gap():
    async def scenario():
        hub = Hub(capacity=3)
        first = Reader(hub.subscribe())
        await settle()
        for number in range(4):
            hub.publish(str(number).encode())
            await settle()
        ids = [line[4:] for line in first.data.decode().splitlines() if line.startswith("id: ")]
        assert len(ids) == 4
        readers = [Reader(hub.subscribe(last_id=last)) for last in (ids[0], ids[2], ids[3], "other-1", ids[0] + "0")]
        await settle()
        hub.publish(b"4")
        await settle()
        assert [reader.events() for reader in readers] == [[1, 2, 3, 4], [3, 4], [4], [{}, 4], [{}, 4]]
        assert b"event: gap" in readers[3].data
        late = Reader(hub.subscribe(last_id=ids[0]))
        await settle()
        assert late.events() == [{}]

    run(scenario)


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many():
    async def scenario():
        hub = Hub(capacity=5)
        slow, quick = Reader(hub.subscribe()), Reader(hub.subscribe())
        await settle()
        slow.may_send.clear()
        hub.publish(b"0")
        await settle()  # number 0 is with the stuck reader
        for number in range(1, 21):
            hub.publish(str(number).encode())
            await settle()
        assert quick.events() == list(range(21))
        slow.may_send.set()
        await settle()
        assert slow.events() == [0, {"missed": 15}, 16, 17, 18, 19, 20]
        hub.publish(b"21")
        await settle()
        assert slow.events()[-1] == 21
        assert slow.data.count(b"event: missed") == 1

    run(scenario)


def test_memory_is_bounded_by_bytes_too():
    async def scenario():
        hub = Hub(capacity_bytes=10_000)
        slow = Reader(hub.subscribe())
        await settle()
        slow.may_send.clear()
        for _ in range(100):
            hub.publish(b'"%s"' % (b"x" * 1000))
            await settle()
        assert sum(len(encoded) for _, _, encoded in hub._recent) <= 10_000
        slow.may_send.set()
        await settle()
        assert len(slow.data) < 12_500
        assert sum(event["missed"] for event in slow.events() if isinstance(event, dict)) >= 89

    run(scenario)


def test_streams_above_the_limit_are_refused_and_leave_no_trace():
    async def scenario():
        hub, streams = Hub(), set()
        readers = [Reader(hub.subscribe(), limit=2, streams=streams) for _ in range(3)]
        await settle()
        assert [reader.status for reader in readers] == [200, 200, 503]
        assert len(hub) == len(streams) == 2
        readers[0].leaves.set()
        await settle()
        again = Reader(hub.subscribe(), limit=2, streams=streams)
        await settle()
        assert again.status == 200

    run(scenario)


def test_the_end_sends_what_waits_and_a_cancelled_stream_is_forgotten():
    async def scenario():
        hub = Hub()
        stream = hub.subscribe()
        reader = Reader(stream)
        await settle()
        hub.publish(b"1")
        stream.end()
        await asyncio.wait_for(reader.task, 1)
        assert reader.events() == [1]
        cancelled = Reader(hub.subscribe())
        await settle()
        cancelled.task.cancel()
        await settle()
        assert len(hub) == 0
        assert cancelled.state.streams == set()

    run(scenario)


def test_a_heartbeat_keeps_tunnels_open(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)

    async def scenario():
        hub = Hub()
        reader = Reader(hub.subscribe())
        await asyncio.sleep(0.3)
        assert 3 <= reader.data.count(b":\n\n") <= 7
        assert reader.events() == []

    run(scenario)


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "log") as live:
        expiry = {"logLevel": 0, "expires_at": "2036-01-01T00:00:00Z"}
        assert live.ask("PUT", "/api/v1/log/configs/x", expiry).status == 200
        yield live


def test_one_stuck_reader_slows_nobody(server):
    """A reader that takes nothing from its socket, beside one that does, while 8 MB go to both."""
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(str(server.socket))
        head = f"Host: localhost\r\nAuthorization: Bearer {server.token()}"
        stuck.sendall(f"GET /api/v1/log/stream HTTP/1.1\r\n{head}\r\n\r\n".encode())
        events = server.events("/api/v1/log/stream")
        found = []

        def read():
            while sum(map(len, found)) < 8000:
                event, data, _ = next(events)
                assert event == "statements"
                found.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.3)
        begin = time.monotonic()
        for number in range(8):
            batch = {"statements": [{"level": 0, "msg": f"{number} " + "x" * 900}] * 1000}
            assert server.post("/api/v1/log:batch", batch).json()["written"] == 1000
        reader.join(20)
        assert not reader.is_alive()
        assert [data[0]["msg"][0] for data in found] == [str(number) for number in range(8)]
        assert time.monotonic() - begin < 15
        events.close()
        stuck.settimeout(10)
        data = b""
        while b'"missed"' not in data:
            data += stuck.recv(1 << 20)
