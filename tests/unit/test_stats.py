import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.core.records import Metric
from aifbench.registry import sentence
from aifbench.stats.intervals import mean_interval, t_quantile
from aifbench.stats.quantiles import needed, quantile_metric


@pytest.mark.parametrize(
    ("df", "value"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_t_quantiles_are_those_of_the_tables(df, value):
    assert t_quantile(0.975, df) == pytest.approx(value, abs=1e-6)


def test_interval_of_four_numbers_by_hand():
    # mean 3, variance (4+1+1+4)/3 = 10/3, half width 3.182446 * sqrt(10/12)
    interval = mean_interval([1, 2, 4, 5])
    assert interval.mean == 3
    assert interval.half_width == pytest.approx(3.182446 * (10 / 12) ** 0.5, abs=1e-5)


def test_one_repetition_has_no_interval_and_says_so():
    interval = mean_interval([7.0])
    assert (interval.low, interval.high, interval.half_width) == (None, None, None)
    assert "no interval" in interval.method


def test_interval_covers_the_truth_in_95_percent_of_experiments():
    rng = random.Random(4)
    hits = 0
    for _ in range(2000):
        interval = mean_interval([rng.gauss(10, 2) for _ in range(5)])
        hits += interval.low <= 10 <= interval.high
    assert 0.935 <= hits / 2000 <= 0.965


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_mean_lies_inside_its_interval(values):
    interval = mean_interval(values)
    assert interval.low <= interval.mean <= interval.high


def test_quantile_is_given_only_when_n_supports_it():
    assert needed(0.5) == 20
    assert needed(0.99) == 1000
    assert quantile_metric(range(999), 0.99, "s").value is None
    assert "needs 1000" in sentence(quantile_metric(range(999), 0.99, "s").reason)
    assert quantile_metric(range(1001), 0.99, "s").value == pytest.approx(990)


def test_absent_metric_needs_a_reason_and_is_never_nan():
    with pytest.raises(ValueError, match="needs a reason"):
        Metric(value=None, unit="s", n=0, method="x")
    with pytest.raises(ValueError, match="finite"):
        Metric(value=float("nan"), unit="s", n=1, method="x")
