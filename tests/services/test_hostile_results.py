"""Results folders that others may write in: nothing outside comes back, nothing hangs, fills the memory or is a 500."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.encoders import jsonable_encoder
from rich.console import Console
from starlette.responses import JSONResponse

from aifbench.files.bounded import MOST_VALUES
from aifbench.log.levels import FILE, RulesFile, job_fields, read_rules, threshold
from aifbench.processes.identity import alive, identity
from aifbench.services.client import launch as launch_module
from aifbench.services.client.folder import RunFolder
from aifbench.services.client.launch import concerns
from aifbench.services.client.runs import Runs
from aifbench.services.client.terminal import Terminal
from aifbench.services.monitor.jobs import job_id
from aifbench.services.monitor.metrics import families
from aifbench.services.monitor.reader import Reader
from aifbench.services.problems import Refused
from aifbench.services.settings import Settings
from tests.services.checkout import checkout, launcher
from tests.services.hostile import BATCH, FILES, TEXTS, VALUES, good_run, put
from tests.services.live import Live
from tests.services.stranger import UID, as_stranger, needs_root

SECRET = "SECRET-0600"
MOST_GROWTH_MIB = 64
"""What odd or giant files may cost all three services together; one of as many values as are read takes more."""
VALUES_GROWTH_MIB = 400
ROUTES = (
    "/api/v1/runs", "/api/v1/runs/{run}", "/api/v1/runs/{run}/report", "/api/v1/jobs?state=all&run={run}",
    "/api/v1/jobs/{job}", "/api/v1/jobs/{job}/samples", "/api/v1/jobs/{job}/log", "/api/v1/log?run={run}",
    "/api/v1/log", "/metrics",
)  # fmt: skip
TICKETED = (
    "plan.json",
    "gate.txt",
    "cases.csv",
    f"batches/{BATCH}/",
    f"batches/{BATCH}/log.jsonl",
    "report/index.html",
)


def ask_all(live, run, files=TICKETED):
    """Ask every route about a run, and for files by a ticket; return the bodies, all of which must be answers."""
    bodies = {}
    for route in ROUTES:
        answer = live.get(route.format(run=run, job=job_id(run, BATCH)), timeout=60)
        assert answer.status < 500, (route, answer.body[:300], live.said()[-3000:])
        bodies[route] = answer.body
    ticket = live.post(f"/api/v1/runs/{run}:ticket", b"")
    if ticket.status == 200:
        base = ticket.json()["path"].removesuffix("/report/index.html")
        for rest in files:
            answer = live.get(f"{base}/{rest}", token=None, timeout=60)
            assert answer.status < 500, (rest, answer.body[:300])
            bodies[rest] = answer.body
    return bodies


def peak_mib(live):
    status = Path(f"/proc/{live.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def wait_for_a_poll(live):
    """Wait until the monitor has looked once more; before its first look it answers 503."""
    seen, deadline = live.get("/api/v1/jobs").json().get("polled_at"), time.monotonic() + 60
    while live.get("/api/v1/jobs").json().get("polled_at") in {seen, None} and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.fixture
def group():
    """A folder in which everybody may write, as a group's is."""
    made = Path(tempfile.mkdtemp(prefix="aifbench-test-"))
    made.chmod(0o755)
    (made / "results").mkdir()
    (made / "results").chmod(0o777)
    yield made
    shutil.rmtree(made)


def open_to_all(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


# -- over a socket ---------------------------------------------------------------------------------------------------


@needs_root
def test_another_user_s_links_lead_nowhere(group):
    """The attack: links to files that only we can read, in every place that is read, and in the place of folders."""
    results = group / "results"
    secret = group / "secret"
    line = {"t": "2026-11-26T10:00:00+00:00", "level": 2, "msg": SECRET, "case": SECRET, "batch": SECRET}
    secret.write_text(json.dumps({**line, "run_id": SECRET, "by": {}, "slurm": False, "created_at": SECRET}) + "\n")
    secret.chmod(0o600)
    outside = group / "outside"
    good_run(outside, "away", created_at=SECRET)
    (outside / "away" / "batches" / BATCH / "log.jsonl").write_text(json.dumps(line) + "\n")
    outside.chmod(0o700)
    runs = [f"x-{number}" for number in range(len(FILES))]
    for name in (*runs, "y-1", "y-2", "y-3", "y-4"):
        good_run(results, name)
        open_to_all(results / name)

    def plant():
        for name, file in zip(runs, FILES, strict=True):
            put(results / name / file, "link", secret)
        for name, folder in (("y-1", "launch"), ("y-2", "batches"), ("y-3", f"batches/{BATCH}"), ("y-4", "report")):
            (results / name / folder).rename(results / name / "aside")
            (results / name / folder).symlink_to(outside / "away" / folder)
        (results / "linked").symlink_to(outside / "away")
        return "planted"

    assert as_stranger(plant) == "planted"
    with Live(group, "client", "monitor", "log") as live:
        wait_for_a_poll(live)
        listed = {run["id"]: run for run in live.get("/api/v1/runs").json()["runs"]}
        for name in (*runs, "y-1", "y-2", "y-3", "y-4"):
            for where, body in ask_all(live, name).items():
                assert SECRET.encode() not in body, (name, where)
        assert set(listed) == {*runs, "y-1", "y-2", "y-3", "y-4"}
        for name, file in zip(runs, FILES, strict=True):
            if file.startswith("launch/") and file not in {"launch/command.json", "launch/config.yaml"}:
                assert listed[name]["problem"] == f"{file} is a link"
        assert listed["y-1"]["problem"].startswith("launch is a link")
        assert listed["y-3"]["problem"] == f"batches/{BATCH} is a link"
        assert "Traceback" not in live.said()


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.heavy) for turn in (1, 2))])
def test_nothing_hangs_at_what_is_no_file_and_it_ends_when_told_to(tmp_path, turn):
    """In the place of each file a FIFO, a socket or a folder: three turns have all of them."""
    results = tmp_path / "results"
    good_run(results, "good")
    for number, file in enumerate(FILES):
        good_run(results, f"x-{number}")
        put(results / f"x-{number}" / file, ("fifo", "socket", "folder")[(number + turn) % 3])
    (results / ".services").mkdir()
    os.mkfifo(results / FILE)
    with Live(tmp_path, "client", "monitor", "log") as live:
        wait_for_a_poll(live)
        for _ in range(60):
            assert live.get("/api/v1/runs", timeout=60).status == 200
        for number in range(len(FILES)):
            ask_all(live, f"x-{number}")
        found = {run["id"]: run for run in live.get("/api/v1/runs", timeout=60).json()["runs"]}
        assert len(found) == 1 + len(FILES)
        assert (found["good"]["state"], found["good"]["problem"]) == ("ended", None)
        assert found["x-0"]["problem"] == "launch/request.json is no regular file"
        assert live.stop(signal.SIGTERM) in {0, -signal.SIGTERM}
        assert "Traceback" not in live.said()


def test_giant_files_cost_little_memory(tmp_path):
    results = tmp_path / "results"
    good_run(results, "good")
    for number, file in enumerate(FILES):
        good_run(results, f"x-{number}")
        if not file.endswith(("cancel.json", "owner.lock")):
            put(results / f"x-{number}" / file, "sparse")
    with Live(tmp_path, "client", "monitor", "log") as live:
        wait_for_a_poll(live)
        ask_all(live, "good")
        before = peak_mib(live)
        for number, file in enumerate(FILES):
            if file not in {"report/index.html", "cases.csv", "gate.txt"}:  # two GiB are sent, piece by piece
                ask_all(live, f"x-{number}", (f"batches/{BATCH}/",))
        growth = peak_mib(live) - before
        assert growth < MOST_GROWTH_MIB
        found = {run["id"]: run for run in live.get("/api/v1/runs").json()["runs"]}
        problems = [found[f"x-{number}"]["problem"] for number in range(len(FILES))]
        assert problems[FILES.index("launch/exit.json")] == "launch/exit.json is larger than 65536 bytes"
        assert problems[FILES.index("plan.json")] == "plan.json is larger than 32 MiB"
        assert problems[FILES.index(f"batches/{BATCH}/cases.jsonl")].endswith("cases.jsonl is larger than 256 MiB")
        (results / "good" / "plan.json").write_bytes(b'{"cases": [' + b"[]," * (MOST_VALUES - 9) + b"[]]}")
        (results / "good" / "launch" / "keeper.json").write_bytes(b'{"a": ' + b"[" * 60_000)
        assert live.get("/api/v1/runs").status == 200
        wait_for_a_poll(live)
        assert peak_mib(live) - before < VALUES_GROWTH_MIB
        print(f"peak grew by {growth:.0f} MiB, with as many values as are read by {peak_mib(live) - before:.0f} MiB")


def test_a_long_line_of_a_job_is_cut_and_an_answer_has_its_size(tmp_path):
    results = tmp_path / "results"
    good_run(results, "x-1")
    log = results / "x-1" / "batches" / BATCH / "log.jsonl"

    def line(number, size, **more):
        t = f"2026-11-26T10:00:00.{number:03}+00:00"
        return json.dumps({"t": t, "level": 2, "msg": f"{number} " + "m" * size, **more}).encode() + b"\n"

    lies = {"run": "other", "service": "log", "batch": "b", "rule": "r" * 1000, "deep": {"a": []}, "x" * 9999: "y"}
    log.write_bytes(b"".join(line(number, 1_000_000, **lies) for number in range(10)) + line(10, 3 << 20) + b"torn")
    with Live(tmp_path, "log") as live:
        answer = live.get("/api/v1/log?run=x-1&limit=3")
        assert len(answer.body) < 16 << 10
        found = answer.json()
        assert [record["msg"][:2] for record in found["statements"]] == ["7 ", "8 ", "9 "]
        assert found["statements"][0]["msg"].endswith("… (cut: 995906 more characters in the job's log)")
        told = {key: found["statements"][0][key] for key in ("run", "service", "batch", "rule")}
        assert told == {"run": "x-1", "service": "job", "batch": BATCH, "rule": "r" * 128}
        assert (set(found["statements"][0]), found["truncated"]) == ({"t", "level", "msg", *told}, True)
        log.write_bytes(b"".join(line(number % 1000, 4000) for number in range(5000)))
        answer = live.get("/api/v1/log?run=x-1&limit=5000", timeout=60)
        assert (4 << 20) - 8192 < len(answer.body) < (4 << 20) + 8192
        assert answer.json()["truncated"] is True


# -- values that lie -------------------------------------------------------------------------------------------------


class Looking:
    """Looks at results as the services do, and makes of it the bytes that they would send."""

    def __init__(self, results):
        settings = Settings(results.parent, results, results.parent / "state", results.parent / "run")
        self.runs, self.reader, self.rules = Runs(settings), Reader(results), RulesFile(results / FILE)
        self.terminal = Terminal.__new__(Terminal)
        self.terminal.runs, self.terminal.console = self.runs, Console(file=(results.parent / "said").open("w"))

    def look(self, run):
        """Return the runs by name."""
        found = self.runs.all()
        sent = JSONResponse(jsonable_encoder({"runs": found, "config": self.runs.config(run)})).body
        assert len(sent) < 64 << 10
        self.terminal.show_runs()
        self.terminal.show_run(run, follow=False)
        list(self.runs.active())
        self.reader._listed = float("-inf")
        self.reader.poll()
        told = [*self.reader.listed("all", 1000)[0]]
        for job in list(self.reader.jobs):
            told += [self.reader.detail(job), self.reader.samples(job, -1.0, 0.0), self.reader.log(job, None)]
        JSONResponse(jsonable_encoder(told))
        jobs = list(self.reader.jobs.values())
        list(families(self.reader.rows, jobs, self.reader.queue, time.time(), time.monotonic()))
        threshold(self.rules.rules(), job_fields("r", "b", "c"), time.time())
        return {one["id"]: one for one in found}


@pytest.fixture
def looking(tmp_path):
    results = tmp_path / "results"
    good_run(results, "good")
    good_run(results, "odd")
    (results / ".services").mkdir()
    return Looking(results)


RULES = {
    "configs": [
        {"name": "n", "logLevel": 1, "ended": False, "expires_at": "2036-01-01T00:00:00Z", "match": {"run": "x"}}
    ]
}
KEYED = [file for file in FILES if file.endswith((".json", ".lock", ".jsonl")) and not file.endswith("cancel.json")]


def places(value, path=()):
    """Yield the path of each value inside a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("file", [*KEYED, f"../{FILE}"])
def test_whatever_a_file_says_it_is_an_answer_and_the_others_are_listed(looking, tmp_path, file, every):
    path = tmp_path / "results" / "odd" / file
    if file.endswith(FILE.name):
        path.write_text(json.dumps(RULES))
    elif file.endswith("owner.lock"):
        path.write_text(json.dumps({"pid": 1, "started": "1", "host": "h", "slurm_job": "1"}))
    elif file.endswith("live/resources.jsonl"):
        path.parent.mkdir(exist_ok=True)
        row = {
            "invocation": 0,
            "t_s": 1.0,
            "role": "node",
            "records": 1,
            "errors": 0,
            "gpu": [{"index": 0, "utilization": 1}],
        }
        path.write_text(json.dumps({**row, "step": {"phase": "p", "case": "c", "repetition": 1, "since_s": 0.1}}))
    if file.endswith(("batch.json", "owner.lock", "live/resources.jsonl")):  # of a job that goes on
        record = tmp_path / "results" / "odd" / "batches" / BATCH / "batch.json"
        record.write_bytes(record.read_bytes().replace(b'"status": "ok"', b'"status": "running"'))
    original = json.loads(path.read_bytes().splitlines()[0] if file.endswith(".jsonl") else path.read_bytes())
    end = b"\n" if file.endswith(".jsonl") else b""
    lies = [json.dumps(changed(original, at, new)).encode() for at in places(original) for new in some(at, every)]
    for content in (*TEXTS, *lies):
        path.write_bytes(content + end)
        found = looking.look("odd")
        assert set(found) == {"good", "odd"}
        assert (found["good"]["state"], found["good"]["counts"]["valid"]) == ("ended", 1)


def some(at, every):
    """Return the values to put in a place: one of so many, others in each place, and fewer where a record is deep."""
    every *= 1 if len(at) < 3 else 5
    return [value for number, value in enumerate(VALUES) if (number + sum(map(len, map(str, at)))) % every == 0]


def test_an_odd_folder_among_good_ones_is_shown_as_what_it_is(tmp_path):
    results = tmp_path / "results"
    for number in range(50):
        good_run(results, f"good-{number}")
    odd = good_run(results, "odd", created_at=7, slurm="yes", benchmarks={"a": 1}, request=[])
    (odd.path / "launch" / "exit.json").write_text('{"code": "0; DROP", "ended_at": ["x"]}')
    found = Looking(results).look("odd")
    assert len(found) == 51
    assert {run["state"] for run in found.values() if run["id"] != "odd"} == {"ended"}
    shown = {key: found["odd"][key] for key in ("launched", "created_at", "ended_at", "preset", "benchmarks")}
    assert shown["launched"] is True
    assert shown["created_at"] == datetime.fromtimestamp(int((odd.path / "plan.json").stat().st_mtime), UTC).isoformat(
        timespec="seconds"
    )
    assert (shown["ended_at"], shown["preset"], shown["benchmarks"]) == (None, None, ["storage"])
    os.utime(odd.path / "plan.json", ns=(0, -(10**18)))  # no run was made in 1938
    assert Looking(results).look("odd")["odd"]["created_at"] is None


# -- what is done, and to whom ---------------------------------------------------------------------------------------


@pytest.fixture
def mine(group, monkeypatch):
    """A launcher whose results are a group's, and a run of it that waits for its end: its supervisor is gone."""
    checkout(group / "project")
    monkeypatch.chdir(group / "project")
    (group / "project" / "results").symlink_to(group / "results")
    one = launcher(group)
    folder = good_run(group / "results", "mine-1")
    (folder.path / "launch" / "exit.json").unlink()
    (folder.path / "gate.txt").unlink()
    return one, folder


def ended(process):
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_process_that_a_planted_file_names_is_not_ended_by_a_cancel(mine):
    """Where others may write, they name any process of ours; only one that works at this run is ended."""
    _, folder = mine
    with (
        subprocess.Popen(["sleep", "600"]) as other,
        subprocess.Popen(["tail", "-qf", "-n0", f"{folder.path}/launch/config.yaml"], process_group=0) as its,
    ):
        try:
            folder.write("process.json", identity(other.pid))
            assert alive(folder.read("process.json"))
            assert not concerns(other.pid, "mine-1")
            (folder.path / "batches" / BATCH / "owner.lock").write_text(
                json.dumps({**identity(other.pid), "slurm_job": None})
            )
            launch_module._end_without_supervisor(folder, identity(other.pid))
            assert other.poll() is None
            launch_module._end_without_supervisor(folder, identity(its.pid))
            assert ended(its)
        finally:
            other.kill()
            its.kill()


@needs_root
def test_a_run_of_somebody_else_is_neither_cancelled_nor_continued_nor_counted(mine):
    one, folder = mine
    folder.write("keeper.json", identity(os.getpid()))
    assert [name for name, _ in one.runs.active()] == ["mine-1"]
    for path in (folder.path, folder.path / "launch"):
        os.chown(path, UID, UID)
    assert one.runs.show("mine-1")["state"] == "running"
    assert list(one.runs.active()) == []
    with pytest.raises(Refused, match="was launched by somebody else"):
        one.cancel("mine-1")
    assert not (folder.path / "launch" / "cancel.json").exists()


@pytest.mark.parametrize("place", ["", "launch", "launch/command.json", "launch/config.yaml", "launch/request.json"])
def test_what_others_may_have_written_is_not_started(mine, monkeypatch, place):
    """The command of a run stands in its folder: who may write there would say what we run."""
    one, folder = mine
    (folder.path / "batches" / BATCH / "cases.jsonl").write_text("")
    started = []
    monkeypatch.setattr(one, "_start", started.append)
    (folder.path / place).chmod(0o775)
    with pytest.raises(Refused, match="can be written by others") as caught:
        one.go_on("mine-1", again=False)
    assert caught.value.code == "start_failed"
    assert "chmod -R go-w" in caught.value.hint
    assert started == []
    assert (folder.path / "launch" / "keeper.json").exists()


def test_a_command_that_is_a_link_is_not_started(mine, monkeypatch, group):
    one, folder = mine
    (folder.path / "batches" / BATCH / "cases.jsonl").write_text("")
    monkeypatch.setattr(one, "_start", pytest.fail)
    (group / "evil.json").write_text("{}")
    put(folder.path / "launch" / "command.json", "link", group / "evil.json")
    with pytest.raises(Refused, match=r"launch/command\.json is a link"):
        one.go_on("mine-1", again=False)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_cancel_writes_through_nothing(mine, group, kind):
    one, folder = mine
    folder.write("process.json", identity(os.getpid()))  # it runs; this process does not work at it, and lives on
    folder.write("keeper.json", identity(os.getppid()))
    (group / "precious").write_text("precious")
    os.utime(group / "precious", ns=(5, 5))
    put(folder.path / "launch" / "cancel.json", kind, group / "precious")
    with pytest.raises(Refused, match=r"cancel\.json is"):
        one.cancel("mine-1")
    assert ((group / "precious").read_text(), (group / "precious").stat().st_mtime_ns) == ("precious", 5)


@pytest.mark.parametrize("name", ["keeper.log", "snakemake.log"])
def test_a_start_adds_to_no_link(mine, group, name):
    _, folder = mine
    (group / "precious").write_text("precious")
    put(folder.path / "launch" / name, "link", group / "precious")
    with pytest.raises(OSError, match="is a link"):
        folder.append(name)
    assert (group / "precious").read_text() == "precious"


def test_how_it_ended_is_moved_into_a_folder_that_is_new(mine, group):
    _, folder = mine
    (folder.path / "launch" / "ended-x").symlink_to(group)
    with pytest.raises(FileExistsError):
        folder.set_aside("ended-x", "keeper.json")
    folder.set_aside("ended-y", "keeper.json", "none.json")
    assert os.listdir(folder.path / "launch" / "ended-y") == ["keeper.json"]


def test_a_run_is_made_for_its_owner_to_write_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = RunFolder(tmp_path, "x-1")
        folder.make()
        folder.write("command.json", {})
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (folder.path, folder.path / "launch", *folder.path.glob("*/*"))]
    assert modes == [0o755, 0o755, 0o644]


def test_services_do_not_write_where_a_planted_link_leads(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results" / ".services").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AssertionError, match="the log cannot be written there: is a link"), Live(tmp_path, "log"):
        pass
    assert os.listdir(tmp_path / "elsewhere") == []


def test_rules_of_the_log_are_not_read_through_a_link(tmp_path):
    (tmp_path / ".services").mkdir()
    for file in (tmp_path / "rules.json", tmp_path / FILE):
        file.write_text(json.dumps(RULES))
    assert [rule.name for rule in read_rules(tmp_path / FILE)] == ["n"]
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to(tmp_path / "rules.json")
    with pytest.raises(ValueError, match="is a link"):
        read_rules(tmp_path / FILE)
    assert RulesFile(tmp_path / FILE).rules() == []


# -- complete --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["no end written", "a signal", "missing", "cancelled", "gate"])
def test_all_processes_killed_but_all_recorded_is_complete(tmp_path, how):
    results = tmp_path / "results"
    folder = good_run(results, "x-1")
    with subprocess.Popen(["sleep", "600"]) as process:
        for name in ("keeper.json", "process.json"):
            folder.write(name, identity(process.pid))
        (folder.path / "launch" / "exit.json").unlink()
        if how != "gate":
            (folder.path / "gate.txt").unlink()
        looking = Looking(results)
        assert looking.look("x-1")["x-1"]["state"] == "running"
        process.kill()
    if how == "a signal":
        folder.write("exit.json", {"code": -9, "ended_at": None})
    elif how == "missing":
        (folder.path / "batches" / BATCH / "cases.jsonl").write_text("")
    elif how == "cancelled":
        folder.touch("cancel.json")
    found = looking.look("x-1")["x-1"]
    expected = {"missing": "failed", "cancelled": "cancelled", "gate": "ended"}.get(how, "complete")
    assert found["state"] == expected
    if expected == "complete":
        assert found["message"] == "all is measured, though its workflow was killed before its end"
        assert found["can"] == []
        looking.terminal.console.file.flush()
        assert "✓ complete" in (tmp_path / "said").read_text()


def test_a_job_whose_runner_was_killed_after_its_last_repetition_is_complete(tmp_path):
    folder = good_run(tmp_path / "results", "x-1")
    record = folder.path / "batches" / BATCH / "batch.json"
    whole = record.read_bytes().replace(b'"status": "ok"', b'"status": "running"')
    record.write_bytes(whole)
    (job,) = rows(tmp_path)
    assert (job["state"], job["active"], job["reason"]) == (
        "complete", False, "its runner is gone: it has left no owner.lock and no end in batch.json"
    )  # fmt: skip
    found = json.loads(whole)
    record.write_text(json.dumps({**found, "done": dict.fromkeys(found["planned"], 1)}))
    assert rows(tmp_path)[0]["state"] == "lost"


def rows(folder):
    reader = Reader(folder / "results")
    reader.poll()
    reader.poll()
    return reader.rows


def test_a_cut_file_of_operations_makes_no_case_valid(tmp_path):
    folder = good_run(tmp_path / "results", "x-1")
    raw = folder.path / "batches" / BATCH / "raw" / "operations.parquet"
    raw.parent.mkdir(exist_ok=True)
    raw.write_bytes(b"PAR1 whole PAR1")
    looking = Looking(tmp_path / "results")
    assert looking.look("x-1")["x-1"]["counts"] == {"valid": 1, "invalid": 0, "failed": 0, "missing": 0}
    raw.write_bytes(b"PAR1 who")
    found = looking.look("x-1")["x-1"]
    assert found["counts"] == {"valid": 0, "invalid": 1, "failed": 0, "missing": 0}
    assert found["problem"] == f"batches/{BATCH}/raw/operations.parquet is cut"
