"""What a user can write into a file of YAML: a value that everybody reads alike, or one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.cli import parse_config

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan
from aifbench.campaign.presets import read_presets
from aifbench.campaign.workflow import as_setting
from aifbench.cli.options import overrides
from aifbench.core.errors import ConfigError
from aifbench.files.yamlfile import MOST_BYTES, MOST_DEPTH, MOST_VALUES, dump, read_mapping, read_text

QUICK = settings(max_examples=150, deadline=None, derandomize=True, database=None)
BASE = "campaign: x\nsuites:\n  - {name: s, benchmark: storage, file_size: 1MiB, mode: warm}\n"
LAUGHS = "x-a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"x-{chr(98 + step)}: &{chr(98 + step)} [{', '.join([f'*{chr(97 + step)}'] * 9)}]\n" for step in range(9)
)
CHAIN = "x-0: &a0 []\n" + "".join(f"x-{step}: &a{step} [[[[[[[*a{step - 1}]]]]]]]\n" for step in range(1, 12))


def value(text):
    return read_text(f"a: {text}", where="f.yaml")["a"]


def line_of(text) -> str:
    with pytest.raises(ConfigError) as caught:
        read_text(text, where="f.yaml")
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith("f.yaml: ")
    assert len(line) < 600
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", 10), ("-7", -7), ("+5", 5), ("0", 0), ("0x10", 16), ("9223372036854775807", 2**63 - 1),
        ("1.5", 1.5), ("1e3", 1000.0), ("-1.5E-2", -0.015), (".5", 0.5), ("5.", 5.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("2026-11-30", "2026-11-30"), ("12:75", "12:75"), ("::1", "::1"), ("127.0.0.1:80", "127.0.0.1:80"),
        ("64MiB", "64MiB"), ("5%", "5%"), ("y", "y"), ("n", "n"), ("0x1g", "0x1g"), ("=", "="), ("1e3x", "1e3x"),
        ('"010"', "010"), ("'yes'", "yes"), ('"1:30"', "1:30"), ('".inf"', ".inf"), ("!!str 010", "010"), ("! 1", "1"),
        ('"\\ud83d\\ude00"', "😀"), ('"a\\0b"', "a\0b"), ("[1, [two, 3.0]]", [1, ["two", 3.0]]),
    ],
)  # fmt: skip
def test_plain_values_are_those_of_yaml_1_2(text, expected):
    found = value(text)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "text",
    [
        "010", "00", "08", "-012", "0o10", "0b11", "-0x10", "1_000", "1_0.5", "0x1_0", "1:30", "190:20:30", "1:30.5",
        "yes", "No", "ON", "off", ".inf", "-.INF", "+.inf", ".nan", ".NaN", "1e999", "-1e999",
        "9223372036854775808", "-9999999999999999999999",
    ],
)  # fmt: skip
def test_what_readers_take_differently_or_no_number_can_be_is_refused_as_it_was_written(text):
    assert line_of(f"a: [x, {text}]").startswith(f"f.yaml: a[1] = {text}: ")
    assert value(f'"{text}"') == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "9" * 5000, "a = 999"),
        ("a: " + "[" * 5000 + "]" * 5000, f"line 1: not valid YAML: more than {MOST_DEPTH} levels deep"),
        ("a: " + "{b: " * 5000 + "}" * 5000, f"more than {MOST_DEPTH} levels deep"),
        ("- " * 5000, f"more than {MOST_DEPTH} levels deep"),
        (CHAIN, f"more than {MOST_DEPTH} levels deep"),
        (LAUGHS, f"more than {MOST_VALUES} values"),
        ("a: &a [*a]", "a[0] = *a: an alias within what it stands for"),
        ("a: &a {<<: *a}", "a.<< = *a: an alias within"),
        ("a: *b", "a = *b: no anchor"),
        ("1: x", "1: a key must be text"),
        ("null: x", "null: a key must be text"),
        ("? x\n? ~", "~: a key must be text"),
        ("?", "null: a key must be text"),
        ("true: x", "true: a key must be text"),
        ("on: x", "on: true or false to some"),
        ("[a]: x", "line 1: not valid YAML: a list cannot be a key"),
        ("? {a: b}\n: x", "line 1: not valid YAML: a mapping cannot be a key"),
        ("b: 1\na: {x: 1, x: 2}", "line 2: not valid YAML: the key 'x' stands twice"),
        ("a: {<<: {x: 1}, <<: {y: 1}}", "the key '<<' stands twice"),
        ("a: {<<: 3}", "a.<< = 3: needs a mapping"),
        ("a: !!python/object/apply:os.system [id]", "a = !!python/object/apply:os.system: a tag that is not read"),
        ("a: !!set {x}", "a = !!set: a tag that is not read"),
        ("a: !!binary aGk=", "a = !!binary: a tag that is not read"),
        ("a: !!timestamp 2026-11-30", "a = !!timestamp: a tag"),
        ("a: !mine x", "a = !mine: a tag"),
        ("a: 1\n---\na: 2", "line 2: not valid YAML: a second document"),
        ("a:\n\tb: 1", "line 2: not valid YAML: found character '\\t'"),
        ("a: 1\nb: x\0y", "line 2: not valid YAML: the character U+0000"),
        ("a: \x1b[31m", "line 1: not valid YAML: the character U+001B"),
        ('a: "\\ud800"', "a = '\\ud800': half of a sign"),
        ('a: "\\U00110000"', "an escape beyond \\U0010FFFF"),
        ('"a\\e[31m\\n": {b: .inf}', "a\\x1b[31m .b = .inf"),
        ("a: [", "line 1: not valid YAML"),
        ("%YAML 3.0\n---\na: 1", "line 1: not valid YAML"),
    ],
)
def test_what_is_no_yaml_of_ours_is_one_line(text, said):
    assert said in line_of(text)


def test_anchors_and_merges_give_values_of_their_own():
    found = read_text(
        "x-b: &b {name: s, axes: {clients: [1]}}\na: {<<: *b, name: t}\nc: {<<: [{n: 1}, {n: 2, m: 3}]}\nd: [*b, *b]",
        where="f.yaml",
    )
    assert found["a"] == {"name": "t", "axes": {"clients": [1]}}
    assert found["c"] == {"n": 1, "m": 3}
    found["d"][0]["axes"]["clients"].append(2)
    assert found["d"][1]["axes"] == found["x-b"]["axes"] == {"clients": [1]}


@pytest.mark.parametrize(
    "text",
    ["1e3", "1.5e3", "0o17", "08", "010", "1_000", "1:30", "yes", "off", "null", "~", "", "true", ".inf", ".nan",
     "0x1F",
     "-0x10", "2026-11-30", "<<", "=", "1", "+.5", "a: b", "# x", "*a", "&a", "😀", "two\nlines", " x ", "é", "\x85"],
)  # fmt: skip
def test_what_is_dumped_is_the_same_text_to_this_reader_and_to_one_of_yaml_1_1(text):
    content = {"a": [text, {text or "x": 1}], "b": [1, -2.5, 1e30, 1e-9, True, None]}
    assert read_text(dump(content), where="f") == content
    assert yaml.safe_load(dump(content)) == content


@QUICK
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_that_is_dumped_is_read_again(text):
    assert read_text(dump({"a": text}), where="f") == {"a": text}


def test_keys_for_anchors_change_no_id_in_any_file(tmp_path):
    suite = "name: s\nbenchmark: retrieval\ndataset: synthetic\ndim: 8\nindex: Flat\n"
    system = "name: here\nlimits: {clients: 8}\n"
    plain, anchored = tmp_path / "plain", tmp_path / "anchored"
    for folder, anchors in ((plain, ""), (anchored, "x-any: &any [1, {deep: 2}]\nx-more: *any\n")):
        folder.mkdir()
        (folder / "suite.yaml").write_text(anchors + suite)
        (folder / "system.yaml").write_text(anchors + system)
        (folder / "config.yaml").write_text(f"{anchors}campaign: x\nsystem: system.yaml\nsuites: [suite.yaml]\n")
    plans = [make_plan(read_config([folder / "config.yaml"])) for folder in (plain, anchored)]
    assert plans[0].digest() == plans[1].digest()
    assert [case.id for case in plans[0].cases] == [case.id for case in plans[1].cases]
    (anchored / "system.yaml").write_text("name: here\nlimits: {x-a: 1}\n")
    with pytest.raises(ConfigError, match=r"limits\.x-a: unknown key"):
        read_config([anchored / "config.yaml"])


def test_a_preset_with_a_key_that_is_no_text_is_broken_and_the_others_stay(tmp_path):
    suite = "suite: {name: s, benchmark: storage}"
    (tmp_path / "good.yaml").write_text(f"x-a: 1\ntitle: t\ntext: t\n{suite}")
    (tmp_path / "bad.yaml").write_text(f"title: t\ntext: t\n{suite}\n7: x")
    (tmp_path / "flag.yaml").write_text(f'title: t\ntext: t\nscheduler: "no"\n{suite}')
    (tmp_path / "null.yaml").write_text("title: t\ntext: t\nsuite: {benchmark: null}")
    os.mkfifo(tmp_path / "pipe.yaml")
    found, broken = read_presets(tmp_path)
    assert list(found) == ["good"]
    lines = {name: str(error).partition(".yaml: ")[2] for name, error in broken.items()}
    assert lines["bad"].startswith("7: a key must be text")
    assert lines["flag"] == "scheduler = 'no': needs true or false"
    assert lines["null"].startswith("suite.benchmark = null: no such benchmark")
    assert "is no regular file" in lines["pipe"]


@pytest.fixture
def odd(tmp_path):
    """Files that are none, by the name of what they are."""
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MOST_BYTES + 1))
    (tmp_path / "utf16.yaml").write_text(BASE, encoding="utf-16")
    (tmp_path / "latin.yaml").write_bytes(b"campaign: \xe9")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "scalar.yaml").write_text("a\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "is a folder"),
        ("fifo", "is no regular file"),
        ("zero", "is no regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "no such file"),
        ("missing", "no such file"),
        ("n" * 300, "File name too long"),
        ("large", "is larger than 1 MiB"),
        ("utf16", "not UTF-8"),
        ("latin", "not UTF-8"),
        ("empty", "needs a mapping at its top"),
        ("list", "needs a mapping at its top"),
        ("scalar", "needs a mapping at its top"),
    ],
)
def test_what_is_no_file_of_yaml_is_one_line_and_never_waited_for(odd, name, said):
    with pytest.raises(ConfigError) as caught:
        read_mapping(odd / f"{name}.yaml")
    assert said in str(caught.value)
    assert f"{name}.yaml" in str(caught.value) or len(name) > 200


def test_a_link_and_a_byte_order_mark_are_no_matter(tmp_path):
    (tmp_path / "real.yaml").write_text(BASE, encoding="utf-8-sig")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    assert read_mapping(tmp_path / "link.yaml") == yaml.safe_load(BASE)


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("config.yaml", "config.yaml is a campaign; a suite is needed"),
        ("other.yaml", "other.yaml is a campaign; a suite is needed"),
        ("itself.yaml", "itself.yaml is a campaign; a suite is needed"),
        ("folder.yaml", "folder.yaml is a folder"),
        ("fifo.yaml", "fifo.yaml is no regular file"),
        ("loop.yaml", "loop.yaml is no regular file"),
        ("none.yaml", "no such file"),
        ('""', "is a folder"),
        ('"\\0b"', "no such file"),
        ("n" * 300, "no such file"),
    ],
)
def test_a_suite_that_is_no_file_of_a_suite_is_told_by_its_place(odd, suite, said):
    (odd / "config.yaml").write_text(f"campaign: x\nsuites:\n  - {suite}\n")
    (odd / "other.yaml").write_text(BASE)
    (odd / "itself.yaml").write_text("suites: [itself.yaml]\n")
    with pytest.raises(ConfigError) as caught:
        read_config([odd / "config.yaml"])
    line = str(caught.value)
    assert f"config.yaml: suites[0] = '{suite[:9] if chr(34) not in suite else ''}" in line
    assert said in line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seed=[1", "--set: seed: not valid YAML"),
        ("seed=010", "--set: seed = 010: "),
        ("budget={node_hours: .inf}", "--set: budget.node_hours = .inf: no finite number"),
        ("budget={node_hours: 1e999}", "--set: budget.node_hours = 1e999: no finite number"),
        ("seed=" + "9" * 5000, "--set: seed = 999"),
        ("seed=1\n---\n2", "--set: seed: not valid YAML: a second document"),
    ],
)
def test_a_setting_is_read_as_a_file_is(setting, said):
    with pytest.raises(ConfigError) as caught:
        overrides([setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_keep_their_kind():
    assert overrides(["a=1", "b=1e3", 'c="1"', "d=", "e=[1, x]", "f=a=b"]) == {
        "a": 1, "b": 1000.0, "c": "1", "d": None, "e": [1, "x"], "f": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ["true", "010", "1e3", "a b", "it's", '"', "é😀", "a\tb", "", None, True, 10, 1.5, {"node_hours": "4"}, [1, None]],
)
def test_a_setting_that_snakemake_hands_on_means_the_same_to_the_rule_that_plans(value):
    assert overrides([as_setting("key", value)]) == {"key": value}


def test_numbers_in_a_mapping_are_text_to_snakemake_and_numbers_to_the_campaign(tmp_path):
    (tmp_path / "c.yaml").write_text(BASE)
    given = parse_config(["budget={node_hours: 4}", "seed=010"])
    assert given == {"budget": {"node_hours": "4"}, "seed": 10}
    keys = read_config([tmp_path / "c.yaml"], given).keys
    assert (keys.budget.node_hours, keys.seed) == (4.0, 10)
    for wrong in ("budget={node_hours: .inf}", "budget={node_hours: inf}", "seed=nan", "seed=1_000.5", "seed=yes"):
        with pytest.raises(ConfigError, match=r"c\.yaml: (budget\.node_hours|seed) = "):
            read_config([tmp_path / "c.yaml"], parse_config([wrong]))


def test_the_command_says_one_line_and_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "aifbench", "plan", "--config", str(tmp_path / "pipe.yaml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"aifbench: {tmp_path / 'pipe.yaml'}: is no regular file\n"


def test_shipped_files_say_the_same_to_a_reader_of_yaml_1_1():
    files = [path for path in Path("config").rglob("*.yaml") if path.name != "logging.yaml"]
    assert len(files) > 10
    for file in files:
        assert read_mapping(file) == yaml.safe_load(file.read_text())
