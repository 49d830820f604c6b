import csv

import orjson
import pytest

from aifbench.core.notes import FAILED, TEXT
from aifbench.core.records import CaseError, Metric, Validity
from aifbench.records.store import BatchStore
from aifbench.tables.collect import collect, write_tables
from tests.unit.test_store import record


def against(kind, **values):
    return Validity.of([kind.against(**values)])


BAD = against(TEXT, text="clients were not busy")


def metric(value, **more):
    return {"execution_time_s": Metric(**{"value": value, "unit": "s", "n": 3, "method": "wall", **more})}


def gather(folder, records, least=5, most=None):
    case = {
        "case": "c1", "batch": "b", "benchmark": "retrieval", "suites": ["s"], "label": "one", "params": {"top_k": 1},
        "repetitions": {"min": least, "max": most or least},
    }  # fmt: skip
    folder.joinpath("plan.json").write_bytes(orjson.dumps({"cases": [case], "batches": [{"batch": "b"}]}))
    store = BatchStore(folder / "batches" / "b")
    store.create()
    for number, changes in enumerate(records):
        store.append_case(record(repetition=number, **changes), None)
    tables = collect(folder)
    (row,) = tables.rows["cases"]
    return tables, row, {entry["metric"]: entry for entry in tables.rows["metrics"]}


def good(*values):
    return [{"metrics": metric(value)} for value in values]


def bad(*values):
    return [{"metrics": metric(value), "validity": BAD} for value in values]


def test_a_case_is_the_mean_over_its_repetitions(tmp_path):
    _, row, metrics = gather(tmp_path, good(1.0, 2.0, 3.0), least=3)
    assert (row["state"], row["done"], row["reasons"], row["notes"]) == ("valid", 3, [], [])
    found = metrics["execution_time_s"]
    assert (found["value"], found["n"], found["min"], found["max"]) == (2.0, 3, 1.0, 3.0)
    assert found["ci_high"] == pytest.approx(2.0 + 4.302653 / 3**0.5)


def test_one_invalid_repetition_of_six_is_left_out_and_said(tmp_path):
    _, row, metrics = gather(tmp_path, [*good(1.0, 1.0), *bad(9.0), *good(1.0, 1.0, 1.0)])
    assert (row["state"], row["done"], row["reasons"]) == ("valid", 5, [])
    assert row["notes"] == ["1 of 6 repetitions invalid and left out of the numbers: clients were not busy"]
    assert (metrics["execution_time_s"]["value"], metrics["execution_time_s"]["n"]) == (1.0, 5)


@pytest.mark.parametrize(
    "records", [[*good(1.0, 1.0, 1.0, 1.0), *bad(2.0)], [*good(1.0, 1.0, 1.0, 1.0, 1.0), *bad(2.0, 2.0)]]
)
def test_too_few_valid_repetitions_or_too_many_invalid_ones_make_an_invalid_case(tmp_path, records):
    _, row, metrics = gather(tmp_path, records)
    assert (row["state"], row["reasons"]) == ("invalid", ["clients were not busy"])
    assert metrics["execution_time_s"]["n"] == len(records)


def test_a_failed_repetition_is_never_replaced(tmp_path):
    failed = {
        "status": "failed",
        "error": CaseError(kind="enospc", message="full"),
        "validity": against(FAILED, error="enospc", message="full"),
    }
    _, row, _ = gather(tmp_path, [*good(1.0, 1.0, 1.0, 1.0, 1.0), {**failed, "metrics": {}}])
    assert (row["state"], row["failed"]) == ("failed", 1)


def test_a_case_without_all_its_repetitions_is_missing(tmp_path):
    _, row, _ = gather(tmp_path, good(1.0, 1.0))
    assert (row["state"], row["reasons"]) == ("missing", ["2 of 5 repetitions are recorded"])


def test_a_shared_value_counts_once_with_its_own_interval(tmp_path):
    one = {"metrics": metric(0.9, n=2000, ci_low=0.88, ci_high=0.92, shared=True)}
    _, _, metrics = gather(tmp_path, [one, one, one], least=3)
    found = metrics["execution_time_s"]
    assert (found["value"], found["n"], found["ci_low"], found["ci_high"]) == (0.9, 2000, 0.88, 0.92)


def test_the_csv_opens_in_a_spreadsheet(tmp_path):
    tables, _, _ = gather(tmp_path, [{"metrics": metric(1.0), "validity": against(TEXT, text="=1+1")}], least=1)
    write_tables(tables, tmp_path)
    (row,) = csv.DictReader((tmp_path / "cases.csv").open())
    assert (row["state"], row["reasons"], row["top_k"], row["execution_time_s"]) == ("invalid", "'=1+1", "1", "1.0")


def test_a_valid_case_has_no_reason_in_the_csv(tmp_path):
    tables, _, _ = gather(tmp_path, good(1.0), least=1)
    write_tables(tables, tmp_path)
    (row,) = csv.DictReader((tmp_path / "cases.csv").open())
    assert row["reasons"] == ""
