import numpy as np
import pytest

from aifbench.registry import sentence
from aifbench.retrieval.metrics import evaluate
from aifbench.retrieval.params import RetrievalParams
from tests.fixtures.notes import said

FACTS = {
    "recall_id_mean": 0.9, "recall_id_std": 0.2, "recall_tie_mean": 0.95, "recall_tie_std": None,
    "truth_rows": 4, "clock_pair_ns": 50, "cpu_s": 4e-6,
    "train_s": 2.0, "add_s": 1.0, "build_threads": 2, "index_bytes": 1000, "memory_bytes": 1200, "lid": 17.0,
    "cores": 4, "steal_share": None, "involuntary_switches": 0, "warmup_settled": True, "queries_with_tie_at_k": 0,
}  # fmt: skip


def raw(*rows):
    names = ("client", "first_query", "count", "start_ns", "end_ns")
    return {name: np.array(column, dtype=np.int64) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


# Four calls of 1000, 1000, 1000 and 2000 ns without a gap: 5 us in all.
FOUR = raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (0, 2, 1, 2000, 3000), (0, 3, 1, 3000, 5000))


def params(**values):
    base = {"dataset": "synthetic", "dim": 8, "index": "HNSW32", "queries": 4, "warmup_queries": 10}
    return RetrievalParams(**{**base, **values})


def run(columns=FOUR, facts=None, **values):
    return evaluate(params(**values), columns, {**FACTS, **(facts or {})})


def test_by_hand():
    metrics, verdict = run()
    assert verdict.valid
    assert said(verdict.notes) == []
    expected = {
        "execution_time_s": (5e-6, "s", 4, 5e-8),
        "queries_per_second": (800_000.0, "1/s", 4, 8000.0),
        "latency_mean_s": (1.25e-6, "s", 4, 5e-8),
        "concurrency_achieved": (1.0, "1", 4, None),
        "cpu_per_query_s": (1e-6, "s", 4, None),
        "recall_at_k": (0.9, "1", 4, None),
        "recall_tie_at_k": (0.95, "1", 4, None),
        "build_time_s": (3.0, "s", 1, None),
        "train_time_s": (2.0, "s", 1, None),
        "add_time_s": (1.0, "s", 1, None),
        "index_bytes": (1000.0, "B", 1, None),
        "memory_bytes": (1200.0, "B", 1, None),
    }
    for name, (value, unit, n, instrument) in expected.items():
        metric = metrics[name]
        assert (metric.unit, metric.n) == (unit, n), name
        assert metric.value == pytest.approx(value), name
        assert metric.instrument == pytest.approx(instrument), name
    shared = {name for name, metric in metrics.items() if metric.shared}
    assert shared == {
        "build_time_s", "train_time_s", "add_time_s", "index_bytes", "recall_at_k", "recall_tie_at_k",
    }  # fmt: skip


def test_the_interval_of_recall_is_over_queries_and_within_0_and_1():
    metric = run()[0]["recall_at_k"]
    assert metric.ci_low == pytest.approx(0.9 - 1.959964 * 0.2 / 2)
    assert metric.ci_high == 1.0
    assert "over queries" in metric.method
    none = run()[0]["recall_tie_at_k"]
    assert (none.ci_low, none.ci_high) == (None, None)


def test_percentiles_are_printed_only_when_n_supports_them():
    metrics, _ = run()
    for name in ("p50", "p90", "p95", "p99", "p999"):
        assert metrics[f"latency_{name}_s"].value is None
        assert "does not support" in sentence(metrics[f"latency_{name}_s"].reason)
    rows = [(0, i, 1, 1000 * i, 1000 * i + 1000) for i in range(1000)]
    metrics, _ = run(raw(*rows), {"truth_rows": 1000, "cpu_s": 1e-3}, queries=1000)
    assert metrics["latency_p50_s"].value == pytest.approx(1e-6)
    assert metrics["latency_p99_s"].value == pytest.approx(1e-6)
    assert metrics["latency_p999_s"].value is None
    assert metrics["latency_p50_s"].method == "p50 of one call"


def test_a_latency_is_that_of_a_call_and_throughput_that_of_queries():
    metrics, verdict = run(raw((0, 0, 2, 0, 1000), (0, 2, 2, 1000, 2000)), batch_size=2)
    assert verdict.valid
    assert metrics["latency_mean_s"].value == pytest.approx(1e-6)
    assert metrics["latency_mean_s"].n == 2
    assert metrics["latency_mean_s"].method == "mean of one call of 2 queries"
    assert metrics["queries_per_second"].value == pytest.approx(2e6)


@pytest.mark.parametrize(
    "columns",
    [
        raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (0, 2, 1, 2000, 3000)),  # one missing
        raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (0, 1, 1, 2000, 3000), (0, 3, 1, 3000, 4000)),  # one twice
    ],
)
def test_queries_that_were_not_each_answered_once(columns):
    metrics, verdict = run(columns)
    assert not verdict.valid
    assert "not each answered once" in said(verdict.reasons)[0]
    assert metrics["execution_time_s"].value is None
    assert metrics["queries_per_second"].value is None


LONG = raw((0, 0, 2, 0, 50_000_000), (1, 2, 2, 0, 50_000_000))
"""Two clients, 50 ms each."""


@pytest.mark.parametrize(
    ("cpu_s", "cores", "disturbed"), [(0.099, 2, False), (0.085, 2, False), (0.05, 2, True), (0.05, 1, False)]
)
def test_clients_that_others_kept_from_their_cores_are_invalid(cpu_s, cores, disturbed):
    facts = {"cpu_s": cpu_s, "cores": cores}
    _, verdict = run(LONG, facts, clients=2, batch_size=2)
    assert any("disturbed: 2 clients" in reason for reason in said(verdict.reasons)) == disturbed
    assert verdict.valid == (not disturbed)


def test_the_instrument_of_the_execution_time_is_what_lies_outside_the_calls():
    gap = raw((0, 0, 2, 0, 1_000_000), (0, 2, 2, 1_020_000, 2_000_000))
    metrics, _ = run(gap, {"cpu_s": 0.002}, batch_size=2)
    assert metrics["execution_time_s"].instrument == pytest.approx(20e-6)
    assert metrics["queries_per_second"].instrument == pytest.approx(2000 * 0.01)
    assert metrics["latency_mean_s"].instrument == pytest.approx(5e-8)


@pytest.mark.parametrize(
    ("facts", "values", "reason"),
    [
        ({"recall_id_mean": 0.4}, {}, "recall 0.4 is below the floor 0.5"),
        ({"recall_id_mean": 0.0}, {}, "recall 0 is below the floor 0.5"),
        ({"recall_id_mean": None}, {}, "recall could not be computed"),
        ({"truth_rows": 3}, {}, "truth covers 3 of 4 queries"),
        ({}, {"clients": 2}, "Little's law"),
        ({"cpu_s": 9e-3}, {}, "1800.00 cores busy, but clients times threads is 1"),
        ({}, {"index": "Flat"}, "an exhaustive index found only 0.95"),
    ],
)
def test_reasons(facts, values, reason):
    _, verdict = run(facts=facts, **values)
    assert not verdict.valid
    assert any(reason in line for line in said(verdict.reasons)), said(verdict.reasons)


def test_a_gap_of_the_load_generator_is_found():
    gap = raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (0, 2, 1, 2000, 3000), (0, 3, 1, 4000, 5000))
    metrics, verdict = run(gap)
    assert metrics["concurrency_achieved"].value == pytest.approx(0.8)
    assert not verdict.valid


@pytest.mark.parametrize(
    ("facts", "values", "note"),
    [
        ({"lid": 57.1}, {}, "not representative: local intrinsic dimension 57 > 40"),
        ({"cores": 1}, {"threads": 2}, "1 clients of 2 threads on 1 cores"),
        ({}, {"threads": 2}, "threads of one call wait for each other"),
        ({"steal_share": 0.03}, {}, "other guests took 3.0%"),
        ({"involuntary_switches": 1}, {}, "0.25 involuntary context switches per query"),
        ({"warmup_settled": False}, {}, "steady"),
        ({"queries_with_tie_at_k": 2}, {}, "50% of the queries have a tie at neighbour 10"),
    ],
)
def test_notes_do_not_invalidate(facts, values, note):
    _, verdict = run(facts=facts, **values)
    assert verdict.valid, said(verdict.reasons)
    assert any(note in line for line in said(verdict.notes)), said(verdict.notes)


def test_absent_is_never_zero():
    metrics, _ = run(facts={"train_s": None, "memory_bytes": None, "recall_id_mean": None, "recall_tie_mean": None})
    for name in ("train_time_s", "memory_bytes", "recall_at_k", "recall_tie_at_k"):
        assert metrics[name].value is None
        assert metrics[name].reason
    assert metrics["build_time_s"].value == 1.0


def test_a_client_that_starts_late_lengthens_the_execution_but_breaks_no_law():
    late = raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (1, 2, 1, 300, 1200), (1, 3, 1, 1200, 2000))
    metrics, verdict = run(late, clients=2)
    assert metrics["execution_time_s"].value == pytest.approx(2e-6)
    assert metrics["concurrency_achieved"].value == pytest.approx(2.0)
    assert verdict.valid, said(verdict.reasons)


def test_clients_that_hardly_meet_are_no_concurrent_load():
    apart = raw((0, 0, 1, 0, 1000), (0, 1, 1, 1000, 2000), (1, 2, 1, 1500, 2500), (1, 3, 1, 2500, 3500))
    metrics, verdict = run(apart, clients=2)
    assert metrics["concurrency_achieved"].value is None
    assert any("only 14% of the execution time" in reason for reason in said(verdict.reasons))
