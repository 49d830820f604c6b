"""The monitor's reader: what it makes of files that grow, break, vanish or lie."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from aifbench.core.roles import CLIENT_NODE
from aifbench.files import tail as tail_module
from aifbench.files.beneath import folder_beneath, folders_beneath
from aifbench.files.tail import Tail
from aifbench.log.levels import FILE
from aifbench.services.monitor.jobs import job_id
from aifbench.services.monitor.reader import Reader
from aifbench.services.monitor.series import BUCKETS, RECENT, Grouping, Series
from aifbench.services.monitor.slurm import Queue
from aifbench.slurm.queue import seconds
from tests.services.batches import GIB, Batch, node_row, worker_row, write_plan

STEP = {"phase": "write", "case": "case-a", "repetition": 0, "since_s": 1.0, "expected_s": 2.0}


class Clock:
    """Both clocks of a reader, moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return time.time() + (self.now - 1001.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reader(tmp_path, clock):
    (tmp_path / "results").mkdir()
    return Reader(tmp_path / "results", clock.monotonic, clock.wall)


@pytest.fixture
def batch(tmp_path, reader):
    return Batch(tmp_path / "results")


def step(reader, clock, seconds=1.0):
    """Poll once, some time later; return the events by topic and name."""
    clock.now += seconds
    return [(event.topic, event.name, json.loads(event.data)) for event in reader.poll()]


def row(reader):
    (only,) = reader.rows
    return only


def samples_of(events):
    return [data["t"] for _, name, data in events if name == "sample"]


# -- following a file ---------------------------------------------------------------------------------------------


@pytest.fixture
def tailed(tmp_path):
    """A tail of a file, a function that reads it, and the file's path."""
    tail = Tail("x.jsonl")

    def read():
        with folder_beneath(tmp_path) as folder:
            return list(tail.read(folder))

    return tail, read, tmp_path / "x.jsonl"


def test_a_torn_line_waits_for_its_end(tailed):
    _, read, path = tailed
    assert read() == []
    path.write_bytes(b"one\ntw")
    assert read() == [b"one"]
    assert read() == []
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert read() == [b"two", b"three"]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_each_line_comes_once_however_it_is_cut(tailed, size):
    _, read, path = tailed
    lines = [f'{{"n":{i},"x":"{"é" * (i % 40)}"}}'.encode() for i in range(300)]
    data, found = b"".join(line + b"\n" for line in lines), []
    step = size if size > 1 else 13
    for begin in range(0, len(data), step):
        with path.open("ab") as file:
            file.write(data[begin : begin + step])
        found += read()
    assert found == lines


def test_a_file_that_shrinks_is_read_from_its_beginning(tailed):
    tail, read, path = tailed
    path.write_bytes(b"one\ntwo\n")
    read()
    os.truncate(path, 4)
    assert read() == [b"one"]
    assert tail.restarts == 1


def test_a_file_that_is_replaced_is_read_from_its_beginning(tailed):
    tail, read, path = tailed
    path.write_bytes(b"one\n")
    read()
    other = path.with_name("other")
    other.write_bytes(b"new-one\nnew-two\n")
    other.replace(path)
    assert read() == [b"new-one", b"new-two"]
    assert tail.restarts == 1


def test_a_file_that_is_written_anew_in_place_and_longer_is_noticed(tailed):
    tail, read, path = tailed
    path.write_bytes(b"one\ntwo\n")
    read()
    path.write_bytes(b"other\nlines\nthan before\n")
    assert read() == [b"other", b"lines", b"than before"]
    assert tail.restarts == 1


def test_a_file_that_vanishes_and_comes_back(tailed):
    _, read, path = tailed
    path.write_bytes(b"one\n")
    assert read() == [b"one"]
    path.unlink()
    assert read() == []
    path.write_bytes(b"two\n")
    assert read() == [b"two"]


def test_an_endless_line_is_passed_over_and_counted(tailed, monkeypatch):
    monkeypatch.setattr(tail_module, "LONGEST_LINE", 64)
    monkeypatch.setattr(tail_module, "CHUNK", 64)
    tail, read, path = tailed
    path.write_bytes(b"one\n" + b"x" * 1000 + b"\ntwo\n")
    assert read() == [b"one", b"two"]
    assert tail.dropped == 1


def test_a_link_and_a_pipe_are_no_files(tailed, tmp_path):
    _, read, path = tailed
    secret = tmp_path / "secret"
    secret.write_bytes(b"of somebody else\n")
    path.symlink_to(secret)
    assert read() == []
    path.unlink()
    os.mkfifo(path)
    assert read() == []  # and does not wait for a writer


def test_only_the_end_of_a_long_file_is_read(tailed, tmp_path):
    tail, read, path = tailed
    path.write_bytes(b"".join(b"line %d\n" % i for i in range(1000)))
    with folder_beneath(tmp_path) as folder:
        tail.start_near_end(folder, 20)
    assert read() == [b"line 998", b"line 999"]


def test_no_part_of_a_path_may_be_a_link_or_lead_out(tmp_path):
    (tmp_path / "results" / "real").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "results" / "linked").symlink_to(tmp_path / "outside")
    root = tmp_path / "results"
    for parts in (("linked",), ("..", "outside"), ("real/../../outside",), ("",), ("real", "\n")):
        with pytest.raises((FileNotFoundError, NotADirectoryError)), folder_beneath(root, *parts):
            pass
    assert folders_beneath(root) == (["real"], 1)


# -- samples over time ----------------------------------------------------------------------------------------------


def add(series, batch, t_s, **more):
    grouping = Grouping()
    for line in batch.rows(t_s, invocation=0, **more).splitlines():
        for sample in grouping.add(orjson.loads(line)):
            return series.add(sample)
    raise AssertionError("no sample")


def column(columns, name):
    return next(line for line in columns["series"] if line["name"] == name)


def test_rates_come_from_totals_and_an_older_sample_is_none(batch):
    series = Series()
    add(series, batch, 1.0, records=10)
    add(series, batch, 3.0, records=50)
    assert add(series, batch, 3.0, records=50) is None
    found = series.columns(-1, 0)
    assert found["t"] == [1.0, 3.0]
    assert column(found, "read/worker")["values"] == [None, 1000.0]
    assert column(found, "write/worker")["values"] == [None, 2000.0]
    assert column(found, "records/workload")["values"] == [None, 20.0]
    assert column(found, "cpu/worker")["unit"] == "cores"
    assert series.rate(series.last) == 20.0


def test_records_that_are_not_counted_inside_a_timed_region_are_not_a_rate_of_0(batch):
    series = Series()
    for i in range(30):
        add(series, batch, float(i), records=5, step=STEP if i >= 15 else None)
    values = column(series.columns(-1, 0), "records/workload")["values"]
    assert values[1:15] == [0.0] * 14
    assert values[15:] == [None] * 15
    add(series, batch, 30.0, records=25, step=STEP)
    assert series.rate(series.last) == 2.0


def test_what_was_not_measured_has_no_series_and_no_zero(batch):
    series = Series()
    add(series, batch, 1.0, cpu=None, records=None)
    add(series, batch, 2.0, records=None)
    found = series.columns(-1, 0)
    assert column(found, "cpu/worker")["values"] == [None, 1.0]
    assert not any(line["name"].startswith(("gpu", "records")) for line in found["series"])


def test_a_day_of_samples_takes_bounded_memory_and_keeps_its_extremes(batch):
    series = Series()
    for i in range(40_000):
        add(series, batch, float(i), cpu=7.0 if i == 12_345 else 1.0)
    found = series.columns(-1, 0)
    assert len(found["t"]) <= RECENT + BUCKETS + 1
    assert found["t"] == sorted(found["t"])
    line = column(found, "cpu/worker")
    assert max(line["high"]) == 7.0
    assert min(line["low"]) == 1.0
    assert found["t"][-RECENT:] == [float(i) for i in range(40_000 - RECENT, 40_000)]


def test_since_and_step(batch):
    series = Series()
    for i in range(100):
        add(series, batch, float(i), cpu=float(i % 10))
    assert series.columns(96.0, 0)["t"] == [97.0, 98.0, 99.0]
    assert len(series.columns(-1e308, 1e-320)["t"]) == 100
    wide = series.columns(-1, 10)
    assert len(wide["t"]) == 10
    line = column(wide, "cpu/worker")
    assert (line["values"][0], line["low"][0], line["high"][0]) == (4.5, 0.0, 9.0)


# -- a job's life ---------------------------------------------------------------------------------------------------


def test_a_job_from_its_plan_to_its_end(reader, clock, batch, tmp_path):
    write_plan(tmp_path / "results", "small", {batch.name: 2})
    step(reader, clock)
    assert (row(reader)["state"], row(reader)["repetitions_all"]) == ("pending", 4)
    assert row(reader)["eta"] == {"value": 12.5, "source": "plan"}
    batch.start()
    batch.sample(0.5, step=STEP)
    assert samples_of(step(reader, clock)) == [0.5]
    assert row(reader)["state"] == "running"
    assert row(reader)["cores_allocated"] == {"value": 4, "source": "Slurm"}
    assert row(reader)["eta"]["reason"] == "no repetition has ended yet"
    batch.sample(5.0, records=100, step=STEP)
    batch.done("case-a", 1.0, 3.0)
    batch.done("case-a", 3.0, 5.0)
    step(reader, clock)
    found = row(reader)
    assert (found["cases_done"], found["cases_all"], found["repetitions_done"]) == (1, 2, 2)
    assert found["eta"]["value"] == 4  # two repetitions are left, and two took 2 s each
    assert found["cores"] == {"value": 1.0, "source": "proc"}
    assert found["memory_peak"]["value"] == 200 << 20
    assert found["records"]["value"] == 100
    assert found["gpu"] == {"value": None, "reason": "no GPU was found through NVML"}
    batch.end("partial", "1 repetitions failed")
    step(reader, clock)
    assert (row(reader)["state"], row(reader)["reason"]) == ("partial", "1 repetitions failed")
    assert not row(reader)["active"]
    kept = reader.samples(row(reader)["id"], -1, 0)
    assert kept["t"] == [0.5, 5.0]


def test_the_last_samples_and_statements_come_after_the_end_was_told(reader, clock, batch):
    batch.start()
    batch.sample(1.0)
    step(reader, clock)
    batch.record.status = "terminated"
    batch.save()
    step(reader, clock)
    batch.sample(2.0)
    batch.log("ended: terminated")
    events = step(reader, clock)
    assert samples_of(events) == [2.0]
    assert [data["lines"][0]["msg"] for _, name, data in events if name == "log"] == ["ended: terminated"]


def test_samples_of_an_ended_job_come_from_its_table(reader, clock, batch, tmp_path):
    gpu = [{"index": 0, "utilization": 0.5, "memory_bytes": GIB, "memory_total_bytes": 4 * GIB, "power_w": 90.0}]
    batch.start()
    for i in range(5):
        batch.sample(float(i), records=i, gpu=gpu)
    batch.end()
    assert not batch.live.exists()
    step(reader, clock)
    found = reader.samples(row(reader)["id"], -1, 0)
    assert found["t"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert column(found, "gpu/GPU 0")["values"] == [0.5] * 5
    assert row(reader)["active"] is False


def test_the_samples_of_the_last_second_are_there_as_soon_as_the_end_is(reader, clock, batch):
    batch.start()
    batch.sample(1.0)
    step(reader, clock)
    batch.sample(2.0)  # no poll sees it before it is in the table
    batch.end()
    step(reader, clock)
    for _ in range(2):
        assert reader.samples(row(reader)["id"], -1, 0)["t"] == [1.0, 2.0]
        step(reader, clock, 60)


def test_what_an_ended_job_has_used_is_told_from_all_its_samples(reader, clock, batch):
    gpus = [
        {"index": i, "utilization": use, "memory_bytes": GIB, "memory_total_bytes": 4 * GIB, "power_w": 9.0}
        for i, use in enumerate((0.5, 1.0))
    ]
    batch.start()
    batch.sample(1.0, cpu=None, rss=100 << 20, records=1)
    batch.sample(2.0, cpu=1.0, rss=300 << 20, records=5, gpu=gpus)
    batch.sample(5.0, cpu=3.0, rss=100 << 20, records=9, errors=2)
    step(reader, clock)
    live = reader.samples(row(reader)["id"], -1, 0)["used"]
    batch.end()
    step(reader, clock)
    step(reader, clock, 60)
    used = reader.samples(row(reader)["id"], -1, 0)["used"]
    assert used == live
    assert (used["cores_mean"], used["cores_peak"]) == (2.5, 3.0)  # one second of 1, three of 3; one was not measured
    assert (used["memory_mean"], used["memory_peak"]) == (140 << 20, 300 << 20)
    assert used["memory_peak_vmhwm"] == 600 << 20
    assert (used["gpu_mean"], used["gpu_memory_peak"]) == (0.75, 2 * GIB)
    assert (used["records"], used["errors"]) == (9, 2)


def test_a_job_without_samples_has_used_nothing_that_is_known(reader, clock, batch):
    batch.start()
    batch.end()
    step(reader, clock)
    assert set(reader.samples(row(reader)["id"], -1, 0)["used"].values()) == {None}


def test_a_job_whose_clients_have_a_node_of_their_own(reader, clock, batch):
    server = {**worker_row(1.0, cpu=3.0), "role": "server"}
    there = [{**node_row(1.0, CLIENT_NODE), "node": "node-b", "clock_s": 77.0}]
    batch.start()
    batch.sample(1.0, beside=[server, *there])
    step(reader, clock)
    assert row(reader)["cores"]["value"] == 4.0  # of its processes on both nodes, and of no whole node
    assert row(reader)["memory_anon"]["value"] == 100 << 20
    batch.sample(2.0, beside=[{**server, "cpu_cores": None, "anon_bytes": None}, *there])
    batch.sample(3.0, beside=[server, {**node_row(3.0, CLIENT_NODE), "node": "node-b", "clock_s": 79.0}])
    step(reader, clock)
    found = reader.samples(row(reader)["id"], -1, 0)
    assert column(found, "pressure/CPU wait")["values"] == [None, 0.25, 0.25]
    assert column(found, "pressure/I/O wait, client-node")["values"] == [None, None, 0.5]  # the second told nothing new
    assert column(found, "available/client-node")["values"] == [pytest.approx(20 * GIB, rel=1e-5)] * 3
    assert column(found, "vfs_write/worker")["values"] == [None, 4000.0, 4000.0]


def test_a_part_of_a_job_that_is_not_told_is_not_left_out_of_a_sum(reader, clock, batch):
    batch.start()
    batch.sample(1.0, errors=2, beside=[{"role": "server", "rss_bytes": 5}])
    step(reader, clock)
    assert row(reader)["cores"] == {"value": None, "reason": "the first sample has no rate yet"}
    assert row(reader)["memory"]["value"] == (100 << 20) + 5
    assert row(reader)["memory_anon"] == {"value": None, "reason": "not told"}
    assert row(reader)["errors"] == {"value": 2, "source": "runner: failed requests and repetitions"}


def test_gpus_of_a_job(reader, clock, batch):
    gpus = [
        {"index": i, "utilization": u, "memory_bytes": GIB, "memory_total_bytes": 4 * GIB, "power_w": None}
        for i, u in enumerate((0.2, 0.6))
    ]
    batch.start()
    batch.sample(1.0, gpu=gpus)
    step(reader, clock)
    assert row(reader)["gpu"] == {"value": 0.4, "source": "nvml, 2 GPU"}
    assert row(reader)["gpu_memory"]["value"] == 2 * GIB
    gpus[1]["utilization"] = None
    batch.sample(2.0, gpu=gpus)
    step(reader, clock)
    assert row(reader)["gpu"] == {"value": None, "reason": "NVML does not tell"}  # half of them is not the whole


def test_a_second_invocation_starts_anew(reader, clock, batch):
    batch.start()
    batch.sample(50.0)
    step(reader, clock)
    batch.end("terminated", "received SIGTERM", "SIGTERM")
    step(reader, clock, 20)
    batch.start()
    batch.sample(0.5)
    events = step(reader, clock, 11)
    assert samples_of(events) == [0.5]
    assert row(reader)["invocation"] == 2
    assert reader.samples(row(reader)["id"], -1, 0)["t"] == [0.5]


def test_phases_are_told_before_the_record_has_them(reader, clock, batch):
    batch.start()
    batch.sample(1.0, step={**STEP, "phase": "server_start", "since_s": 0.0})
    batch.sample(2.0, step={**STEP, "phase": "warmup", "since_s": 1.5})
    batch.sample(4.0, step={**STEP, "phase": "warmup", "since_s": 1.5})
    step(reader, clock)
    detail = reader.detail(row(reader)["id"])
    assert [band[:3] for band in detail["phases"]] == [["server_start", 0.0, 1.5], ["warmup", 1.5, 4.0]]
    batch.done("case-a", 1.5, 4.5)
    step(reader, clock)
    assert [band[0] for band in reader.detail(row(reader)["id"])["phases"]] == ["measure"]


# -- progress, owner ------------------------------------------------------------------------------------------------


def test_a_job_without_progress_is_stalled_and_recovers(reader, clock, batch):
    batch.start()
    batch.sample(1.0, records=5, step=STEP)
    step(reader, clock)
    for i in range(2, 9):
        batch.sample(10.0 * i, records=5, step=STEP)
        step(reader, clock, 10)
    assert row(reader)["stalled"]
    assert row(reader)["no_progress_s"] == 70
    assert row(reader)["silent_s"] is None
    batch.sample(90.0, records=6, step=STEP)
    step(reader, clock)
    assert not row(reader)["stalled"]


def test_a_step_that_is_expected_to_take_long_is_not_stalled(reader, clock, batch):
    batch.start()
    for i in range(10):
        batch.sample(10.0 * i, step={**STEP, "expected_s": 100.0})
        step(reader, clock, 10)
    assert not row(reader)["stalled"]
    for i in range(10, 25):
        batch.sample(10.0 * i, step={**STEP, "expected_s": 100.0})
        step(reader, clock, 10)
    assert row(reader)["stalled"]


def test_samples_that_stay_away_are_told(reader, clock, batch):
    batch.start()
    batch.sample(1.0)
    step(reader, clock)
    step(reader, clock, 25)
    assert row(reader)["silent_s"] == 25
    assert row(reader)["state"] == "running"


def started_at(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def test_a_runner_that_was_killed_is_lost(reader, clock, batch):
    batch.start(lock=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        batch.own(pid=process.pid, started=started_at(process.pid))
        step(reader, clock)
        assert row(reader)["state"] == "running"
        process.kill()
    step(reader, clock, 6)
    assert row(reader)["state"] == "lost"
    assert "gone without a word" in row(reader)["reason"]
    assert row(reader)["active"]  # somebody should notice it
    batch.start(lock=False)
    batch.own(pid=os.getpid(), started=started_at(os.getpid()))
    step(reader, clock, 11)
    assert row(reader)["state"] == "running"


def test_no_lock_and_no_end_is_lost(reader, clock, batch):
    batch.start(lock=False)
    step(reader, clock)
    assert row(reader)["state"] == "lost"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"host":', b'{"pid":"../../etc","host":5}', b"null"])
def test_a_lock_that_lies_is_not_a_verdict(reader, clock, batch, content):
    batch.start(lock=False)
    (batch.folder / "owner.lock").write_bytes(content)
    step(reader, clock)
    assert row(reader)["state"] == "running"
    assert row(reader)["owner"]


def test_an_owner_on_another_host_is_not_judged_from_here(reader, clock, batch):
    batch.start(lock=False)
    batch.own(host="elsewhere")
    step(reader, clock)
    assert row(reader)["state"] == "running"
    assert "another host" in row(reader)["owner"]


# -- Slurm ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A `squeue` whose answer, and failure, is in files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "squeue"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat {tmp_path}/answer\n'
        f"[ ! -e {tmp_path}/broken ] || {{ cat {tmp_path}/broken >&2; exit 1; }}\n"
    )
    script.chmod(0o755)
    (tmp_path / "answer").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def test_one_query_for_all_jobs_tells_pending_and_gone_ones(reader, clock, batch, squeue, tmp_path):
    waiting = "storage-other-99999999"
    write_plan(tmp_path / "results", "small", {batch.name: 1, waiting: 1}, slurm={"account": "p1"})
    batch.start(lock=False)
    batch.own(host="node-b", slurm_job="17")
    (squeue / "answer").write_text(
        "17|RUNNING|None|cpu|30:00|rule_storage_batch_wildcards_x\n"
        f"18|PENDING|Resources|cpu|1-00:00:00|rule_storage_batch_wildcards_{waiting}\n"
    )
    batch.record.invocations[-1].provenance["slurm"]["job_id"] = "17"
    batch.save()
    step(reader, clock)
    assert reader.wants_slurm
    reader.queue.ask(clock.now)
    reader.queue.ask(clock.now + 1)
    step(reader, clock, 6)
    assert (squeue / "calls").read_text().count("\n") == 1
    by_batch = {found["batch"]: found for found in reader.rows}
    assert by_batch[waiting]["queue"]["reason"] == "Resources"
    assert by_batch[waiting]["state"] == "pending"
    assert by_batch[batch.name]["limit"] == {"value": 1800, "source": "squeue"}
    assert by_batch[batch.name]["owner"] is None
    (squeue / "answer").write_text("")
    reader.queue.ask(clock.now + 31)
    step(reader, clock, 6)
    found = {each["batch"]: each for each in reader.rows}[batch.name]
    assert found["state"] == "lost"
    assert "Slurm job 17 is gone" in found["reason"]


def test_a_queue_that_fails_is_told_and_asked_less_often(squeue):
    (squeue / "broken").write_text("slurm_load_jobs error: Unable to contact\nslurm controller")
    queue = Queue()
    for now in range(300):
        queue.ask(float(now))
    assert queue.problem == "squeue: slurm_load_jobs error: Unable to contact slurm controller"
    assert queue.calls == 4  # at 0, 30, 90 and 210 s
    (squeue / "broken").unlink()
    queue.ask(10_000.0)
    assert (queue.problem, queue.failures) == (None, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30:00", 1800), ("02:00:01", 7201), ("1-02:00:00", 93600), ("UNLIMITED", None), ("", None), ("NOT_SET", None)],
)
def test_time_limits_of_slurm(text, expected):
    assert seconds(text) == expected


# -- what others write into the folder ---------------------------------------------------------------------------------


def test_ids_are_ids_and_differ(reader, clock, tmp_path):
    from aifbench.services.ids import is_id

    names = ["storage-a.b", "storage-a-b", "x" * 150, "ABC", "a"]
    ids = {job_id(campaign, name) for campaign in ("one", "two") for name in names}
    assert len(ids) == 2 * len(names)
    assert all(is_id(each) for each in ids)


def test_hostile_names_are_passed_over_and_counted(reader, clock, batch, tmp_path):
    batch.start()
    for name in ("a\nb", "\x1b[31mred", "x" * 240, "-rf", "é"):
        (batch.folder.parent / name).mkdir()
    (tmp_path / "results" / "link").symlink_to("/")
    (batch.folder.parent / "link").symlink_to("/")
    step(reader, clock)
    assert [found["batch"] for found in reader.rows] == [batch.name]
    assert reader.passed_over == 7


RECORDS = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"status":"running"}',
    b'{"status":"flying","benchmark":"x","planned":{}}',
    b'{"status":"running","benchmark":"x","planned":7,"invocations":{}}', b"x" * 100,
]  # fmt: skip


@pytest.mark.parametrize("content", RECORDS)
def test_a_record_that_is_none_ends_nothing(reader, clock, batch, content):
    batch.start()
    batch.sample(1.0)
    step(reader, clock)
    batch.store.record_path.write_bytes(content)
    batch.sample(2.0)
    assert samples_of(step(reader, clock)) == [2.0]
    assert row(reader)["state"] == "running"


LIES = [
    b"garbage\n", b"[1,2]\n", b'{"invocation":0,"t_s":"x","role":"node"}\n',
    b'{"invocation":0,"t_s":1e999,"role":"node"}\n', b'{"invocation":0,"t_s":1e300,"role":"node"}\n',
    b'{"invocation":0,"t_s":1.5,"role":"node","gpu":7,"step":[],"records":"many","cpu_cores":"all"}\n',
    b'{"invocation":0,"t_s":1.5,"role":"node","gpu":[1,{"index":"x","utilization":null}],"step":{"since_s":"x"}}\n',
    b'{"invocation":0,"t_s":1.5,"role":["a"]}\n', b'{"invocation":"0","t_s":1.5,"role":"node"}\n', b"\x00" * 50 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("line", LIES)
def test_a_line_that_lies_does_not_stop_the_samples(reader, clock, batch, line):
    batch.start()
    batch.sample(1.0)
    step(reader, clock)
    batch.append(line)
    batch.sample(2.0)
    assert samples_of(step(reader, clock))[-1] == 2.0
    assert row(reader)["memory"]["value"] == 100 << 20


def test_many_invented_roles_do_not_fill_the_memory(reader, clock, batch):
    batch.start()
    for i in range(500):
        batch.append(orjson.dumps({"invocation": 0, "t_s": 1.0, "role": f"r{i}", "cpu_cores": 1.0}) + b"\n")
    batch.sample(1.0)
    step(reader, clock)
    assert len(reader.samples(row(reader)["id"], -1, 0)["series"]) <= 128


def test_a_batch_that_is_deleted_is_gone_and_may_come_back(reader, clock, batch, tmp_path):
    import shutil

    write_plan(tmp_path / "results", "small", {batch.name: 2})
    batch.start()
    step(reader, clock)
    id = row(reader)["id"]
    batch.lock.release()
    shutil.rmtree(batch.folder)
    step(reader, clock, 11)
    step(reader, clock, 11)
    assert row(reader)["state"] == "pending"
    shutil.rmtree(tmp_path / "results" / "small")
    events = step(reader, clock, 11)
    assert reader.rows == []
    assert ("jobs", "jobs", {"jobs": [], "gone": [id]}) in events
    assert reader.samples(id, -1, 0) is None


def test_no_results_folder_yet(tmp_path, clock):
    reader = Reader(tmp_path / "none", clock.monotonic, clock.wall)
    assert reader.poll() == []
    Batch(tmp_path / "none").start()
    step(reader, clock)
    assert row(reader)["state"] == "running"


def test_a_plan_of_old_is_not_pending(reader, clock, tmp_path):
    write_plan(tmp_path / "results", "old", {"storage-a-11111111": 1})
    for path in (tmp_path / "results" / "old" / "plan.json", tmp_path / "results" / "old"):
        os.utime(path, (1e9, 1e9))
    step(reader, clock)
    assert row(reader)["state"] == "not-started"
    assert reader.listed("active", 10)[0] == []


def test_invalid_cases_are_told_and_an_older_record_does_not_tell(reader, clock, batch):
    batch.start()
    batch.done("case-a", 1.0, 2.0)
    batch.end()
    step(reader, clock)
    assert row(reader)["cases_invalid"] is None
    batch.record.invalid = []
    batch.save()
    step(reader, clock)
    assert row(reader)["cases_invalid"] == 0
    batch.record.invalid = ["case-a", "not-planned"]
    batch.save()
    step(reader, clock)
    assert (row(reader)["state"], row(reader)["cases_invalid"]) == ("ok", 1)


@pytest.mark.parametrize(
    ("status", "signal", "before", "after"),
    [
        ("terminated", "SIGINT", "signal", "cancel"),
        ("terminated", "SIGTERM", "signal", "cancel"),
        ("terminated", None, None, None),
        ("client_error", "SIGTERM", None, None),
        ("ok", None, None, None),
    ],
)
def test_an_end_by_a_signal_is_told_and_whether_somebody_cancelled(
    reader, clock, batch, tmp_path, status, signal, before, after
):
    batch.start()
    step(reader, clock)
    batch.end(status, "the words for a reader", signal)
    step(reader, clock)
    assert (row(reader)["state"], row(reader)["ended_by"]) == (status, before)
    launch = tmp_path / "results" / batch.campaign / "launch"
    launch.mkdir()
    (launch / "cancel.json").write_text("{}")
    step(reader, clock, 11)
    assert row(reader)["ended_by"] == after
    (launch / "cancel.json").unlink()  # the run goes on
    step(reader, clock, 11)
    assert row(reader)["ended_by"] == before


def test_a_cancel_is_known_at_once_when_its_runner_ends(reader, clock, batch, tmp_path):
    launch = tmp_path / "results" / batch.campaign / "launch"
    batch.start()
    launch.mkdir()
    step(reader, clock)
    (launch / "cancel.json").write_text("{}")
    batch.end("terminated", "received SIGINT", "SIGINT")
    step(reader, clock)
    assert row(reader)["ended_by"] == "cancel"


@pytest.mark.parametrize(
    ("supervisor", "ended", "state"), [(0, False, "pending"), (1, False, "not-started"), (0, True, "not-started")]
)
def test_what_a_launched_run_planned_is_pending_while_its_supervisor_lives(
    reader, clock, tmp_path, supervisor, ended, state
):
    from aifbench.processes.identity import identity

    write_plan(tmp_path / "results", "run", {"storage-a-11111111": 1})
    launch = tmp_path / "results" / "run" / "launch"
    launch.mkdir()
    known = {**identity(os.getpid()), **({"started": "1"} if supervisor else {})}
    (launch / "keeper.json").write_bytes(orjson.dumps(known))
    if ended:
        (launch / "exit.json").write_text("{}")
    for path in (tmp_path / "results" / "run" / "plan.json", tmp_path / "results" / "run"):
        os.utime(path, (1e9, 1e9))
    step(reader, clock)
    assert row(reader)["state"] == state


# -- the log --------------------------------------------------------------------------------------------------------


def test_the_log_goes_on_where_it_was_left(reader, clock, batch):
    batch.start()
    batch.log("one")
    step(reader, clock)
    id = row(reader)["id"]
    first = reader.log(id, None)
    assert [line["msg"] for line in first["lines"]] == ["one"]
    batch.log("two\n\x1b[31m", level=2, case="case-a")
    second = reader.log(id, first["next"])
    assert second["lines"] == [
        {"t": "2026-11-26T10:00:00.000+00:00", "level": 2, "case": "case-a", "msg": "two\n\x1b[31m"}
    ]
    assert not second["restarted"]
    assert reader.log(id, second["next"])["lines"] == []
    assert reader.log(id, 10**9)["restarted"]
    assert reader.log(id, first["next"] - 1)["restarted"]  # inside a line
    assert reader.log("no-such-job", None) is None


def test_an_event_of_the_log_tells_which_bytes_it_holds(reader, clock, batch):
    def told():
        return [
            (data["from"], data["next"], data["restarted"]) for _, name, data in step(reader, clock) if name == "log"
        ]

    batch.start()
    step(reader, clock)
    batch.log("one")
    first = batch.store.log_path.stat().st_size
    assert told() == [(0, first, False)]
    assert reader.log(row(reader)["id"], None)["next"] == first  # what a request answers counts the same bytes
    batch.log("two")
    second = batch.store.log_path.stat().st_size
    assert told() == [(first, second, False)]
    batch.store.log_path.unlink()
    batch.log("anew")
    assert [found[1:] for found in told()] == [(batch.store.log_path.stat().st_size, True)]


def test_a_running_job_tells_from_which_level_on_it_writes(reader, clock, batch, tmp_path):
    def configure(*configs):
        file = tmp_path / "results" / FILE
        file.parent.mkdir(exist_ok=True)
        ends = {True: "2020-01-01T00:00:00Z", False: "2999-01-01T00:00:00Z"}
        entries = [
            {"name": name, "logLevel": level, "expires_at": ends[ended], "ended": ended, "match": {"run": run}}
            for name, level, ended, run in configs
        ]
        file.write_bytes(orjson.dumps({"configs": entries}))
        step(reader, clock)
        return row(reader)["log_level"]

    batch.start()
    step(reader, clock)
    assert row(reader)["log_level"] is None
    assert configure(("brief", 0, True, "sm*")) == {"level": 2, "config": "brief", "over": True}
    assert configure(("brief", 0, True, "other")) is None
    assert configure(("brief", 0, True, "*"), ("long", 1, False, "small")) == {
        "level": 1, "config": "long", "over": False
    }  # fmt: skip
    (tmp_path / "results" / FILE).write_text("{")  # a broken one changes nothing, as for the job itself
    step(reader, clock)
    assert row(reader)["log_level"]["config"] == "long"
    batch.end()
    step(reader, clock)
    assert row(reader)["log_level"] is None


# -- after a start ----------------------------------------------------------------------------------------------------


def test_everything_is_rebuilt_from_files_and_nothing_is_sent_twice(reader, clock, batch, tmp_path):
    batch.start()
    for i in range(200):
        batch.sample(float(i), records=i, step={**STEP, "since_s": float(i)})
    step(reader, clock)
    other = Reader(tmp_path / "results", clock.monotonic, clock.wall)
    assert [event.name for event in other.poll()] == ["jobs"]
    assert other.rows[0]["records"] == row(reader)["records"]
    assert other.samples(row(reader)["id"], -1, 0) == reader.samples(row(reader)["id"], -1, 0)


def test_ages_are_those_of_the_files_after_a_start(reader, clock, batch, tmp_path):
    batch.start()
    batch.sample(200.0, step={**STEP, "since_s": 20.0})
    for path in (batch.live, batch.store.record_path):
        found = path.stat().st_mtime
        os.utime(path, (found - 90, found - 90))
    step(reader, clock)
    assert row(reader)["silent_s"] >= 90
    assert row(reader)["no_progress_s"] >= 90
    assert row(reader)["stalled"]


def test_more_samples_than_one_can_send_are_asked_for(reader, clock, batch):
    batch.start()
    batch.sample(0.0)
    step(reader, clock)
    for i in range(1, 500):
        batch.sample(float(i))
    events = step(reader, clock)
    assert samples_of(events) == []
    assert [name for _, name, _ in events if name == "behind"] == ["behind"]
    assert len(reader.samples(row(reader)["id"], -1, 0)["t"]) == 500
