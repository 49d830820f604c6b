"""Verdicts on load and cache."""

import numpy as np
import pytest

from aifbench.checks.cache import cache_state
from aifbench.checks.load import littles_law, steady_window
from aifbench.registry import sentence


def kinds(notes):
    return [(note.kind, note.severity) for note in notes]


def test_littles_law_holds_within_its_tolerance() -> None:
    assert littles_law(4.0, 0.5, 2) == []
    assert littles_law(4.0, 0.476, 2) == []
    assert littles_law(4.0, 0.524, 2) == []


def test_littles_law_names_all_parts() -> None:
    (reason,) = littles_law(4.0, 0.4, 2)
    assert "4 operations/s x 0.4 s = 1.6 in flight, but 2 clients" in sentence(reason)
    assert littles_law(4.0, 0.6, 2)
    assert littles_law(4.0, 0.4, 2, tolerance=0.25) == []


@pytest.mark.parametrize(("pause_s", "holds"), [(0.05, True), (0.07, False), (0.0, False)])
def test_littles_law_with_think_time_has_no_edges(pause_s: float, holds: bool) -> None:
    """Two clients with three operations of 100 ms, who were to think 50 ms: so few that ends would show."""
    begin = np.array([k * (0.1 + pause_s) for k in range(3)] * 2)
    window = steady_window(np.array([0, 0, 0, 1, 1, 1]), begin, begin + 0.1)
    assert window is not None
    assert window.pauses == pytest.approx(4)
    assert (window.reasons(2, think_s=0.05) == []) == holds


def test_cold_allows_a_template_but_no_prompt() -> None:
    assert cache_state("cold", [500.0, 85.0], [60.0, 24.0]) == []
    (reason,) = cache_state("cold", [500.0, 500.0], [0.0, 65.0])
    assert "1 of 2 requests took prompt tokens from the cache" in sentence(reason)
    assert kinds(cache_state("cold", [40.0], [39.0])) == [("cache_not_cold", "invalid")]


def test_warm_needs_the_prompt_but_for_a_block() -> None:
    assert cache_state("warm-same", [67.0, 500.0, 30.0], [66.0, 496.0, 16.0]) == []
    (reason,) = cache_state("warm-same", [67.0, 67.0], [66.0, 0.0])
    assert "1 of 2 requests did not find the prompt in the cache (first: 0 of 67 tokens cached)" in sentence(reason)


def test_unknown_is_a_note_and_never_a_zero() -> None:
    for mode in ("cold", "warm-same"):
        (note,) = cache_state(mode, [67.0, None], [None, 3.0])
        assert "not confirmed" in sentence(note)
    for unknown in ([float("nan")], []):
        assert kinds(cache_state("cold", unknown, unknown)) == [("cache_not_confirmed", "caution")]


def test_a_shared_prefix_is_taken_from_the_cache_and_no_more() -> None:
    assert cache_state("shared-prefix", [200.0, 200.0], [100.0, 118.0], 100) == []
    (reason,) = cache_state("shared-prefix", [200.0], [0.0], 100)
    assert "did not take about 100" in sentence(reason)
    for prompt, cached in ((200.0, 199.0), (900.0, 600.0)):  # the whole prompt was there; more than the prefix
        assert kinds(cache_state("shared-prefix", [prompt], [cached], 100)) == [("cache_not_shared", "invalid")]
