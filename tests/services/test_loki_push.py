"""The push of statements: a strict receiver of our own that can fail on demand, and a real VictoriaLogs."""

import base64
import gzip
import http.server
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from aifbench.services.log import loki as module
from aifbench.services.log.configs import LOKI_PATH, Loki
from aifbench.services.log.loki import LokiPush, payload, visible
from tests.services.live import Live
from tests.services.victoria_logs import PUSH, free_port, running

CONFIGS = "/api/v1/log/configs"


class Receiver(http.server.ThreadingHTTPServer):
    """Takes what the push interface of Loki takes and nothing else; `answers` are given first, then 204."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.lines, self.requests, self.answers, self.problems = [], [], [], []
        self.delay = 0.0
        self.path = LOKI_PATH
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        assert self.problems == []


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.delay)
        self.server.requests.append((time.monotonic(), self.headers, len(body)))
        if self.server.answers:
            status, headers, text = self.server.answers.pop(0)
        else:
            status, headers, text = 204, {}, ""
            try:
                self.server.lines += strictly(self.path == self.server.path, self.headers, body)
            except AssertionError as problem:
                self.server.problems.append(str(problem))
                status = 400
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if status != 204:
            self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def strictly(at_its_path, headers, body):
    """Return (labels, ns, line, metadata) of a push; AssertionError for what Loki would not take."""
    assert at_its_path
    assert (headers["Content-Type"], headers["Content-Encoding"]) == ("application/json", "gzip")
    content = json.loads(gzip.decompress(body))
    assert list(content) == ["streams"]
    found, seen = [], set()
    for stream in content["streams"]:
        assert set(stream) == {"stream", "values"}
        labels = stream["stream"]
        assert set(labels) == {"app", "cluster", "service", "level"}
        assert all(type(value) is str and value for value in labels.values())
        assert tuple(labels.values()) not in seen, "the same stream twice"
        seen.add(tuple(labels.values()))
        assert stream["values"]
        for value in stream["values"]:
            stamp, line, metadata = value
            assert type(stamp) is str, "the time must be a text"
            assert len(stamp) == 19, stamp
            assert type(line) is str
            assert all(type(name) is str and type(text) is str and text for name, text in metadata.items())
            assert len(metadata) < 128
            found.append((labels, int(stamp), line, metadata))
    assert 0 < len(found) <= 500
    return found


def records(number, start=0, level=0):
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return [
        {"t": now, "level": level, "service": "job", "run": "laptop", "msg": f"m{start + n}"} for n in range(number)
    ]


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)
    return found


def balanced(push):
    return push.offered == push.sent + push.refused + push.dropped + push.waiting


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF_S", (0.02, 0.1))
    monkeypatch.setattr(module, "MOST_WAIT_S", 0.1)


def test_labels_are_few_and_the_rest_is_metadata():
    record = {
        "t": "2026-11-26T12:00:00.123+00:00", "level": 2, "run": "r", "benchmark": "inference", "batch": "b",
        "case": "c", "service": "somebody\x1b", "node": "mel1", "slurm_job_id": "77", "rule": "batch",
        "msg": "a\nb\x1b[31m",
    }  # fmt: skip
    found = payload([record, {**record, "service": "job"}, {"t": "nonsense", "level": 0, "msg": "x"}], "mel")["streams"]
    assert found[0] == {
        "stream": {"app": "aifbench", "cluster": "mel", "service": "other", "level": "error"},
        "values": [
            [
                "1795694400123000000",
                "a\\nb\\x1b[31m",
                {"run_id": "r", "benchmark": "inference", "batch": "b", "case": "c", "node": "mel1",
                 "slurm_job_id": "77", "rule": "batch", "sender": "somebody\\x1b"},
            ]
        ],
    }  # fmt: skip
    assert found[1]["stream"]["service"] == "job"
    assert found[1]["values"][0][0] == "1795694400123000001"
    assert abs(int(found[2]["values"][0][0]) / 1e9 - time.time()) < 5
    assert visible("plain ü") == "plain ü"


def test_all_arrive_in_batches_in_order_and_small():
    with Receiver() as receiver:
        push = LokiPush(Loki(url=receiver.url, cluster="mel"))
        for start in range(0, 9000, 300):
            push.offer(records(300, start))
        until(lambda: push.sent == 9000)
        push.stop(1)
        assert [line for _, _, line, _ in receiver.lines] == [f"m{n}" for n in range(9000)]
        assert 18 <= len(receiver.requests) <= 20
        assert sum(size for _, _, size in receiver.requests) < 150_000
        assert all(metadata == {"run_id": "laptop"} for *_, metadata in receiver.lines)
        assert (push.offered, push.sent, push.dropped, push.refused, push.waiting) == (9000, 9000, 0, 0, 0)


def test_a_single_statement_waits_at_most_a_second():
    with Receiver() as receiver:
        push = LokiPush(Loki(url=receiver.url))
        begin = time.monotonic()
        push.offer(records(1))
        until(lambda: receiver.lines, 5)
        assert 0.8 < time.monotonic() - begin < 3
        push.stop(1)


@pytest.mark.parametrize(
    "answers", [[(503, {}, "no")] * 3, [(429, {}, "slow down")] * 2, [(500, {}, "x"), (401, {}, "")]]
)
def test_what_passes_is_tried_again(quick, answers):
    with Receiver() as receiver:
        receiver.answers = list(answers)
        push = LokiPush(Loki(url=receiver.url))
        push.offer(records(10))
        until(lambda: push.problem)
        assert str(answers[0][0]) in push.problem
        until(lambda: push.sent == 10)
        assert push.problem is None
        assert len(receiver.requests) == len(answers) + 1
        push.stop(1)


def test_the_pause_that_loki_asks_for_is_kept(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF_S", (0.01, 5.0))
    with Receiver() as receiver:
        receiver.answers = [(429, {"Retry-After": "1"}, "")]
        push = LokiPush(Loki(url=receiver.url))
        push.offer(records(500))
        until(lambda: push.sent == 500)
        assert receiver.requests[1][0] - receiver.requests[0][0] >= 1.0
        push.stop(1)


def test_pauses_grow_and_differ(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF_S", (0.05, 0.4))
    with Receiver() as receiver:
        receiver.answers = [(503, {}, "")] * 7
        push = LokiPush(Loki(url=receiver.url))
        push.offer(records(500))
        until(lambda: push.sent == 500)
        times = [at for at, _, _ in receiver.requests]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[0] < 0.2 < pauses[5]
        assert all(pause < 1.5 for pause in pauses)
        assert len({round(pause, 4) for pause in pauses}) > 4
        push.stop(1)


def test_a_refused_batch_is_not_sent_again_and_counted_exactly(quick):
    """The words are those of Loki 3.7.8."""
    behind = (
        "entry with timestamp 2026-11-26 05:59:44.816 +0000 UTC ignored, reason: 'entry too far behind, entry "
        "timestamp is: 2026-11-26T05:59:44Z, oldest acceptable timestamp is: 2026-11-26T09:59:44Z',\n"
        "user 'fake', total ignored: 3 out of 10 for stream: {}\n"
    )
    one = "entry for stream '{app=\"aifbench\"}' has timestamp too new: 2026-11-26T15:59:44Z\n"
    several = "2 errors like: entry for stream '{}' has timestamp too old: x; 1 errors like: entry for stream '{}' y\n"
    with Receiver() as receiver:
        receiver.answers = [(400, {}, text) for text in (behind, one, several, "error parsing labels")]
        push = LokiPush(Loki(url=receiver.url))
        sent = refused = 0
        for some in (3, 1, 3, 10):
            push.offer(records(10))
            until(lambda: push.waiting == 0)
            sent, refused = sent + 10 - some, refused + some
            assert (push.sent, push.refused) == (sent, refused)
            assert f"refused {some} of 10" in push.problem
        push.offer(records(2))
        until(lambda: push.sent == sent + 2)
        assert balanced(push)
        push.stop(1)


def test_an_outage_blocks_no_caller_and_the_drops_are_exact(quick):
    """Nobody listens: 50 000 statements go into a queue of 1000. Then Loki comes, and gets the newest."""
    port = free_port()
    push = LokiPush(Loki(url=f"http://127.0.0.1:{port}"), capacity=1000)
    slowest = 0.0
    for start in range(0, 50_000, 100):
        batch = records(100, start)
        begin = time.thread_time()
        push.offer(batch)
        slowest = max(slowest, time.thread_time() - begin)
        assert push.waiting <= 1500
        assert balanced(push)
    assert slowest < 0.01
    assert push.dropped >= 48_500
    until(lambda: push.problem is not None)
    assert "cannot be reached" in push.problem
    with Receiver(port) as receiver:
        until(lambda: push.waiting == 0)
        push.stop(1)
        assert push.sent == len(receiver.lines) == 50_000 - push.dropped
        assert receiver.lines[-1][2] == "m49999"


def test_a_slow_loki_blocks_no_caller_either(quick):
    with Receiver() as receiver:
        receiver.delay = 0.3
        push = LokiPush(Loki(url=receiver.url), capacity=500)
        begin = time.monotonic()
        for start in range(0, 5000, 10):
            push.offer(records(10, start))
        assert time.monotonic() - begin < 1.0
        until(lambda: push.waiting == 0)
        assert balanced(push)
        assert push.dropped > 0
        push.stop(1)


def test_the_end_sends_what_it_can_and_counts_the_rest(quick):
    with Receiver() as receiver:
        push = LokiPush(Loki(url=receiver.url))
        push.offer(records(1200))
        push.stop(5)
        assert (push.sent, push.dropped) == (1200, 0)
    push = LokiPush(Loki(url=f"http://127.0.0.1:{free_port()}"))
    push.offer(records(1200))
    begin = time.monotonic()
    push.stop(0.5)
    assert time.monotonic() - begin < 2
    assert (push.sent, push.dropped, push.waiting) == (0, 1200, 0)


def test_credentials_go_into_the_header_and_nowhere_else(quick, tmp_path):
    file = tmp_path / "credentials"
    file.write_text("user:pass")
    file.chmod(0o600)
    with Receiver() as receiver:
        push = LokiPush(Loki(url=receiver.url, credentials=file, tenant="me"))
        push.offer(records(1))
        until(lambda: push.sent == 1)
        headers = receiver.requests[0][1]
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:pass").decode()
        assert headers["X-Scope-OrgID"] == "me"
        file.write_text("a-token")
        push.offer(records(1))
        until(lambda: push.sent == 2)
        assert receiver.requests[1][1]["Authorization"] == "Bearer a-token"
        push.stop(1)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("", "/loki/api/v1/push"),
        ("/", "/loki/api/v1/push"),
        ("/insert/loki/api/v1/push", "/insert/loki/api/v1/push"),
        ("/team%20a/push?tenant=7&x=a%2Fb", "/team%20a/push?tenant=7&x=a%2Fb"),
        ("/t\u00fcr/push", "/t%C3%BCr/push"),
    ],
)
def test_the_url_is_that_of_a_server_or_of_its_push_interface(quick, more, path):
    with Receiver() as receiver:
        receiver.path = path
        push = LokiPush(Loki(url=receiver.url + more))
        push.offer(records(3))
        until(lambda: push.sent == 3)
        push.stop(1)


NO_URLS = (
    "", "127.0.0.1:3100", "ftp://host", "file:///etc/passwd", "http://", "http:///push", "http://u:p@host",
    "http://host:99999", "http://host:abc", "http://host:0", "http://host/a b", "http://host/?\u00fc", "http://h\u00f6st",
    "http://[::1", "http://host/#x", "http://host?x=1", "http://host/?x=1", "http://host/\n", "http://host\r\nX: y", "http://host/\x00",
)  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"(?s)Loki\nurl\n  Value error, "):
        Loki(url=url)


def test_a_server_that_takes_no_pushes_there_is_told_with_its_path(quick):
    with Receiver() as receiver:
        receiver.answers = [(404, {}, "page not found")] * 100
        push = LokiPush(Loki(url=f"{receiver.url}/wrong"))
        push.offer(records(1))
        until(lambda: push.problem)
        assert push.problem == "the log store answers 404: page not found (does it take pushes at /wrong? See `url`)"
        push.stop(0.1)


def configure(server, url, credentials=None):
    file = server.project / "config" / "logging.yaml"
    file.parent.mkdir(exist_ok=True)
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    config = f"{{name: all, logLevel: 0, expires_at: {end}}}"
    secret = f", credentials: '{credentials}'" if credentials else ""
    file.write_text(f"configs: [{config}]\nloki: {{url: '{url}', cluster: test{secret}}}\n")


def status(server):
    return server.get("/api/v1/log/status").json()["loki"]


def test_statements_of_others_of_jobs_and_of_our_own_are_pushed_once(tmp_path):
    with Receiver() as receiver, Live(tmp_path, "log") as server:
        configure(server, receiver.url)
        until(lambda: server.get(CONFIGS).json()["configs"])
        folder = server.results / "laptop" / "batches" / "chat"
        folder.mkdir(parents=True)
        line = {
            "t": "2026-11-26T12:00:00.000+00:00",
            "level": 1,
            "benchmark": "inference",
            "batch": "chat",
            "case": None,
        }
        (folder / "log.jsonl").write_text(json.dumps({**line, "msg": "by a job"}) + "\n")
        server.post("/api/v1/log", {"level": 2, "msg": "by REST", "run": "laptop"})
        until(lambda: {"by a job", "by REST"} <= {text for _, _, text, _ in receiver.lines})
        found = {text: (labels["service"], labels["level"]) for labels, _, text, _ in receiver.lines}
        assert (found["by a job"], found["by REST"]) == (("job", "warning"), ("other", "error"))
        assert any(labels["service"] == "log" and "read from the file" in text for labels, _, text, _ in receiver.lines)
        server.stop()
        server.start()
        (folder / "log.jsonl").open("a").write(json.dumps({**line, "msg": "later"}) + "\n")
        until(lambda: "later" in [text for _, _, text, _ in receiver.lines])
        assert [text for _, _, text, _ in receiver.lines].count("by a job") == 1


def ask(store, expression, lines):
    """Return what is found once it is that many lines: they can be asked for a second after they came."""
    found = store.query(expression)
    return found if len(found) >= lines else None


def test_a_real_log_store_takes_all_also_after_an_outage(tmp_path):
    port = free_port()
    with Live(tmp_path, "log") as server:
        with running(tmp_path / "store", port) as store:
            configure(server, store.url + PUSH, store.credentials)
            until(lambda: server.get(CONFIGS).json()["configs"])
            hostile, forged = "a\nb\x1b[31m\u202e", '{"level": "error", "run_id": "other", "_msg": "forged"}'
            now = datetime.now(UTC)
            whole = {"run": "r-1", "benchmark": "inference", "batch": "b", "case": "c", "node": "n"}
            said = [
                {"level": 0, "msg": "first", **whole},
                {"level": 2, "msg": hostile, "run": "r-1"},
                {"level": 0, "msg": forged, "run": "r-1"},
                {"level": 1, "msg": "an hour ago", "t": (now - timedelta(minutes=50)).isoformat()},
                {"level": 1, "msg": "out of order", "t": (now - timedelta(minutes=51)).isoformat()},
                {"level": 1, "msg": "beyond its retention", "t": (now - timedelta(days=60)).isoformat()},
            ]
            assert server.post("/api/v1/log:batch", {"statements": said}).json()["written"] == 6
            ours = '{app="aifbench",service="other"}'
            found = {line["_msg"]: line for line in until(lambda: ask(store, ours, 5))}
            assert set(found) == {"first", "a\\nb\\x1b[31m\\u202e", forged, "an hour ago", "out of order"}
            first = found["first"]
            fields = {"cluster": "test", "level": "info", "run_id": "r-1", "benchmark": "inference", "batch": "b"}
            assert {**fields, "case": "c", "node": "n"}.items() <= first.items()
            assert (found[forged]["level"], found[forged]["run_id"]) == ("info", "r-1")
            assert abs(datetime.fromisoformat(first["_time"]).timestamp() - now.timestamp()) < 30
            old = store.query('{app="aifbench",level="warning",service="other"} _time:2h')
            assert [line["_msg"] for line in old] == ["out of order", "an hour ago"]
            assert status(server)["refused"] == 0  # it answers 204, and leaves out what is too old for it
        for number in range(20):
            server.post("/api/v1/log", {"level": 0, "msg": f"while away {number}"})
        until(lambda: "cannot be reached" in (status(server)["problem"] or ""))
        assert status(server)["waiting"] == 20
        with running(tmp_path / "store", port) as store:
            until(lambda: status(server)["waiting"] == 0, 60)
            found = until(lambda: ask(store, '{app="aifbench"} "while away"', 20))
            assert [line["_msg"] for line in found] == [f"while away {number}" for number in range(20)]
            counts = status(server)
            assert counts["offered"] == counts["sent"]
            assert (counts["refused"], counts["dropped"], counts["problem"]) == (0, 0, None)
