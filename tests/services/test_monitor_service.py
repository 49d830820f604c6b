"""The monitor as a server: real batches watched over a real socket, resumed streams, restarts, and what is refused."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from aifbench.campaign import plan
from aifbench.campaign.config import read_config
from aifbench.core.roles import CLIENT_NODE
from aifbench.services.monitor.reader import Reader
from tests.services.batches import Batch, node_row, worker_row, write_plan
from tests.services.live import Live
from tests.workflow import campaign


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "monitor") as live:
        yield live


def wait_for(question, seconds=20):
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"still not: {question()}")


def only_job(server, state="all"):
    jobs = server.get(f"/api/v1/jobs?state={state}").json().get("jobs", [])
    return jobs[0] if len(jobs) == 1 else None


def families(server):
    text = server.get("/metrics").body.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


# -- a real batch ---------------------------------------------------------------------------------------------------


def test_a_real_campaign_is_watched_from_its_plan_to_its_end(server, tmp_path):
    suite = {**campaign.STORAGE, "file_size": "64MiB", "block_size": "64KiB", "repetitions": 4}
    file = campaign.write(tmp_path, suite)
    content = yaml.safe_load(file.read_text())
    content["results"] = str(server.results)
    file.write_text(yaml.safe_dump(content))
    states, steps, seen = [], set(), []

    def watch():
        for event, data, _ in server.events("/api/v1/stream", timeout=60):
            for change in data["jobs"] if event == "jobs" else []:
                states.append(change.get("state"))
                steps.add((change.get("step") or {}).get("phase"))
                if (change.get("records") or {}).get("value"):
                    seen.append(change)
                if change.get("ended_at"):
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    with subprocess.Popen(
        campaign.command(file), cwd=campaign.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        live = wait_for(
            lambda: (job := only_job(server)) and job["state"] == "running" and job["cores"]["value"] and job
        )
        found = families(server)
        assert run.wait() == 0
    watcher.join(30)
    told = [state for state in states if state]
    assert told[0] in {"pending", "running"}
    assert told[-1] == "ok"
    assert steps & {"warmup", "write", "read", "verify", "prepare"}
    assert seen
    assert live["cores_allocated"] == {"value": len(os.sched_getaffinity(0)), "source": "CPU affinity"}
    assert live["limit"]["value"] is None
    assert live["memory"]["value"] > 50 << 20
    assert live["memory_peak"]["value"] >= live["memory"]["value"] / 2
    labels = {"run_id": "small", "task": live["batch"], "node": live["node"]}
    (samples,) = [s for s in found["aif_workload_records"].samples if s.name == "aif_workload_records_total"]
    assert samples.labels == {**labels, "kind": "blocks"}
    roles = {sample.labels["role"] for sample in found["aif_task_cpu_seconds"].samples}
    assert "runner" in roles
    ended = wait_for(lambda: (job := only_job(server, "ended")) and job)
    assert (ended["cases_done"], ended["cases_all"]) == (2, 2)
    assert ended["repetitions_done"] == ended["repetitions_all"] == 8
    wait_for(lambda: server.get(f"/api/v1/jobs/{ended['id']}/log").json()["lines"][-1]["msg"].startswith("ended: ok"))
    detail = server.get(f"/api/v1/jobs/{ended['id']}").json()
    assert {"write", "read"} <= {band[0] for band in detail["phases"]}
    assert detail["sampler"]["missed_ticks"] >= 0
    kept = server.get(f"/api/v1/jobs/{ended['id']}/samples").json()
    assert kept["count"] == len(kept["t"]) >= 3
    assert any(line["name"] == "write/worker" or line["name"] == "write/runner" for line in kept["series"])


def test_a_real_runner_that_is_killed_is_lost_and_runs_again(server, tmp_path):
    suite = {**campaign.STORAGE, "file_size": "64MiB", "block_size": "64KiB", "repetitions": 100}
    file = campaign.write(tmp_path, suite)
    content = yaml.safe_load(file.read_text())
    content["results"] = str(server.results)
    file.write_text(yaml.safe_dump(content))
    plan.write_plan(plan.make_plan(read_config([file])), server.results / "small")
    (spec,) = (server.results / "small" / "specs").glob("*.json")
    folder = server.results / "small" / "batches" / spec.stem
    command = [sys.executable, "-m", "aifbench", "run", "--spec", str(spec), "--out", str(folder)]
    for ending, state in ((signal.SIGKILL, "lost"), (signal.SIGTERM, "terminated")):
        with subprocess.Popen(command, cwd=campaign.ROOT, stderr=subprocess.DEVNULL) as runner:
            wait_for(lambda: (job := only_job(server)) and job["state"] == "running" and job["records"]["value"])
            runner.send_signal(ending)
        job = wait_for(lambda state=state: (job := only_job(server)) and job["state"] == state and job)
    assert job["invocation"] == 2
    assert job["reason"] == "received SIGTERM"


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_resumed_stream_has_each_sample_once(server):
    batch = Batch(server.results).start()
    batch.sample(0.0)
    id = wait_for(lambda: only_job(server))["id"]
    target, got, last = f"/api/v1/stream?jobs={id}", [], None
    writing = threading.Event()

    def write():
        for i in range(1, 61):
            batch.sample(float(i), records=i)
            time.sleep(0.1)
        writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not (writing.is_set() and got and got[-1] == 60.0):
        headers = {"Last-Event-ID": last} if last else {}
        stop_after = random.Random(len(got)).randint(1, 6)
        for number, (event, data, name) in enumerate(server.events(target, headers=headers, timeout=20), 1):
            assert event not in {"gap", "missed"}
            if event == "sample":
                got.append(data["t"])
            last = name
            if number >= stop_after or (got and got[-1] == 60.0):
                break
        time.sleep(0.05)
    writer.join()
    wanted = [float(i) for i in range(1, 61)]
    assert got[-len(wanted) :] == wanted
    assert got[: -len(wanted)] in ([], [0.0])


def test_a_stream_from_before_a_restart_is_told_of_the_gap_and_the_whole_can_be_asked(server):
    batch = Batch(server.results).start()
    batch.sample(0.0)
    id = wait_for(lambda: only_job(server))["id"]
    batch.sample(1.0)
    events = server.events(f"/api/v1/stream?jobs={id}", timeout=20)
    _, _, last = next(event for event in events if event[0] == "sample")
    events.close()
    server.stop(signal.SIGKILL)
    batch.sample(2.0)
    (server.runtime / "serve.sock").unlink(missing_ok=True)
    server.start()
    event, _, _ = next(server.events(f"/api/v1/stream?jobs={id}", headers={"Last-Event-ID": last}, timeout=20))
    assert event == "gap"
    wait_for(lambda: server.get("/readyz").status == 200)
    assert server.get(f"/api/v1/jobs/{id}/samples").json()["t"] == [0.0, 1.0, 2.0]


def test_a_stream_has_only_the_jobs_it_names(server):
    one = Batch(server.results, name="storage-one-11111111").start()
    other = Batch(server.results, name="storage-two-22222222").start()
    jobs = wait_for(lambda: len(found := server.get("/api/v1/jobs").json().get("jobs", [])) == 2 and found)
    ids = {job["batch"]: job["id"] for job in jobs}
    events = server.events(f"/api/v1/stream?jobs={ids[one.name]}", timeout=20)
    wait_for(lambda: b"aif_sse_subscribers 0.0" in server.get("/metrics").body)
    seen = []

    def watch():
        for found in events:
            seen.append(found)
            if found[0] == "jobs" and any(event == "log" for event, _, _ in seen):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    wait_for(lambda: b"aif_sse_subscribers 1.0" in server.get("/metrics").body)
    for batch in (other, one):
        batch.sample(1.0)
        batch.log("hello")
    thread.join(20)
    assert {data["id"] for event, data, _ in seen if event in {"sample", "log"}} == {ids[one.name]}
    assert {event for event, _, _ in seen} >= {"sample", "log", "jobs"}


# -- restarts -------------------------------------------------------------------------------------------------------


def tree(folder):
    """Return what can be seen of each file: content, times, mode, inode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path)] = (content, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_ino)
    return found


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_file_and_the_next_start_shows_the_same(server):
    for number in range(20):
        batch = Batch(server.results, name=f"storage-x-{number:08x}").start()
        for i in range(50):
            batch.sample(float(i), records=i)
        batch.log("said")
        if number % 2:
            batch.end()
    before = tree(server.results)
    shown = None
    pause = random.Random(6)
    for _ in range(int(os.environ.get("AIFBENCH_KILLS", "6"))):
        server.stop(signal.SIGKILL)
        server.socket.unlink(missing_ok=True)
        server.start()
        wait_for(lambda: server.get("/readyz").status == 200)
        rows = server.get("/api/v1/jobs?state=all").json()["jobs"]
        stable = [{name: row[name] for name in ("id", "state", "records", "cores", "repetitions_done")} for row in rows]
        assert shown in (None, stable)
        shown = stable
        time.sleep(pause.uniform(0, 1.2))
    assert len(shown) == 20
    assert tree(server.results) == before


def test_a_thousand_runs_are_rebuilt(tmp_path):
    results = tmp_path / "results"
    for number in range(1000):
        name = f"storage-x-{number:08x}"
        batch = Batch(results, campaign=f"run-{number // 10}", name=name)
        batch.start(lock=False)
        batch.sample(1.0)
        batch.sample(2.0, records=number)
        if number % 100:
            batch.end("ok" if number % 7 else "partial")
        else:
            batch.own(host="elsewhere")
    reader = Reader(results)
    reader.poll()
    assert len(reader.rows) == 1000
    active, total = reader.listed("active", 10)
    assert sorted(row["records"]["value"] for row in active) == [float(number) for number in range(0, 1000, 100)]
    assert len(reader.listed("ended", 50)[0]) == 50
    assert total == 1000
    assert sum(row["state"] == "partial" for row in reader.rows) == len(
        [n for n in range(1000) if n % 100 and not n % 7]
    )
    (some,) = [row for row in reader.rows if row["batch"] == f"storage-x-{999:08x}"]
    assert reader.samples(some["id"], -1, 0)["t"] == [1.0, 2.0]
    families_of = {row["id"] for row in active}
    assert len(families_of) == 10


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/v1/jobs?state=sleeping", 422),
        ("/api/v1/jobs?most=0", 422),
        ("/api/v1/jobs/no-such-job", 404),
        ("/api/v1/jobs/..%2f..%2fetc", 404),
        ("/api/v1/jobs/UPPER", 422),
        ("/api/v1/jobs/no-such-job/samples", 404),
        ("/api/v1/jobs/no-such-job/samples?since=nan", 422),
        ("/api/v1/jobs/no-such-job/samples?step=-1", 422),
        ("/api/v1/jobs/no-such-job/log?since=-1", 422),
        ("/api/v1/stream?jobs=../../etc", 422),
        ("/api/v1/stream?jobs=" + "a" * 5000, 422),
    ],
)
def test_a_bad_request_gets_one_clear_line(server, target, status):
    answer = server.get(target)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.fullmatch(r"[^\n]{5,300}", answer.json()["detail"])


def test_the_read_token_may_look_and_ingest_may_not(server):
    assert server.get("/api/v1/jobs", token="read").status == 200
    assert server.get("/api/v1/jobs", token="ingest").status == 403
    assert server.get("/api/v1/stream", token=None).status == 401


def test_metrics_name_a_run_while_it_is_active_and_forget_it_later(server):
    write_plan(server.results, "small", {"storage-later-33333333": 3})
    batch = Batch(server.results).start()
    batch.record.reasons, batch.record.notes = {"own_work": 2}, {"apart": 3, "</script>": 1}
    batch.save()
    gpu = [{"index": 0, "utilization": 0.25, "memory_bytes": 7, "power_w": None}]
    there = [{"node": "node-b", **row} for row in ({**worker_row(5.0), "role": "sampler"}, node_row(5.0, CLIENT_NODE))]
    batch.sample(5.0, records=40, errors=3, gpu=gpu, beside=there)
    Batch(server.results, name="storage-old-44444444").start()
    wait_for(lambda: len(server.get("/api/v1/jobs?state=all").json().get("jobs", [])) == 3)
    wait_for(lambda: "aif_gpu_utilization_ratio" in families(server))
    found = families(server)

    def value(name, **labels):
        (sample,) = [
            s
            for s in found[name.removesuffix("_total")].samples
            if s.name == name and labels.items() <= s.labels.items()
        ]
        return sample.value

    assert value("aif_jobs", state="running", benchmark="storage") == 2
    assert value("aif_jobs", state="pending", benchmark="storage") == 1
    assert value("aif_jobs", state="ok", benchmark="inference") == 0
    task = {"run_id": "small", "task": batch.name, "node": "node-a"}
    assert value("aif_task_cpu_seconds_total", role="worker", **task) == 5.0
    parts = [value("aif_task_memory_bytes", role="worker", kind=kind, **task) for kind in ("anon", "file", "shmem")]
    assert parts == [50 << 20, 40 << 20, 10 << 20]
    assert value("aif_task_io_bytes_total", direction="write", layer="block", **task) == 10_000
    assert value("aif_task_io_bytes_total", direction="read", layer="vfs", **task) == 15_000
    assert value("aif_workload_records_total", kind="blocks", **task) == 40
    assert value("aif_workload_errors_total", kind="blocks", **task) == 3
    assert value("aif_node_pressure_stalled_seconds_total", resource="cpu", **task) == 71.25
    on_b = {**task, "node": "node-b"}
    assert value("aif_node_pressure_stalled_seconds_total", resource="io", **on_b) == 2.5
    assert value("aif_node_cpu_busy_cores", **on_b) == 1.5
    assert value("aif_task_cpu_seconds_total", role="sampler", **on_b) == 5.0
    assert value("aif_gpu_utilization_ratio", gpu="0", **task) == 0.25
    assert "aif_gpu_power_watts" not in found  # it was not measured
    assert value("aif_task_repetitions", state="planned", **task) == 4
    assert value("aif_task_notes", severity="invalid", kind="own_work", **task) == 2
    assert [sample.labels["kind"] for sample in found["aif_task_notes"].samples] == ["own_work", "apart"]
    noted = {job["batch"]: job["noted"] for job in server.get("/api/v1/jobs?state=all").json()["jobs"]}
    assert noted[batch.name] == {"invalid": {"own_work": 2}, "caution": {"apart": 3}}


def test_metrics_forget_a_run_five_minutes_after_its_end(tmp_path):
    from aifbench.services.monitor.service import MonitorService
    from aifbench.services.settings import Settings

    batch = Batch(tmp_path / "results").start()
    batch.sample(1.0)
    batch.end()
    service = MonitorService(Settings(tmp_path, tmp_path / "results", tmp_path / "state", tmp_path / "run"))

    def named():
        return {s.labels.get("run_id") for family in service.collect() for s in family.samples} - {None}

    service.reader.poll()
    assert named() == {"small"}
    for job in service.reader.jobs.values():
        job.ended_seen -= 301
    assert named() == set()
