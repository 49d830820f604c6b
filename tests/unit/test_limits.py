"""The search for the highest load under an SLO: against servers whose limit is known."""

import pytest

from aifbench.inference.slo_search import Probe, bracket, next_load


def search(limit, most, whole):
    """Search on a server that keeps every request up to `limit` and half of them above it."""
    probes = []
    while (load := next_load(probes, most, 0.95, whole=whole)) is not None:
        probes.append(Probe(load, 1.0 if load <= limit else 0.5))
        assert len(probes) < 40
    return probes, *bracket(probes, 0.95)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 20, 37, 63])
def test_the_limit_of_clients_is_found_to_one_or_to_a_twentieth(limit):
    probes, kept, failed = search(limit, 64, whole=True)
    assert kept <= limit < failed
    assert failed - kept <= max(1, 0.05 * kept)
    assert all(probe.load == int(probe.load) for probe in probes)
    assert len({probe.load for probe in probes}) == len(probes)


@pytest.mark.parametrize("limit", [0.02, 0.7, 3.0, 9.9])
def test_the_limit_of_a_rate_is_found_to_a_twentieth(limit):
    _, kept, failed = search(limit, 10.0, whole=False)
    assert kept <= limit < failed <= 1.05 * kept


def test_no_limit_up_to_the_most_is_an_answer():
    probes, kept, failed = search(1000, 24, whole=True)
    assert [probe.load for probe in probes] == [1, 2, 4, 8, 16, 24]
    assert (kept, failed) == (24, None)


def test_not_even_the_least_is_an_answer_too():
    assert search(0, 64, whole=True)[1:] == (None, 1.0)
    _, kept, failed = search(0, 1024.0, whole=False)
    assert kept is None
    assert failed == 1.0


def test_a_lucky_probe_above_a_failure_does_not_count():
    probes = [Probe(1, 1.0), Probe(2, 0.9), Probe(4, 1.0)]
    assert bracket(probes, 0.95) == (1, 2)
