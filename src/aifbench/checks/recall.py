"""Recall of a nearest-neighbour search against exact truth, per query, and what makes it invalid. Pure.

Two definitions, both over the k neighbours asked for:

`recall_id`   share of the true k ids that were found. An id of -1 and a repeated id count as misses.
`recall_tie`  share of found ids that are as near as the k-th true neighbour, within 1e-6 relative. Distances are
              recomputed in float64 from the vectors: those that an index returns differ between its code paths.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aifbench.checks.kinds import RECALL_LOW, RECALL_UNKNOWN, TRUTH_SHORT
from aifbench.core.notes import Note

TIE_TOLERANCE = 1e-6
"""Relative difference of two distances that counts as a tie."""

Distance = Literal["l2", "ip", "cosine"]
Floats = NDArray[np.float64]


def exact_distances(query: NDArray[Any], vectors: NDArray[Any], metric: Distance) -> Floats:
    """Return float64 distances of one query (d,) to `vectors` (m, d), shape (m,): smaller is nearer.

    `l2`: Euclidean. `ip`: minus the inner product. `cosine`: 1 minus the inner product (vectors of length 1).
    Each row is summed by itself, so equal rows give equal values wherever they stand.
    """
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        difference = x - q
        length: Floats = np.sqrt((difference * difference).sum(axis=1))
        return length
    product: Floats = (x * q).sum(axis=1)
    return 1.0 - product if metric == "cosine" else -product


def recall_id(found: NDArray[np.int64], truth: NDArray[np.int64], k: int) -> Floats:
    """Return recall@k by id for each query, shape (q,); `found` (q, any) and `truth` (q, >=k), nearest first."""
    _check_shapes(found, truth, k)
    rows = zip(found[:, :k].tolist(), truth[:, :k].tolist(), strict=True)
    hits = [len({i for i in row if i >= 0} & set(true)) for row, true in rows]
    return np.asarray(hits, dtype=np.float64) / k


def recall_tie(
    found: NDArray[np.int64],
    truth_distances: Floats,
    k: int,
    *,
    queries: NDArray[Any],
    corpus: NDArray[Any],
    metric: Distance,
) -> Floats:
    """Return recall@k with ties for each query, shape (q,).

    `truth_distances` (q, >=k) are those of `exact_distances`, ascending; `queries` (q, d), `corpus` (n, d).
    """
    _check_shapes(found, truth_distances, k)
    result = np.empty(len(found))
    for i, row in enumerate(found[:, :k]):
        ids = np.unique(row[row >= 0])
        limit = truth_distances[i, k - 1] + TIE_TOLERANCE * abs(truth_distances[i, k - 1])
        result[i] = np.count_nonzero(exact_distances(queries[i], corpus[ids], metric) <= limit) / k
    return result


def ties_at(truth_distances: Floats, k: int) -> int:
    """Return the number of queries whose neighbour k+1 is as near as neighbour k: there, ids are a matter of chance."""
    if truth_distances.shape[1] <= k:
        return 0
    last, after = truth_distances[:, k - 1], truth_distances[:, k]
    return int(np.count_nonzero(after <= last + TIE_TOLERANCE * np.abs(last)))


def recall_reasons(mean: float | None, floor: float, truth_rows: int, queries: int) -> list[Note]:
    """Return why a repetition with this mean recall must not be used; empty when it may."""
    reasons = []
    if truth_rows < queries:
        reasons.append(TRUTH_SHORT.against(truth_rows=truth_rows, queries=queries))
    if mean is None or math.isnan(mean):
        reasons.append(RECALL_UNKNOWN.against())
    elif mean < floor:
        reasons.append(RECALL_LOW.against(recall=mean, floor=floor))
    return reasons


def _check_shapes(found: NDArray[Any], truth: NDArray[Any], k: int) -> None:
    if k < 1:
        raise ValueError("k must be at least 1")
    if truth.shape[1] < k:
        raise ValueError(f"truth holds {truth.shape[1]} neighbours per query, recall@{k} needs {k}")
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} queries answered, but truth has {len(truth)} rows")
