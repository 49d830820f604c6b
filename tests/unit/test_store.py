import numpy as np
import pytest

from aifbench.records.models import CaseRecord, Metric, Validity
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
    line = b'{"invocation":0,"t_s":0.0,"role":"node","gpu":[{"index":0}],"records":null}\n'
    store.resources_live.write_bytes(line)
    store.compact()
    store.create()
    store.resources_live.write_bytes(line + line.replace(b'"t_s":0.0', b'"t_s":1.0'))
    store.compact()
    import pyarrow.parquet as pq

    table = pq.read_table(store.resources_path)
    assert table["t_s"].to_pylist() == [0.0, 1.0]
    assert table["gpu"].to_pylist() == ['[{"index":0}]'] * 2
