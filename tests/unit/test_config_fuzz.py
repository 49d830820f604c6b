"""The demo's own files, damaged at random: a plan or one line, never a traceback.

`AIFBENCH_EXAMPLES=20000` damages them that often; the default keeps the suite short.
"""

import copy
import os
import random
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aifbench.campaign.config import check_config, read_config
from aifbench.campaign.plan import check, make_plan, markdown
from aifbench.core.errors import ConfigError
from aifbench.files.yamlfile import read_mapping

CONFIG = Path("config").absolute()
FILES = {
    "config.yaml": CONFIG / "config.yaml",
    "systems/laptop.yaml": CONFIG / "systems" / "laptop.yaml",
    **{f"suites/{path.name}": path for path in (CONFIG / "suites").glob("*.yaml")},
}
TOKENS = [
    "010", "1:30", "1_000", ".inf", ".nan", "1e999", "yes", "null", "~", "-1", "0", "9" * 5000, "true", "''", '"\\0"',
    '"\\ud800"', "[", "]", "{", "}", ": ", "- ", "? ", "&a ", "*a ", "<<: ", "!!set ", "!x ", "---\n", "\n", "\n  ",
    "\t", "#", "|\n", "'", '"', "%", "@", "`", "\0", "\x1b[31m", "\x85", "\ufeff", "é", "😀", "٣MiB", "[" * 99,
    "clients: ", "repetitions: ", "file_size: ", "suites: [config.yaml]\n", "system: ../config.yaml\n", "x-a: ",
]  # fmt: skip
HOSTILE = [
    None, True, 0, -1, 2**63, 10**30, 1e308, -0.0, float("inf"), float("nan"), 2.5, "", " ", "a b", "\0", "a\0b c",
    "\x1b[31m", "٣", "1_000", "a" * 300, "word " * 9999, "/" * 5000, "../../etc/passwd", "/dev/zero", "{x}", "$(x)",
    [], {}, [[]], [None], ["x"] * 99, [True], [{}], {"kind": "x"}, {"kind": None}, {"kind": ["a"]}, {"": 1}, {"\n": 1},
    {"a": {"b": {"c": [1]}}}, {"min": 1, "max": 10**18}, "IVF" + "9" * 150 + ",Flat", "(" * 40, "PCA" + "9" * 50,
]  # fmt: skip
MORE = [
    {"name": "e1", "benchmark": "inference", "engine": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m"},
     "prompt": "short", "schedule": {"kind": "ramp", "from_rate": 1, "to_rate": "2/s", "seconds": 3},
     "slo": {"time_to_first_token_s": 1},
     "repetitions": {"min": 2, "max": 3, "until": {"metric": "time_to_first_token_s", "half_width": "5%"}}},
    {"name": "e2", "benchmark": "inference", "engine": {"kind": "ollama", "gguf": "x.gguf"}, "prompt": "long",
     "schedule": {"kind": "step", "rates": [1, 2], "seconds": 3}},
    {"name": "e3", "benchmark": "retrieval", "dataset": "x.hdf5", "index": "IVF16,Flat",
     "search": {"IVF16,Flat": {"nprobe": [1, 2]}}, "zip": {"top_k": [1, 2], "clients": [1, 2]},
     "exclude": [{"top_k": 1}], "include": [{"top_k": 3}]},
    {"name": "e4", "benchmark": "storage", "path": "x", "file_size": "1MiB", "stripe_count": 2,
     "axes": {"clients": [1]}},
]  # fmt: skip
"""Suites with the keys that the demo does not use."""


def plan_or_line(load):
    """Load and plan; a refusal must be one line that can be shown."""
    line = None
    try:
        plan = make_plan(load())
        check(plan, machine=False)
        markdown(plan, datetime(2026, 11, 30).astimezone())
        assert plan.summary()["totals"]["cases"] == len(plan.cases) > 0
    except ConfigError as error:
        line = str(error)
    assert line is None or (line.isprintable() and 10 < len(line) < 4000)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The demo's files where they may be damaged, and their text."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "prompts").symlink_to(CONFIG / "prompts")
    texts = {}
    for name, source in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        texts[name] = source.read_text()
        (folder / name).write_text(texts[name])
    return folder, texts


def damaged(text: str, chance: random.Random) -> bytes:
    for _ in range(chance.choice([1, 1, 2, 5])):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 1, 5, 40]))
        put = chance.choice([chance.choice(TOKENS), text[end : end + 30], ""])
        text = text[:start] + put + text[end:]
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if chance.random() < 0.1 and data:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def damage_all(copied, examples):
    folder, texts = copied

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(sorted(texts)), st.integers(0, 2**32))
    def one(name, seed):
        (folder / name).write_bytes(damaged(texts[name], random.Random(seed)))
        try:
            plan_or_line(lambda: read_config([folder / "config.yaml"]))
        finally:
            (folder / name).write_text(texts[name])

    one()


def places(value, path=()):
    """Yield the place of each value in nested mappings and lists."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def put(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def replace_all(per_place):
    base = read_mapping(CONFIG / "config.yaml")
    base["system"] = read_mapping(CONFIG / "systems" / "laptop.yaml")
    suites = [read_mapping(CONFIG / name) for name in base["suites"]]
    tried = 0
    for suite in [*suites, *MORE]:
        whole = {**base, "suites": [suite]}
        for path in list(places(whole))[1:]:
            for new in random.Random(tried).sample(HOSTILE, min(per_place, len(HOSTILE))):
                tried += 1
                plan_or_line(lambda: check_config(put(whole, path, new), [CONFIG / "config.yaml"]))  # noqa: B023
    return tried


def test_damaged_text_is_a_plan_or_one_line(copied):
    damage_all(copied, int(os.environ.get("AIFBENCH_EXAMPLES", "40")))


def test_hostile_values_are_a_plan_or_one_line():
    assert replace_all(1) > 200


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_much_damaged_text_is_a_plan_or_one_line(copied):
    damage_all(copied, 2000)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_many_hostile_values_in_every_place_are_a_plan_or_one_line():
    assert replace_all(15) > 3000
