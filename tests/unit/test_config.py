from pathlib import Path

import pytest
import yaml

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import check, make_plan
from aifbench.core.errors import ConfigError

RETRIEVAL = {
    "name": "ann",
    "benchmark": "retrieval",
    "dataset": "glove-50",
    "vectors": 2000,
    "index": "Flat",
    "repetitions": 2,
}
INFERENCE = {"name": "chat", "benchmark": "inference", "engine": {"kind": "llamacpp"}, "prompt": "What is a benchmark?"}
STORAGE = {"name": "disk", "benchmark": "storage", "file_size": "1MiB", "block_size": "64KiB", "mode": "warm"}


def write(folder: Path, *suites, name="config.yaml", **changes) -> Path:
    system = {"name": "test", "paths": {"cache": str(folder / "cache"), "target": str(folder / "target")}}
    data = {"campaign": "test", "system": system, "results": str(folder / "results"), "suites": list(suites), **changes}
    path = folder / name
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def plan_of(folder, *suites, **changes):
    return make_plan(read_config([write(folder, *suites, **changes)]))


def error_of(folder, *suites, **changes) -> str:
    with pytest.raises(ConfigError) as caught:
        check(plan_of(folder, *suites, **changes), machine=True)
    line = str(caught.value)
    assert "\n" not in line
    assert "config.yaml" in line
    return line


def test_product_zip_exclude_include(tmp_path):
    suite = {
        **RETRIEVAL,
        "axes": {"top_k": [1, 10], "clients": [1, 2]},
        "zip": {"queries": [100, 200], "warmup_queries": [10, 20]},
        "exclude": [{"top_k": 10, "clients": [2]}],
        "include": [{"top_k": 50}],
    }
    cases = [case.params for case in plan_of(tmp_path, suite).cases]
    seen = [(p.top_k, p.clients, p.queries, p.warmup_queries) for p in cases]
    expected = [(1, 1, 100, 10), (1, 1, 200, 20), (1, 2, 100, 10), (1, 2, 200, 20), (10, 1, 100, 10), (10, 1, 200, 20)]
    assert seen == [*expected, (50, 1, 1000, 100)]


def test_an_exclude_that_leaves_nothing_out_is_a_mistake(tmp_path):
    suite = {**RETRIEVAL, "axes": {"top_k": [1, 10]}, "exclude": [{"top_k": 1}, {"top_k": 11}]}
    with pytest.raises(ConfigError, match=r"exclude\[1\]: no point of the matrix has top_k: \[11\]"):
        plan_of(tmp_path, suite)


def test_search_parameters_belong_to_their_index(tmp_path):
    suite = {key: value for key, value in RETRIEVAL.items() if key != "index"}
    suite |= {"axes": {"index": ["Flat", "HNSW32"]}, "search": {"HNSW32": {"efSearch": [16, 64]}}}
    plan = plan_of(tmp_path, suite)
    assert [(c.params.index, c.params.search) for c in plan.cases] == [
        ("Flat", {}),
        ("HNSW32", {"efSearch": 16}),
        ("HNSW32", {"efSearch": 64}),
    ]
    assert len(plan.batches) == 2


def test_sizes_are_accepted_as_people_write_them(tmp_path):
    suite = {key: value for key, value in STORAGE.items() if key != "file_size"} | {
        "axes": {"file_size": ["1MiB", 2097152]}
    }
    assert [case.params.file_size for case in plan_of(tmp_path, suite).cases] == [2**20, 2**21]


def test_a_value_added_to_an_axis_renames_nothing(tmp_path):
    before = plan_of(tmp_path, {**RETRIEVAL, "axes": {"top_k": [1, 10]}})
    after = plan_of(tmp_path, {**RETRIEVAL, "axes": {"top_k": [1, 5, 10]}})
    assert {case.id for case in before.cases} < {case.id for case in after.cases}
    assert set(before.batches) == set(after.batches)
    batch = next(iter(before.batches))
    assert before.spec_digest(batch) != after.spec_digest(batch)


def test_a_default_that_is_written_out_changes_no_id_and_a_renamed_suite_changes_no_spec(tmp_path):
    short = plan_of(tmp_path, RETRIEVAL)
    written = plan_of(tmp_path, {**RETRIEVAL, "name": "other", "top_k": 10, "clients": 1})
    assert [case.id for case in short.cases] == [case.id for case in written.cases]
    batch = next(iter(short.batches))
    assert short.spec_digest(batch) == written.spec_digest(batch)


def test_the_same_case_in_two_suites_is_measured_once(tmp_path):
    plan = plan_of(tmp_path, RETRIEVAL, {**RETRIEVAL, "name": "again"})
    assert len(plan.cases) == 1
    assert plan.cases[0].suites == ["ann", "again"]


def test_another_system_is_another_case(tmp_path):
    here = plan_of(tmp_path, RETRIEVAL)
    there = plan_of(tmp_path, RETRIEVAL, system={"name": "other"})
    assert here.cases[0].id != there.cases[0].id
    assert set(here.batches).isdisjoint(there.batches)


def test_pack_splits_a_batch_and_a_new_case_moves_none_until_the_parts_double(tmp_path):
    def batches(cases, pack):
        return {
            c.id: c.batch
            for c in plan_of(tmp_path, {**RETRIEVAL, "axes": {"top_k": list(range(1, cases + 1))}, "pack": pack}).cases
        }

    assert len(set(batches(9, 1).values())) == 9
    small, large = batches(9, 4), batches(12, 4)
    assert len(set(small.values())) > 1
    assert all(large[case] == batch for case, batch in small.items())


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("campaign: a\nsuites: []\ncampaign: b\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: line 3: not valid YAML: the key 'campaign' stands twice"):
        read_config([path])


def test_later_files_win_and_lists_replace(tmp_path):
    base = write(tmp_path, RETRIEVAL, name="base.yaml")
    overlay = tmp_path / "config.yaml"
    overlay.write_text(yaml.safe_dump({"campaign": "over", "suites": [STORAGE]}))
    plan = make_plan(read_config([base, overlay], {"seed": 9}))
    assert plan.config.keys.campaign == "over"
    assert plan.config.keys.seed == 9
    assert [case.benchmark for case in plan.cases] == ["storage"]


def test_repetitions_with_a_stopping_rule(tmp_path):
    rule = {"until": {"metric": "time_to_first_token_s", "half_width": "5%"}, "min": 3, "max": 20}
    repetitions = plan_of(tmp_path, {**INFERENCE, "repetitions": rule}).cases[0].repetitions
    assert (repetitions.min, repetitions.max, repetitions.until.half_width) == (3, 20, 0.05)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"campain": "x"}, ["campain", "did you mean 'campaign'"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"suites": []}, ["suites", "at least one suite"]),
        ({"system": "no-such"}, ["system = 'no-such'", "no such file"]),
        ({"system": {"name": "x", "container": "docker"}}, ["system.container = 'docker'", "'none' or 'apptainer'"]),
        ({"budget": {"node_hours": 0.00001}}, ["budget.node_hours", "node-hours"]),
        ({"campaign": "Has Spaces"}, ["campaign = 'Has Spaces'", "lower-case letters"]),
    ],
)
def test_wrong_campaign_keys(tmp_path, change, parts):
    line = error_of(tmp_path, RETRIEVAL, **change)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("suite", "parts"),
    [
        ({**RETRIEVAL, "top_kk": 3}, ["suites[0].top_kk", "did you mean 'top_k'"]),
        ({**RETRIEVAL, "benchmark": "retreival"}, ["suites[0].benchmark", "retrieval, inference, storage"]),
        ({**STORAGE, "file_size": "64MebiByte"}, ["suites[0].file_size = '64MebiByte'", "MiB"]),
        ({**STORAGE, "file_size": "-64MiB"}, ["suites[0].file_size = '-64MiB'"]),
        ({**RETRIEVAL, "axes": {"clients": [1, -2]}}, ["suites[0].axes.clients[1] = -2", "greater than or equal to 1"]),
        ({**RETRIEVAL, "axes": {"top_k": []}}, ["suites[0].axes.top_k = []", "at least one value"]),
        ({**RETRIEVAL, "axes": {"top_k": [10, 2001]}}, ["suites[0].axes.top_k = 2001", "2000 vectors"]),
        ({**INFERENCE, "prompt": "no-such-prompt"}, ["suites[0].prompt = 'no-such-prompt'"]),
        (
            {**INFERENCE, "engine": {"kind": "openai", "url": "http://127.0.0.1:9", "model": "m"}},
            ["suites[0].engine", "127.0.0.1:9"],
        ),
        ({**INFERENCE, "engine": {"kind": "vllm"}}, ["suites[0].engine", "llamacpp"]),
        ({**STORAGE, "path": "/proc/nowhere"}, ["suites[0].path = '/proc/nowhere'"]),
        ({**RETRIEVAL, "dataset": "sift-1m"}, ["suites[0].dataset = 'sift-1m'", "glove-50"]),
        ({**RETRIEVAL, "dataset": "/no/such.hdf5"}, ["suites[0].dataset = '/no/such.hdf5'"]),
        ({**RETRIEVAL, "axes": {"clients": [1, 65]}}, ["suites[0].axes.clients = 65", "at most 64"]),
        ({**STORAGE, "file_size": "90TiB"}, ["suites[0].file_size", "free"]),
        ({**RETRIEVAL, "repetitions": 0}, ["suites[0].repetitions", "greater than or equal to 1"]),
        ({**RETRIEVAL, "zip": {"queries": [200, 300], "top_k": [1]}}, ["suites[0].zip", "same length"]),
        ({**RETRIEVAL, "top_k": 3, "axes": {"top_k": [1]}}, ["suites[0].axes.top_k", "given twice"]),
        ({**RETRIEVAL, "axes": {"top_k": [1]}, "exclude": [{"top_k": 1}]}, ["suites[0].exclude", "no case"]),
        ({**RETRIEVAL, "index": "HNWS32"}, ["suites[0].index = 'HNWS32'"]),
    ],
)
def test_wrong_suites_give_one_line_that_names_the_key(tmp_path, suite, parts):
    line = error_of(tmp_path, suite)
    for part in parts:
        assert part in line


def test_an_error_in_a_suite_file_names_that_file(tmp_path):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**RETRIEVAL, "top_k": 0}))
    with pytest.raises(ConfigError, match=r"bad\.yaml: top_k = 0"):
        plan_of(tmp_path, "bad.yaml")


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("campaign: x\nsuites: [\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: line 3: not valid YAML"):
        read_config([path])


def test_the_shipped_campaign_is_valid():
    plan = make_plan(read_config([Path("config/config.yaml")]))
    assert {case.benchmark for case in plan.cases} == {"retrieval", "inference", "storage"}
    assert plan.expected_s < 300
