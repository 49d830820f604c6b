"""Paths of a campaign are names and nothing else: what may stand in them, and how they reach Snakemake and shells."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_specs
from aifbench.campaign.workflow import Specs
from aifbench.core.errors import ConfigError
from aifbench.core.paths import operand
from aifbench.storage.params import StorageParams
from tests.workflow.campaign import HOSTILE, ROOT, STORAGE, write

CHAT = {"name": "chat", "benchmark": "inference", "prompt": "Why is it so?"}
OLLAMA = {"kind": "ollama", "gguf": "{}"}
PLACES = {
    "results": {"results": "{}"},
    "system.paths.cache": {"system": {"name": "s", "paths": {"cache": "{}"}}},
    "system.paths.images": {"system": {"name": "s", "paths": {"images": "{}"}}},
    "system.apptainer.binds[0]": {"system": {"name": "s", "apptainer": {"binds": ["{}"]}}},
    "system.apptainer.command": {"system": {"name": "s", "apptainer": {"command": "{}"}}},
    "suites[0].path": {"suites": [{**STORAGE, "path": "{}"}]},
    "suites[0].axes.path[0]": {"suites": [{**STORAGE, "axes": {"path": ["{}"]}}]},
    "suites[0].dataset": {"suites": [{"name": "a", "benchmark": "retrieval", "index": "Flat", "dataset": "{}.hdf5"}]},
    "suites[0].engine.model": {"suites": [{**CHAT, "engine": {"kind": "llamacpp", "model": "{}"}}]},
    "suites[0].engine.gguf": {"suites": [{**CHAT, "engine": OLLAMA}]},
    "suites[0].engine.ca_file": {
        "suites": [{**CHAT, "engine": {"kind": "openai", "model": "m", "url": "https://h/v1", "ca_file": "{}"}}]
    },
    "suites[0].schedule.file": {
        "suites": [{**CHAT, "engine": {"kind": "llamacpp"}, "schedule": {"kind": "trace", "file": "{}"}}]
    },
}


def filled(value, path):
    """Return a part of a campaign with `path` in the place of `{}`."""
    if isinstance(value, dict):
        return {key: filled(inner, path) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, path) for inner in value]
    return value.replace("{}", path) if isinstance(value, str) else value


def refusal(tmp_path, change, path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"campaign": "c", "suites": [STORAGE], **filled(change, path)}))
    with pytest.raises(ConfigError) as error:
        read_config([file])
    return str(error.value)


@pytest.mark.parametrize("key", PLACES)
def test_what_only_a_shell_replaces_is_refused_with_its_key_and_what_it_stands_for(tmp_path, monkeypatch, key):
    monkeypatch.setenv("SCRATCH", "/scratch/u1")
    monkeypatch.setenv("HOME", "/home/u1")
    for written, meant in (("$SCRATCH/x", "/scratch/u1/x"), ("~/x", "/home/u1/x")):
        said = refusal(tmp_path, PLACES[key], written)
        assert f"{key} = " in said
        assert f"write the whole path, {meant}" in said


@pytest.mark.parametrize("sign", ["\n", "\0", "\x1b", "\x7f", "\x9b", "\u2028"])
def test_control_characters_are_refused_in_one_line_that_shows_them(tmp_path, sign):
    for key in ("results", "system.paths.cache", "suites[0].path"):
        said = refusal(tmp_path, PLACES[key], f"a{sign}b")
        assert f"{key} = " in said
        assert "control characters" in said
        assert said.isprintable()


@pytest.mark.parametrize("path", [HOSTILE, "-x", "a b", "ä", "x~", "a$1", "r$(id)", "a,b:c", "%j", "{x", "a\\b"])
def test_any_other_name_is_taken_as_it_is(tmp_path, path):
    file = tmp_path / "c.yaml"
    suite = {**STORAGE, "path": path}
    file.write_text(yaml.safe_dump({"campaign": "c", "results": path, "suites": [suite]}, allow_unicode=True))
    plan = make_plan(read_config([file]))
    assert plan.config.results == Path(path, "c")
    assert plan.cases[0].params.path == path
    (batch,) = plan.batches
    assert re.fullmatch(r"storage-[a-z0-9.-]+", batch)


def test_a_record_that_holds_such_a_path_stays_readable():
    assert StorageParams(path="~/x", file_size="1MiB").path == "~/x"


def test_a_path_is_never_an_option():
    assert operand(Path("-x/y")) == f"{Path.cwd()}/-x/y"
    assert operand(Path("x/-y")) == "x/-y"


def test_every_value_in_a_command_of_a_rule_is_quoted():
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        for command in re.findall(r'    shell:\n((?: +"[^\n]*\n)+)', file.read_text()):
            for value in re.findall(r"\{[^}]*\}", command):
                assert value.endswith(":q}"), (file.name, value)


CHECK_QUOTES = """
import shlex, sys
from aifbench.campaign.names import keep_braces, quote_for_shells
keep_braces(["batch"]); quote_for_shells()
from snakemake.io import apply_wildcards, regex_from_filepattern
from snakemake_interface_executor_plugins.utils import format_cli_arg
name = sys.argv[1]
for value in (name, f"'{name}' $(id) '", [name, "b"]):
    given = [value] if isinstance(value, str) else value
    assert shlex.split(format_cli_arg("--x", value)) == ["--x", *given], value
import re
pattern = f"{name}/{{batch}}/done"
assert re.match(regex_from_filepattern(pattern), f"{name}/b1/done")["batch"] == "b1"
assert apply_wildcards(pattern, {"batch": "b1"}) == f"{name}/b1/done"
"""


def test_snakemake_takes_names_as_they_are():
    """In a process of its own: it changes Snakemake."""
    subprocess.run([sys.executable, "-c", CHECK_QUOTES, HOSTILE], check=True, cwd=ROOT)


# -- who writes specs --------------------------------------------------------------------------------------------------


def workflow(tmp_path, *, main=True, executes=True, dryrun=False, touch=False, lock=True):
    """What `Specs` asks of a workflow."""
    return SimpleNamespace(
        is_main_process=main, executor_plugin=object() if executes else None, dryrun=dryrun, touch=touch,
        execution_settings=SimpleNamespace(lock=lock), snakemake_tmp_dir=tmp_path / "lent",
    )  # fmt: skip


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A campaign that was edited after its specs were written; the working folder is a place of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lent").mkdir()
    plan = make_plan(read_config([write(tmp_path, {**STORAGE, "repetitions": 2})]))
    write_specs(plan, plan.config.results)
    edited = make_plan(read_config([write(tmp_path, {**STORAGE, "repetitions": 3})]))
    (batch,) = plan.batches
    return edited, batch, plan.config.results / "specs" / f"{batch}.json"


@pytest.mark.parametrize("how", [{"dryrun": True}, {"executes": False}, {"touch": True}])
def test_who_does_not_execute_is_lent_a_changed_spec(tmp_path, changed, how):
    edited, batch, spec = changed
    before = spec.read_bytes()
    lent = Path(Specs(edited, workflow(tmp_path, **how)).file(batch))
    assert spec.read_bytes() == before
    assert lent.parent == tmp_path / "lent"
    assert lent.read_bytes() != before


def test_a_job_reads_the_spec_of_its_run_whatever_the_campaign_says_by_now(tmp_path, changed):
    edited, batch, spec = changed
    before = spec.read_bytes()
    assert Specs(edited, workflow(tmp_path, main=False)).file(batch) == str(spec)
    assert spec.read_bytes() == before


def test_a_run_writes_what_has_changed_and_nothing_else(tmp_path, changed):
    edited, batch, spec = changed
    assert Specs(edited, workflow(tmp_path)).file(batch) == str(spec)
    assert b'"max": 3' in spec.read_bytes()
    os.utime(spec, ns=(1, 1))
    Specs(edited, workflow(tmp_path)).file(batch)
    assert spec.stat().st_mtime_ns == 1
    assert [path.name for path in spec.parent.iterdir()] == [spec.name]


def test_a_run_beside_another_of_the_same_batches_writes_nothing(tmp_path, changed):
    edited, batch, spec = changed
    before = spec.read_bytes()
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(f"{spec.parents[1]}/batches/{batch}/done.json\n")
    assert Specs(edited, workflow(tmp_path)).file(batch) != str(spec)
    assert spec.read_bytes() == before
    assert Specs(edited, workflow(tmp_path, lock=False)).file(batch) == str(spec)
