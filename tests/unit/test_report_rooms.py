"""What the report says of a benchmark stands in that benchmark's own room, and nowhere else."""

import ast
import re
from pathlib import Path

import pytest

import aifbench
from aifbench import report
from aifbench.analysis.report import BenchmarkReport, report_of
from aifbench.core.benchmark import Benchmark
from aifbench.registry import benchmarks
from aifbench.report import figures, load
from aifbench.storage.params import StorageParams
from tests.fixtures.results import storage, write_results
from tests.unit.test_report import data_of

HOUSE = [Path(aifbench.__file__).parent / room for room in ("analysis", "report", "tables")]
NAMES = re.compile(rf"\b({'|'.join(benchmarks())})(\b|_)")
ENTRIES = pytest.mark.parametrize("entry", benchmarks().values(), ids=lambda entry: entry.name)


def literals(file):
    """The strings of a Python file that are no docstrings; of any other file its whole text."""
    if file.suffix != ".py":
        return [file.read_text()]
    tree = ast.parse(file.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [node.value for node in strings if id(node) not in said]


def test_the_house_contains_no_name_of_a_benchmark_and_of_none_of_its_metrics():
    files = [file for room in HOUSE for file in room.rglob("*") if file.suffix in {".py", ".js", ".j2", ".css"}]
    assert {"script.js", "page.html.j2", "findings.py", "charts.py", "collect.py"} <= {file.name for file in files}
    metrics = {metric for entry in benchmarks().values() for metric in entry.params.metrics}
    metrics -= {"memory_bytes"}  # of an index; it is the memory of a GPU, too, in a sample of its node
    found = [(file.name, text) for file in files for text in literals(file) if NAMES.search(text) or text in metrics]
    assert found == []


def test_the_walk_sees_a_name(tmp_path):
    (tmp_path / "a.py").write_text('"""On storage."""\nX = {"storage": 1}\nY = f"{X}inference_search"\n')
    assert [bool(NAMES.search(text)) for text in literals(tmp_path / "a.py")] == [True, True]


@ENTRIES
def test_a_report_speaks_of_its_own_benchmark(entry):
    said = report_of(entry)
    names = [spec.name for spec in said.charts]
    assert names
    assert all(name.startswith(f"{entry.name}_") for name in names)
    assert len(set(names)) == len(names)
    told = {*said.columns, *said.words.metrics, *entry.headline, *(m for spec in said.charts for m in spec.metrics)}
    assert told - set(entry.params.metrics) == set()
    fields = {*said.words.hidden, *said.words.companions, *said.words.companions.values(), *said.words.axes}
    fields |= {*said.words.units, *said.words.untold, *said.words.off}
    assert {field.partition(".")[0] for field in fields} - set(entry.params.model_fields) == set()


def test_a_benchmark_without_a_report_is_in_tables_charts_and_figures(tmp_path, monkeypatch):
    class NetworkParams(StorageParams):
        """Stands in no folder with a `report.py`."""

    plain = Benchmark("network", NetworkParams, ("write_time_s",))
    assert plain.report() is None
    for module in (load, figures):
        monkeypatch.setattr(module, "benchmarks", lambda: {**benchmarks(), "network": plain})
    cases = list(storage())
    for case in cases:
        case.benchmark = "network"
    write_results(tmp_path / "r", cases)
    built = report.build(tmp_path / "r")
    (group,) = data_of(built.path.read_text())["groups"]
    assert (group["name"], len(group["rows"])) == ("network", 12)
    assert [group["metrics"][place]["name"] for place in group["columns"]] == [
        "write_time_s", "read_time_s", "write_bandwidth_mib_s", "read_bandwidth_mib_s", "write_sync_s",
        "read_latency_p50_ms",
    ]  # fmt: skip
    assert '<figure id="figure-network_headline">' in built.path.read_text()
    assert "network_headline.svg" in [path.name for path in built.figures]


def test_cases_of_a_benchmark_that_nobody_knows_are_shown(tmp_path):
    cases = list(storage())
    for case in cases:
        case.benchmark = "network"
    write_results(tmp_path / "r", cases)
    built = report.build(tmp_path / "r")
    assert '<figure id="figure-network_headline">' in built.path.read_text()
    assert built.findings == []
    assert "network_headline.svg" not in [path.name for path in built.figures]


def test_a_broken_report_costs_what_it_says_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("aifbench.storage.report.REPORT", {"charts": ()})
    write_results(tmp_path / "r", list(storage()))
    built = report.build(tmp_path / "r")
    page = built.path.read_text()
    told = "Left out: what storage says of itself: TypeError: REPORT is a dict, not a BenchmarkReport."
    assert told in page
    assert '<figure id="figure-storage_headline">' in page
    assert built.counts["valid"] == 10
    assert "retrieval_frontier.svg" in [path.name for path in built.figures]
    monkeypatch.delattr("aifbench.storage.report.REPORT")
    assert report_of(benchmarks()["storage"]).problem.startswith("AttributeError: ")
    assert report_of(None) == BenchmarkReport()
