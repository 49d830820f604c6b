"""What Slurm's programs say, and what it means. The texts are those of Slurm 22.05."""

import os
import stat

import pytest

from aifbench.campaign.resources import JobResources
from aifbench.services.client.folder import RunFolder
from aifbench.services.client.slurm import SlurmClient, arguments, from_sbatch
from aifbench.services.problems import Refused
from aifbench.slurm.ask import refusal
from aifbench.slurm.queue import cancel_named
from aifbench.slurm.site import parse_partitions

JOB = JobResources(1, 1, 0, 10, 2, 3000, "p200000", "cpu", "test")
SINFO = "cpu*|up|2|8|16000|(null)|infinite\ngpu|up|2|8|16000|gpu:4|1-00:00:00\nold|down|1|4|8000+|(null)|1:00:00\n"


def test_partitions():
    cpu, gpu, old = parse_partitions(SINFO)
    assert (cpu.name, cpu.default, cpu.cores, cpu.memory_mib, cpu.gpus) == ("cpu", True, 8, 16000, None)
    assert (gpu.gpus, gpu.time_limit) == ("gpu:4", "1-00:00:00")
    assert (old.state, old.memory_mib) == ("down", 8000)


def test_groups_of_nodes_of_one_partition_are_one():
    (found,) = parse_partitions("cpu*|up|2|8|16000|(null)|infinite\ncpu*|up|3|64|8000|(null)|infinite\n")
    assert (found.nodes, found.cores, found.memory_mib) == (5, 64, 16000)


def test_arguments_are_those_of_the_plugin():
    assert arguments(JOB) == [
        "--nodes=1", "--time=10", "--mem=3000M", "--cpus-per-task=2", "--ntasks=1", "--account=p200000",
        "--partition=cpu", "--qos=test",
    ]  # fmt: skip
    on_gpus = arguments(JobResources(1, 1, 4, 10, 2, 3000, "p200000", "gpu", None))
    assert {"--gpus=4", "--ntasks-per-gpu=1"} <= set(on_gpus)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Invalid account or account/partition combination specified", "no_allocation"),
        ("Invalid qos specification", "no_allocation"),
        ("Required partition not available (inactive or drain)", "partition_down"),
        ("invalid partition specified: nope", "invalid_config"),
        ("Requested node configuration is not available", "over_limit"),
        ("Memory specification can not be satisfied", "over_limit"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "over_limit"),
        ("AssocMaxSubmitJobLimit", "queue_full"),
        ("Unable to contact slurm controller (connect failure)", "slurm_unreachable"),
    ],
)
def test_words_of_sbatch(said, code):
    found = from_sbatch(refusal("sbatch", f"sbatch: error: Batch job submission failed: {said}\n", 1), JOB)
    assert found.code == code
    assert found.message == f"Slurm would not take the job: {said}"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs of Slurm that say what a test lets them say: faults that the test cluster cannot be asked for."""

    def make(name, *, out="", err="", code=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncat > /dev/null\nprintf '%s' '{out}'\nprintf '%s' '{err}' >&2\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return make


def code_of(call, *arguments_):
    with pytest.raises(Refused) as caught:
        call(*arguments_)
    return caught.value.code, caught.value.field


def test_partitions_that_are_down_unknown_or_too_small(programs):
    programs("sinfo", out=SINFO)
    slurm = SlurmClient()
    slurm.check_partition("cpu", JOB)
    assert code_of(slurm.check_partition, "old", JOB) == ("partition_down", "resources.job.partition")
    assert code_of(slurm.check_partition, "nope", JOB) == ("invalid_config", "resources.job.partition")
    large = JobResources(1, 1, 0, 10, 9, 3000, "p", "cpu", None)
    assert code_of(slurm.check_partition, "cpu", large) == ("over_limit", "resources.job.cores")
    large = JobResources(1, 1, 0, 10, 8, 17000, "p", "cpu", None)
    assert code_of(slurm.check_partition, "cpu", large) == ("over_limit", "resources.job.memory_mib")


def test_a_controller_that_does_not_answer(programs):
    assert code_of(SlurmClient().partitions) == ("slurm_unreachable", None)  # no program at all
    programs("sinfo", err="slurm_load_partitions: Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(Refused) as caught:
        SlurmClient().partitions()
    assert caught.value.code == "slurm_unreachable"
    assert "connect failure" in caught.value.message


def test_jobs_are_cancelled_by_the_name_that_the_log_gives_them(tmp_path, programs):
    asked = tmp_path / "asked"
    programs("scancel")
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    folder = RunFolder(tmp_path, "x-1")
    folder.make()
    log = tmp_path / "x-1" / "launch" / "snakemake.log"
    log.write_text("Using profile x\nSLURM run ID: 5c1f0c1e-8d0e-4f0e-9f57-6a4b6b0f1f1e\nJob 3 has been submitted\n")
    cancel_named(folder.slurm_runs())
    assert asked.read_text() == "--name=5c1f0c1e-8d0e-4f0e-9f57-6a4b6b0f1f1e\n"
    asked.unlink()
    log.write_text("nothing of Slurm; SLURM run ID: $(id)\n")
    cancel_named(folder.slurm_runs())
    assert not asked.exists()


def test_a_job_that_slurm_would_not_take(programs):
    programs("sbatch", err="sbatch: error: Batch job submission failed: Invalid qos specification", code=1)
    assert code_of(SlurmClient().test, JOB) == ("no_allocation", "profile")
    programs(
        "sbatch", err="sbatch: Job 12 to start at 2026-11-26T10:00:00 using 2 processors on nodes mel1 in partition cpu"
    )
    SlurmClient().test(JOB)
