"""Different containers, and what is not of the plan, in one results folder: told on the first screen, kept apart."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifbench import report
from aifbench.report.figures import charts
from aifbench.report.findings import findings, machine_notes
from aifbench.report.load import load
from tests.fixtures.notes import said
from tests.fixtures.results import storage, write_results


@pytest.fixture
def folder(tmp_path):
    """A campaign of storage in one batch, and a way to change its job's record."""
    write_results(tmp_path / "laptop", list(storage()))
    return tmp_path / "laptop"


def change(folder, batch="storage-target-0f1e2d3c", **environments):
    """Give each job of a batch the container of its environment; `environments` maps `jobN` to it."""
    file = folder / "batches" / batch / "batch.json"
    record = json.loads(file.read_text())
    first = record["invocations"][0]
    record["invocations"] = [
        {**first, "index": index, "environment": {**first["environment"], "container": kind}}
        for index, kind in enumerate(environments.values())
    ]
    file.write_text(json.dumps(record))


def move(folder, job, wanted):
    """Let the repetitions that `wanted(case, repetition)` names be measured by another job."""
    file = folder / "tables" / "repetitions.parquet"
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        if wanted(row["case"], row["repetition"]):
            row["invocation"] = job
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)


def first_screen(folder):
    page = report.build(folder).path.read_text()
    head = page.partition("<nav")[0].partition("</style>")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", head).split()), page


@pytest.mark.parametrize(("around", "told"), [(None, "none"), ("docker", "docker"), ("podman", "podman")])
def test_one_container_has_one_name(folder, around, told):
    change(folder, job0=around)
    screen, page = first_screen(folder)
    assert f"container {told} measured" in screen
    assert "container" not in load(folder).cases[0].axes
    plain = re.sub(r"<[^>]*>", "\n", page)
    assert not re.search(r"\bcontainer\s+none\b", plain) or around is None
    assert "no container of their own" in plain
    assert (f"all ran within one {around} container" in plain) == (around is not None)
    assert ("no container: libraries are those of the machine" in plain) == (around is None)


def test_cases_in_different_containers_are_told_and_kept_apart(folder):
    change(folder, job0=None, job1="docker")
    cases = {case.id: case for case in load(folder).cases}
    docker = {id for id, case in cases.items() if case.params["clients"] == 2}
    move(folder, 1, lambda case, _: case in docker)
    loaded = load(folder)
    kinds = {case.id: case.axes.get("container") for case in loaded.cases}
    ran = {case.id for case in loaded.cases if case.repetitions}
    assert {id for id, kind in kinds.items() if kind == "docker"} == docker & ran
    assert {id for id, kind in kinds.items() if kind == "none"} == ran - docker
    screen, page = first_screen(folder)
    assert "container not one: none (1 job), docker (1 job) measured" in screen
    assert "jobs ran in different containers: their cases are told apart" in screen
    for chart in charts(loaded, "storage"):
        for series in (series for panel in chart.panels for series in panel.series):
            assert len({kinds[point.case] for point in series.points} - {None}) <= 1, (chart.name, series.label)
        assert any("docker" in label for label, _ in chart.legend), chart.name
    assert not any("1 to 2 clients" in finding.text for finding in findings(loaded)["storage"])
    assert "container=docker" in page


def test_a_case_whose_repetitions_ran_in_different_containers_says_so(folder):
    change(folder, job0=None, job1="docker")
    chosen = next(case.id for case in load(folder).cases if case.state == "valid")
    move(folder, 1, lambda case, repetition: case == chosen and repetition >= 3)
    case = next(case for case in load(folder).cases if case.id == chosen)
    assert case.axes["container"] == "none and docker"
    assert "its repetitions ran in different containers: none, docker" in said(case.notes)
    screen, _ = first_screen(folder)
    assert "container not one: " in screen


def test_batches_and_cases_of_another_system_are_left_out_and_told(folder, tmp_path):
    """The same campaign, run before on another system: its batches are there, and the tables are old."""
    write_results(tmp_path / "other", list(storage()))
    old, new = folder / "batches" / "storage-target-0f1e2d3c", folder / "batches" / "storage-target-99999999"
    plan = json.loads((folder / "plan.json").read_text().replace(old.name, new.name))
    plan["cases"] = plan["cases"][:6]
    plan["batches"][0]["cases"] = [case["case"] for case in plan["cases"]]
    plan["system"] |= {"name": "mine", "container": "apptainer"}
    (folder / "plan.json").write_text(json.dumps(plan))
    new.mkdir()
    (new / "batch.json").write_text((old / "batch.json").read_text().replace(old.name, new.name).replace("node-a", "b"))
    (folder / "specs").mkdir()
    (folder / "specs" / f"{old.name}.json").write_text('{"system": {"name": "yours", "container": "none"}}')
    loaded = load(folder)
    assert list(loaded.batches) == [new.name]
    assert len(loaded.cases) == 6
    screen, page = first_screen(folder)
    assert "system mine node b container apptainer" in screen
    assert "Left out: 6 cases of the tables that the plan does not name" in screen
    left = f"Left out: {old.name}: not of this plan, but of system yours, container none; no number here is theirs"
    assert left in screen
    assert "node-a" not in page
    (folder / "specs" / f"{old.name}.json").write_text("[]")
    assert f"{old.name}: not of this plan; no number" in first_screen(folder)[0]


def test_notes_of_a_campaign_that_has_not_run_name_the_planned_container(folder):
    for file in (folder / "batches").glob("*/batch.json"):
        file.unlink()
    assert "no container: libraries are those of the machine" in machine_notes(load(folder))
