from pathlib import Path

import jsonschema
import pytest
import yaml

from aifbench.campaign.schema import render, schemas

FOLDER = Path("workflow/schemas")


def test_schemas_on_disk_are_those_of_the_models():
    for name, schema in schemas().items():
        assert (FOLDER / name).read_bytes() == render(schema), f"{name} is out of step: run `make schemas`"


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        ("config", {"campaign": "x", "suites": ["a.yaml"]}),
        ("suite", {"name": "s", "benchmark": "storage", "file_size": 1}),
        ("preset", {"title": "t", "text": "t", "suite": {"name": "s", "benchmark": "storage", "file_size": 1}}),
        ("system", {"name": "here"}),
    ],
)
def test_keys_for_anchors_stand_at_the_top_of_each_file_and_nowhere_else(schema, content):
    check = jsonschema.Draft202012Validator(schemas()[f"{schema}.schema.json"])
    assert check.is_valid({**content, "x-defaults": {"any": [1]}})
    assert not check.is_valid({**content, "y-defaults": 1})
    inner = {"config": "budget", "suite": "axes", "preset": "suite", "system": "limits"}[schema]
    assert not check.is_valid({**content, inner: {**content.get(inner, {}), "x-defaults": 1}})


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("config/config.yaml", "config"),
        ("config/systems/laptop.yaml", "system"),
        *((str(path), "suite") for path in sorted(Path("config/suites").glob("*.yaml"))),
    ],
)
def test_shipped_files_fit_their_schema_and_name_it(file, schema):
    text = Path(file).read_text()
    jsonschema.validate(yaml.safe_load(text), schemas()[f"{schema}.schema.json"])
    assert f"{schema}.schema.json" in text.splitlines()[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a", "benchmark": "retrieval", "dataset": "glove-50", "index": "Flat", "top_kk": 1},
        {"name": "a", "benchmark": "retrieval", "dataset": "glove-50", "index": "Flat", "axes": {"top_k": ["ten"]}},
        {"name": "a", "benchmark": "nothing"},
        {"name": "a", "benchmark": "inference", "engine": {"kind": "vllm"}},
    ],
)
def test_a_wrong_suite_does_not_fit(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schemas()["suite.schema.json"])


def test_the_workflow_catalogue_finds_what_it_asks_for():
    usage = yaml.safe_load(Path(".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True
    deployment = usage["software-stack-deployment"]
    assert {kind for kind, works in deployment.items() if works is True} == {"conda"}
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda"}
    profile = usage["mandatory-flags"]["flags"].removeprefix("--profile ")
    assert Path(profile, "config.yaml").is_file()
    assert Path("config/README.md").is_file()


def test_versions_of_the_rules_environment_are_the_pinned_ones():
    pins = {}
    for file in ("runtime", "data"):
        for line in Path(f"requirements/{file}.txt").read_text().splitlines():
            if "==" in line:
                name, version = line.split()[0].split("==")
                pins[name] = version
    environment = yaml.safe_load(Path("workflow/envs/aifbench.yaml").read_text())
    listed = dict(entry.split("==") for entry in environment["dependencies"][-1]["pip"])
    assert listed
    assert listed.items() <= pins.items()
