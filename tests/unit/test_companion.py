"""Samples of a worker on another node: what the process beside it writes, and what the runner's sampler makes of it."""

import json
import os
import signal
import subprocess
import sys
import time

import orjson
import psutil
import pytest

from aifbench.sampling import companion as module
from aifbench.sampling.companion import ClientNodeSamples
from aifbench.sampling.sampler import Sampler

PARENT = """
import sys, time
from pathlib import Path
from aifbench.sampling.companion import Companion
companion = Companion(Path(sys.argv[1]), "n2")
end = time.process_time() + 0.4
while time.process_time() < end: pass
print(companion._process.pid, flush=True)
sys.stdin.readline()
companion.stop()
"""


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def by_role(line):
    return {row["role"]: row for row in line}


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(path):
    return subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_process_beside_samples_its_parent_and_takes_a_last_sample(tmp_path):
    path = tmp_path / "samples.jsonl"
    with start(path) as worker:
        pid = int(worker.stdout.readline())
        wait_for(lambda: lines(path))
        worker.communicate(b"\n", timeout=20)
    assert worker.returncode == 0
    assert not psutil.pid_exists(pid)
    last = by_role(lines(path)[-1])
    assert list(last) == ["worker", "sampler", "client-node"]
    assert last["worker"]["cpu_seconds"] >= 0.39
    assert last["worker"]["processes"] == 1
    assert last["client-node"]["memory_available_bytes"] > 0
    assert last["client-node"]["node"] == "n2"


def test_it_ends_when_its_parent_is_killed(tmp_path):
    path = tmp_path / "samples.jsonl"
    with start(path) as worker:
        pid = int(worker.stdout.readline())
        wait_for(lambda: lines(path))
        worker.kill()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def row(role, cpu, **more):
    totals = dict.fromkeys(("read_bytes", "write_bytes", "vfs_read_bytes", "vfs_write_bytes"))
    return {"node": "n2", "role": role, "cpu_seconds": cpu, **totals, **more}


def append(path, *rows):
    with path.open("ab") as file:
        file.write(orjson.dumps(list(rows)) + b"\n")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_newest_line_counts_until_it_is_three_seconds_old(tmp_path, clock):
    beside, path = ClientNodeSamples(), tmp_path / "a"
    assert beside.rows() == []
    beside.follow(path, "n2")
    (unknown,) = beside.rows()
    assert (unknown["role"], unknown["node"], unknown["cpu_seconds"]) == ("worker", "n2", None)
    append(path, row("worker", 1.0), row("client-node", 50.0))
    append(path, row("worker", 2.0), row("client-node", 51.0))
    assert [one["cpu_seconds"] for one in beside.rows()] == [2.0, 51.0]
    clock[0] += 2.9
    assert [one["cpu_seconds"] for one in beside.rows()] == [2.0, 51.0]
    clock[0] += 0.2
    assert [one["cpu_seconds"] for one in beside.rows()] == [None]
    append(path, row("worker", 2.5))
    with path.open("ab") as file:
        file.write(b"[{torn")
    beside.leave()
    assert [one["cpu_seconds"] for one in beside.rows()] == [2.5]  # its last words, once
    assert beside.rows() == []


def test_totals_go_on_with_the_next_worker(tmp_path, clock):
    beside = ClientNodeSamples()
    for number, cpu in enumerate((5.0, 3.0, 2.0)):
        path = tmp_path / str(number)
        beside.follow(path, "n2")
        append(path, row("worker", cpu, write_bytes=7), row("client-node", 100.0 + number))
        beside.leave()
    worker, node = beside.rows()
    assert (worker["cpu_seconds"], worker["write_bytes"], worker["read_bytes"]) == (10.0, 21, None)
    assert node["cpu_seconds"] == 102.0


def test_the_rows_stand_in_the_runner_s_sample_before_its_node(tmp_path):
    out = tmp_path / "resources.jsonl"
    more = [row("worker", 1.5), row("client-node", 9.0)]
    sampler = Sampler(out, 3, time.monotonic_ns(), lambda: {"runner": os.getpid()}, lambda: 4, other_node=lambda: more)
    sampler.start()
    sampler.stop()
    first = lines(out)[:4]
    assert [one["role"] for one in first] == ["runner", "worker", "client-node", "node"]
    assert {(one["invocation"], one["records"], one["t_s"]) for one in first} == {(3, 4, first[0]["t_s"])}


def test_term_at_once_is_no_error(tmp_path):
    path = tmp_path / "samples.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "aifbench.sampling.companion", str(path), "n2"])
    wait_for(lambda: lines(path))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert len(lines(path)) == 2
