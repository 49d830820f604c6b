"""The client service on a real Slurm: ok once jobs are submitted, ko before anything is queued, cancel leaves nothing.

Needs the cluster of this folder: `make cluster`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from aifbench.slurm.queue import seconds
from tests.services.checkout import ROOT, TINY, change_system
from tests.services.live import Live
from tests.services.test_client_live import expect_ko, launch, show, wait_for
from tests.slurm.test_cluster import UP
from tests.workflow.test_faults import wait_for as wait_until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not UP, reason="the test cluster is not up: make cluster"),
]

REQUEST = {**TINY, "profile": "cluster"}
LONG = {**REQUEST, "config": {"axes": {"file_size": "1MiB"}, "repetitions": 200}}
VALIDATE = "/api/v1/runs:validate?dry_run=true"


class Client:
    """A service of a checkout whose profile `cluster` is the test cluster, and Slurm's own word beside it."""

    def __init__(self, live: Live, environment: dict[str, str]) -> None:
        self.live, self.environment = live, environment

    def ask(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def jobs(self) -> list[str]:
        states = "PENDING,RUNNING,COMPLETING"
        return self.ask("squeue", "--noheader", "--states", states, "--format", "%i").split()

    def change(self, **slurm: Any) -> None:
        place = {"account": "p200000", "partition": "cpu", "gpu_partition": "gpu", "qos": "test"}
        change_system(self.live.project, "cluster", slurm={**place, **slurm})

    def check(self, **more: Any) -> Any:
        return self.live.post(VALIDATE, {**REQUEST, **more}, timeout=120)


@pytest.fixture
def client(tmp_path: Path, shared: Path, environment: dict[str, str]) -> Iterator[Client]:
    project = tmp_path / "project"
    project.mkdir()
    (project / "workflow").symlink_to(ROOT / "workflow")
    shutil.copytree(ROOT / "config", project / "config")
    profile = yaml.safe_load((ROOT / "profiles" / "meluxina" / "config.yaml").read_text())
    del profile["configfile"]
    profile["slurm-init-seconds-before-status-checks"] = 5
    (project / "profiles" / "cluster").mkdir(parents=True)
    (project / "profiles" / "cluster" / "config.yaml").write_text(yaml.safe_dump(profile))
    place = {
        "name": "test-cluster", "container": "apptainer", "apptainer": {"options": ["--userns"]},
        "node": {"cores": 2, "memory_mib": 3000, "gpus": 4},
        "paths": {
            "cache": str(tmp_path / "cache"), "target": str(tmp_path / "target"), "images": str(shared / "images"),
            "models": str(shared / "models"),
        },
    }  # fmt: skip
    (project / "config" / "systems" / "cluster.yaml").write_text(yaml.safe_dump(place))
    known = {name: value for name, value in environment.items() if name not in {"XDG_STATE_HOME", "XDG_RUNTIME_DIR"}}
    with Live(tmp_path, "client", "monitor", environment=known) as live:
        made = Client(live, environment)
        made.change()
        yield made
        for folder in live.results.glob("*/launch"):
            if not (folder / "exit.json").exists() and (folder / "keeper.json").exists():
                (folder / "cancel.json").touch()
                wait_until((folder / "exit.json").exists, 120)
        left = made.jobs()
        for job in left:
            made.ask("scancel", job)
        assert left == []


def test_the_menu_shows_the_partitions(client: Client) -> None:
    (profile,) = [one for one in client.live.get("/api/v1/menu").json()["profiles"] if one["name"] == "cluster"]
    partitions = {one["name"]: one for one in profile["slurm"]["partitions"]}
    assert set(partitions) == {"cpu", "gpu"}
    assert partitions["cpu"]["state"] == "up"
    assert partitions["cpu"]["default"]
    assert partitions["gpu"]["gpus"].startswith("gpu")


def test_a_run_in_jobs(client: Client) -> None:
    answer = launch(client.live, REQUEST)
    assert answer.status == 202, answer.body
    assert answer.json()["checks"].keys() == {"sbatch_test_s", "dry_run_s"}
    assert len(client.jobs()) == 1  # ok means submitted
    run = answer.json()["run_id"]
    found = wait_for(client.live, run, "ended", "failed", seconds=300)
    assert found["state"] == "ended", found["log"]
    assert found["counts"]["valid"] == 2
    assert client.jobs() == []


def test_the_monitor_tells_a_job_that_waits_and_then_runs_as_slurm_does(client: Client) -> None:
    """The nodes are taken by another job at first; `squeue` is asked once in 30 s."""
    place = ["--account=p200000", "--qos=test", "--partition=cpu", "--time=10"]
    blocker = client.ask("sbatch", "--parsable", "--nodes=2", "--exclusive", *place, "--wrap", "sleep 600")
    wait_until(lambda: client.ask("squeue", "--noheader", "--jobs", blocker, "--format", "%T") == "RUNNING", 60)
    run = launch(client.live, LONG).json()["run_id"]

    def row() -> dict[str, Any]:
        rows = client.live.get("/api/v1/jobs?state=active").json()["jobs"]
        found: list[dict[str, Any]] = [row for row in rows if row["campaign"] == run]
        return found[0] if found else {"queue": None, "state": None}

    wait_until(lambda: row()["queue"] is not None, 90)
    waiting = row()
    (job,) = [job for job in client.jobs() if job != blocker]
    assert (waiting["state"], waiting["slurm_job"]) == ("pending", job)
    assert (waiting["queue"]["state"], waiting["queue"]["partition"]) == ("PENDING", "cpu")
    assert waiting["queue"]["reason"] in {"Resources", "Priority"}
    assert waiting["cores"]["value"] is None
    client.ask("scancel", blocker)
    wait_until(lambda: row()["state"] == "running", 120)
    running = row()
    assert (running["slurm_job"], running["node"]) == (job, client.ask("hostname"))
    limit = seconds(client.ask("squeue", "--noheader", "--jobs", job, "--format", "%l"))
    assert limit is not None
    assert limit - 60 < running["limit"]["value"] <= limit  # from the start of the batch to the end of the job
    wait_until(lambda: (row().get("cores") or {}).get("value") is not None, 60)


def test_what_slurm_would_refuse_is_refused_before_anything_is_queued(client: Client) -> None:
    assert client.check().status == 200
    job = {"job": {"cores": 500}}
    expect_ko(client.check(resources=job), 422, "over_limit", "resources.job.cores")
    job = {"job": {"memory_mib": 900_000}}
    expect_ko(client.check(resources=job), 422, "over_limit", "resources.job.memory_mib")
    job = {"job": {"partition": "nowhere"}}
    reason = expect_ko(client.check(resources=job), 422, "invalid_config", "resources.job.partition")
    assert "cpu" in reason["hint"]
    client.change(qos="nothing")
    expect_ko(client.check(), 409, "no_allocation", "profile")
    client.change(account="p999999")
    expect_ko(client.check(), 409, "no_allocation", "profile")
    change_system(client.live.project, "cluster", paths={"images": "nowhere"})
    expect_ko(client.check(), 409, "image_missing", "profile")
    assert client.jobs() == []
    assert list(client.live.results.iterdir()) == []


def test_a_partition_that_is_down(client: Client) -> None:
    client.ask("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        reason = expect_ko(client.check(), 503, "partition_down", "resources.job.partition")
        assert "gpu" in reason["hint"]
    finally:
        client.ask("scontrol", "update", "PartitionName=cpu", "State=UP")


def test_a_controller_that_is_not_there(client: Client, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    known = Path(client.environment["SLURM_CONF"]).read_text().splitlines()
    conf.write_text("\n".join("SlurmctldPort=1" if line.startswith("SlurmctldPort") else line for line in known))
    client.live.stop()
    client.live.environment = {**client.live.environment, "SLURM_CONF": str(conf)}
    client.live.start()
    expect_ko(client.check(), 503, "slurm_unreachable")


def test_the_same_key_is_one_job(client: Client) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: launch(client.live, LONG, key="the-same-key"), range(50)))
    assert {answer.status for answer in answers} == {202}, {answer.body for answer in answers}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(client.jobs()) == 1


def test_cancel_leaves_no_job(client: Client) -> None:
    run = launch(client.live, LONG).json()["run_id"]
    wait_for(client.live, run, "running", seconds=120)
    (job,) = client.jobs()
    client.live.post(f"/api/v1/runs/{run}:cancel", b"")
    wait_for(client.live, run, "cancelled", seconds=120)
    assert client.jobs() == []
    said = client.ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format", "state")
    assert "CANCELLED" in said


def test_the_jobs_of_a_killed_snakemake_can_be_cancelled(client: Client) -> None:
    run = launch(client.live, LONG).json()["run_id"]
    wait_for(client.live, run, "running", seconds=120)
    process = json.loads((client.live.results / run / "launch" / "process.json").read_bytes())
    os.kill(process["pid"], signal.SIGKILL)
    # The nodes of this cluster are on this machine, so it is seen that the batch measures on.
    wait_until(lambda: show(client.live, run)["message"].startswith("a batch of it measures, though"), 60)
    assert show(client.live, run)["can"] == ["cancel"]
    assert len(client.jobs()) == 1
    assert client.live.post(f"/api/v1/runs/{run}:cancel", b"").status == 202
    wait_until(lambda: client.jobs() == [], 60)
    wait_for(client.live, run, "cancelled")
