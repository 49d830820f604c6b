import sys
from pathlib import Path

import pytest
import yaml

from aifbench import registry
from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan
from aifbench.core.errors import ConfigError

OWN = ["retrieval", "inference", "storage"]
TOY = Path("tests/fixtures/toy_benchmark")


def _forget():
    for found in (registry.benchmarks, registry.left_out, registry._offered, registry.kinds):
        found.cache_clear()


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install packages by their metadata and one module each; at the end they are gone."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, entries: dict[str, str], module: str = ""):
        facts = tmp_path / f"{package}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {place}\n" for name, place in entries.items())
        (facts / "entry_points.txt").write_text(f"[aifbench.benchmarks]\n{lines}")
        (tmp_path / f"{package}_module.py").write_text(module)
        monkeypatch.delitem(sys.modules, f"{package}_module", raising=False)
        _forget()

    yield install
    _forget()


@pytest.fixture
def toy(offer, monkeypatch):
    monkeypatch.syspath_prepend(str(TOY.absolute()))
    offer("toy", {"sleep": "aifbench_sleep:BENCHMARK"})


def test_a_benchmark_of_another_package_is_one_of_all(toy):
    assert list(registry.benchmarks()) == [*OWN, "sleep"]
    sleep = registry.benchmark("sleep")
    assert (sleep.package, sleep.distribution) == ("aifbench_sleep", "toy")
    assert sleep.worker().__name__ == "SleepWorker"
    assert sleep.rules.name == "sleep.smk"
    metrics, validity = sleep.evaluate()(
        sleep.params(duration_s=0.001), {"start_ns": [0, 9], "end_ns": [10**6 + 500, 9]}, {}
    )
    assert metrics["lateness_max_s"].value == pytest.approx(500e-9)
    assert [registry.sentence(reason) for reason in validity.reasons] == ["1 of 2 sleeps ended early"]


def test_ids_of_its_batches_begin_with_its_name(toy, tmp_path):
    file = tmp_path / "c.yaml"
    suite = {"name": "naps", "benchmark": "sleep", "axes": {"clients": [1, 2], "call": ["sleep", "select"]}}
    file.write_text(yaml.safe_dump({"campaign": "c", "system": {"name": "here"}, "suites": [suite]}))
    plan = make_plan(read_config([file]))
    assert [batch.rsplit("-", 1)[0] for batch in plan.batches] == ["sleep-sleep", "sleep-select"]
    assert [benchmark.name for benchmark in plan.benchmarks()] == ["sleep"]


@pytest.mark.parametrize(
    ("entry", "module", "why"),
    [
        ("nap = broken_module:X", "import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("nap = broken_module:X", "def (", "SyntaxError: "),
        ("nap = broken_module:X", "X = 1", "its entry point leads to int, not to a Benchmark"),
        ("nap = broken_module:X", "", "AttributeError: "),
        ("Nap-2 = broken_module:X", "X = 1", "its name needs lower-case letters and digits"),
        ("storage = broken_module:X", "X = 1", "aifbench has a benchmark of this name"),
        ("nap = aifbench_sleep:BENCHMARK", "", "it calls itself 'sleep'"),
        (
            "nap = broken_module:X",
            "from aifbench_sleep import BENCHMARK, SleepParams\nX = type(BENCHMARK)('nap', SleepParams, ())",
            "its rule file is not there: None",
        ),
        (
            "nap = broken_module:X",
            "from aifbench_sleep import BENCHMARK\nX = type(BENCHMARK)('nap', int, (), rules=BENCHMARK.rules)",
            "its params are no subclass of Params",
        ),
        (
            "nap = broken_module:X",
            "from aifbench.core.params import Params\nfrom aifbench_sleep import BENCHMARK\n"
            "class P(Params): pass\nX = type(BENCHMARK)('nap', P, (), rules=BENCHMARK.rules)",
            "its params stand in no package",
        ),
    ],
)
def test_one_that_cannot_be_used_is_a_line_and_costs_no_other(offer, toy, tmp_path, entry, module, why):
    name, place = entry.split(" = ")
    offer("broken", {name: place}, module)
    assert list(registry.benchmarks()) == [*OWN, "sleep"]
    (line,) = registry.left_out().values()
    assert line.startswith(f"benchmark '{name}' of the package broken 1.0 is left out: {why}")
    assert "\n" not in line
    if name == "nap":
        file = tmp_path / "c.yaml"
        suites = [{"name": "naps", "benchmark": "nap"}]
        file.write_text(yaml.safe_dump({"campaign": "c", "system": {"name": "here"}, "suites": suites}))
        with pytest.raises(ConfigError) as caught:
            read_config([file])
        assert line in str(caught.value)


def test_a_name_that_two_packages_give_is_nobodys(offer, toy):
    offer("other", {"sleep": "aifbench_sleep:BENCHMARK"})
    assert list(registry.benchmarks()) == OWN
    (line,) = registry.left_out().values()
    both = "the package other 1.0 and the package toy 1.0"
    assert line == f"benchmark 'sleep' of {both} is left out: two packages cannot give one name"


def test_an_unknown_name_is_a_line():
    with pytest.raises(ConfigError, match=r"benchmark = 'nap': no such benchmark here \(allowed: retrieval, inference"):
        registry.benchmark("nap")
