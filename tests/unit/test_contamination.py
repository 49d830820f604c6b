import pytest

from aifbench.checks.contamination import ForeignCpu, contamination_notes
from aifbench.registry import sentence


def sample(t, role, cpu, invocation=0, node="n1", clock=0.0):
    place = {"invocation": invocation, "t_s": t, "node": node, "clock_s": clock + t}
    return {**place, "role": role, "cpu_seconds": cpu}


# Over each second the node uses 2.0 s of CPU; our worker 0.5 s and the runner 0.1 s: 1.4 cores are foreign.
SAMPLES = [
    row
    for t in range(5)
    for row in (sample(t, "node", 100 + 2.0 * t), sample(t, "worker", 0.5 * t), sample(t, "runner", 3 + 0.1 * t))
]


def test_foreign_cores_are_the_nodes_minus_ours():
    assert ForeignCpu(SAMPLES).cores(0, 1.2, 2.7) == pytest.approx(1.4)


@pytest.mark.parametrize(("busy", "foreign"), [(1.5, 1.4), (3.0, 2.5)])
def test_each_node_is_judged_by_what_ran_on_it(busy, foreign):
    """The client's node uses `busy` cores, of which the worker there 0.5; the worker is not taken off the server's."""
    there = [
        row
        for t in range(5)
        for row in (
            sample(t, "client-node", 7 + busy * t, node="n2", clock=900),
            sample(t, "worker", 0.5 * t, node="n2", clock=900),
        )
    ]
    here = [row if row["role"] != "worker" else {**row, "role": "server"} for row in SAMPLES]
    assert ForeignCpu([*here, *there]).cores(0, 1.2, 2.7) == pytest.approx(foreign)
    assert ForeignCpu([*here, *there[:2]]).cores(0, 1.2, 2.7) == pytest.approx(1.4)


def test_what_stands_in_two_samples_is_divided_by_the_time_in_which_it_was_used():
    """The other node told nothing new between 1 and 2 s: what it used until 3 s was used in two seconds of its own."""
    told = {0: 0, 1: 1, 2: 1, 3: 3, 4: 4}
    rows = [
        {**sample(t, role, cores * told[t], node="n2"), "clock_s": 900.0 + told[t]}
        for t in range(5)
        for role, cores in (("client-node", 2.0), ("worker", 0.5))
    ]
    assert ForeignCpu(rows).cores(0, 2.0, 3.0) == pytest.approx(1.5)
    assert ForeignCpu(rows).cores(0, 1.0, 2.0) is None


def test_samples_from_before_nodes_were_named_are_of_one_node():
    old = [{name: value for name, value in row.items() if name not in {"node", "clock_s"}} for row in SAMPLES]
    assert ForeignCpu(old).cores(0, 1.2, 2.7) == pytest.approx(1.4)


def test_a_stretch_that_samples_do_not_enclose_is_not_judged():
    foreign = ForeignCpu(SAMPLES)
    assert foreign.cores(0, 3.5, 4.5) is None
    assert foreign.cores(0, -1, 0.5) is None
    assert foreign.cores(7, 1, 2) is None
    assert ForeignCpu([]).cores(0, 0, 1) is None


def test_notes_count_the_noisy_repetitions():
    assert contamination_notes([0.05, None, 0.19]) == []
    (note,) = contamination_notes([0.05, 1.4, 0.3, None])
    assert sentence(note) == ("noisy: in 2 of 4 repetitions other processes used over 0.2 cores (at most 1.4)")
