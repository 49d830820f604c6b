import base64
import gzip
import json
import re
import shutil
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from aifbench import report
from aifbench.cli import app
from aifbench.report.load import load
from aifbench.report.problems import rows
from aifbench.report.timelines import timelines
from tests.fixtures.results import HOSTILE, many, storage, write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "laptop"
    write_results(folder)
    return folder


@pytest.fixture(scope="module")
def built(folder):
    return report.build(folder)


def data_of(page):
    packed = re.search(r'<script type="application/octet-stream" id="data">([^<]*)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_page_says_what_the_records_say(built):
    page = built.path.read_text()
    assert built.counts == {"valid": 59, "invalid": 1, "failed": 1, "missing": 1}
    assert built.problems == []
    assert 3 <= len(built.findings) <= 6
    assert "59 of 62 cases passed every check" in page
    # 5 batches: 2 s to prepare each, 61 measured cases of 5 * 0.4 s.
    node_hours = (
        "5 jobs took 2 min 12 s, or 0.0367 node-hours. 2 min 2 s (92\u202f% of the node-hours) went into the cases"
    )
    assert node_hours in page
    assert "what stood around them took 10 s: prepare 10 s." in page
    assert "Around its cases a job took 2.0 s in the median, at most 2.0 s." in page
    # The plan gives each batch 30 s; one of the five was ended by a signal.
    assert re.search(r"The plan expected 2 min 0 s for the 4 batches that ran whole in one job; they took", page)


def test_the_page_asks_for_nothing(built):
    page = built.path.read_text()
    assert not re.search(r'(src|href)\s*=\s*["\']?\s*(https?:)?//', page)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_hostile_text_stands_nowhere_as_markup(built):
    page = built.path.read_text()
    assert HOSTILE not in page
    assert "<img" not in page
    assert len(re.findall(r"<script", page)) == 2


def test_the_same_records_give_the_same_bytes(folder, built):
    first = built.path.read_bytes()
    assert report.build(folder).path.read_bytes() == first


def test_figures_are_a_fixed_set(folder, built):
    assert [path.name for path in built.figures] == list(report.figure_files())
    assert len(report.figure_files()) <= 20  # each is drawn at every report, and Snakemake names each as an output
    for path in built.figures:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_every_case_and_metric_is_in_the_data(folder, built):
    data = data_of(built.path.read_text())
    assert sum(len(group["rows"]) for group in data["groups"]) == 62
    metrics = pq.read_table(folder / "tables" / "metrics.parquet").to_pylist()
    found = {
        (row[1], described["name"]): cell
        for group in data["groups"]
        for row in group["rows"]
        for described, cell in zip(group["metrics"], row[10], strict=True)
        if cell
    }
    assert len(found) == len(metrics)
    for metric in metrics:
        cell = found[metric["case"], metric["metric"]]
        assert (cell[0] is None) == (metric["value"] is None)
        if cell[0] is not None:
            assert cell[0] == pytest.approx(metric["value"], rel=1e-5)
        else:
            assert data["texts"][cell[6]] == metric["reason"]


def test_ids_of_the_page_are_unique(built):
    ids = re.findall(r'\sid="([^"]+)"', built.path.read_text())
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "gone",
    [
        "tables/metrics.parquet",
        "tables/cases.parquet",
        "tables/resources.parquet",
        "tables/log.parquet",
        "tables",
        "batches",
        "plan.json",
    ],
)
def test_works_without(folder, tmp_path, gone):
    partial = tmp_path / "partial"
    shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("report"))
    (shutil.rmtree if (partial / gone).is_dir() else lambda path: path.unlink())(partial / gone)
    result = report.build(partial)
    page = result.path.read_text()
    assert "<h1>" in page
    assert [path.name for path in result.figures] == list(report.figure_files())
    if gone != "batches":
        assert f"{gone} is missing" in page or gone == "tables"


def test_works_with_nothing_at_all(tmp_path):
    result = report.build(tmp_path)
    assert result.counts == {"valid": 0, "invalid": 0, "failed": 0, "missing": 0}
    assert "No case is planned: there is nothing to believe yet." in result.path.read_text()


def test_a_report_elsewhere_leaves_the_results_as_they_are(folder, tmp_path):
    """So that it can be made of a run that goes on, or of somebody else's."""
    results, out = tmp_path / "results", tmp_path / "out"
    shutil.copytree(folder, results, ignore=shutil.ignore_patterns("report", "tables", "cases.csv"))
    before = {path: path.stat().st_mtime_ns for path in (results, *results.rglob("*"))}
    done = CliRunner().invoke(app, ["report", str(results), "--out", str(out)])
    assert (done.exit_code, done.stdout.strip()) == (0, str(out / "report" / "index.html"))
    assert {path: path.stat().st_mtime_ns for path in (results, *results.rglob("*"))} == before
    assert pq.read_table(out / "tables" / "cases.parquet").num_rows == 62
    assert len((out / "cases.csv").read_text().splitlines()) == 63
    assert "62 missing" in (out / "report" / "index.html").read_text()  # no repetition of it is recorded here


def test_what_cannot_be_read_is_said(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("report"))
    (broken / "tables" / "metrics.parquet").write_bytes(b"PAR1 torn")
    batch = next((broken / "batches").iterdir())
    (batch / "batch.json").write_text('{"campaign": 1}')
    (broken / "plan.json").write_text("{")
    problems = load(broken).problems
    assert [line.partition(" ")[0] for line in problems] == [
        "plan.json",
        "tables/metrics.parquet",
        f"batches/{batch.name}/batch.json",
    ]


def test_planned_cases_that_no_table_knows_are_missing(tmp_path):
    write_results(tmp_path / "r", list(storage()))
    table = pq.read_table(tmp_path / "r" / "tables" / "cases.parquet")
    pq.write_table(table.slice(0, 5), tmp_path / "r" / "tables" / "cases.parquet")
    results = load(tmp_path / "r")
    assert len(results.cases) == 12
    assert results.count("missing") == 7


def test_problems_say_why_and_what_to_do(folder):
    groups = {(row["state"], row["benchmark"]): row for row in rows(load(folder))}
    assert groups["failed", "storage"]["advice"] == "Free space where the case writes, or lower file_size."
    assert groups["missing", "storage"]["reason"] == "batch terminated: signal 15"
    assert "Little's law" in groups["invalid", "inference"]["reason"]
    assert "use fewer clients" in groups["invalid", "inference"]["advice"]


def test_resource_lines_are_rates_and_keep_their_extremes(tmp_path):
    write_results(tmp_path / "r", list(storage()), resource_points=30_000)
    results = load(tmp_path / "r")
    (timeline,) = timelines(results)
    lines = {(line.quantity, line.role): line for line in timeline.lines}
    assert timeline.samples == 30_000
    assert lines["read", "worker"].y == pytest.approx(5e7, rel=1e-6)
    worker = results.resources["role"] == "worker"
    cpu = results.resources["cpu_cores"][worker]
    assert lines["CPU", "worker"].y.max() == pytest.approx(cpu[1:].max())
    assert len(lines["CPU", "worker"].t) <= 2 * 480 + 2


def test_gpu_lines_and_energy(tmp_path):
    write_results(tmp_path / "r", list(storage()))
    path = tmp_path / "r" / "tables" / "resources.parquet"
    samples = [
        {
            "batch": "storage-target-0f1e2d3c", "invocation": 0, "t_s": t, "role": "node", "cpu_cores": None,
            "memory_available_bytes": 1.0, "gpu": json.dumps([{"index": 0, "utilization": 50, "power_w": power}]),
        }
        for t, power in ((0.0, 100.0), (10.0, 300.0), (20.0, 300.0))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(samples), path)
    (timeline,) = timelines(load(tmp_path / "r"))
    assert {line.role for line in timeline.lines if line.quantity == "GPU power"} == {"GPU 0"}
    # 10 s at 200 W in the mean and 10 s at 300 W: 5 000 J = 1.39 Wh.
    assert "The GPUs took 1.39 Wh." in report.build(tmp_path / "r").path.read_text()


@pytest.mark.slow
def test_ten_thousand_cases(tmp_path):
    write_results(tmp_path / "r", list(many(10_000)))
    result = report.build(tmp_path / "r")
    data = data_of(result.path.read_text())
    assert [len(group["rows"]) for group in data["groups"]] == [10_000]
    assert result.path.stat().st_size < 8e6
