"""Faults injected into real batches: whatever happens, batch.json says what, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_plan
from aifbench.campaign.spec import Spec
from aifbench.records.store import BatchStore
from tests.workflow.campaign import INFERENCE, ROOT, STORAGE, write


class Job:
    """One batch as the workflow starts it."""

    def __init__(self, folder: Path, suite: dict) -> None:
        plan = make_plan(read_config([write(folder, suite)]))
        results = plan.config.results
        write_plan(plan, results)
        (batch,) = plan.batches
        self.folder = results / "batches" / batch
        self.store = BatchStore(self.folder)
        self.spec = Spec.model_validate(plan.spec(batch))
        self.command = [sys.executable, "-m", "aifbench", "run", "--spec", str(results / "specs" / f"{batch}.json")]
        self.command += ["--out", str(self.folder), "--done", str(self.folder / "done.json")]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def status(self) -> str:
        return self.store.read_record().status

    def children(self, pid: int) -> dict[str, int]:
        """Return worker and server of a running batch by what their command line says."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat = (path / "stat").read_text().rsplit(")", 1)[1].split()
                line = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == pid and stat[0] != "Z":
                found["worker" if b"aifbench.runner.worker" in line else "server"] = int(path.name)
        return found


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


LONG = {**STORAGE, "axes": {"mode": ["warm"]}, "file_size": "64MiB", "repetitions": 8}


def test_term_ends_a_batch_cleanly_and_the_next_run_measures_only_the_rest(tmp_path):
    job = Job(tmp_path, LONG)
    process = job.start()
    wait_for(lambda: len(job.store.read_cases()) >= 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    record = job.store.read_record()
    assert (record.status, record.reason) == ("terminated", "received SIGTERM")
    assert record.invocations[-1].signal == "SIGTERM"
    assert not (job.folder / "done.json").exists()
    assert not (job.folder / "owner.lock").exists()
    assert not list((tmp_path / "target").iterdir())
    before = job.folder.joinpath("cases.jsonl").read_bytes()
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    after = job.store.read_cases()
    assert job.folder.joinpath("cases.jsonl").read_bytes().startswith(before)
    assert sorted(record.repetition for record in after) == list(range(8))
    assert [invocation.status for invocation in job.store.read_record().invocations] == ["terminated", "ok"]
    assert len(job.store.read_raw(after[0].case, 0)["start_ns"]) == after[0].raw.rows


def test_a_worker_that_is_killed_is_a_failed_case_and_the_rest_goes_on(tmp_path):
    job = Job(tmp_path, {**LONG, "repetitions": 6, "file_size": "256MiB"})
    process = job.start()
    wait_for(lambda: len(job.store.read_cases()) >= 1 and "worker" in job.children(process.pid))
    # Between rounds the new worker imports for half a second: kill it while it measures.
    time.sleep(0.2)
    wait_for(lambda: list((tmp_path / "target").glob("*/*")))
    os.kill(job.children(process.pid)["worker"], signal.SIGKILL)
    assert process.wait(90) == 0
    records = job.store.read_cases()
    assert job.status() == "partial"
    failed = [record for record in records if record.status == "failed"]
    assert [record.error.kind for record in failed] == ["worker_crashed"]
    assert "signal 9" in failed[0].error.message
    assert not failed[0].metrics
    assert sorted(record.repetition for record in records) == list(range(6))


def test_kill_9_of_the_batch_leaves_no_process_and_loses_no_finished_case(tmp_path):
    job = Job(tmp_path, LONG)
    process = job.start()
    wait_for(lambda: len(job.store.read_cases()) >= 2 and "worker" in job.children(process.pid))
    worker = job.children(process.pid)["worker"]
    process.kill()
    process.wait()
    wait_for(lambda: gone(worker), 10)
    assert job.status() == "running"
    before = [(record.case, record.repetition) for record in job.store.read_cases()]
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    after = [(record.case, record.repetition) for record in job.store.read_cases()]
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 8


def test_a_second_writer_is_refused(tmp_path):
    job = Job(tmp_path, LONG)
    process = job.start()
    wait_for(lambda: len(job.store.read_cases()) >= 1)
    second = subprocess.run(job.command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert second.returncode == 1
    assert f"process {process.pid}" in second.stderr
    process.terminate()
    process.wait(20)


def test_a_server_that_crashes_is_said_within_five_seconds_and_its_case_is_measured_again(tmp_path):
    job = Job(tmp_path, {**INFERENCE, "axes": {"clients": [1]}, "output_tokens": 64, "repetitions": 6})
    process = job.start()
    wait_for(lambda: len(job.store.read_cases()) >= 1 and "server" in job.children(process.pid))
    os.kill(job.children(process.pid)["server"], signal.SIGKILL)
    start = time.monotonic()
    assert process.wait(60) == 1
    assert time.monotonic() - start < 15
    assert job.status() == "server_crashed"
    assert all(record.status == "ok" for record in job.store.read_cases())
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    assert sorted(record.repetition for record in job.store.read_cases()) == list(range(6))


def test_a_server_that_cannot_start_is_said_with_its_log(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    job = Job(tmp_path, {**INFERENCE, "engine": {"kind": "llamacpp", "model": str(broken)}, "axes": {"clients": [1]}})
    result = subprocess.run(job.command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=90)
    assert result.returncode == 1
    assert job.status() == "server_not_ready"
    assert "server.log" in result.stderr
    assert not job.store.read_cases()


def test_what_preflight_finds_is_a_config_error_and_nothing_is_started(tmp_path):
    job = Job(tmp_path, STORAGE)
    (tmp_path / "target").write_text("in the way")
    result = subprocess.run(job.command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert job.status() == "config_error"
    assert "path" in result.stderr
    assert not job.store.read_cases()


@pytest.mark.slow
def test_metrics_can_be_computed_again_from_the_raw_events(tmp_path):
    from aifbench.registry import benchmarks

    job = Job(tmp_path, {**INFERENCE, "axes": {"clients": [2]}, "repetitions": 1})
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    (record,) = job.store.read_cases()
    benchmark = benchmarks()[record.benchmark]
    raw = job.store.read_raw(record.case, record.repetition)
    metrics, validity = benchmark.evaluate()(benchmark.params.model_validate(record.input), raw, record.facts)
    assert orjson.dumps({k: m.model_dump() for k, m in metrics.items()}, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        {k: m.model_dump() for k, m in record.metrics.items()}, option=orjson.OPT_SORT_KEYS
    )
    assert validity == record.validity


def test_a_job_goes_on_beside_damaged_files_and_measures_what_was_lost(tmp_path):
    job = Job(tmp_path, {**STORAGE, "axes": {"mode": ["warm"]}})
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    lines = (job.folder / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (job.folder / "cases.jsonl").write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", lines[2]]))
    (job.folder / "batch.json").write_bytes(b"")
    (job.folder / "resources.parquet").write_bytes(b"PAR1")
    (job.folder / "done.json").unlink()
    assert subprocess.run(job.command, cwd=ROOT, check=False).returncode == 0
    assert sorted(record.repetition for record in job.store.read_cases()) == [0, 1, 2]
    after = (job.folder / "cases.jsonl").read_bytes().splitlines(keepends=True)
    assert after[:2] == [lines[0], lines[2]]
    assert (orjson.loads(after[2])["invocation"], job.status(), job.store.damage) == (1, "ok", [])
    assert [invocation.index for invocation in job.store.read_record().invocations] == [1]
    said = [orjson.loads(line)["msg"] for line in (job.folder / "log.jsonl").read_bytes().splitlines()]
    assert sum("the file as it was is in set-aside" in text for text in said) == 3
    assert job.store.without_raw(job.store.read_cases()) == set()


def test_a_spec_that_is_cut_is_one_line(tmp_path):
    job = Job(tmp_path, STORAGE)
    spec = Path(job.command[job.command.index("--spec") + 1])
    spec.write_bytes(spec.read_bytes()[:100])
    answer = subprocess.run(job.command, cwd=ROOT, capture_output=True, text=True, check=False)
    begins, *said = answer.stderr.splitlines()
    assert "begins" in begins
    assert (answer.returncode, len(said)) == (2, 1)
    assert f"{spec} is no JSON" in answer.stderr
