import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from aifbench import results
from tests.fixtures.recorded import DONE, KILLED, REPETITIONS, write_recorded

CASE = "1ab0cd1ef001"
RUNNING = {"001ff0ee1dd2", "010ff0ee1dd2"}
"""The cases of the batch that has not ended."""


@pytest.fixture
def folder(tmp_path):
    write_recorded(tmp_path / "results" / "laptop")
    return tmp_path / "results" / "laptop"


def test_cases_have_their_parameters_with_units_and_their_metrics(folder):
    cases = results.load(folder).cases
    assert cases.index.name == "case"
    assert set(cases["benchmark"]) == {"storage", "retrieval"}
    row = cases.loc[CASE]
    assert (row["state"], row["block_size_bytes"], row["file_size_bytes"], row["clients"]) == (
        "valid",
        1 << 20,
        1 << 28,
        1,
    )
    assert row["write_bandwidth_mib_s"] == pytest.approx(101.0)
    assert row["write_bandwidth_mib_s_ci_low"] < 101.0 < row["write_bandwidth_mib_s_ci_high"]
    assert cases["block_size_bytes"].dtype == pd.Int64Dtype()


def test_what_was_not_measured_is_missing_and_never_0(folder):
    loaded = results.load(folder)
    assert loaded.cases.loc[CASE, ["recall_at_k", "top_k", "queries_per_second_ci_low"]].isna().all()
    assert not (loaded.cases.drop(columns="failed").select_dtypes("number") == 0).any().any()
    repetition = loaded.repetitions.loc[(CASE, 0)]
    assert repetition[["recall_at_k", "error_kind"]].isna().all()
    assert loaded.resources["gpu"].isna().all()


def test_repetitions_and_metrics_are_found_by_their_case(folder):
    loaded = results.load(folder)
    assert loaded.repetitions.index.names == ["case", "repetition"]
    mine = loaded.repetitions.loc[CASE]
    assert list(mine.index) == list(range(REPETITIONS))
    assert mine["write_bandwidth_mib_s"].tolist() == pytest.approx([100.0, 101.0, 102.0])
    assert str(mine["started_at"].dt.tz) == "UTC"
    assert loaded.metrics.loc[(CASE, "write_time_s"), ["unit", "n"]].tolist() == ["s", REPETITIONS]
    assert list(loaded.metrics.loc[CASE].index) == ["write_time_s", "read_time_s", "write_bandwidth_mib_s"]


def test_operations_are_those_of_ended_and_of_running_batches(folder):
    loaded = results.load(folder)
    operations = loaded.operations
    assert operations.index.names == ["case", "repetition", "operation"]
    assert (folder / "batches" / DONE / "raw" / "operations.parquet").exists()
    assert (folder / "batches" / KILLED / "raw" / "operations.jsonl").exists()
    assert len(operations) == 20 * len(loaded.repetitions)
    assert operations.loc[(CASE, 2, 19), "start_ns"] == 19002
    assert operations["start_ns"].dtype == pd.Int64Dtype()
    assert operations["error"].isna().all()


def test_resources_are_found_by_batch_role_and_time(folder):
    used = results.load(folder).resources
    assert used.index.names == ["batch", "invocation", "node", "role", "t_s"]
    assert used.loc[(DONE, 0, "n1", "worker", 10.0), "cpu_cores"] == pytest.approx(0.9)


def test_a_damaged_file_is_a_warning_and_costs_no_more_than_is_lost(folder):
    with (folder / "batches" / DONE / "raw" / "operations.parquet").open("rb+") as file:
        file.seek(40)
        file.write(b"\xff" * 8)
    (folder / "batches" / DONE / "resources.parquet").write_bytes(b"PAR1")
    with pytest.warns(results.DamagedResults) as told:
        found = results.load(folder)
    assert {str(warning.message).split()[0] for warning in told} == {
        f"batches/{DONE}/raw/operations.parquet", f"batches/{DONE}/resources.parquet"
    }  # fmt: skip
    assert set(found.damage["file"]) == {str(warning.message).split()[0] for warning in told}
    assert found.cases.loc[CASE, "state"] == "invalid"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it has been told already
        assert set(found.operations.index.get_level_values("case")) == RUNNING


def test_there_is_nothing_to_load_where_there_are_no_results(tmp_path):
    with pytest.raises(FileNotFoundError):
        results.load(tmp_path)


MEASURING = """
import sys
import aifbench.report, aifbench.runner.batch, aifbench.runner.worker, aifbench.tables.collect
from aifbench.records.arrow import pa
from aifbench.registry import benchmarks
for benchmark in benchmarks().values():
    benchmark.worker(), benchmark.evaluate(), benchmark.server(), benchmark.preflight()
pa.table({"a": [1, None]}).to_pylist()
sys.exit("pandas" in sys.modules)
"""


def test_what_measures_does_not_import_pandas():
    assert subprocess.run([sys.executable, "-c", MEASURING], check=False).returncode == 0


def test_the_guide_to_analysis_runs(folder, monkeypatch, capsys):
    guide = Path("docs/analysis.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(folder.parents[1])
    session: dict = {}
    for block in blocks:
        exec(compile(block, "docs/analysis.md", "exec"), session)
    told = capsys.readouterr().out
    assert "write_bandwidth_mib_s" in told
    assert CASE in told
