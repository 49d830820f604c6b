from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.analysis.numbers import Scale, factor, fixed, number, plain, scale_for
from aifbench.report.timelines import min_max

NO_UNIT = Scale(1, "")


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (14203.0, 342.0, "14\u202f200 ± 340"),
        (0.95123, 0.0012, "0.9512 ± 0.0012"),
        (41.24, 0.79, "41.24 ± 0.79"),
        (9.96, 0.96, "9.96 ± 0.96"),
        (45.46, 102.7, "45 ± 103"),
        (-3.14159, None, "−3.142"),
        (0.97, 0.0, "0.9700 ± 0"),
        (0.9634, 1e-16, "0.9634 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (1234567.0, 0.001, "1\u202f234\u202f567 ± <1"),
    ],
)
def test_two_digits_of_the_half_width(value, half, text):
    assert plain(value, half, NO_UNIT) == text


def test_unit_follows_the_size():
    assert number(0.0123, None, "s") == "12.30 ms"
    assert number(2.5e-7, None, "s") == "250.0 ns"
    assert number(3 * 2**30, None, "bytes") == number(3 * 2**30, None, "B") == "3.000 GiB"
    assert number(5.0, None, "MiB/s") == "5.000 MiB/s"
    assert scale_for([None, 0.0], "s") == Scale(1.0, "s")


def test_a_column_takes_the_unit_of_its_median():
    assert scale_for([0.001, 0.002, 50.0], "s").unit == "ms"


def test_ratio_shows_the_range_that_the_intervals_allow():
    assert factor(12.06, 11.4, 12.8) == "12.1× (11.4–12.8)"
    assert factor(140.0, 90.0, 300.0) == "140× (90–300)"
    assert factor(5.0, 3.2, float("inf")) == "at least 3.2×"


def test_no_negative_zero():
    assert fixed(-0.0001, 2) == "0.00"


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400),
    st.integers(1, 30),
)
def test_reduction_keeps_extremes_and_invents_nothing(values, columns):
    y = np.array(values)
    t = np.arange(len(y), dtype=float)
    kept_t, kept_y = min_max(t, y, columns)
    assert len(kept_t) <= max(2 * columns + 2, 0)
    assert kept_y.min() == y.min()
    assert kept_y.max() == y.max()
    assert (kept_t[0], kept_t[-1]) == (t[0], t[-1])
    assert all(a < b for a, b in pairwise(kept_t))
    assert all(y[int(moment)] == value for moment, value in zip(kept_t, kept_y, strict=True))


def test_reduction_of_one_column_by_hand():
    t = np.arange(8.0)
    y = np.array([5.0, 1.0, 9.0, 4.0, 4.0, 3.0, 8.0, 7.0])
    kept_t, kept_y = min_max(t, y, 2)
    assert kept_t.tolist() == [0, 1, 2, 5, 6, 7]
    assert kept_y.tolist() == [5, 1, 9, 3, 8, 7]
