"""What Slurm accounted, and what the report makes of it."""

import orjson
import pytest

from aifbench.report.cost import cost
from aifbench.report.load import load
from aifbench.slurm.accounting import parse
from aifbench.tables.accounting import account, read_jobs
from tests.fixtures.results import inference, storage, write_results


def test_lines_of_sacct_become_jobs():
    text = (
        "12|COMPLETED|43|2|0\n13|CANCELLED by 1001|7|1|1500\n14|RUNNING|5|1|\n12.batch|COMPLETED|43|1|0\nsacct: error\n"
    )
    assert parse(text) == {
        "12": {"state": "COMPLETED", "ended": True, "elapsed_s": 43, "nodes": 2, "energy_j": None},
        "13": {"state": "CANCELLED", "ended": True, "elapsed_s": 7, "nodes": 1, "energy_j": 1500},
        "14": {"state": "RUNNING", "ended": False, "elapsed_s": 5, "nodes": 1, "energy_j": None},
    }


@pytest.fixture
def folder(tmp_path):
    """Batches that have run in jobs 7, 8 and so on."""
    folder = tmp_path / "site"
    write_results(folder, [*inference(), *storage()])
    for job, path in enumerate(sorted((folder / "batches").glob("*/batch.json")), 7):
        record = orjson.loads(path.read_bytes())
        record["invocations"][0]["provenance"]["slurm"] = {"job_id": str(job)}
        path.write_bytes(orjson.dumps(record))
    return folder


def test_node_hours_are_those_that_slurm_accounted(folder):
    records = list(load(folder).batches.values())
    held = sum(record.invocations[0].elapsed_s + 20 for record in records)
    jobs = {
        str(job): {
            "state": "COMPLETED", "ended": True, "nodes": 2, "energy_j": 7200,
            "elapsed_s": record.invocations[0].elapsed_s + 20,
        }
        for job, record in enumerate(records, 7)
    }  # fmt: skip
    (folder / "jobs.json").write_bytes(orjson.dumps(jobs))
    text = " ".join(cost(load(folder)))
    assert f"or {2 * held / 3600:.3g} node-hours by Slurm's account" in text
    assert f"The nodes took {2 * len(records):g} Wh" in text
    assert "Energy was not measured" not in text


def test_a_job_that_ended_without_a_word_is_not_called_running(folder):
    path = next(iter(sorted((folder / "batches").glob("*/batch.json"))))
    record = orjson.loads(path.read_bytes())
    record["invocations"][0] |= {"status": "running", "elapsed_s": None, "ended_at": None}
    path.write_bytes(orjson.dumps(record))
    assert "1 job had not ended when this page was made." in cost(load(folder))[-1]
    lost = {"7": {"state": "NODE_FAIL", "ended": True, "elapsed_s": 9, "nodes": 1, "energy_j": None}}
    (folder / "jobs.json").write_bytes(orjson.dumps(lost))
    assert cost(load(folder))[-1] == "1 job ended without a word (Slurm: NODE_FAIL)."


def test_slurm_is_asked_once_about_a_job_that_has_ended(folder, tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "sacct"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\nprintf '7|COMPLETED|43|1|0\\n8|RUNNING|9|1|0\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    account(folder)
    account(folder)
    asked = [line.split("--jobs ")[1].split()[0] for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == ["7,8", "8"]
    assert {job: known["state"] for job, known in read_jobs(folder).items()} == {"7": "COMPLETED", "8": "RUNNING"}


def test_without_slurm_there_is_no_file(tmp_path, monkeypatch):
    write_results(tmp_path / "here", list(storage()))
    monkeypatch.setenv("PATH", "")
    account(tmp_path / "here")
    assert not (tmp_path / "here" / "jobs.json").exists()
