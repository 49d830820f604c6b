"""From a request to a campaign, without a server: what is laid over what, and which field a problem is said at."""

import json
from pathlib import Path

import pytest
import yaml

from aifbench.campaign.config import check_config
from aifbench.campaign.plan import make_plan
from aifbench.campaign.presets import Preset, read_presets
from aifbench.campaign.resources import job_resources
from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.services.client.check import Checker, points, varied
from aifbench.services.client.launch import LaunchLimits
from aifbench.services.client.menu import menu
from aifbench.services.client.reasons import CODES, from_config
from aifbench.services.client.request import compose
from aifbench.services.client.slurm import SlurmClient
from aifbench.services.problems import Refused
from aifbench.services.settings import Settings
from tests.services.checkout import ROOT, change_system, checkout, settings

PRESETS, BROKEN = read_presets(ROOT / "config" / "presets")
CHECKER = Checker(Settings(ROOT, ROOT / "results", ROOT / "state", ROOT / "run"), SlurmClient())
PROFILES = {}
for path in sorted((ROOT / "config" / "systems").glob("*.yaml")):
    PROFILES[path.stem] = System.model_validate(yaml.safe_load(path.read_text()))


def composed(**request):
    found = CHECKER.parse(json.dumps(request).encode())
    return compose(found, PRESETS, PROFILES, "run-1", Path("results"))


def suite(**request):
    (part,) = composed(**request).parts
    return part.suite


def refused(**request):
    with pytest.raises(Refused) as caught:
        composed(**request)
    return caught.value


def test_every_preset_is_a_campaign_with_a_quick_and_a_full_one_per_benchmark():
    assert {preset.benchmark for preset in PRESETS.values()} == {"retrieval", "inference", "storage"}
    for benchmark in ("retrieval", "inference", "storage"):
        assert {f"{benchmark}-quick", f"{benchmark}-full"} <= set(PRESETS)
    for name, preset in PRESETS.items():
        profile = "meluxina" if preset.scheduler else "laptop"
        made = make_plan(check_config(composed(preset=name, profile=profile).campaign, [Path("config/launch.yaml")]))
        assert made.cases
        assert made.expected_s < (60 if name.endswith("quick") else 1e9)


def test_a_preset_as_it_is():
    found = composed(preset="storage-quick").campaign
    assert found == {
        "campaign": "run-1",
        "results": "results",
        "system": "laptop",
        "suites": [PRESETS["storage-quick"].suite],
    }
    assert found["suites"][0] is not PRESETS["storage-quick"].suite


def test_lists_of_a_request_replace_those_of_the_preset():
    found = suite(preset="storage-quick", config={"axes": {"mode": ["warm"]}, "repetitions": 2})
    assert found["axes"] == {"file_size": "64MiB", "block_size": "1MiB", "mode": ["warm"], "clients": 1}
    assert found["repetitions"] == 2


def test_a_value_moves_between_axes_and_suite():
    fixed = suite(preset="storage-quick", config={"mode": "warm"})
    assert fixed["mode"] == "warm"
    assert "mode" not in fixed["axes"]
    varied = suite(preset="inference-quick", config={"axes": {"output_tokens": [8, 16]}})
    assert varied["axes"]["output_tokens"] == [8, 16]
    assert "output_tokens" not in varied


def test_clients_and_services_become_a_value_or_an_axis():
    one = suite(preset="inference-quick", clients=3)
    assert one["clients"] == 3
    assert "clients" not in one["axes"]
    many = suite(preset="inference-quick", clients=[1, 8], services=2)
    assert many["axes"]["clients"] == [1, 8]
    assert many["servers"] == 2


def test_an_engine_of_another_kind_inherits_nothing():
    found = suite(preset="inference-quick", config={"engine": {"kind": "ollama", "model": "mistral"}})
    assert found["engine"] == {"kind": "ollama", "model": "mistral"}
    same = suite(preset="inference-quick", config={"engine": {"slots": 2}})
    assert same["engine"] == {"kind": "llamacpp", "model": "smollm2-135m", "slots": 2}


def test_search_of_an_index_that_is_gone_goes_too():
    found = suite(preset="retrieval-full", config={"axes": {"index": ["Flat", "HNSW32"]}})
    assert list(found["search"]) == ["HNSW32"]
    assert list(suite(preset="retrieval-full", config={"index": "Flat"})["search"]) == []


def test_hardware():
    request = {
        "preset": "inference-gpu",
        "profile": "meluxina",
        "resources": {
            "server": {"device": "gpu", "gpus": 2, "cores": 8},
            "clients": {"place": "own-node", "processes": 4},
            "job": {"cores": 32, "memory_mib": 64000, "partition": "gpu-long"},
        },
    }
    found = suite(**request)
    assert found["engine"] == {
        "kind": "ollama", "model": "mistral", "parallel": 16, "gpus": 2, "threads": 8, "context": 4096,
    }  # fmt: skip
    assert found["topology"] == "two-node"
    assert found["client_processes"] == 4
    assert found["job"] == {"cores": 32, "memory_mib": 64000, "partition": "gpu-long"}
    on_cores = suite(**{**request, "resources": {"server": {"device": "cpu"}, "job": {"partition": "large"}}})
    assert on_cores["engine"]["gpus"] == 0
    assert on_cores["job"] == {"partition": "large"}


def test_each_service_has_a_job_of_its_own(monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "p200000")
    gpu = {"preset": "inference-gpu", "resources": {"job": {"cores": 32, "partition": "gpu-long"}}}
    disk = {"preset": "storage-quick", "resources": {"job": {"memory_mib": 64000}}}
    found = composed(profile="meluxina", services=[gpu, disk, {"preset": "retrieval-quick"}])
    plan = make_plan(check_config(found.campaign, [Path("config/launch.yaml")]))
    system = plan.config.system
    jobs = {batch.benchmark: job_resources(batch, system) for batch in plan.batches.values()}
    assert {name: (job.cores, job.memory_mib, job.partition) for name, job in jobs.items()} == {
        "inference": (32, system.node.memory_mib, "gpu-long"),
        "storage": (system.node.cores, 64000, "cpu"),
        "retrieval": (system.node.cores, system.node.memory_mib, "cpu"),
    }
    specs = {batch.benchmark: plan.spec(batch.id)["system"] for batch in plan.batches.values()}
    assert specs["inference"]["node"]["cores"] == 32
    assert specs["retrieval"] == system.model_dump(mode="json")


@pytest.mark.parametrize("clients", [[1], [2]])
def test_two_services_that_share_a_batch_ask_for_the_same_job(monkeypatch, clients):
    """The same cases, or others of the same set-up: both are measured by one job."""
    monkeypatch.setenv("SBATCH_ACCOUNT", "p200000")

    def plan(*cores):
        services = [
            {"preset": "storage-quick", "clients": number, "resources": {"job": {"cores": count}}}
            for number, count in zip(([1], clients), cores, strict=True)
        ]
        found = composed(profile="meluxina", services=services)
        return found, make_plan(check_config(found.campaign, [Path("config/launch.yaml")]))

    assert len(plan(4, 4)[1].batches) == 1
    with pytest.raises(ConfigError, match="share a job") as caught:
        plan(4, 8)
    assert caught.value.key == "suites[1].job"


SEVERAL = [
    {"preset": "storage-quick", "clients": [1, 2]},
    {"benchmark": "retrieval", "config": {"dataset": "glove-50", "vectors": 1000, "index": "Flat", "top_k": 5},
     "resources": {"clients": {"cores": 2}}},
    {"preset": "inference-quick", "clients": 3, "servers": 2, "config": {"repetitions": 2}},
]  # fmt: skip


def test_several_services_are_one_campaign_of_several_suites():
    found = composed(services=SEVERAL, seed=7, node_hours=1).campaign
    assert {key: found[key] for key in ("seed", "budget", "system")} == {
        "seed": 7, "budget": {"node_hours": 1}, "system": "laptop",
    }  # fmt: skip
    disk, neighbours, chat = found["suites"]
    assert disk == suite(**SEVERAL[0])
    assert neighbours == suite(**SEVERAL[1]) | {"name": "retrieval", "threads": 2}
    assert (chat["clients"], chat["servers"], chat["repetitions"]) == (3, 2, 2)
    plan = make_plan(check_config(found, [Path("config/launch.yaml")]))
    assert [batch.benchmark for batch in plan.batches.values()] == ["storage", "retrieval", "inference"]
    assert len(plan.cases) == 4 + 1 + 1


def test_one_service_in_a_list_is_the_same_as_one():
    assert composed(services=[SEVERAL[0]]).campaign == composed(**SEVERAL[0]).campaign


def test_the_names_of_suites_that_start_alike_are_told_apart():
    services = [{"preset": "storage-quick"}, {"preset": "storage-quick", "config": {"name": "mine"}}]
    services += [
        {"preset": "storage-quick", "clients": 2},
        {"benchmark": "storage", "config": {"name": "storage-quick-2"}},
    ]
    names = [one["name"] for one in composed(services=services).campaign["suites"]]
    assert names == ["storage-quick", "mine", "storage-quick-3", "storage-quick-2"]


def test_servers_may_be_said_in_services_where_there_is_one():
    assert suite(preset="inference-quick", services=[1, 2]) == suite(preset="inference-quick", servers=[1, 2])


@pytest.mark.parametrize(
    ("service", "code", "field"),
    [
        ({"preset": "storage-quik"}, "unknown_preset", "services[1].preset"),
        ({"preset": "inference-gpu"}, "unknown_preset", "services[1].preset"),
        ({}, "unknown_benchmark", "services[1].preset"),
        ({"preset": "storage-quick", "servers": 2}, "invalid_config", "services[1].servers"),
        ({"preset": "storage-quick", "resources": {"server": {"cores": 2}}}, "invalid_config",
         "services[1].resources.server.cores"),
        ({"preset": "storage-quick", "resources": {"job": {"cores": 2}}}, "invalid_config",
         "services[1].resources.job.cores"),
        ({"preset": "storage-quick", "config": {"path": "/etc"}}, "invalid_config", "services[1].config.path"),
        ({"preset": "storage-quick", "clients": 0}, "invalid_request", "services[1].clients"),
        ({"preset": "storage-quick", "clients": [1, 0]}, "invalid_request", "services[1].clients[1]"),
        ({"preset": "storage-quick", "colour": "red"}, "invalid_request", "services[1].colour"),
        ({"preset": "storage-quick", "profile": "laptop"}, "invalid_request", "services[1].profile"),
        ({"preset": "storage-quick", "resources": {"server": {"device": "tpu"}}}, "invalid_request",
         "services[1].resources.server.device"),
        ({"config": 3, "resources": {"job": {"cores": 0}}}, "invalid_request", "services[1].config"),
        (3, "invalid_request", "services[1]"),
    ],
)  # fmt: skip
def test_the_service_at_fault_is_named(service, code, field):
    found = refused(services=[{"preset": "retrieval-quick"}, service])
    assert (found.code, found.field) == (code, field), found.message


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"top_k": 0}, "services[1].config.top_k"),
        ({"axes": {"top_k": [1, 30_000]}}, "services[1].config.axes.top_k[1]"),
        ({"vectors": 10, "top_k": 20}, "services[1].config.top_k"),
        ({"top_kk": 3}, "services[1].config.top_kk"),
    ],
)
def test_what_the_plan_refuses_names_the_service_too(config, field):
    found = composed(services=[{"preset": "storage-quick"}, {"preset": "retrieval-quick", "config": config}])
    with pytest.raises(ConfigError) as caught:
        make_plan(check_config(found.campaign, [Path("config/launch.yaml")]))
    assert found.field_of(caught.value.key) == field


@pytest.mark.parametrize(
    ("more", "field"),
    [({"clients": 2}, "clients"), ({"preset": "storage-quick"}, "preset"), ({"config": {}}, "config"),
     ({"servers": 2}, "servers")],
)  # fmt: skip
def test_what_belongs_to_a_service_does_not_stand_beside_the_list(more, field):
    found = refused(services=SEVERAL, **more)
    assert (found.code, found.field) == ("invalid_request", field)
    assert refused(preset="inference-quick", services=2, servers=2).field == "servers"


def test_a_benchmark_without_a_preset():
    found = composed(benchmark="storage", config={"file_size": "1MiB"}, seed=7, node_hours=0.5).campaign
    assert found["suites"] == [{"benchmark": "storage", "file_size": "1MiB", "name": "storage"}]
    assert found["seed"] == 7
    assert found["budget"] == {"node_hours": 0.5}


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        ({}, "unknown_benchmark", "preset"),
        ({"preset": "storage-quik"}, "unknown_preset", "preset"),
        ({"preset": "inference-gpu"}, "unknown_preset", "profile"),
        ({"preset": "storage-quick", "profile": "moon"}, "unknown_profile", "profile"),
        ({"preset": "storage-quick", "benchmark": "inference"}, "invalid_request", "benchmark"),
        ({"preset": "storage-quick", "config": {"benchmark": ["storage"]}}, "invalid_request", "config.benchmark"),
        ({"preset": "storage-quick", "services": 2}, "invalid_config", "services"),
        ({"preset": "storage-quick", "servers": 2}, "invalid_config", "servers"),
        ({"services": []}, "invalid_request", "services"),
        (
            {"preset": "storage-quick", "resources": {"server": {"cores": 2}}},
            "invalid_config",
            "resources.server.cores",
        ),
        (
            {"preset": "inference-quick", "resources": {"server": {"device": "gpu"}}},
            "invalid_config",
            "resources.server.device",
        ),
        (
            {"preset": "inference-gpu", "profile": "meluxina", "resources": {"server": {"device": "cpu", "gpus": 1}}},
            "invalid_config",
            "resources.server.gpus",
        ),
        ({"preset": "storage-quick", "resources": {"job": {"cores": 2}}}, "invalid_config", "resources.job.cores"),
        ({"preset": "storage-quick", "clients": 0}, "invalid_request", "clients"),
        ({"preset": "storage-quick", "clients": "1"}, "invalid_request", "clients"),
        ({"preset": "storage-quick", "clients": True}, "invalid_request", "clients"),
        ({"preset": "storage-quick", "colour": "red"}, "invalid_request", "colour"),
        ({"preset": "../presets/storage-quick"}, "invalid_request", "preset"),
        ({"preset": "storage-quick", "profile": "laptop\n"}, "invalid_request", "profile"),
        (
            {"preset": "storage-quick", "profile": "meluxina", "resources": {"job": {"partition": "cpu; rm -rf ~"}}},
            "invalid_request",
            "resources.job.partition",
        ),
        (
            {"preset": "storage-quick", "profile": "meluxina", "resources": {"job": {"partition": "--uid=0"}}},
            "invalid_request",
            "resources.job.partition",
        ),
    ],
)  # fmt: skip
def test_what_only_a_request_can_have_wrong(request_, code, field):
    found = refused(**request_)
    assert (found.code, found.field) == (code, field), found.message


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"path": "/etc"}, "config.path"),
        ({"axes": {"path": ["/etc"]}}, "config.axes.path"),
        ({"include": [{"path": "x"}]}, "config.include[0].path"),
        ({"engine": {"kind": "openai", "url": "http://10.0.0.1"}}, "config.engine.url"),
        ({"engine": {"kind": "openai", "api_key_env": "SECRET"}}, "config.engine.api_key_env"),
        ({"engine": {"kind": "openai", "headers": {"x": {"env": "SECRET"}}}}, "config.engine.headers"),
        ({"engine": {"kind": "openai", "query": {"x": {"env": "SECRET"}}}}, "config.engine.query"),
        ({"engine": {"kind": "ollama", "ca_file": "/etc/passwd"}}, "config.engine.ca_file"),
        ({"axes": {"engine": [{"kind": "ollama", "gguf": "/x"}]}}, "config.axes.engine[0].gguf"),
        ({"engine": {"kind": "llamacpp", "model": "/etc/passwd"}}, "config.engine.model"),
        ({"engine": {"kind": "llamacpp", "model": "x.gguf"}}, "config.engine.model"),
        ({"dataset": "../../secret.hdf5"}, "config.dataset"),
        ({"schedule": {"kind": "trace", "file": "/etc/passwd"}}, "config.schedule.file"),
        ({"prompt": "a\x1b[2Jb"}, "config.prompt"),
        ({"prompt": "a\x00"}, "config.prompt"),
        ({"prompt": "x" * 70_000}, "config.prompt"),
        ({"seed": 10**30}, "config.seed"),
        ({"a\nb": 1}, "config"),
    ],
)  # fmt: skip
def test_places_and_senseless_values_are_refused_wherever_they_stand(config, field):
    found = refused(preset="storage-quick", config=config)
    assert (found.code, found.field) == ("invalid_config", field)


@pytest.mark.parametrize("config", [{"axes": {"clients": list(range(300))}}, {"x": [[0] * 200] * 200}])
def test_huge_configurations_are_over_the_limit(config):
    assert refused(preset="storage-quick", config=config).code == "over_limit"


def test_not_json_and_too_deep():
    for body in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"[" * 100_000,
        b'{"config": {"a": ' + b"[" * 5000,
        b"\xff\xfe",
        b'{"clients": 1e999}',
    ):
        with pytest.raises(Refused) as caught:
            CHECKER.parse(body)
        assert caught.value.code == "invalid_request"
        assert caught.value.status == 422


@pytest.mark.parametrize(
    ("request_", "field", "message", "hint"),
    [
        ({"clients": [1, -3]}, "clients[1]", "-3: too small", "allowed: a whole number, 1 to 64"),
        ({"clients": [1, 0]}, "clients[1]", "0: too small", "allowed: a whole number, 1 to 64"),
        ({"clients": [1, 1000000]}, "clients[1]", "1000000: too large", "allowed: a whole number, 1 to 64"),
        ({"clients": [1, "2"]}, "clients[1]", "'2': of the wrong kind", "allowed: a whole number, 1 to 64"),
        ({"clients": []}, "clients", "[]: too few values", "a list of 1 to 32 of these"),
        ({"clients": -1}, "clients", "-1: too small", "1 to 64, or a list of 1 to 32 of these"),
        ({"clients": True}, "clients", "True: of the wrong kind", "a whole number, 1 to 64, or a list"),
        ({"clients": 0, "profile": "meluxina"}, "clients", "0: too small", "a whole number, 1 to 256, or a list"),
        ({"clients": 0, "profile": "nowhere"}, "clients", "0: too small", "a whole number, 1 to 1024, or a list"),
        ({"services": [1] * 17}, "services", "too many values", "a list of 1 to 16 of these"),
        ({"services": []}, "services", "too few values", "a list of 1 to 16 mappings, one for each service"),
        ({"seed": -1}, "seed", "-1: too small", "allowed: a whole number, 0 to 9007199254740991"),
        ({"node_hours": 0}, "node_hours", "0: too small", "allowed: a number above 0, at most 100000"),
        ({"resources": 3}, "resources", "3: of the wrong kind", "allowed: a mapping of keys to values"),
        ({"resources": {"server": {"device": "tpu"}}}, "resources.server.device", "no such choice", "cpu, gpu"),
        ({"resources": {"server": {"coers": 2}}}, "resources.server.coers", "unknown key", "did you mean cores?"),
        ({"resources": {"x-y": {}}}, "resources", "unknown key 'x-y'", "keys: server, clients, job"),
        ({"preset": "A b"}, "preset", "not a valid name", "allowed: lower-case letters, digits and dashes, at most 64"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_what_is_allowed_there(request_, field, message, hint):
    found = refused(**{"preset": "storage-quick", **request_})
    assert (found.code, found.field) == ("invalid_request", field)
    assert message in found.message
    assert hint in found.hint


def test_the_hint_of_a_services_clients_is_that_of_its_benchmark_and_system():
    services = [{"preset": "storage-quick"}, {"preset": "inference-gpu", "clients": [1, 0]}]
    found = refused(services=services, profile="meluxina")
    assert (found.field, found.hint) == ("services[1].clients[1]", "allowed: a whole number, 1 to 256")


def test_what_is_not_json_is_called_so():
    with pytest.raises(Refused, match=r"not JSON: .* at line 1 column 2") as caught:
        CHECKER.parse(b"{preset}")
    assert "a JSON object" in caught.value.hint


@pytest.mark.parametrize(
    ("request_", "code", "field", "hint"),
    [
        ({"config": {"axes": {"mode": ["drect"]}}}, "invalid_config", "config.axes.mode[0]", "did you mean direct?"),
        ({"config": {"axes": {"mdoe": ["direct"]}}}, "invalid_config", "config.axes.mdoe[0]", ""),
        ({"config": {"repetitions": 0}}, "invalid_config", "config.repetitions.min", ""),
        ({"config": {"block_size": "3MiB"}}, "invalid_config", "config.axes.file_size", ""),
        ({"clients": [1, 100]}, "over_limit", "clients", "at most 64"),
        ({"config": {"axes": {"clients": [1, 5000]}}}, "over_limit", "config.axes.clients[1]", "at most 64 (limits.cl"),
        ({"config": {"axes": {"clients": [1, 0]}}}, "invalid_config", "config.axes.clients[1]", "1 to 64 (limits.cl"),
        ({"config": {"clients": "many"}}, "invalid_config", "config.clients", "1 to 64 (limits.clients)"),
        ({"config": {"axes": {"clients": [100]}}}, "over_limit", "config.axes.clients", "at most 64"),
        ({"node_hours": 0.0001}, "over_limit", "node_hours", ""),
        ({"config": {"axes": 5}}, "invalid_config", "config.axes", ""),
        (
            {"config": {"axes": {"file_size": ["500TiB"]}}},
            "invalid_config",
            "config.axes.file_size[0]",
            "at most 128TiB",
        ),
        ({"config": {"block_size": 100}}, "invalid_config", "config.block_size", "at least 512"),
        ({"config": {"suites": []}}, "invalid_config", "config.suites", ""),
        ({"profile": "meluxina"}, "no_allocation", "profile", "SBATCH_ACCOUNT"),
    ],
)
def test_what_the_plan_refuses_is_said_at_the_field_of_the_request(request_, code, field, hint, monkeypatch):
    from aifbench.campaign.plan import check

    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    found = composed(preset="storage-quick", **request_)
    with pytest.raises(ConfigError) as caught:
        check(make_plan(check_config(found.campaign, [Path("config/launch.yaml")])), machine=False)
    reason = from_config(caught.value, found.field_of(caught.value.key))
    assert (reason.code, reason.field) == (code, field), reason.message
    assert hint in reason.hint


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"axes": {"file_size": ["500TiB"]}}, "'500TiB': too large", "allowed: at most 128TiB"),
        ({"repetitions": 2.5}, "2.5: needs a whole number, or a mapping with `min` and `max`", ""),
        ({"foo": 1}, "foo: unknown key", "file_size"),
        ({"exclud": []}, "exclud: unknown key, did you mean 'exclude'?", ""),
    ],
)
def test_a_refusal_of_the_plan_has_the_users_words(config, message, hint):
    found = composed(preset="storage-quick", config=config)
    with pytest.raises(ConfigError) as caught:
        check_config(found.campaign, [Path("config/launch.yaml")])
    reason = from_config(caught.value, found.field_of(caught.value.key))
    assert reason.message == message
    assert hint in reason.hint
    assert "path" not in reason.hint.removeprefix("allowed: ").split(", ")


def test_unknown_benchmark_and_a_misspelt_key_name_the_nearest():
    found = composed(benchmark="storge", config={"file_size": "1MiB"})
    with pytest.raises(ConfigError) as caught:
        check_config(found.campaign, [Path("config/launch.yaml")])
    reason = from_config(caught.value, found.field_of(caught.value.key))
    assert (reason.code, reason.field, reason.hint) == (
        "unknown_benchmark",
        "benchmark",
        "did you mean storage? Allowed: retrieval, inference, storage",
    )


def test_the_size_of_a_matrix_is_known_before_it_is_made():
    config = {
        "axes": {"index": ["Flat", "HNSW32"], "top_k": [1, 10], "clients": [1, 2, 4]},
        "search": {"HNSW32": {"efSearch": [16, 32]}},
    }
    found = composed(preset="retrieval-quick", config=config)
    (checked,) = check_config(found.campaign, [Path("config/launch.yaml")]).suites
    assert points(checked) == 2 * 2 * 3 * 2
    assert {one["key"]: one["values"] for one in varied(checked)} == {
        "index": 2, "top_k": 2, "clients": 3, "search.HNSW32.efSearch": 2,
    }  # fmt: skip
    zipped = {"axes": {"clients": [1]}, "zip": {"file_size": ["1MiB", "2MiB"], "block_size": ["4KiB", "8KiB"]}}
    both = composed(benchmark="storage", config={**zipped, "exclude": [{"mode": "warm"}]})
    (checked,) = check_config(both.campaign, [Path("config/launch.yaml")]).suites
    assert varied(checked) == [
        {"suite": "storage", "key": "file_size + block_size", "values": 2},
        {"suite": "storage", "key": "exclude", "values": 1},
    ]


def test_preset_files_that_are_none_are_named_and_the_others_stay(tmp_path):
    assert BROKEN == {}
    good = "title: X\ntext: y\nsuite: {benchmark: storage}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "key.yaml").write_text(f"{good}colour: red\n")
    (tmp_path / "slip.yaml").write_text("title: broken\n  text: [\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    (tmp_path / "list.yaml").write_text("[]")
    (tmp_path / "none.yaml").write_text("title: X\ntext: y\nsuite: {}\n")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nothing")
    found, broken = read_presets(tmp_path)
    assert list(found) == ["good"]
    assert {name: str(error).split(": ")[:2] for name, error in broken.items()} == {
        "bytes": ["config/presets/bytes.yaml", str(tmp_path / "bytes.yaml")],
        "gone": ["config/presets/gone.yaml", str(tmp_path / "gone.yaml")],
        "key": ["config/presets/key.yaml", "colour"],
        "list": ["config/presets/list.yaml", "the file"],
        "none": ["config/presets/none.yaml", "suite.benchmark"],
        "slip": ["config/presets/slip.yaml", "line 2"],
    }


def test_a_run_gets_the_variables_that_presets_name_and_no_others(tmp_path, monkeypatch):
    folder = tmp_path / "config" / "presets"
    folder.mkdir(parents=True)
    keys = {"api_key_env": "KEY_A", "headers": {"x": {"env": "KEY_B"}}, "query": {"y": {"env": "KEY_C"}, "z": "KEY_E"}}
    suites = [{"engine": keys}, {"axes": {"engine": [{"kind": "ollama"}, {"query": {"y": {"env": "KEY_D"}}}]}}]
    for number, engines in enumerate(suites):
        preset = {"title": "t", "text": "t", "suite": {"name": "s", "benchmark": "inference", **engines}}
        (folder / f"p{number}.yaml").write_text(yaml.safe_dump(preset))
    for name in "ABCDE":
        monkeypatch.setenv(f"KEY_{name}", "s3cret")
    checker = Checker(Settings(tmp_path, tmp_path, tmp_path, tmp_path), SlurmClient())
    assert [name for name in sorted(checker.environment()) if name.startswith("KEY_")] == [
        "KEY_A", "KEY_B", "KEY_C", "KEY_D",
    ]  # fmt: skip


def test_codes_are_documented_and_have_a_status():
    assert isinstance(PRESETS["storage-quick"], Preset)
    text = (ROOT / "docs" / "launching.md").read_text()
    for code, reason in CODES.items():
        assert 400 <= reason.status < 600, code
        assert f"| `{code}` | {reason.status} | {reason.meaning} |" in text


def test_the_hint_of_clients_is_what_system_and_benchmark_allow_together(tmp_path):
    """A system that allows more than a benchmark takes: the benchmark's own bound holds; retrieval has none."""
    project = checkout(tmp_path / "project")
    change_system(project, "laptop", limits={"clients": 5000})
    checker = Checker(settings(tmp_path), SlurmClient())
    (laptop,) = (one for one in menu(checker, LaunchLimits())["profiles"] if one["name"] == "laptop")
    assert laptop["clients"] == {"retrieval": 5000, "inference": 1024, "storage": 1024}
    for clients in (0, 2000):
        campaign = {"campaign": "c", "system": str(project / "config/systems/laptop.yaml"), "suites": [
            {"name": "s", "benchmark": "storage", "file_size": "1MiB", "clients": clients}]}  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            check_config(campaign, [Path("config/launch.yaml")])
        assert caught.value.allowed == "1 to 1024"


def test_a_retrieval_that_cannot_keep_its_clients_busy_says_how_many_it_can():
    suite_ = {"name": "s", "benchmark": "retrieval", "dataset": "synthetic", "dim": 8, "vectors": 1000,
              "index": "Flat", "queries": 100, "batch_size": 16, "clients": 8}  # fmt: skip
    with pytest.raises(ConfigError, match="at most 6 clients, or at least 128 queries"):
        make_plan(check_config({"campaign": "c", "suites": [suite_]}, [Path("config/launch.yaml")]))
