"""The client service over a real socket: ok and ko, launches that are real, and what survives what."""

import contextlib
import errno
import http.client
import json
import os
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import orjson
import pytest

from aifbench.files.written import atomic_write
from aifbench.machine.filesystem import mount_of
from aifbench.processes.identity import alive
from aifbench.records.sealed import seal, unseal
from aifbench.records.store import BatchStore
from aifbench.services.client.launch import LaunchLimits
from aifbench.services.client.request import LaunchRequest
from aifbench.services.problems import Refused
from tests.services.checkout import TINY, change_system, checkout, launcher
from tests.services.live import Live

POINTS = int(os.environ.get("AIFBENCH_KILLS", "2"))
"""Times that the service is killed at a random moment; the bar is 50."""
LONG = {"preset": "storage-quick", "config": {"axes": {"file_size": "1MiB"}, "repetitions": 500}}


@pytest.fixture
def server(tmp_path):
    checkout(tmp_path / "project")
    with Live(tmp_path, "client", environment={"SBATCH_ACCOUNT": "p200000"}) as live:
        yield live
        end_all(live)


def end_all(live):
    """End what a test has left and see that no process of it stays."""
    folders = [path.parent for path in live.results.glob("*/launch/request.json")]
    for folder in folders:
        if not (folder / "exit.json").exists() and (folder / "keeper.json").exists():
            (folder / "cancel.json").touch()
    deadline = time.monotonic() + 60
    for folder in folders:
        while running(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not running(folder)
    assert processes_of(live.folder) - {live.process.pid} == set()


def running(folder):
    return any(alive(read_json(folder / name)) for name in ("keeper.json", "process.json"))


def read_json(path):
    """Return the content of a file of JSON, None where it is not there."""
    return orjson.loads(path.read_bytes()) if path.exists() else None


def processes_of(folder):
    """Return the pids of all processes whose command names something below a folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.add(int(path.parent.name))
    return found


def launch(live, body=TINY, key=None, **more):
    headers = {"Idempotency-Key": key} if key else {}
    return live.post("/api/v1/runs", body, headers=headers, timeout=120, **more)


def show(live, run):
    answer = live.get(f"/api/v1/runs/{run}", timeout=30)
    assert answer.status == 200, answer.body
    return answer.json()


def wait_for(live, run, *states, seconds=120):
    deadline = time.monotonic() + seconds
    while (found := show(live, run))["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def measured(live, run):
    """Return how often each repetition of each case was recorded."""
    lines = [line for path in (live.results / run).glob("batches/*/cases.jsonl") for line in path.open()]
    found = {}
    for line in map(json.loads, lines):
        pair = line["case"], line["repetition"]
        found[pair] = found.get(pair, 0) + 1
    return found


def expect_ko(answer, status, code, field=...):
    assert answer.status == status, answer.body
    found = answer.json()
    assert found["status"] == "ko"
    assert set(found["reason"]) == {"code", "field", "message", "hint"}
    assert found["reason"]["code"] == code, found
    if field is not ...:
        assert found["reason"]["field"] == field, found
    return found["reason"]


def test_menu_and_schema(server):
    menu = server.get("/api/v1/menu").json()
    assert [one["name"] for one in menu["benchmarks"]] == ["retrieval", "inference", "storage"]
    presets = {one["id"]: one for one in menu["presets"]}
    assert presets["storage-quick"]["profiles"]["laptop"]["status"] == "ok"
    assert 0 < presets["storage-quick"]["profiles"]["laptop"]["expected_s"] < 60
    assert list(presets["inference-gpu"]["profiles"]) == ["meluxina"]
    profiles = {one["name"]: one for one in menu["profiles"]}
    assert profiles["laptop"]["limits"]["clients"] == 64
    assert profiles["meluxina"]["slurm"]["account"] is True  # that there is one, not which
    assert "p200000" not in json.dumps(menu)
    schema = server.get("/api/v1/menu/storage/schema").json()
    assert schema["properties"]["mode"]["anyOf"][0]["enum"] == ["direct", "buffered-cold", "warm"]
    expect_ko(server.get("/api/v1/menu/nothing/schema"), 422, "unknown_benchmark", "benchmark")


def test_a_preset_with_a_slip_is_named_and_takes_nothing_else_away(server):
    (server.project / "config" / "presets" / "broken.yaml").write_text("title: broken\n  text: [\n")
    menu = server.get("/api/v1/menu").json()
    assert {one["id"] for one in menu["presets"]} > {"storage-quick", "retrieval-quick"}
    (broken,) = menu["broken_presets"]
    assert broken["id"] == "broken"
    assert broken["problem"].startswith("config/presets/broken.yaml: line 2: not valid YAML")
    assert server.post("/api/v1/runs:validate", TINY).status == 200
    reason = expect_ko(server.post("/api/v1/runs:validate", {"preset": "broken"}), 422, "invalid_config", "preset")
    assert reason["message"] == broken["problem"]


def test_validate_tells_the_plan_and_leaves_nothing(server):
    answer = server.post("/api/v1/runs:validate", {**TINY, "clients": [1, 2]})
    assert answer.status == 200, answer.body
    plan = answer.json()["plan"]
    assert (plan["cases"], plan["repetitions"], plan["batches"]) == (4, 8, 1)
    assert plan["varied"] == [
        {"suite": "storage-quick", "key": "mode", "values": 2},
        {"suite": "storage-quick", "key": "clients", "values": 2},
    ]
    assert "file_size: 1MiB" in answer.json()["config"]
    deep = server.post("/api/v1/runs:validate?dry_run=true", TINY, timeout=60).json()
    assert deep["checks"]["dry_run_s"] > 0
    assert list(server.results.iterdir()) == []


SEVERAL = [
    {**TINY, "clients": [1, 2]},
    {"preset": "retrieval-quick", "resources": {"clients": {"cores": 1}},
     "config": {"axes": {"index": "Flat"}, "vectors": 2000, "queries": 200, "repetitions": 2}},
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"config": {"top_k": 0}}, "invalid_config", "services[1].config.top_k"),
        ({"clients": 65}, "over_limit", "services[1].clients"),
        ({"config": {"axes": {"clients": list(range(1, 60)), "top_k": list(range(1, 60))}}}, "over_limit",
         "services[1].config.axes"),
        ({"config": {"repetitions": 10**6}}, "over_limit", "services[1].config.repetitions"),
        ({"resources": {"clients": {"cores": 999}}}, "over_limit", "services[1].resources.clients.cores"),
        ({"resources": {"server": {"cores": 1}}}, "invalid_config", "services[1].resources.server.cores"),
        ({"preset": "broken"}, "invalid_config", "services[1].preset"),
    ],
)  # fmt: skip
def test_one_answer_to_several_services_names_the_one_at_fault(server, change, code, field):
    (server.project / "config" / "presets" / "broken.yaml").write_text("title: broken\n  text: [\n")
    body = {"services": [SEVERAL[0], {**SEVERAL[1], **change}]}
    expect_ko(server.post("/api/v1/runs:validate", body), 422, code, field)
    expect_ko(launch(server, body), 422, code, field)
    assert list(server.results.iterdir()) == []


@pytest.mark.slow
def test_a_run_of_several_services(server):
    body = {"services": SEVERAL, "node_hours": 0.5}
    plan = server.post("/api/v1/runs:validate", body).json()["plan"]
    assert (plan["cases"], plan["repetitions"], plan["batches"]) == (5, 10, 2)
    assert {one["suite"] for one in plan["varied"]} == {"storage-quick"}
    assert plan["budget_node_hours"] == 0.5
    answer = launch(server, body)
    assert answer.status == 202, answer.body
    run = answer.json()["run_id"]
    assert run.startswith("storage-quick-retrieval-quick-")
    found = wait_for(server, run, "ended", "failed")
    assert found["state"] == "ended", found["log"]
    assert sorted(found["benchmarks"]) == ["retrieval", "storage"]
    assert found["counts"] == {"valid": 5, "invalid": 0, "failed": 0, "missing": 0}
    report = server.get(f"/api/v1/runs/{run}/report").body.decode()
    assert "execution_time_s" in report
    assert "write_time_s" in report


def test_more_threads_than_this_machine_has_cores_are_refused_here(server):
    usable = len(os.sched_getaffinity(0))
    post = "/api/v1/runs:validate"
    for preset, part in (("retrieval-quick", "clients"), ("inference-quick", "server")):
        few, many = ({"preset": preset, "resources": {part: {"cores": cores}}} for cores in (usable, 999))
        assert server.post(post, few).status == 200
        reason = expect_ko(server.post(post, many), 422, "over_limit", f"resources.{part}.cores")
        assert reason["message"].startswith("999 threads; this machine has")
        assert reason["hint"] == f"at most {usable}"


def test_refusals_over_the_wire(server):
    post = "/api/v1/runs"
    expect_ko(server.post(post, b"{"), 422, "invalid_request")
    expect_ko(server.post(post, {"preset": "nope"}), 422, "unknown_preset", "preset")
    expect_ko(server.post(post, {**TINY, "profile": "moon"}), 422, "unknown_profile", "profile")
    expect_ko(server.post(post, {"benchmark": "storge"}), 422, "unknown_benchmark")
    reason = expect_ko(server.post(post, {**TINY, "config": {"mode": "drect"}}), 422, "invalid_config", "config.mode")
    assert reason["hint"].startswith("did you mean direct?")
    expect_ko(server.post(post, {**TINY, "clients": 65}), 422, "over_limit", "clients")
    axes = {
        "clients": list(range(1, 60)),
        "block_size": [4096 * 2**n for n in range(9)],
        "pattern": ["sequential", "random"],
    }
    expect_ko(
        server.post(post, {"preset": "storage-quick", "config": {"axes": axes}}), 422, "over_limit", "config.axes"
    )
    expect_ko(server.post(post, {**TINY, "config": {"repetitions": 10**6}}), 422, "over_limit", "config.repetitions")
    huge = {**TINY, "config": {"seed": 10**30}}
    expect_ko(launch(server, huge, key="a-key-for-it"), 422, "invalid_config", "config.seed")
    expect_ko(server.post(post, {**TINY, "profile": "meluxina"}), 409, "image_missing", "profile")
    assert server.post(post, TINY, token=None).status == 401
    assert server.post(post, TINY, token="read").status == 403
    assert list(server.results.iterdir()) == []


def test_slurm_that_does_not_answer_and_an_image_that_is_there(server, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "aifbench.sif").write_bytes(b"x")
    change_system(server.project, "meluxina", paths={"images": str(images)})
    request = {**TINY, "profile": "meluxina"}
    expect_ko(server.post("/api/v1/runs", request), 503, "slurm_unreachable")


@pytest.mark.slow
def test_a_whole_run(server):
    answer = launch(server)
    assert answer.status == 202, answer.body
    run = answer.json()["run_id"]
    assert run.startswith(f"storage-quick-{datetime.now():%Y%m%d}-")
    expect_ko(launch(server), 409, "queue_full")  # measurements do not share a machine
    assert server.get(f"/api/v1/runs/{run}/report", timeout=60).status == 200  # of what is there by now
    found = wait_for(server, run, "ended", "failed")
    assert found["state"] == "ended", found["log"]
    assert found["counts"] == {"valid": 2, "invalid": 0, "failed": 0, "missing": 0}
    assert found["repetitions"] == {"done": 4, "planned": 4}
    assert "2 valid" in found["message"]
    assert found["config"].startswith(f"campaign: {run}\n")
    report = server.get(f"/api/v1/runs/{run}/report")
    assert report.headers["content-security-policy"].startswith(
        "sandbox allow-scripts allow-downloads; default-src 'none'"
    )
    assert report.body == (server.results / run / "report" / "index.html").read_bytes()
    expect_ko(server.post(f"/api/v1/runs/{run}:cancel", b""), 409, "not_active")
    assert [one["id"] for one in server.get("/api/v1/runs").json()["runs"]] == [run]
    assert 'aif_launch_requests_total{reason="queue_full",result="ko"} 1.0' in server.get("/metrics").body.decode()
    assert 'aif_runs{state="ended"} 1.0' in server.get("/metrics").body.decode()


@pytest.mark.parametrize(
    ("slurm", "message", "can"),
    [
        (
            True,
            "its workflow was ended by signal 9; its jobs may still be in the queue: cancel removes them",
            ["cancel"],
        ),
        (False, "its workflow was ended by signal 9", []),
    ],
)
def test_a_killed_workflow_says_what_may_be_left(server, slurm, message, can):
    """Its batches may be on nodes that this machine cannot look at."""
    launched = server.results / "x-1" / "launch"
    launched.mkdir(parents=True)
    atomic_write(launched / "request.json", orjson.dumps({"run_id": "x-1", "by": {}, "slurm": slurm}))
    atomic_write(launched / "exit.json", orjson.dumps({"code": -9, "ended_at": "2026-11-26T10:00:00+00:00"}))
    found = show(server, "x-1")
    assert (found["state"], found["message"], found["can"]) == ("failed", message, can)


def test_a_storage_launch_says_where_it_will_write(server):
    def targets(request):
        return server.post("/api/v1/runs:validate", request).json()["plan"]["targets"]

    (target,) = targets(TINY)
    assert target["path"].endswith("target")
    assert target["type"] == mount_of(server.project)["type"]
    assert 0 < target["free_bytes"] < shutil.disk_usage(server.project).total
    assert targets({"preset": "retrieval-quick"}) == []


@pytest.mark.slow
def test_report_by_ticket(server):
    run = launch(server).json()["run_id"]
    wait_for(server, run, "ended")
    path = server.post(f"/api/v1/runs/{run}:ticket", b"", token="read").json()["path"]
    assert server.get(path, token=None).status == 200
    base, ticket = path.removesuffix("/report/index.html").rsplit("/", 1)
    assert server.get(f"{base}/{'A' * len(ticket)}/report/index.html", token=None).status == 401

    def get(rest, **headers):
        return server.get(f"{base}/{ticket}/{rest}", token=None, headers=headers)

    # What the report links to, by a click in its sandbox: the browser says that it navigates from elsewhere.
    click = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    (batch,) = [folder.name for folder in (server.results / run / "batches").iterdir()]
    record = get(f"batches/{batch}/batch.json", **click)
    assert (record.status, record.json()["batch"]) == (200, batch)
    assert record.headers["content-type"] == "application/json"
    assert record.headers["content-security-policy"].startswith("sandbox;")
    log = get(f"batches/{batch}/log.jsonl", **click)
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.body == (server.results / run / "batches" / batch / "log.jsonl").read_bytes()
    assert get("report/figures/resources.svg", **click).headers["content-type"] == "image/svg+xml"
    assert get("cases.csv").body.startswith(b"case,")
    folder = get(f"batches/{batch}/", **click)
    assert b'<a href="cases.jsonl">cases.jsonl</a>' in folder.body
    assert b"tables" not in get("batches/").body
    # Not how it was launched, nothing by a link, nothing above; and a page's scripts still may not ask.
    (server.results / run / "batches" / "away").symlink_to("/etc")
    for rest in ("launch/request.json", "launch/", "", "/", "batches/away/passwd", "batches/../launch/request.json",
                 f"batches/{batch}", "batches/%2e%2e/launch/request.json", "../../healthz", "batches//"):  # fmt: skip
        assert get(rest).status == 404, rest
    assert b"away" not in get("batches/").body
    for headers in ({**click, "Sec-Fetch-Mode": "cors"}, {**click, "Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        assert get("plan.json", **headers).status == 403
    assert server.post(f"/api/v1/runs/{run}:ticket", b"", token=None).status == 401
    expect_ko(server.post("/api/v1/runs/nope:ticket", b""), 404, "not_found")


@pytest.mark.slow
def test_cancel_ends_all_processes_and_keeps_what_is_measured(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    while show(server, run)["repetitions"]["done"] < 2:
        time.sleep(0.1)
    folder = server.results / run / "launch"
    assert running(folder)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post(f"/api/v1/runs/{run}:cancel", b""), range(8)))
    assert {answer.status for answer in answers} <= {202, 409}
    assert answers[0].json()["run"]["state"] in {"cancelling", "cancelled"}
    found = wait_for(server, run, "cancelled", seconds=60)
    assert found["repetitions"]["done"] >= 2
    assert set(measured(server, run).values()) == {1}
    assert not running(folder)
    assert processes_of(server.results / run) == set()
    assert server.get(f"/api/v1/runs/{run}/report", timeout=60).status == 200
    expect_ko(server.post(f"/api/v1/runs/{run}:cancel", b""), 409, "not_active")


@pytest.mark.slow
def test_a_run_outlives_the_service_and_can_be_cancelled_by_the_next(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    server.stop(signal.SIGKILL)
    assert running(server.results / run / "launch")
    server.start()
    before = wait_for(server, run, "running")["repetitions"]["done"]
    while show(server, run)["repetitions"]["done"] <= before:
        time.sleep(0.1)
    server.post(f"/api/v1/runs/{run}:cancel", b"")
    wait_for(server, run, "cancelled")


@pytest.mark.slow
def test_a_killed_keeper_is_told_and_its_run_can_be_cancelled(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    folder = server.results / run / "launch"
    os.kill(read_json(folder / "keeper.json")["pid"], signal.SIGKILL)
    assert wait_for(server, run, "running")
    server.post(f"/api/v1/runs/{run}:cancel", b"")
    wait_for(server, run, "cancelled")
    assert processes_of(server.results / run) == set()


@pytest.mark.slow
def test_a_run_whose_keeper_is_killed_while_it_cancels_is_ended_all_the_same(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    supervisor = read_json(server.results / run / "launch" / "keeper.json")["pid"]
    os.kill(supervisor, signal.SIGSTOP)  # it does not see that it is to cancel
    assert server.post(f"/api/v1/runs/{run}:cancel", b"").json()["run"]["state"] == "cancelling"
    os.kill(supervisor, signal.SIGKILL)
    wait_for(server, run, "cancelled")
    assert processes_of(server.results / run) == set()


@pytest.mark.slow
def test_a_run_that_ended_early_is_continued_and_none_is_measured_twice(server):
    wanted = {**TINY, "config": {**TINY["config"], "repetitions": 20}}
    run = launch(server, wanted).json()["run_id"]
    expect_ko(server.post(f"/api/v1/runs/{run}:continue", b""), 409, "active")
    deadline = time.monotonic() + 60
    while show(server, run)["repetitions"]["done"] < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    server.post(f"/api/v1/runs/{run}:cancel", b"")
    ended = wait_for(server, run, "cancelled")
    assert 3 <= ended["repetitions"]["done"] < ended["repetitions"]["planned"]
    assert ended["can"] == ["continue"]
    before = measured(server, run)
    assert server.post(f"/api/v1/runs/{run}:continue", b"", token="read").status == 403
    answer = server.post(f"/api/v1/runs/{run}:continue", b"", timeout=60)
    assert (answer.status, answer.json()["run_id"]) == (202, run)
    found = wait_for(server, run, "ended", "failed")
    assert found["state"] == "ended", found["log"]
    after = measured(server, run)
    assert set(before) < set(after)
    assert set(after.values()) == {1}
    assert found["repetitions"]["done"] == found["repetitions"]["planned"]
    expect_ko(server.post(f"/api/v1/runs/{run}:continue", b""), 409, "complete")
    expect_ko(server.post("/api/v1/runs/nope:continue", b""), 404, "not_found")


@pytest.mark.slow
def test_what_is_not_valid_is_measured_again_and_the_first_values_are_kept(server):
    run = launch(server).json()["run_id"]
    wait_for(server, run, "ended")
    (store,) = [BatchStore(folder) for folder in (server.results / run / "batches").iterdir()]
    records = [unseal(line) for line in store.cases_path.read_bytes().splitlines()]
    spoilt = [one | {"validity": {**one["validity"], "valid": False}} for one in records]
    lines = b"".join(seal(orjson.dumps(one)) + b"\n" for one in spoilt)
    store.cases_path.write_bytes(lines)
    found = show(server, run)
    assert (found["counts"]["invalid"], found["can"]) == (2, ["again"])
    reason = expect_ko(server.post(f"/api/v1/runs/{run}:continue", b""), 409, "complete")
    assert reason["hint"] == "what is invalid or failed is measured again with again=true"
    assert server.post(f"/api/v1/runs/{run}:continue?again=true", b"", timeout=60).status == 202
    found = wait_for(server, run, "ended", "failed")
    assert (found["state"], found["counts"]["valid"], found["can"]) == ("ended", 2, [])
    (aside,) = (store.folder / "set-aside").glob("*/cases.jsonl")
    assert aside.read_bytes() == lines


@pytest.mark.slow
def test_a_killed_snakemake_is_a_failed_run(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    os.kill(read_json(server.results / run / "launch" / "process.json")["pid"], signal.SIGKILL)
    found = wait_for(server, run, "failed")
    assert "signal 9" in found["message"]
    deadline = time.monotonic() + 30
    while processes_of(server.results / run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(server.results / run) == set()


@pytest.mark.slow
def test_a_batch_that_outlives_its_workflow_is_running_counts_and_can_be_cancelled(server):
    run = launch(server, LONG).json()["run_id"]
    wait_for(server, run, "running")
    folder = server.results / run / "launch"
    for name in ("keeper", "process"):
        os.kill(read_json(folder / f"{name}.json")["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while "workflow that was launched has ended" not in (found := show(server, run))["message"]:
        assert time.monotonic() < deadline, found
    assert found["state"] == "running"
    reason = expect_ko(launch(server), 409, "queue_full")
    assert reason["hint"] == f"wait for {run}, or cancel it"
    assert server.post(f"/api/v1/runs/{run}:cancel", b"").json()["run"]["state"] == "cancelling"
    wait_for(server, run, "cancelled")
    while processes_of(server.results / run) and time.monotonic() < deadline + 30:
        time.sleep(0.1)  # a runner gives its lock back, and then ends
    assert processes_of(server.results / run) == set()
    expect_ko(server.post(f"/api/v1/runs/{run}:cancel", b""), 409, "not_active")


@pytest.mark.slow
def test_the_same_key_fifty_times_in_parallel_is_one_run(server):
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: launch(server, key="the-same-key"), range(50)))
    assert {answer.status for answer in answers} == {202}, {answer.body for answer in answers}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(list(server.results.iterdir())) == 1
    run = answers[0].json()["run_id"]
    expect_ko(launch(server, {**TINY, "clients": 2}, key="the-same-key"), 409, "duplicate")
    wait_for(server, run, "ended")
    server.stop(signal.SIGKILL)
    server.start()
    assert launch(server, key="the-same-key").json()["run_id"] == run
    assert set(measured(server, run).values()) == {1}


def test_no_more_than_five_launches_in_a_minute(server):
    for number in range(5):
        (server.results / f"storage-quick-{datetime.now():%Y%m%d-%H%M%S}-000{number}").mkdir()
    reason = expect_ko(launch(server), 429, "rate_limited")
    assert reason["hint"].startswith("try again in ")


def test_a_workflow_that_snakemake_refuses(server):
    workflow = server.project / "workflow"
    workflow.unlink()
    workflow.mkdir()
    (workflow / "Snakefile").write_text("rule all:\n    input: 'nothing-makes-this'\n")
    reason = expect_ko(launch(server), 409, "dry_run_failed")
    assert reason["message"].startswith("snakemake -n: ")
    assert list(server.results.iterdir()) == []


def test_a_workflow_that_ends_before_its_jobs(server):
    workflow = server.project / "workflow"
    workflow.unlink()
    workflow.mkdir()
    (workflow / "Snakefile").write_text("rule all:\n    shell: 'echo no such thing >&2; exit 3'\n")
    for _ in range(2):  # the same answer for the same key
        expect_ko(launch(server, key="start-that-fails"), 503, "start_failed")
    (run,) = [path.name for path in server.results.iterdir()]
    assert show(server, run)["state"] == "failed"


def test_a_results_folder_that_cannot_be_written(server):
    server.results.rmdir()
    server.results.write_text("a file")
    reason = expect_ko(launch(server), 503, "start_failed")
    assert reason["message"].startswith("the results folder: ")
    expect_ko(server.post("/api/v1/runs:validate?dry_run=true", TINY), 503, "start_failed")
    assert server.get("/api/v1/runs").json() == {"runs": []}
    server.results.unlink()
    server.results.mkdir()


@pytest.mark.slow
def test_campaigns_started_by_hand_are_shown(server):
    (server.results / "mine").mkdir()
    case = {"case": "aaaaaaaaaaaa", "benchmark": "storage", "repetitions": {"min": 2}}
    plan = {"cases": [case], "batches": [{"batch": "b"}], "totals": {"expected_s": 3.0}}
    (server.results / "mine" / "plan.json").write_text(json.dumps(plan))
    records = server.results / "mine" / "batches" / "b" / "cases.jsonl"
    records.parent.mkdir(parents=True)
    of_older_plan = '{"batch":"b","case":"bbbbbbbbbbbb","repetition":0,"status":"ok","input":{}}\n' * 4
    mine = '{"batch":"b","case":"aaaaaaaaaaaa","repetition":0,"status":"ok","input":{"case":"x"}}\n'
    records.write_text(of_older_plan + mine)
    for number, broken in enumerate(("", "{", "[]", "5", '{"cases": 1}', '{"cases": [{}], "batches": [{}]}')):
        (server.results / f"broken-{number}").mkdir()
        (server.results / f"broken-{number}" / "plan.json").write_text(broken)
    (server.results / "readme").write_text("a file of the user's")
    (server.results / "odd" / "launch").mkdir(parents=True)
    (server.results / "odd" / "launch" / "request.json").write_text("{")
    (server.results / "Not An Id").mkdir()
    (server.results / "link").symlink_to(server.results / "mine")
    runs = server.get("/api/v1/runs").json()["runs"]
    assert {run["state"] for run in runs if run["id"].startswith("broken")} == {"incomplete"}
    assert [run["state"] for run in runs if run["id"] == "odd"] == ["incomplete"]
    (found,) = [run for run in runs if run["id"] != "odd" and not run["id"].startswith("broken")]
    assert (found["id"], found["launched"], found["state"]) == ("mine", False, "incomplete")
    assert found["repetitions"] == {"done": 1, "planned": 2}
    assert show(server, "mine")["config"] is None
    expect_ko(server.post("/api/v1/runs/mine:cancel", b""), 409, "not_active")
    expect_ko(server.get("/api/v1/runs/link"), 404, "not_found", "id")
    assert launch(server).status == 202  # none of it is in the way


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..%2fetc", "a%00b", "a%0ab", "A", "a" * 65, "%23", "a;b", "$(id)"]
)
def test_ids_that_are_none(server, name):
    for target in (f"/api/v1/runs/{name}", f"/api/v1/runs/{name}/report"):
        assert server.get(target).status in {404, 422}
    assert server.post(f"/api/v1/runs/{name}:cancel", b"").status in {404, 422}


@pytest.mark.parametrize(
    "body",
    [
        {**TINY, "config": {"name": "x\n  - evil: 1"}},
        {**TINY, "config": {"name": "$(touch /tmp/x)"}},
        {**TINY, "config": {"axes": {"mode": ["direct; touch x"]}}},
        {"preset": "inference-quick", "config": {"axes": {"prompt": ["../../etc/passwd"]}}},
        {"preset": "inference-quick", "config": {"engine": {"model": "../x"}}},
        {**TINY, "config": {"!!python/object": 1}},
        {**TINY, "config": {"axes": {"a" * 300: 1}}},
    ],
)
def test_hostile_values_are_ko(server, body):
    answer = server.post("/api/v1/runs:validate", body)
    expect_ko(answer, 422, "invalid_config")


def test_values_that_look_like_yaml_and_shell_stay_values(server):
    prompt = "#x: {a: 1}\n- $(id) `id` 'q' \"d\" \\ ${IFS} {batch} {{x}}"
    body = {"preset": "inference-quick", "config": {"axes": {"prompt": [prompt]}}}
    answer = server.post("/api/v1/runs:validate?dry_run=true", body, timeout=60)
    assert answer.status == 200, answer.body
    import yaml

    assert yaml.safe_load(answer.json()["config"])["suites"][0]["axes"]["prompt"] == [prompt]


def test_bodies_too_large_and_headers_that_are_no_keys(server):
    assert server.post("/api/v1/runs", b"{" + b" " * (2 << 20)).status == 413
    for key in ("short", "x" * 200, "with space here"):
        expect_ko(launch(server, key=key), 422, "invalid_request", "Idempotency-Key")


@pytest.mark.timeout(900)  # fifty moments take six minutes
@pytest.mark.slow
def test_the_service_killed_at_random_moments(server):
    """Whatever the moment, a run is whole or was never started, and the same key gives it once."""
    dice = random.Random(20261126)
    for number in range(POINTS):
        key = f"random-moment-{number}"
        answers = []

        def ask(key=key, answers=answers):
            with contextlib.suppress(OSError, http.client.HTTPException):  # the service is killed under it
                answers.append(launch(server, key=key))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(dice.uniform(0.0, 7.0))
        server.stop(signal.SIGKILL)
        thread.join()
        server.start()
        while (answer := launch(server, key=key)).status == 429:
            time.sleep(5)
        assert answer.status == 202, answer.body
        run = answer.json()["run_id"]
        assert all(one.json()["run_id"] == run for one in answers if one.status == 202)
        assert wait_for(server, run, "ended", "failed")["state"] == "ended"
        assert len(measured(server, run)) == 4
        assert set(measured(server, run).values()) == {1}
        others = [one for one in server.get("/api/v1/runs").json()["runs"] if one["state"] != "ended"]
        assert all("never started" in one["message"] for one in others), others


def test_a_run_whose_folder_is_there_is_refused_and_the_folder_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(checkout(tmp_path / "project"))
    monkeypatch.setattr("aifbench.services.client.launch.new_id", lambda *_: "taken")
    one = launcher(tmp_path)
    kept = one.settings.results / "taken" / "launch" / "request.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(Refused, match="File exists"):
        one.launch(LaunchRequest.model_validate(TINY))
    assert kept.read_text() == "{}"


def test_a_disk_that_is_full_refuses_to_continue_and_how_it_ended_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(checkout(tmp_path / "project"))
    one = launcher(tmp_path)
    folder = one.settings.results / "x-1" / "launch"
    folder.mkdir(parents=True)
    (folder.parent / "plan.json").write_text("{}")
    atomic_write(folder / "request.json", orjson.dumps({"run_id": "x-1", "by": {}, "slurm": False}))
    atomic_write(folder / "exit.json", orjson.dumps({"code": 1, "ended_at": None}))
    shown = {"launched": True, "state": "failed", "can": ["continue"]}
    monkeypatch.setattr(one.runs, "show", lambda _: shown)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("aifbench.services.client.folder.write_beneath", full)
    with pytest.raises(Refused, match="No space left on device") as caught:
        one.go_on("x-1", again=False)
    assert (caught.value.code, caught.value.hint) == ("start_failed", "make room, then continue it")
    assert read_json(folder / "exit.json") == {"code": 1, "ended_at": None}
    assert not (folder / "keeper.json").exists()
    shown |= {"state": "running", "can": ["cancel"]}
    one.cancel("x-1")  # asks for no byte of the disk
    assert (folder / "cancel.json").read_bytes() == b""


@pytest.mark.slow
def test_two_runs_at_once_in_one_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(checkout(tmp_path / "project"))
    both = launcher(tmp_path, LaunchLimits(local=2))
    request = LaunchRequest.model_validate(TINY)
    with ThreadPoolExecutor(2) as pool:
        first, second = (found["run_id"] for found in pool.map(lambda _: both.launch(request), range(2)))
    assert first != second
    assert {both.runs.show(run)["state"] for run in (first, second)} <= {"queued", "running"}
    with pytest.raises(Refused) as caught:
        both.launch(request)
    assert caught.value.code == "queue_full"
    deadline = time.monotonic() + 90
    while {both.runs.show(run)["state"] for run in (first, second)} != {"ended"}:
        assert time.monotonic() < deadline, [both.runs.show(run) for run in (first, second)]
        time.sleep(0.2)
    for run in (first, second):
        assert both.runs.show(run)["counts"]["valid"] == 2, both.runs.log(run)
