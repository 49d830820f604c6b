import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from aifbench.engines.llamacpp import model_path
from aifbench.log.writer import INFO, WARNING
from aifbench.records.store import BatchStore, read_lines
from aifbench.registry import benchmarks
from tests.workflow.campaign import (
    HOSTILE,
    INFERENCE,
    RETRIEVAL,
    ROOT,
    STORAGE,
    checkout,
    command,
    measured,
    records,
    run,
    write,
)


def expect(result, code):
    assert result.returncode == code, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
def test_all_three_benchmarks_from_yaml_to_report_where_every_name_is_hostile(tmp_path):
    """Checkout, config, results, cache, target, model and data lie below a name that must stay a name."""
    tmp_path, above = tmp_path / HOSTILE, tmp_path
    model = tmp_path / "models" / "mo$(touch PWNED);del.gguf"
    model.parent.mkdir(parents=True)
    model.symlink_to(model_path("smollm2-135m"))
    own = {**INFERENCE, "engine": {**INFERENCE["engine"], "model": str(model)}}
    file = write(tmp_path, RETRIEVAL, STORAGE, own)
    project = checkout(tmp_path / "project")
    result = run(file, project=project)
    expect(result, 0)
    folder = tmp_path / "results" / "small"
    assert "8 valid" in result.stderr
    assert str(folder / "report" / "index.html") in result.stderr
    assert set(measured(tmp_path).values()) == {1}
    assert len(measured(tmp_path)) == 4 * 2 + 2 * 3 + 2 * 2
    headline = {
        "retrieval": ["execution_time_s"],
        "inference": ["time_to_first_token_s", "tokens_generated_per_second"],
        "storage": ["write_time_s", "read_time_s"],
    }
    for record in records(tmp_path):
        assert tuple(record["metrics"]) == benchmarks()[record["benchmark"]].params.metrics
        for name in headline[record["benchmark"]]:
            metric = record["metrics"][name]
            assert metric["value"] > 0
            assert metric["n"] > 0
            assert metric["unit"]
    for name in ("cases.csv", "tables/metrics.parquet", "plan.md", "report/index.html", "gate.txt"):
        assert (folder / name).stat().st_size > 0
    assert not list((tmp_path / "target").iterdir())
    again = run(file, "-n", project=project)
    expect(again, 0)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert [*above.rglob("PWNED"), *ROOT.glob("PWNED")] == []


def test_a_value_added_to_an_axis_measures_only_the_new_cases(tmp_path):
    suite = {**RETRIEVAL, "axes": {"index": ["Flat", "HNSW16"], "top_k": [1]}}
    expect(run(write(tmp_path, suite)), 0)
    before = measured(tmp_path)
    suite = {**RETRIEVAL, "axes": {"index": ["Flat"], "top_k": [1, 5]}, "search": {}}
    both = {**suite, "name": "more"}
    hnsw = {**RETRIEVAL, "axes": {"index": ["HNSW16"], "top_k": [1]}}
    result = run(write(tmp_path, hnsw, both))
    expect(result, 0)
    after = measured(tmp_path)
    assert set(after.values()) == {1}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert "measure retrieval-synthetic-flat" in result.stderr
    assert "measure retrieval-synthetic-hnsw16" not in result.stderr


def test_a_retried_case_is_measured_again_and_the_others_are_not(tmp_path):
    file = write(tmp_path, STORAGE)
    expect(run(file), 0)
    results = tmp_path / "results/small"
    case = records(tmp_path)[0]["case"]
    before = {record["case"]: record["started_at"] for record in records(tmp_path)}
    retry = [sys.executable, "-m", "aifbench", "retry", str(results)]
    nothing = subprocess.run(retry, cwd=ROOT, capture_output=True, text=True, check=True)
    assert nothing.stdout.startswith("set aside: 0 case(s) with 0 repetition(s)")
    named = subprocess.run([*retry, case], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named.stdout.startswith("set aside: 1 case(s) with 3 repetition(s)")
    wrong = subprocess.run([*retry, "no-such"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "case = 'no-such'" in wrong.stderr
    expect(run(file), 0)
    after = {record["case"]: record["started_at"] for record in records(tmp_path)}
    assert [name for name in before if before[name] != after[name]] == [case]
    assert set(measured(tmp_path).values()) == {1}


def test_deleting_one_batch_redoes_that_batch_only(tmp_path):
    file = write(tmp_path, RETRIEVAL)
    expect(run(file), 0)
    batches = sorted((tmp_path / "results/small/batches").iterdir())
    kept = (batches[1] / "cases.jsonl").read_bytes()
    shutil.rmtree(batches[0])
    result = run(file)
    expect(result, 0)
    assert f"measure {batches[0].name}" in result.stderr
    assert f"measure {batches[1].name}" not in result.stderr
    assert (batches[1] / "cases.jsonl").read_bytes() == kept
    assert len(measured(tmp_path)) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_resumes_where_it_was(tmp_path, number):
    file = write(tmp_path, {**STORAGE, "axes": {"mode": ["warm"], "clients": [1, 2]}, "repetitions": 12})
    process = subprocess.Popen(
        command(file), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(measured(tmp_path)) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.stderr.close()
    process.wait(60)
    lock = next((tmp_path / "results/small/batches").iterdir()) / "owner.lock"
    while lock.exists() and number == signal.SIGINT and time.monotonic() < deadline:
        time.sleep(0.1)
    if number == signal.SIGKILL:
        # The batch's own process outlives Snakemake: it is the owner until it ends.
        while lock.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        expect(run(file, "--unlock"), 0)
    before = measured(tmp_path)
    assert before
    expect(run(file), 0)
    after = measured(tmp_path)
    assert before.items() <= after.items()
    assert set(after.values()) == {1}
    assert len(after) == 24
    assert not list((tmp_path / "target").iterdir())


def test_an_invalid_case_fails_the_run_with_the_report_already_there(tmp_path):
    suite = {
        **RETRIEVAL,
        "axes": {"index": ["HNSW16"], "top_k": [10]},
        "recall_floor": 1.0,
        "search": {"HNSW16": {"efSearch": 1}},
    }
    result = run(write(tmp_path, suite))
    assert result.returncode != 0
    assert "1 invalid" in result.stderr
    assert "recall" in result.stderr
    assert (tmp_path / "results/small/report/index.html").exists()
    (batch,) = (tmp_path / "results/small/batches").iterdir()
    record = BatchStore(batch).read_record()
    assert record.status == "ok"
    assert record.invalid == list(record.planned)
    levels = {line["msg"]: line["level"] for line in read_lines(batch / "log.jsonl")}
    assert {level for msg, level in levels.items() if "building the index" in msg} == {INFO}
    assert {level for msg, level in levels.items() if "invalid: recall" in msg} == {WARNING}


WRONG = [
    ({"suites": [{**RETRIEVAL, "top_kk": 1}]}, "suites[0].top_kk"),
    ({"suites": [{**STORAGE, "file_size": "64MebiByte"}]}, "suites[0].file_size"),
    ({"suites": [{**RETRIEVAL, "queries": -5}]}, "suites[0].queries"),
    ({"suites": [{**RETRIEVAL, "axes": {"index": []}}]}, "suites[0].axes.index"),
    ({"suites": [{**RETRIEVAL, "search": {}, "axes": {"index": ["Flat"], "top_k": [6001]}}]}, "suites[0].axes.top_k"),
    ({"suites": [{**INFERENCE, "prompt": "no-such-prompt"}]}, "suites[0].prompt"),
    (
        {"suites": [{**INFERENCE, "engine": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m"}}]},
        "suites[0].engine.url",
    ),
    ({"suites": [{**STORAGE, "path": "/proc/nowhere"}]}, "suites[0].path"),
    ({"suites": [{**RETRIEVAL, "dataset": "no-such-set"}]}, "suites[0].dataset"),
    ({"suites": [{**RETRIEVAL, "clients": 65}]}, "suites[0].clients"),
    ({"suites": [{**RETRIEVAL, "queries": True}]}, "suites[0].queries"),
    (
        {"suites": [{**RETRIEVAL, "repetitions": {"until": {"metric": "execution_time", "half_width": "5%"}}}]},
        "suites[0].repetitions.until.metric",
    ),
]


@pytest.mark.parametrize(("change", "key"), WRONG, ids=[key for _, key in WRONG])
def test_a_wrong_config_is_one_line_and_nothing_is_started(tmp_path, change, key):
    file = write(tmp_path, RETRIEVAL)
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    result = run(file)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("aifbench: ")]
    assert len(lines) == 1
    assert key in lines[0]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
