import pytest

from aifbench.checks.contamination import ForeignCpu, contamination_notes


def sample(t, role, cpu, invocation=0):
    return {"invocation": invocation, "t_s": t, "role": role, "cpu_seconds": cpu}


# Over each second the node uses 2.0 s of CPU; our worker 0.5 s and the runner 0.1 s: 1.4 cores are foreign.
SAMPLES = [
    row
    for t in range(5)
    for row in (sample(t, "node", 100 + 2.0 * t), sample(t, "worker", 0.5 * t), sample(t, "runner", 3 + 0.1 * t))
]


def test_foreign_cores_are_the_nodes_minus_ours():
    assert ForeignCpu(SAMPLES).cores(0, 1.2, 2.7) == pytest.approx(1.4)


def test_a_stretch_that_samples_do_not_enclose_is_not_judged():
    foreign = ForeignCpu(SAMPLES)
    assert foreign.cores(0, 3.5, 4.5) is None
    assert foreign.cores(0, -1, 0.5) is None
    assert foreign.cores(7, 1, 2) is None
    assert ForeignCpu([]).cores(0, 0, 1) is None


def test_notes_count_the_noisy_repetitions():
    assert contamination_notes([0.05, None, 0.19]) == []
    (note,) = contamination_notes([0.05, 1.4, 0.3, None])
    assert "in 2 of 4 repetitions" in note
    assert "at most 1.4" in note
