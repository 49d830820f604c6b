import numpy as np
import pyarrow.parquet as pq
import pytest

from aifbench.core.records import CaseRecord, Metric, Validity
from aifbench.records.store import BatchStore, plain_columns


def record(case="c1", repetition=0, **changes):
    values = {
        "benchmark": "retrieval",
        "batch": "b",
        "case": case,
        "repetition": repetition,
        "invocation": 0,
        "status": "ok",
        "input": {},
        "seed": 1,
        "started_at": "2026-01-01T00:00:00+00:00",
        "t_start_s": 0.0,
        "t_end_s": 1.0,
        "metrics": {"execution_time_s": Metric(value=1.0, unit="s", n=3, method="wall")},
        "validity": Validity(),
    }
    return CaseRecord(**{**values, **changes})


RAW = {"start_ns": [1, 2, 3], "error": [None, "reset", None], "token_ns": [[1, 2], [], [3]]}


@pytest.fixture
def store(tmp_path):
    store = BatchStore(tmp_path / "b")
    store.create()
    return store


def test_raw_events_survive_compaction_and_are_there_once(store):
    store.append_case(record(), RAW)
    before = store.read_raw("c1", 0)
    store.compact()
    store.compact()
    store.create()
    store.append_case(record(repetition=1), RAW)
    store.compact()
    after = store.read_raw("c1", 0)
    assert list(after["start_ns"]) == list(before["start_ns"]) == [1, 2, 3]
    assert after["error"] == before["error"] == [None, "reset", None]
    assert [list(stamps) for stamps in after["token_ns"]] == [[1, 2], [], [3]]
    assert not store.raw_live.exists()


def test_raw_without_its_record_is_dropped(store):
    stored = store.append_case(record(), RAW)
    assert stored.raw.rows == 3
    with store.raw_live.open("ab") as file:
        file.write(b'{"case":"c1","repetition":7,"columns":{"start_ns":[9]}}\n')
    store.compact()
    assert len(store.read_raw("c1", 7).get("start_ns", [])) == 0


def test_a_line_that_a_killed_writer_left_unfinished_is_cut(store):
    store.append_case(record(), None)
    whole = store.cases_path.read_bytes()
    with store.cases_path.open("ab") as file:
        file.write(b'{"case": "torn')
    assert len(store.read_cases()) == 1
    store.create()
    assert store.cases_path.read_bytes() == whole
    store.append_case(record(repetition=1), None)
    assert [r.repetition for r in store.read_cases()] == [0, 1]


def test_a_file_that_is_one_torn_line_becomes_empty(store):
    store.cases_path.write_bytes(b"x" * 200_000)
    store.create()
    assert store.cases_path.read_bytes() == b""


def test_plain_columns_turn_nan_into_null_and_refuse_unequal_lengths():
    assert plain_columns({"a": np.array([1.0, np.nan])}) == {"a": [1.0, None]}
    with pytest.raises(ValueError, match="different lengths"):
        plain_columns({"a": [1], "b": []})


def test_samples_of_an_invocation_are_not_doubled(store):
    line = b'{"invocation":0,"t_s":0.0,"role":"node","gpu":[{"index":0}],"step":{"phase":"read"},"records":null}\n'
    store.resources_live.write_bytes(line)
    store.compact()
    store.create()
    store.resources_live.write_bytes(line + line.replace(b'"t_s":0.0', b'"t_s":1.0'))
    store.compact()
    import pyarrow.parquet as pq

    table = pq.read_table(store.resources_path)
    assert table["t_s"].to_pylist() == [0.0, 1.0]
    assert table["gpu"].to_pylist() == ['[{"index":0}]'] * 2
    assert "step" not in table.column_names


def test_what_is_set_aside_is_measured_anew_and_not_lost(store):
    for case in ("c1", "c2"):
        store.append_case(record(case), RAW)
    store.compact()
    (store.folder / "done.json").write_text("{}")
    assert store.set_aside({"c3"}, "now") == 0
    assert store.set_aside({"c1"}, "now") == 1
    assert [kept.case for kept in store.read_cases()] == ["c2"]
    assert not (store.folder / "done.json").exists()
    assert len(store.read_raw("c1", 0)["start_ns"]) == 0
    store.append_case(record("c1"), {**RAW, "start_ns": [7, 8, 9]})
    store.compact()
    assert list(store.read_raw("c1", 0)["start_ns"]) == [7, 8, 9]
    aside = store.folder / "set-aside" / "now"
    assert len((aside / "cases.jsonl").read_bytes().splitlines()) == 1
    assert pq.read_table(aside / "operations.parquet")["start_ns"].to_pylist() == [1, 2, 3]


def test_repetitions_without_raw_events_can_be_set_aside(store):
    store.append_case(record(status="failed"), None)
    assert store.set_aside({"c1"}, "now") == 1
    assert store.read_cases() == []
