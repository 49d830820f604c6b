import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifbench.checks.recall import exact_distances, recall_id, recall_reasons, recall_tie, ties_at
from tests.fixtures.notes import said

# Six points on a line, query at 0: distances 0, 1, 1, 2, 3, 3; rows 1 and 2 are duplicates.
CORPUS = np.array([[0.0], [1.0], [1.0], [2.0], [3.0], [-3.0]], dtype=np.float32)
QUERY = np.array([[0.0]], dtype=np.float32)
TRUTH = np.array([[0, 1, 2, 3, 4, 5]])
DISTANCES = np.array([[0.0, 1.0, 1.0, 2.0, 3.0, 3.0]])


def both(found, k):
    ids = np.array([found])
    tie = recall_tie(ids, DISTANCES, k, queries=QUERY, corpus=CORPUS, metric="l2")
    return float(recall_id(ids, TRUTH, k)[0]), float(tie[0])


@pytest.mark.parametrize(
    ("found", "k", "by_id", "by_tie"),
    [
        ([0, 1, 2, 3], 4, 1.0, 1.0),
        ([3, 2, 1, 0], 4, 1.0, 1.0),  # order does not count
        ([0, 1, 2, 4], 4, 0.75, 0.75),
        ([0, 2], 2, 0.5, 1.0),  # the other one of two duplicate rows
        ([0, 1, 2, 3, 5], 5, 0.8, 1.0),  # planted tie: rows 4 and 5 are equally far
        ([0, 0, 0, 0], 4, 0.25, 0.25),  # one id four times is one hit
        ([0, -1, -1, -1], 4, 0.25, 0.25),  # unfilled places are misses
        ([-1, -1], 2, 0.0, 0.0),
        ([0, 1], 4, 0.5, 0.5),  # fewer answers than k: the denominator stays k
        ([0, 1, 2, 3, 4, 5], 2, 1.0, 1.0),  # only the first k count
        ([5, 4, 0, 1], 2, 0.0, 0.0),
    ],
)
def test_by_hand(found, k, by_id, by_tie):
    assert both(found, k) == (by_id, by_tie)


def test_per_query_values_stand_in_query_order():
    found = np.array([[0, 1], [3, 4], [1, -1]])
    truth = np.array([[0, 1], [0, 1], [0, 1]])
    assert recall_id(found, truth, 2).tolist() == [1.0, 0.0, 0.5]


def test_k_beyond_the_truth_and_missing_rows_are_refused():
    with pytest.raises(ValueError, match="recall@7 needs 7"):
        recall_id(np.array([[0] * 7]), TRUTH, 7)
    with pytest.raises(ValueError, match="at least 1"):
        recall_id(np.array([[0]]), TRUTH, 0)
    with pytest.raises(ValueError, match="2 queries answered, but truth has 1 rows"):
        recall_id(np.array([[0], [1]]), TRUTH, 1)


def test_distances_are_those_of_float64():
    query, rows = np.array([1.0, 2.0], dtype=np.float32), np.array([[4.0, 6.0], [1.0, 2.0]], dtype=np.float32)
    assert exact_distances(query, rows, "l2").tolist() == [5.0, 0.0]
    assert exact_distances(query, rows, "ip").tolist() == [-16.0, -5.0]
    assert exact_distances(query, rows, "cosine").tolist() == [-15.0, -4.0]
    big = np.array([16777216.0], dtype=np.float32)  # 2^24: float32 cannot add 1 to it
    assert exact_distances(big, np.array([[-1.0]], dtype=np.float32), "l2").tolist() == [16777217.0]


def test_tolerance_works_for_negative_distances():
    corpus, query = np.array([[2.0], [2.0000002], [1.0]], dtype=np.float32), np.array([[1.0]], dtype=np.float32)
    distances = np.sort(exact_distances(query[0], corpus, "ip"))[None, :]
    tie = recall_tie(np.array([[0]]), distances, 1, queries=query, corpus=corpus, metric="ip")
    assert tie.tolist() == [1.0]  # -2 against -2.0000002: a tie within 1e-6
    miss = recall_tie(np.array([[2]]), distances, 1, queries=query, corpus=corpus, metric="ip")
    assert miss.tolist() == [0.0]


def test_ties_at_k():
    assert [ties_at(DISTANCES, k) for k in range(1, 7)] == [0, 1, 0, 0, 1, 0]


@given(st.data())
def test_recall_with_ties_is_never_below_recall_by_id(data):
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    k = min(k, n)
    values = data.draw(st.lists(st.integers(-3, 3), min_size=2 * n, max_size=2 * n))
    corpus = np.array(values, dtype=np.float32).reshape(n, 2)
    query = np.array([data.draw(st.lists(st.integers(-3, 3), min_size=2, max_size=2))], dtype=np.float32)
    metric = data.draw(st.sampled_from(["l2", "ip", "cosine"]))
    exact = exact_distances(query[0], corpus, metric)
    order = np.lexsort((np.arange(n), exact))
    found = np.array([data.draw(st.lists(st.integers(-1, n - 1), min_size=k, max_size=k))])
    by_id = recall_id(found, order[None, :], k)[0]
    by_tie = recall_tie(found, exact[order][None, :], k, queries=query, corpus=corpus, metric=metric)[0]
    assert 0.0 <= by_id <= by_tie <= 1.0


def test_reasons():
    assert recall_reasons(0.5, 0.5, 10, 10) == []
    assert said(recall_reasons(0.49, 0.5, 10, 10)) == ["recall 0.49 is below the floor 0.5"]
    assert said(recall_reasons(math.nan, 0.0, 10, 10)) == ["recall could not be computed"]
    assert said(recall_reasons(None, 0.0, 10, 10)) == ["recall could not be computed"]
    assert said(recall_reasons(1.0, 0.5, 9, 10)) == ["truth covers 9 of 10 queries"]
