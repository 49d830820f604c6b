"""The log service as a process, over its socket: what it writes, what it answers, what survives."""

import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aifbench.core.errors import ConfigError
from aifbench.log.levels import FILE
from aifbench.log.writer import BatchLog
from aifbench.services.log import files as files_module
from aifbench.services.log.files import LogFiles
from aifbench.services.log.service import LogService
from aifbench.services.settings import Settings
from tests.services.checkout import program
from tests.services.live import Live

CONFIGS = "/api/v1/log/configs"


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "log") as live:
        yield live


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server that writes everything, for requests that change nothing."""
    with Live(tmp_path_factory.mktemp("shared"), "log") as live:
        put(live, "all", 0, 3600)
        yield live


def inside(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def put(server, name, level=0, seconds=60.0, **match):
    answer = server.ask("PUT", f"{CONFIGS}/{name}", {"logLevel": level, "expires_at": inside(seconds), "match": match})
    assert answer.status == 200, answer.body
    return answer.json()["config"]


def send(server, *statements):
    answer = server.post("/api/v1/log:batch", {"statements": list(statements)}, token="ingest")
    assert answer.status == 200, answer.body
    return tuple(answer.json()[name] for name in ("written", "filtered", "expired", "dropped"))


def say(level, msg="x", **fields):
    return {"level": level, "msg": msg, **fields}


def written(server):
    return [json.loads(line) for line in raw(server).splitlines()]


def raw(server):
    return (server.results / ".services" / "log" / "statements.jsonl").read_bytes()


def of_others(server):
    return [line["msg"] for line in written(server) if line.get("service") != "log"]


def audit(server):
    return [line["msg"] for line in written(server) if line.get("service") == "log"]


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)
    return found


def test_written_only_while_a_configuration_is_valid_and_the_level_suffices(server):
    assert send(server, say(2, "nobody asked")) == (0, 1, 0, 0)
    put(server, "warnings", 1, 60, run="mine-*")
    put(server, "brief", 0, 0.4, run="brief")
    mine = [say(level, f"m{level}", run="mine-1") for level in range(3)]
    assert send(server, *mine, say(2, "other", run="other"), say(0, "in time", run="brief")) == (3, 2, 0, 0)
    time.sleep(0.45)
    assert send(server, say(2, "too late", run="brief"), say(1, "again", run="mine-2")) == (1, 0, 1, 0)
    assert of_others(server) == ["m1", "m2", "in time", "again"]
    status = server.get("/api/v1/log/status").json()
    assert status["statements"] == {"written": 4, "filtered": 3, "expired": 1, "dropped": 0}
    metrics = server.get("/metrics", token="read").body.decode()
    assert 'aif_log_statements_total{decision="written",level="warning"} 2.0' in metrics
    assert 'aif_log_statements_total{decision="expired",level="error"} 1.0' in metrics
    assert 'aif_log_config_expiry_timestamp_seconds{config="warnings"}' in metrics


def test_one_statement_alone(server):
    put(server, "all")
    answer = server.post("/api/v1/log", {"level": 1, "msg": "hello", "t": "2026-11-26T12:00:00+01:00", "case": "0a"})
    assert answer.json() == {"status": "ok", "written": 1, "filtered": 0, "expired": 0, "dropped": 0}
    assert written(server)[-1] == {"t": "2026-11-26T11:00:00.000+00:00", "level": 1, "case": "0a", "msg": "hello"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b"[" * 100_000, 400, None),
        ([], 422, "statements"),
        ({"statements": {}}, 422, "statements"),
        ({"statements": [], "x": 1}, 422, "statements"),
        ({"statements": [{"level": 1}]}, 422, "statements.0.msg"),
        ({"statements": [{"level": 1, "msg": "ok"}, {"level": "1", "msg": "x"}]}, 422, "statements.1.level"),
        ({"statements": [{"level": True, "msg": "x"}]}, 422, "statements.0.level"),
        ({"statements": [{"level": 1, "msg": "ü" * 2049}]}, 422, "statements.0.msg"),
        ({"statements": [{"level": 1, "msg": "x", "t": "2026-11-26T12:00:00"}]}, 422, "statements.0.t"),
        ({"statements": [{"level": 1, "msg": "x", "t": "0001-01-01T00:00:00+14:00"}]}, 422, "statements.0.t"),
        ({"statements": [{"level": 1, "msg": "x", "run": 3}]}, 422, "statements.0.run"),
        ({"statements": [{"level": 1, "msg": "x", "node": "n" * 129}]}, 422, "statements.0.node"),
        ({"statements": [{"level": 1, "msg": "x", "mgs": 3}]}, 422, "statements.0.mgs"),
        ({"statements": ["x"]}, 422, "statements.0"),
        ({"statements": [say(0)] * 1001}, 413, "statements"),
    ],
)
def test_a_wrong_request_writes_nothing_and_names_the_field(shared, body, status, field):
    answer = shared.post("/api/v1/log:batch", body)
    assert answer.status == status
    assert answer.json()["status"] == "ko"
    assert answer.json()["reason"]["field"] == field
    assert of_others(shared) == []


def test_the_longest_message_and_the_largest_batch_pass(server):
    put(server, "all")
    assert send(server, say(0, "ü" * 2048)) == (1, 0, 0, 0)
    assert send(server, *[say(0)] * 1000) == (1000, 0, 0, 0)


def test_past_and_naive_times_are_ko_with_a_reason(server):
    for text, message in (
        ("2026-01-01T00:00:00Z", "is in the past"),
        ("0001-01-01T00:00:00+00:01", "is in the past"),  # has no date in UTC
        ("2036-01-01T00:00:00", "has no time zone"),
    ):
        answer = server.ask("PUT", f"{CONFIGS}/x", {"logLevel": 1, "expires_at": text})
        assert answer.status == 422
        reason = answer.json()["reason"]
        assert (answer.json()["status"], reason["code"], reason["field"]) == ("ko", "invalid_config", "expires_at")
        assert message in reason["message"]
        assert "+01:00" in reason["hint"]
    assert server.get(CONFIGS).json()["configs"] == []


def test_configurations_are_listed_shown_replaced_and_deleted(server):
    put(server, "x", 2, 60, run="a")
    assert put(server, "x", 1, 60)["match"] == {}
    assert [config["name"] for config in server.get(CONFIGS).json()["configs"]] == ["x"]
    assert 59 < server.get(f"{CONFIGS}/x").json()["remaining_s"] <= 60
    assert server.ask("DELETE", f"{CONFIGS}/x").json() == {"status": "ok"}
    assert server.ask("DELETE", f"{CONFIGS}/x").json()["reason"]["code"] == "unknown_config"
    assert server.get(f"{CONFIGS}/x").status == 404
    assert [text.split(":")[0] for text in audit(server)] == [
        "configuration 'x' set",
        "configuration 'x' set",
        "configuration 'x' deleted",
    ]


@pytest.mark.parametrize("name", ["A", "a.b", "..", "%2e%2e", "a%2Fb", "x" * 65, "a%0a", "%00", "%C3%A4", "%ff"])
def test_names_are_ids(shared, name):
    body = {"logLevel": 1, "expires_at": inside(60)}
    assert shared.ask("PUT", f"{CONFIGS}/{name}", body).status in {404, 405, 422}
    assert [config["name"] for config in shared.get(CONFIGS).json()["configs"]] == ["all"]


def test_the_commands_of_the_docs_do_what_they_say(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
    configs, statement = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    with Live(tmp_path, "log") as server:
        program(server.project)

        def shell(script):
            places = {"XDG_RUNTIME_DIR": str(server.runtime.parent), "XDG_STATE_HOME": str(server.state.parent)}
            there = {"cwd": server.project, "env": {**os.environ, **places}}
            done = subprocess.run(["bash", "-euc", script], **there, capture_output=True, text=True, check=True)
            return [json.loads(line) for line in done.stdout.replace("}{", "}\n{").splitlines()]

        put, listed, deleted, cleared = shell(configs)
        assert (put["status"], put["config"]["name"], put["config"]["state"]) == ("ok", "chat", "valid")
        assert [config["name"] for config in listed["configs"]] == ["chat"]
        assert (deleted, cleared) == ({"status": "ok"}, {"status": "ok", "deleted": []})
        assert shell(statement)[0]["filtered"] == 1


def test_what_is_over_can_be_cleared_and_survives_no_restart(server):
    put(server, "brief", seconds=0.3)
    put(server, "long", seconds=600)
    until(lambda: server.get(f"{CONFIGS}/brief").json()["state"] == "expired")
    assert server.ask("POST", f"{CONFIGS}:clear", token="read").status == 403
    assert server.ask("POST", f"{CONFIGS}:clear").json() == {"status": "ok", "deleted": ["brief"]}
    assert server.ask("POST", f"{CONFIGS}:clear").json() == {"status": "ok", "deleted": []}
    server.stop()
    server.start()
    assert [config["name"] for config in server.get(CONFIGS).json()["configs"]] == ["long"]


def test_an_expiry_is_honoured_and_writes_one_line(server):
    """By how many milliseconds: benchmarks/services_log.py; here only what a busy machine keeps too."""
    config = put(server, "brief", 0, 0.5)
    end = datetime.fromisoformat(config["expires_at"]).timestamp()
    accepted, refused = 0.0, float("inf")
    while time.time() < end + 0.3:
        time.sleep(0.003)
        before = time.time()
        found = send(server, say(0))
        if found[0]:
            accepted = max(accepted, before)
        else:
            assert found == (0, 0, 1, 0)
            refused = min(refused, time.time())
    assert accepted < end
    assert refused < end + 0.3
    lines = [line for line in written(server) if "'brief' is over" in line["msg"]]
    assert len(lines) == 1
    assert datetime.fromisoformat(lines[0]["t"]).timestamp() >= end - 0.001
    assert server.get(f"{CONFIGS}/brief").json()["state"] == "expired"


def test_an_expiry_is_noticed_without_a_statement_too(server):
    put(server, "brief", 0, 0.3)
    until(lambda: any("'brief' is over" in text for text in audit(server)), 2)
    config = json.loads((server.results / FILE).read_text())["configs"][0]
    assert config["ended"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_configurations_and_statements_survive_a_restart(server, number):
    put(server, "long", 1, 60, run="a-*")
    put(server, "brief", 0, 0.6)
    assert send(server, say(1, "before", run="a-1")) == (1, 0, 0, 0)
    server.stop(number)
    time.sleep(0.6)
    server.start()
    assert {c["name"]: c["state"] for c in server.get(CONFIGS).json()["configs"]} == {
        "long": "valid",
        "brief": "expired",
    }
    assert send(server, say(0, run="b"), say(1, "after", run="a-2"), say(0, run="a-2")) == (1, 1, 1, 0)
    assert of_others(server) == ["before", "after"]
    assert sum("'brief' is over" in text for text in audit(server)) == 1


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(server):
    """`AIFBENCH_KILLS=50` for all; a sender goes on meanwhile and notes what the server said it has written."""
    put(server, "all", 0, 3600)
    kills = int(os.environ.get("AIFBENCH_KILLS", "6"))
    acknowledged, sending = [], threading.Event()

    def sender():
        number = 0
        while not sending.is_set():
            number += 1
            texts = [f"{number}-{part}" for part in range(20)]
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = server.post("/api/v1/log:batch", {"statements": [say(1, text) for text in texts]})
                if answer.status == 200 and answer.json()["written"] == 20:
                    acknowledged.extend(texts)
                    continue
            time.sleep(0.01)

    thread = threading.Thread(target=sender)
    thread.start()
    pauses = random.Random(1)
    for number in range(kills):
        time.sleep(pauses.uniform(0.0, 0.6))
        name = f"c{number}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            put(server, name)
        server.stop(signal.SIGKILL)
        server.start()
        assert "all" in [config["name"] for config in server.get(CONFIGS).json()["configs"]]
    sending.set()
    thread.join()
    assert len(acknowledged) > 20 * kills
    kept = set()
    for line in raw(server).splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            kept.add(json.loads(line)["msg"])
    assert [text for text in acknowledged if text not in kept] == []


def test_a_line_that_a_killed_writer_left_unfinished_spoils_no_other(server):
    put(server, "all")
    send(server, say(0, "before"))
    server.stop(signal.SIGKILL)
    with (server.results / ".services" / "log" / "statements.jsonl").open("ab") as file:
        file.write(b'{"t":"2026')
    server.start()
    send(server, say(0, "after"))
    found = server.get("/api/v1/log").json()["statements"]
    assert [line["msg"] for line in found if line.get("service") != "log"] == ["before", "after"]


def test_a_record_stays_one_line_whatever_it_holds(server):
    put(server, "all")
    hostile = 'a\nb\r\x1b[2J\x07\x00\x7f\x9b31m\u202e\u2066\u2028\u2029\ufeff{"level":2}'
    assert send(server, say(0, hostile, run="x\ny\x1b", case="\u200b")) == (1, 0, 0, 0)
    last = raw(server).splitlines(keepends=True)[-1]
    assert all(char.isprintable() for char in last.decode().rstrip("\n"))
    assert json.loads(last)["msg"] == hostile
    assert server.get("/api/v1/log").json()["statements"][-1]["msg"] == hostile


def test_the_file_is_read_when_it_changes_and_on_sighup(server):
    file = server.project / "config" / "logging.yaml"
    file.parent.mkdir()
    file.write_text(f"configs: [{{name: from-file, logLevel: 1, expires_at: {inside(60)}}}]")
    until(lambda: server.get(CONFIGS).json()["configs"])
    assert send(server, say(1), say(0)) == (1, 1, 0, 0)
    file.write_text("configs: [{name: from-file, logLevel: 1, expires_at: 2030-01-01T00:00:00}]")
    server.process.send_signal(signal.SIGHUP)
    found = until(lambda: (now := server.get(CONFIGS).json())["file"]["problem"] and now, 0.8)
    assert found["file"]["problem"].startswith(
        "logging.yaml: configs.0.expires_at = '2030-01-01T00:00:00': has no time"
    )
    assert found["configs"][0]["state"] == "valid"
    assert send(server, say(1)) == (1, 0, 0, 0)
    assert server.said().count("the last good one stays") == 1
    assert server.ask("DELETE", f"{CONFIGS}/from-file").json()["reason"]["code"] == "set_by_file"
    file.unlink()
    until(lambda: not server.get(CONFIGS).json()["configs"])
    assert server.get(CONFIGS).json()["file"]["problem"] is None


def test_query_by_run_level_time_and_number(server):
    put(server, "all")
    for number in range(10):
        t = f"2026-11-26T12:00:{number:02d}Z"
        send(server, say(number % 3, f"s{number}", run="a" if number % 2 else "b", t=t))

    def ask(query):
        found = server.get(f"/api/v1/log?{query}", token="read").json()
        return [line["msg"] for line in found["statements"] if line.get("service") != "log"], found["truncated"]

    assert ask("run=a") == (["s1", "s3", "s5", "s7", "s9"], False)
    assert ask("run=b&level=1") == (["s2", "s4", "s8"], False)
    assert ask("run=a&since=2026-11-26T13:00:05%2B01:00") == (["s5", "s7", "s9"], False)
    assert ask("run=a&limit=2") == (["s7", "s9"], True)
    for wrong in ("since=2026-11-26T12:00:00", "since=x", "level=3", "limit=0", "limit=5001", "run=../x", "run=A"):
        answer = server.get(f"/api/v1/log?{wrong}")
        assert answer.status == 422
        assert answer.headers["content-type"] == "application/problem+json"
    for level in ("debug", "3", "1.0", "true", ""):
        for route in ("log", "log/stream"):
            said = server.get(f"/api/v1/{route}?level={level}")
            assert said.status == 422
            told = f"query.level: '{level}' is no level: 0: info and above, 1: warnings and errors, 2: errors"
            assert said.json()["detail"] == told


def job_log(server, run, batch):
    folder = server.results / run / "batches" / batch
    folder.mkdir(parents=True, exist_ok=True)
    return BatchLog(folder / "log.jsonl", "inference", batch)


def test_logs_of_jobs_are_found_and_followed_and_obey(server):
    before = job_log(server, "laptop", "chat-1")
    before.write(1, "from a job", "0abc")
    found = server.get("/api/v1/log?run=laptop").json()["statements"]
    assert [(line["msg"], line["run"], line["batch"], line["service"]) for line in found] == [
        ("from a job", "laptop", "chat-1", "job")
    ]
    events = server.events("/api/v1/log/stream?run=laptop&level=1")
    threading.Timer(0.3, before.write, (0, "below the level of the reader")).start()
    threading.Timer(0.6, before.write, (2, "live\x1b[31m")).start()
    lines = []
    while len(lines) < 2:
        lines += next(event for event in events if event[0] == "statements")[1]
    events.close()
    assert [(line["msg"], line["run"]) for line in lines] == [("from a job", "laptop"), ("live\x1b[31m", "laptop")]
    put(server, "quiet", 2, 60, run="laptop")
    after = job_log(server, "laptop", "chat-2")
    after.write(1, "off")
    after.write(2, "on")
    after.close()
    messages = [line["msg"] for line in server.get("/api/v1/log?run=laptop&level=1").json()["statements"]]
    assert messages == ["from a job", "live\x1b[31m", "on"]
    before.close()


def test_links_and_other_things_below_results_are_not_followed(server, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"t": "2026-11-26T12:00:00.000+00:00", "level": 2, "msg": "secret"}\n')
    batch = server.results / "run" / "batches" / "batch"
    batch.mkdir(parents=True)
    (batch / "log.jsonl").symlink_to(secret)
    (server.results / "run" / "batches" / "linked").symlink_to(tmp_path)
    fifo = server.results / "run" / "batches" / "fifo"
    fifo.mkdir()
    os.mkfifo(fifo / "log.jsonl")
    assert server.get("/api/v1/log?run=run").json() == {"statements": [], "truncated": False}


def test_live_tail_resumes_without_a_loss_and_says_a_gap(server):
    put(server, "all")
    events = server.events("/api/v1/log/stream?run=a")
    threading.Timer(0.3, send, (server, say(1, "one", run="a"), say(1, "not mine", run="b"))).start()
    found = next(event for event in events if event[0] == "statements")
    events.close()
    assert [line["msg"] for line in found[1]] == ["one"]
    send(server, say(1, "two", run="a"), say(2, "three", run="a"))
    send(server, say(1, "four", run="b"))
    again = server.events("/api/v1/log/stream?run=a", headers={"Last-Event-ID": found[2]})
    assert [[line["msg"] for line in next(again)[1]] for _ in range(2)] == [["two"], ["three"]]
    again.close()
    for unknown in ("x", "0-1", f"{found[2].partition('-')[0]}-99999", "-", "é"):
        gap = server.events("/api/v1/log/stream", headers={"Last-Event-ID": unknown.encode()})
        assert next(gap)[0] == "gap"
        gap.close()


def test_changes_of_configurations_are_told_live(server):
    events = server.events("/api/v1/log/stream")
    threading.Timer(0.3, put, (server, "x")).start()
    assert next(event for event in events if event[0] == "configs")[1] == {}
    events.close()


def test_configurations_that_cannot_be_kept_are_refused(tmp_path, monkeypatch):
    """A full disk, injected: the change does not hold, and the reason is told."""

    def full():
        raise OSError(28, "No space left on device")

    async def scenario(service, clock, client):
        put_one = client.put(f"{CONFIGS}/x", json={"logLevel": 0, "expires_at": "2030-01-01T00:00:00Z"})
        monkeypatch.setattr("aifbench.services.log.configs.Configs.save", lambda _self: full)
        answer = await put_one
        assert answer.status_code == 507
        assert answer.json()["reason"]["code"] == "not_kept"
        assert (await client.get(CONFIGS)).json()["configs"] == []

    in_process(tmp_path, scenario)


def test_statements_that_cannot_be_written_count_as_dropped(tmp_path, monkeypatch):
    async def scenario(service, clock, client):
        await client.put(f"{CONFIGS}/x", json={"logLevel": 0, "expires_at": "2030-01-01T00:00:00Z"})
        real = os.write

        def full(file, data):
            real(file, data[:7])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files_module.os, "write", full)
        answer = await client.post("/api/v1/log:batch", json={"statements": [say(1), say(2)]})
        assert answer.json() == {"status": "ok", "written": 0, "filtered": 0, "expired": 0, "dropped": 2}
        assert "No space left" in (await client.get("/readyz")).json()["detail"]
        monkeypatch.setattr(files_module.os, "write", real)
        answer = await client.post("/api/v1/log", json=say(2, "room again"))
        assert answer.json()["written"] == 1
        assert (await client.get("/readyz")).status_code == 200
        found = (await client.get("/api/v1/log")).json()["statements"]
        assert [line["msg"] for line in found][-1] == "room again"
        assert (await client.get("/api/v1/log/status")).json()["statements"]["dropped"] == 2

    in_process(tmp_path, scenario)


def test_an_error_that_nobody_thought_of_ends_nothing(tmp_path, monkeypatch):
    async def scenario(service, clock, client):
        real = service._job_logs.poll
        await asyncio.sleep(0.3)  # it has seen that there is nothing yet
        monkeypatch.setattr(service._job_logs, "poll", lambda: 1 / 0)
        await asyncio.sleep(1.2)
        monkeypatch.setattr(service._job_logs, "poll", real)
        batch = tmp_path / "results" / "run" / "batches" / "batch"
        batch.mkdir(parents=True)
        BatchLog(batch / "log.jsonl", "inference", "batch").write(1, "followed again")
        for _ in range(100):
            found = (await client.get("/api/v1/log")).json()["statements"]
            if [line["msg"] for line in found] == ["followed again"]:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(found)

    monkeypatch.setattr("aifbench.services.log.job_logs.LIST_S", 0.5)
    in_process(tmp_path, scenario)


def test_results_that_cannot_be_written_are_told_in_one_line(tmp_path):
    async def scenario(*_):
        raise AssertionError("it started")

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".services").write_text("")
    with pytest.raises(ConfigError, match=r"\.services: the log cannot be written there: File exists"):
        in_process(tmp_path, scenario)


def test_a_broken_store_is_told_in_the_log(tmp_path):
    async def scenario(service, clock, client):
        found = (await client.get("/api/v1/log")).json()["statements"]
        assert [line["level"] for line in found] == [2]
        assert "kept as log-configs.broken" in found[0]["msg"]

    (tmp_path / "results" / ".services").mkdir(parents=True)
    (tmp_path / "results" / FILE).write_text("{")
    in_process(tmp_path, scenario)


def test_a_clock_that_steps_ends_configurations_and_revives_none(tmp_path):
    async def scenario(service, clock, client):
        await client.put(f"{CONFIGS}/x", json={"logLevel": 0, "expires_at": "2026-11-26T12:00:00Z"})

        async def decision():
            answer = (await client.post("/api/v1/log", json=say(0))).json()
            return next(name for name in ("written", "filtered", "expired") if answer[name])

        assert await decision() == "written"
        clock.now -= 7200
        assert await decision() == "written"
        clock.now += 7200 + 3600
        await asyncio.sleep(0.1)
        state = (await client.get(f"{CONFIGS}/x")).json()["state"]
        assert state == "expired"
        found = (await client.get("/api/v1/log")).json()["statements"]
        assert sum("'x' is over" in line["msg"] for line in found) == 1
        clock.now -= 3600
        await asyncio.sleep(0.1)
        assert await decision() == "expired"

    in_process(tmp_path, scenario)


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 26, 11, 30, tzinfo=UTC).timestamp()

    def __call__(self):
        return self.now


def in_process(tmp_path, scenario):
    """Run a scenario with the service, its injected clock, and a client that needs no socket."""
    import httpx

    from aifbench.services.app import create_app, running
    from aifbench.services.tokens import Tokens

    async def main():
        clock = Clock()
        settings = Settings(
            project=tmp_path, results=tmp_path / "results", state=tmp_path / "state", runtime=tmp_path, clock=clock
        )
        service = LogService(settings)
        tokens = Tokens(settings.state)
        app = create_app(settings, [service], tokens)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://localhost",
            headers={"Authorization": f"Bearer {tokens['launch']}"},
        )
        async with running([service]), client:
            await scenario(service, clock, client)

    asyncio.run(main())


def test_files_keep_the_quota_and_count_what_aged_out(tmp_path):
    files = LogFiles(tmp_path / "log", quota=8000, parts=4)
    line = b"x" * 99 + b"\n"
    for number in range(300):
        files.append(b"%03d" % number + line[3:])
        assert files.size <= 8000
    kept = [int(text[:3]) for text in files.newest_first()]
    assert kept == list(range(299, 299 - len(kept), -1))
    assert len(kept) + files.aged_out == 300
    assert len(kept) >= 60
    with pytest.raises(OSError, match="more than a part"):
        files.append(b"y" * 2001)
    files.close()
    again = LogFiles(tmp_path / "log", quota=8000, parts=4)
    assert [int(text[:3]) for text in again.newest_first()] == kept
    again.close()


def test_files_are_the_owners_alone_and_no_link_is_followed(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text("")
    (folder / "statements.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="statements"):
        LogFiles(folder, 8000)
    (folder / "statements.jsonl").unlink()
    files = LogFiles(folder, 8000)
    assert (folder / "statements.jsonl").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigError, match="another log service of yours writes there"):
        LogFiles(folder, 8000)
    files.close()
    LogFiles(folder, 8000).close()


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_reading_backwards_gives_each_whole_line_once(tmp_path, monkeypatch, block):
    monkeypatch.setattr(files_module, "BLOCK", block)
    file = tmp_path / "x"
    for text, lines in (
        (b"", []),
        (b"torn", []),
        (b"a\n", [b"a"]),
        (b"a\nbb\n\nccc\ntorn", [b"ccc", b"", b"bb", b"a"]),
        (b"long line of text\nx\n", [b"x", b"long line of text"]),
    ):
        file.write_bytes(text)
        with file.open("rb") as opened:
            assert list(files_module.backwards(opened)) == lines
