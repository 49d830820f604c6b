"""Reasons and cautions as values: their sentences, their places in records and tables, and those of version 0.1."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aifbench import report
from aifbench.core.notes import FAILED, TEXT, Kind, Note, sentence
from aifbench.core.records import Metric, Validity
from aifbench.records.store import BatchStore
from aifbench.registry import kinds, kinds_by_room
from aifbench.report.load import load
from aifbench.report.problems import rows
from aifbench.storage.kinds import APART
from aifbench.tables.collect import collect, write_tables
from aifbench.tables.reasons import page
from tests.fixtures.notes import names, said
from tests.unit.test_collect import gather, metric

OLD = Path("tests/fixtures/results_0_1")
"""A results folder that version 0.1 wrote, with its tables: reasons and cautions are sentences in it."""
FORMS = Kind(
    "forms",
    "{share:.1%} of {bytes:size}{server:? of server #}: {lost} {lost:is|are} lost; {errors:counts}; {moved:changes}",
    "All forms.",
)


def told(**changes):
    values = {"share": 0.25, "bytes": 1 << 20, "server": None, "lost": 1, "errors": {"reset": 2, "timeout": 1}}
    note = FORMS.against(**{**values, "moved": {"context": [2048, 4096]}, **changes})
    return sentence(note, {"forms": FORMS})


def test_a_sentence_is_made_of_its_values():
    assert told() == "25.0% of 1MiB: 1 is lost; 2 reset, 1 timeout; context 2048 to 4096"
    assert told(server=2, lost=3).startswith("25.0% of 1MiB of server 2: 3 are lost; ")


def test_a_note_stands_in_another_one():
    outer = Kind("outer", "left out: {why:note}", "Another one.")
    note = outer.caution(why=FORMS.against(**dict.fromkeys(FORMS.fields, 1)).model_dump() | {"kind": "other"})
    assert sentence(note, {"outer": outer}).startswith("left out: other: ")


@pytest.mark.parametrize(
    ("kind", "values", "shown"),
    [
        ("of-tomorrow", {"share": 0.5, "phase": "read"}, "of-tomorrow: share 0.5, phase read"),
        ("of-tomorrow", {}, "of-tomorrow"),
        ("apart", {"phase": "read"}, "apart: phase read"),
        ("apart", {"phase": "read", "skew_ms": "x"}, "apart: phase read, skew_ms x"),
    ],
)
def test_what_another_version_wrote_is_told_by_its_name_and_values(kind, values, shown):
    assert said([Note(kind=kind, severity="caution", values=values)]) == [shown]


def test_a_kind_takes_the_values_of_its_sentence_and_no_others():
    for values in ({}, {"phase": "read"}, {"phase": "read", "skew_ms": 1.0, "more": 1}):
        with pytest.raises(TypeError, match="apart needs the values"):
            APART.caution(**values)


def test_alike_are_notes_that_differ_in_numbers_only():
    first, second = (APART.caution(phase="read", skew_ms=skew).alike for skew in (1.0, 2.5))
    assert first == second != APART.caution(phase="write", skew_ms=1.0).alike
    assert TEXT.caution(text="a").alike != TEXT.caution(text="b").alike


def test_each_kind_has_a_name_of_its_own_and_says_what_it_means():
    everything = [kind for room in kinds_by_room().values() for kind in room]
    assert len({kind.name for kind in everything}) == len(everything) == len(kinds()) > 80
    for kind in everything:
        assert kind.name.isidentifier(), kind
        assert kind.meaning.endswith("."), kind
        assert not kind.sentence.endswith("."), kind
        assert not kind.advice or kind.advice.endswith("."), kind
        assert kind.worst in {"", *kind.fields}, kind


def test_the_page_of_reasons_is_that_of_the_code():
    assert Path("docs/reasons.md").read_text(encoding="utf-8") == page(), "out of step: run `make schemas`"


def test_records_keep_kind_severity_and_values(tmp_path):
    bad = {"metrics": metric(1.0), "validity": Validity.of([APART.caution(phase="read", skew_ms=2.5)])}
    absent = {"execution_time_s": Metric.absent("s", FAILED.absent(error="e", message="m"))}
    tables, row, _ = gather(tmp_path, [bad, bad | {"metrics": absent}], least=2)
    line = json.loads((tmp_path / "batches/b/cases.jsonl").read_text().splitlines()[0])
    note = {"kind": "apart", "severity": "caution", "values": {"phase": "read", "skew_ms": 2.5}}
    assert line["validity"] == {"valid": True, "reasons": [], "notes": [note]}
    write_tables(tables, tmp_path)
    assert row["notes"] == ["clients started to read 2.5 ms apart"]
    (entry,) = csv.DictReader((tmp_path / "cases.csv").open())
    assert (entry["reason_kinds"], entry["note_kinds"]) == ("", "apart")
    found = pq.read_table(tmp_path / "tables/notes.parquet").to_pylist()
    assert [(one["repetition"], one["kind"], json.loads(one["values"])["skew_ms"]) for one in found] == [
        (None, "apart", 2.5), (0, "apart", 2.5), (1, "apart", 2.5),
    ]  # fmt: skip
    kinds_of_absence = [one["reason_kind"] for one in tables.rows["repetition_metrics"]]
    assert kinds_of_absence == [None, "failed"]


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(OLD, tmp_path / "r")


def test_records_of_version_0_1_are_read_as_they_were(old):
    found = BatchStore.of(old, "storage-target-0f1e2d3c").read_cases()
    assert {tuple(names(record.validity.notes)) for record in found} == {("text", "text")}
    (reason,) = found[-1].validity.reasons
    assert (reason.severity, reason.values) == (
        "invalid",
        {"text": "the client's own work took 33% of the write time (limit 20%)"},
    )
    assert said([found[0].metrics["write_latency_p99_ms"].reason]) == ["n = 20 does not support p99, which needs 1000"]


def test_a_results_folder_of_version_0_1_gives_the_same_cases(old):
    was = list(csv.DictReader((OLD / "cases.csv").open()))
    tables = collect(old)
    assert tables.damage == []
    write_tables(tables, old)
    now = list(csv.DictReader((old / "cases.csv").open()))
    assert [{name: row[name] for name in was[0]} for row in now] == was
    assert [row["reason_kinds"] for row in now] == ["", "text", "", "text"]


@pytest.mark.parametrize("again", [False, True])
def test_a_results_folder_of_version_0_1_is_reported(old, again):
    """From its own tables, and from tables that this version makes."""
    if again:
        write_tables(collect(old), old)
    results = load(old)
    assert [case.state for case in results.cases] == ["valid", "invalid", "valid", "failed"]
    assert said(results.cases[0].notes)[0] == "clients started to write 2.0 ms apart"
    assert [(row["state"], row["advice"]) for row in rows(results)] == [
        ("failed", "Free space where the case writes, or lower file_size."),
        ("invalid", "See the reason and the raw file of the case."),
    ]
    assert "own work took 30% of the write time" in report.build(old).path.read_text()
