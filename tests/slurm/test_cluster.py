"""The MeluXina profile on a real Slurm with real Apptainer and real Ollama: a whole campaign, then faults in it.

Needs the cluster of this folder: `make cluster`. Whatever breaks, batch.json says what, Snakemake ends as it should, no
finished repetition is lost or measured twice, and neither a process nor a job stays behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_plan
from aifbench.processes.watchdog import members
from aifbench.records.arrow import read_parquet
from aifbench.records.store import BatchStore
from tests.workflow.campaign import HOSTILE, ROOT, SNAKEMAKE, checkout, measured, records
from tests.workflow.test_faults import gone, wait_for

HERE = Path(__file__).parent
CLUSTER = HERE / "cluster"
UP = subprocess.run([str(CLUSTER), "status"], capture_output=True, check=False).returncode == 0
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not UP, reason="the test cluster is not up: make cluster"),
]

SEARCH = {
    "name": "search", "benchmark": "retrieval", "dataset": "synthetic", "vectors": 6000, "dim": 64, "queries": 2000,
    "axes": {"index": ["Flat"], "top_k": [1, 10]}, "repetitions": 2,
}  # fmt: skip
FILES = {
    "name": "files", "benchmark": "storage", "file_size": "32MiB", "block_size": "1MiB", "mode": "warm",
    "repetitions": 10,
}  # fmt: skip
OLLAMA = {"kind": "ollama", "model": "smollm2", "gguf": "smollm2-135m", "parallel": 2, "context": 512}
VISIBLE = re.compile(r"CUDA_VISIBLE_DEVICES:(\S*)")
CHAT = {
    "name": "chat", "benchmark": "inference", "engine": OLLAMA, "prompt": "Why is the sky blue?", "output_tokens": 8,
    "requests": 2, "repetitions": 2,
}  # fmt: skip


class Campaign:
    """One campaign on the cluster, as a user runs it: checkout and all else below names that must stay names."""

    def __init__(self, folder: Path, shared: Path, environment: dict[str, str]) -> None:
        self.folder, self.shared, self.environment = folder, shared, environment
        self.project = checkout(folder / "project")
        self.results = folder / "results" / "small"
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, *suites: dict[str, Any], **system: Any) -> Path:
        paths = {
            "cache": str(self.folder / "cache"), "target": str(self.folder / "target"),
            "images": str(self.shared / "images"), "models": str(self.shared / "models"),
        }  # fmt: skip
        place = {
            "name": "test-cluster", "container": "apptainer", "apptainer": {"options": ["--userns"]},
            "slurm": {"account": "p200000", "partition": "cpu", "gpu_partition": "gpu", "qos": "test"},
            "node": {"cores": 2, "memory_mib": 3000, "gpus": 4}, "paths": paths,
        }  # fmt: skip
        data = {"campaign": "small", "results": str(self.folder / "results"), "system": {**place, **system}}
        file = self.folder / "small.yaml"
        file.write_text(yaml.safe_dump({**data, "suites": list(suites)}, sort_keys=False))
        return file

    def start(self, file: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [
            str(SNAKEMAKE), "--profile", "meluxina", "--configfile", str(file), "--jobs", "1",
            "--slurm-init-seconds-before-status-checks", "5", *arguments,
        ]  # fmt: skip
        self.log = self.folder / "snakemake.log"
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, cwd=self.project, env=self.environment, stdout=log, stderr=log, text=True
            )
        self.processes.append(process)
        return process

    def run(self, file: Path, *arguments: str, timeout: float = 400) -> int:
        return self.start(file, *arguments).wait(timeout)

    def run_one_batch(
        self, suite: dict[str, Any], images: Path | None = None, models: Path | None = None, **system: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the only batch of a suite in a job, without the rules that make images and models."""
        file = self.write(suite, **system)
        text = yaml.safe_load(file.read_text())
        text["system"]["paths"] |= {name: str(at) for name, at in (("images", images), ("models", models)) if at}
        file.write_text(yaml.safe_dump(text))
        plan = make_plan(read_config([file]))
        write_plan(plan, self.results)
        (batch,) = plan.batches
        spec, out = self.results / "specs" / f"{batch}.json", self.results / "batches" / batch
        step = ["srun", "--account=p200000", "--partition=cpu", "--quiet", "python", "-m", "aifbench", "run"]
        return subprocess.run(
            [*step, "--spec", str(spec), "--out", str(out)],
            cwd=self.project,
            env={**self.environment, "PATH": f"{SNAKEMAKE.parent}:{self.environment['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    def said(self) -> str:
        return self.log.read_text()[-4000:]

    def ask(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def jobs(self, states: str = "RUNNING") -> list[str]:
        return self.ask("squeue", "--noheader", "--states", states, "--format", "%i").split()

    def accounted(self, job: str) -> str:
        return self.ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format", "state")

    def stores(self) -> list[BatchStore]:
        return [BatchStore(path) for path in sorted((self.results / "batches").glob("*"))]

    def statuses(self) -> list[str]:
        (store,) = self.stores()
        record = store.read_record()
        return [invocation.status for invocation in record.invocations] if record else []

    def wait_for_records(self, count: int) -> str:
        """Wait until so many repetitions are recorded; return the job that measures."""
        wait_for(lambda: sum(measured(self.folder).values()) >= count, 120)
        (job,) = self.jobs()
        return job


@pytest.fixture
def campaign(tmp_path: Path, shared: Path, environment: dict[str, str]) -> Iterator[Campaign]:
    made = Campaign(tmp_path / HOSTILE, shared, environment)
    yield made
    assert [*tmp_path.rglob("PWNED"), *shared.rglob("PWNED"), *ROOT.glob("PWNED")] == []
    for process in made.processes:
        if process.poll() is None:  # the test failed before its end
            process.send_signal(signal.SIGINT)
            process.wait(120)
    left = made.jobs("PENDING,RUNNING,COMPLETING")
    for job in left:
        made.ask("scancel", job)
    assert left == []
    assert [argv(pid) for pid in pids() if str(tmp_path) in argv(pid) and pid != os.getpid()] == []
    assert [pid for pid in pids() if "squashfuse" in argv(pid)] == []


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if not gone(int(path.name))]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def argv(pid: int) -> str:
    """The command line of a process, empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def expect_whole(campaign: Campaign, repetitions: int) -> None:
    """Every repetition is there, and none twice."""
    found = measured(campaign.folder)
    assert Counter(found.values()) == {1: repetitions}, found


def by_role(store: BatchStore) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of a batch by role."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for row in read_parquet(store.resources_path).to_pylist():
        shown.setdefault(row["role"], []).append(row)
    return shown


def test_a_campaign_in_jobs_and_containers_on_one_node_and_on_two(campaign: Campaign) -> None:
    chat = {**CHAT, "axes": {"topology": ["same-node", "two-node"]}}
    code = campaign.run(campaign.write(SEARCH, {**FILES, "repetitions": 2}, chat))
    assert code == 0, campaign.said()
    assert "5 valid" in campaign.log.read_text()
    found = records(campaign.folder)
    assert len(found) == 2 * 2 + 2 + 2 * 2
    for record in found:
        where = record["where"]
        assert where["node"].startswith("mel")
        assert campaign.accounted(where["slurm_job_id"]) == "COMPLETED"
        assert len(where["images"]["aifbench"]) == 64
        assert ("ollama" in where["images"]) == (record["benchmark"] == "inference")
        two = record["input"].get("topology") == "two-node"
        assert (where["client_node"] is not None) == two
        assert where["client_node"] != where["node"]
    for store in campaign.stores():
        shown = by_role(store)
        cases = store.read_cases()
        client = cases[0].where.client_node
        there = {"worker", "sampler", "client-node"} if client else set()
        assert there <= set(shown)
        for role, rows in shown.items():
            assert {row["node"] for row in rows} == {client if role in there else cases[0].where.node}, role
        # The worker's own use, not that of the command that waits for it. Until its first sample came, it is not known.
        assert max(row["cpu_seconds"] or 0.0 for row in shown["worker"]) > 0.2
    page = (campaign.results / "report" / "index.html").read_text()
    assert "apptainer" in page
    assert "node-hours by Slurm&#39;s account" in page
    assert re.search(r"The plan expected .* that ran whole in one job; they took", page)


def test_two_servers_each_with_a_gpu_that_is_not_there(campaign: Campaign) -> None:
    suite = {**CHAT, "engine": {**OLLAMA, "gpus": 1, "threads": 1}, "servers": 2, "axes": {"clients": [2]}}
    assert campaign.run(campaign.write(suite), "--retries", "0") == 1
    (store,) = campaign.stores()
    said = (store.folder / "server.log").read_text().splitlines()
    given = {found[1] for line in said if "server config" in line and (found := VISIBLE.search(line))}
    assert given == {"0", "1"}
    for record in records(campaign.folder):
        assert campaign.accounted(record["where"]["slurm_job_id"]) == "COMPLETED"
        assert record["where"]["node"] in {"mel3", "mel4"}
        # Slurm hands out GPUs that nobody has: the model came to lie in memory, and no number of it may count.
        reasons = record["validity"]["reasons"]
        told = [(reason["kind"], reason["values"].get("server")) for reason in reasons]
        assert ("model_partly_on_gpu", 2) in told, reasons
    assert "1 invalid" in campaign.said()


def test_scancel_of_a_running_batch(campaign: Campaign) -> None:
    process = campaign.start(campaign.write(FILES))
    job = campaign.wait_for_records(2)
    campaign.ask("scancel", job)
    wait_for(lambda: campaign.statuses()[0] == "terminated", 5)
    assert process.wait(200) == 0, campaign.said()
    assert "CANCELLED" in campaign.accounted(job)
    assert campaign.statuses() == ["terminated", "ok"]
    expect_whole(campaign, 10)


def test_a_dry_run_with_an_edited_campaign_changes_nothing_for_a_job_that_waits(campaign: Campaign) -> None:
    place = ["--account=p200000", "--qos=test", "--partition=cpu", "--time=10"]
    blocker = campaign.ask("sbatch", "--parsable", "--nodes=2", "--exclusive", *place, "--wrap", "sleep 600")
    try:
        wait_for(lambda: blocker in campaign.jobs(), 60)
        file = campaign.write({**FILES, "repetitions": 2})
        process = campaign.start(file)
        wait_for(lambda: campaign.jobs("PENDING"), 60)
        (spec,) = (campaign.results / "specs").iterdir()
        before = spec.read_bytes(), spec.stat().st_mtime_ns
        file = campaign.write({**FILES, "repetitions": 3})
        assert campaign.run(file, "--dry-run") == 0
        assert "This was a dry-run" in campaign.said()
        assert (spec.read_bytes(), spec.stat().st_mtime_ns) == before
    finally:
        campaign.ask("scancel", blocker)
    assert process.wait(200) == 0, campaign.said()
    expect_whole(campaign, 2)


@pytest.mark.heavy  # Slurm's shortest limit is a minute
def test_the_time_limit(campaign: Campaign) -> None:
    suite = {**FILES, "repetitions": 150}
    looks = ["--slurm-init-seconds-before-status-checks", "1"]
    limit = ["--set-resources", "storage_batch:runtime=1", "--retries", "0"]
    process = campaign.start(campaign.write(suite), *limit, *looks)
    job = campaign.wait_for_records(2)
    wait_for(lambda: campaign.statuses()[0] == "timeout", 150)
    assert process.wait(120) == 1
    assert "TIMEOUT" in campaign.accounted(job)
    assert campaign.statuses() == ["timeout"]
    (invocation,) = campaign.stores()[0].read_record().invocations
    ended = campaign.ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format", "end")
    # By the clock of this machine; Slurm tells whole seconds.
    late = datetime.fromisoformat(ended).astimezone() - datetime.fromisoformat(invocation.ended_at)
    assert abs(late.total_seconds()) < 5
    assert set(measured(campaign.folder).values()) == {1}


def test_a_node_that_goes_down(campaign: Campaign) -> None:
    process = campaign.start(campaign.write(FILES))
    job = campaign.wait_for_records(2)
    node = campaign.ask("squeue", "--noheader", "--jobs", job, "--format", "%N")
    try:
        subprocess.run([str(CLUSTER), "node-down", node], check=True)
        assert process.wait(300) == 0, campaign.said()
    finally:
        subprocess.run([str(CLUSTER), "node-up", node], check=True)
    assert "NODE_FAIL" in campaign.accounted(job)
    expect_whole(campaign, 10)
    assert campaign.statuses() == ["terminated", "ok"]


def test_kill_9_of_a_batch_leaves_nothing_of_its_containers(campaign: Campaign) -> None:
    process = campaign.start(campaign.write(FILES))
    campaign.wait_for_records(2)
    (runner,) = [pid for pid in pids() if f"-m aifbench run --spec {campaign.results}" in argv(pid)]
    begun = [pid for session in pids() if parent(session) == runner for pid in members(session)]
    assert any("squashfuse" in argv(pid) for pid in begun)
    os.kill(runner, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in begun), 10)
    assert process.wait(200) == 0, campaign.said()
    expect_whole(campaign, 10)
    assert campaign.statuses() == ["terminated", "ok"]


def test_a_server_that_crashes(campaign: Campaign) -> None:
    process = campaign.start(campaign.write({**CHAT, "repetitions": 5, "output_tokens": 32}))
    campaign.wait_for_records(1)
    (server,) = [pid for pid in pids() if argv(pid).split()[:2] in (["ollama", "serve"], ["/usr/bin/ollama", "serve"])]
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: campaign.statuses()[0] == "server_crashed", 5)
    assert process.wait(200) == 0, campaign.said()
    assert campaign.statuses() == ["server_crashed", "ok"]
    expect_whole(campaign, 5)


def test_a_server_that_never_becomes_ready(campaign: Campaign, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "aifbench.sif").symlink_to((campaign.shared / "images" / "aifbench.sif").resolve())
    definition = tmp_path / "deaf.def"
    definition.write_text(
        "Bootstrap: {{ BOOTSTRAP }}\nFrom: {{ BASE }}\n\n%arguments\n    BOOTSTRAP=docker\n    BASE=none\n\n"
        "%post\n    printf '#!/bin/sh\\nexec sleep 600\\n' > /usr/bin/ollama\n    chmod +x /usr/bin/ollama\n"
    )
    subprocess.run([str(HERE / "build-image"), str(definition), str(images / "ollama.sif")], check=True, timeout=300)
    campaign.run(campaign.write(CHAT), "--until", "model")  # with the real server
    answer = campaign.run_one_batch(CHAT, limits={"server_ready_s": 3}, images=images)
    assert answer.returncode == 1
    assert campaign.statuses() == ["server_not_ready"]
    assert "no token from" in answer.stderr
    assert "server.log" in answer.stderr


def test_the_main_process_killed_and_started_again(campaign: Campaign) -> None:
    file = campaign.write({**FILES, "repetitions": 24})
    process = campaign.start(file)
    job = campaign.wait_for_records(2)
    process.kill()
    process.wait()
    assert campaign.run(file, "--unlock") == 0
    assert campaign.run(file) == 0, campaign.said()
    assert campaign.accounted(job) == "COMPLETED"
    expect_whole(campaign, 24)


@pytest.mark.parametrize(("missing", "key"), [("image", "paths.images"), ("model", "engine.model")])
def test_what_the_workflow_should_have_made_is_missing(
    campaign: Campaign, tmp_path: Path, missing: str, key: str
) -> None:
    empty = {"images" if missing == "image" else "models": tmp_path / "empty"}
    answer = campaign.run_one_batch(CHAT, **empty)
    assert answer.returncode == 2
    assert campaign.statuses() == ["config_error"]
    assert key in answer.stderr
    assert f"aifbench {missing}" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_full_disk_is_data_and_fails_the_gate(campaign: Campaign, tmp_path: Path) -> None:
    small = tmp_path / "small-disk"
    suite = {**FILES, "path": str(small), "repetitions": 12}
    file = campaign.write(suite, limits={"space_fraction": 1.0})
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], check=True)
    try:
        process = campaign.start(file, "--retries", "0")
        campaign.wait_for_records(2)
        (small / "somebody-elses").write_bytes(bytes(30 << 20))
        assert process.wait(200) == 1
        kinds = {record["error"]["kind"] for record in records(campaign.folder) if record["status"] == "failed"}
        assert kinds == {"enospc"}
        assert campaign.statuses() == ["partial"]
        assert "1 failed" in campaign.said()
        assert (campaign.results / "report" / "index.html").exists()
        expect_whole(campaign, 12)
        assert [path.name for path in small.iterdir()] == ["somebody-elses"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
