"""What a campaign asks of a cluster, and how its commands are wrapped: all that needs no cluster."""

import csv
import os
from datetime import datetime, timedelta

import pytest
import yaml

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import check, make_plan, markdown
from aifbench.campaign.resources import job_resources, service_resources
from aifbench.core.benchmark import Command
from aifbench.core.errors import ConfigError
from aifbench.core.system import Limits, System
from aifbench.engines.ollama import manifest
from aifbench.processes.containers import Containers, sif_sha256
from aifbench.slurm import job as nodes
from aifbench.slurm.ask import SlurmError
from tests.workflow.campaign import HOSTILE, ROOT

CHAT = {
    "name": "chat", "benchmark": "inference", "engine": {"kind": "ollama", "model": "mistral", "gpus": 1},
    "prompt": "Why is it so?", "axes": {"topology": ["same-node", "two-node"]},
}  # fmt: skip
SLURM = {"account": "p1", "partition": "cpu", "gpu_partition": "gpu", "qos": "test"}
SITE = {"name": "site", "slurm": SLURM, "node": {"cores": 64, "memory_mib": 9000, "gpus": 4}}


def plan(tmp_path, *suites, **system):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"campaign": "c", "system": {**SITE, **system}, "suites": list(suites)}))
    return make_plan(read_config([file]))


def test_a_job_asks_for_nodes_gpus_and_their_partition(tmp_path):
    made = plan(tmp_path, CHAT)
    asked = {batch.nodes: job_resources(batch, made.config.system) for batch in made.batches.values()}
    assert set(asked) == {1, 2}
    for number, request in asked.items():
        assert (request.nodes, request.tasks, request.gpus, request.partition) == (number, number, 1, "gpu")
        assert (request.account, request.qos, request.cores, request.memory_mib) == ("p1", "test", 64, 9000)
    again = job_resources(next(iter(made.batches.values())), made.config.system, attempt=2)
    assert again.minutes >= asked[1].minutes >= 10
    limited = made.config.system.model_copy(update={"limits": Limits(job_hours=0.1)})
    assert job_resources(next(iter(made.batches.values())), limited).minutes == 6
    assert service_resources(made.config.system).partition == "cpu"
    assert made.gpu_hours > 0
    assert made.node_hours == pytest.approx(sum(b.expected_s * b.nodes for b in made.batches.values()) / 3600)
    text = markdown(made, datetime(2026, 3, 2, 10, 0))
    longest = max(batch.expected_s for batch in made.batches.values())
    ends = datetime(2026, 3, 2, 10, 0) + timedelta(seconds=longest)
    assert "GPU-hours" in text
    assert f"Begun Mon 02 Mar 10:00, with all jobs at once, it is expected to end {ends:%a %d %b %H:%M}." in text


def test_needs_are_images_and_models(tmp_path):
    made = plan(tmp_path, CHAT, container="apptainer")
    for batch in made.batches:
        needs = made.needs(batch)
        assert needs.images == ["aifbench", "ollama"]
        assert [engine.model for engine in needs.models] == ["mistral"]


@pytest.mark.parametrize(
    ("suite", "system", "said"),
    [
        (CHAT, {"slurm": {"partition": "cpu"}}, "slurm.account: is required"),
        (CHAT, {"slurm": None}, "topology = 'two-node': system 'site' is one machine (allowed: same-node)"),
        (
            {**CHAT, "engine": {**CHAT["engine"], "gpus": 8}},
            {},
            "engine.gpus = 8: more GPUs in all servers",
        ),
        (CHAT, {"limits": {"job_hours": 0.001}}, "pack: a job of 1 case(s) is expected to take"),
        ({**CHAT, "axes": {"servers": [1, 8]}}, {}, "engine.gpus = 8: more GPUs in all servers"),
    ],
)
def test_what_the_system_cannot_give_is_one_line(tmp_path, monkeypatch, suite, system, said):
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    with pytest.raises(ConfigError) as error:
        check(plan(tmp_path, suite, **system), machine=False)
    assert said in str(error.value)


def test_the_account_may_stand_in_slurms_own_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "p2")
    made = plan(tmp_path, CHAT, slurm={"partition": "cpu"})
    assert made.config.system.slurm.account == "p2"
    monkeypatch.setenv("SBATCH_ACCOUNT", "p2; rm -rf /")
    with pytest.raises(ConfigError, match="SBATCH_ACCOUNT"):
        plan(tmp_path, CHAT, slurm={"partition": "cpu"})


@pytest.mark.parametrize(
    "system",
    [
        {"modules": ["x; reboot"]},
        {"apptainer": {"options": ["--bind $(id)"]}},
        {"slurm": {**SLURM, "qos": "a b"}},
        {"slurm": {**SLURM, "partition": "$(id)"}},
        {"node": None},
    ],
)
def test_no_shell_string_comes_in_through_a_system(tmp_path, system):
    with pytest.raises(ConfigError):
        plan(tmp_path, CHAT, **system)


def test_two_nodes_need_a_server_of_the_batchs_own(tmp_path):
    engine = {"kind": "openai", "url": "http://127.0.0.1:1", "model": "m"}
    with pytest.raises(ConfigError, match="topology"):
        plan(tmp_path, {**CHAT, "engine": engine})


def test_without_a_container_a_command_is_itself(tmp_path):
    made = Containers(System(name="here"), tmp_path, [])
    argv, environment = made.wrap(Command(("ollama", "serve"), environment={"A": "1"}), "server")
    assert (argv, environment) == (["ollama", "serve"], {"A": "1"})
    argv, _ = made.wrap(Command.python("aifbench.runner.worker"), "worker")
    assert argv[0].endswith("python") or "python" in argv[0]
    assert made.digests(["aifbench"]) is None
    assert list(made.check(["aifbench"])) == []


def test_a_container_sees_only_what_it_is_given_and_no_secret_is_in_the_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "s3cret")
    system = System.model_validate(
        {"name": "s", "container": "apptainer", "apptainer": {"options": ["--userns"]}, "paths": {"images": "/img"}}
    )
    made = Containers(system, tmp_path / "b", [tmp_path / "cache"], ["THE_KEY", "NOT_SET"])
    command = Command(("ollama", "serve"), "ollama", {"OLLAMA_HOST": "h:1"}, (tmp_path / "models",), gpus=1)
    argv, environment = made.wrap(command, "server")
    assert argv[:3] == ["apptainer", "exec", "--containall"]
    assert argv[-3:] == ["/img/ollama.sif", "ollama", "serve"]
    assert {"--nv", "--userns"} <= set(argv)
    paths = {str(tmp_path / name) for name in ("b", "cache", "models")}
    assert mounts(argv) == {("type=bind", f"source={path}", f"destination={path}") for path in paths}
    assert "--no-eval" in argv
    assert environment == {"APPTAINERENV_OLLAMA_HOST": "h:1", "APPTAINERENV_THE_KEY": "s3cret"}
    assert not any("s3cret" in word for word in argv)
    argv, _ = made.wrap(Command.python("aifbench.runner.worker"), "worker")
    assert argv[-3:] == ["/opt/aifbench/bin/python", "-m", "aifbench.runner.worker"]
    assert "--nv" not in argv


@pytest.mark.parametrize("name", [HOSTILE, "a:b", "a,b", 'a"b', "a\\b", " "])
def test_a_container_is_given_a_folder_of_any_name(tmp_path, name):
    system = System.model_validate({"name": "s", "container": "apptainer", "apptainer": {"binds": [f"/{name}"]}})
    argv, _ = Containers(system, tmp_path / name, []).wrap(Command.python("aifbench.runner.worker"), "worker")
    places = (f"{tmp_path}/{name}", f"/{name}")
    assert mounts(argv) == {("type=bind", f"source={path}", f"destination={path}") for path in places}
    assert "--bind" not in argv


def mounts(argv):
    """Return the fields of each mount as Apptainer reads them."""
    return {tuple(next(csv.reader([argv[at + 1]]))) for at, word in enumerate(argv) if word == "--mount"}


def test_a_folder_that_containers_are_to_see_and_that_is_not_there_is_one_line(tmp_path):
    place = {"name": "s", "container": "apptainer", "apptainer": {"command": "sh", "binds": ["/a:/b"]}}
    (error,) = Containers(System.model_validate(place), tmp_path, []).check([])
    assert str(error) == "apptainer.binds = '/a:/b': no such file or folder"


def test_the_command_of_a_job_is_a_script():
    profile = yaml.safe_load((ROOT / "profiles" / "meluxina" / "config.yaml").read_text())
    assert profile["slurm-pass-command-as-script"] is True


def test_a_missing_program_and_a_missing_image_are_one_line_each(tmp_path):
    place = {"name": "s", "container": "apptainer", "apptainer": {"command": "no-such-program"}}
    made = Containers(System.model_validate({**place, "paths": {"images": str(tmp_path)}}), tmp_path, [])
    program, image = made.check(["ollama"])
    assert str(program).startswith("apptainer.command = 'no-such-program': no such program")
    assert "aifbench image ollama" in str(image)


def test_the_digest_beside_an_image_is_believed_only_while_the_image_is_the_same(tmp_path):
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    real = sif_sha256(image)
    stat = image.stat()
    beside = tmp_path / "x.sif.json"
    beside.write_text(f'{{"bytes": {stat.st_size}, "mtime_ns": {stat.st_mtime_ns}, "sif_sha256": "known"}}')
    assert sif_sha256(image) == "known"
    image.write_bytes(b"two!")
    assert sif_sha256(image) not in {"known", real}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("mistral", "registry.ollama.ai/library/mistral/latest"),
        ("mistral:7b", "registry.ollama.ai/library/mistral/7b"),
        ("me/mine:x", "registry.ollama.ai/me/mine/x"),
    ],
)
def test_where_ollama_keeps_what_it_has(tmp_path, model, path):
    assert manifest(tmp_path, model) == tmp_path / "manifests" / path


@pytest.mark.parametrize(
    ("variables", "memory"),
    [
        ({"SLURM_MEM_PER_NODE": "2048"}, 2 << 30),
        ({"SLURM_MEM_PER_CPU": "512"}, 2 << 30),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({}, None),
    ],
)
def test_what_slurm_gave_a_job_is_its_allocation(monkeypatch, variables, memory):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = nodes.allocation()
    assert (found["cores"], found["cores_source"]) == (4, "Slurm")
    assert (found["memory_bytes"], found["memory_source"]) == (memory, "Slurm" if memory else None)


def test_without_slurm_the_affinity_is_the_allocation(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    found = nodes.allocation()
    assert (found["cores"], found["cores_source"]) == (len(os.sched_getaffinity(0)), "CPU affinity")


def test_outside_a_job_there_is_one_node(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert nodes.job_end() is None
    with pytest.raises(SlurmError, match="needs a Slurm job of two nodes"):
        nodes.second_node()
