"""Exact nearest neighbours, computed once per data set and kept with the hashes of what they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.checks.recall import Floats, exact_distances
from aifbench.files.written import replaced
from aifbench.retrieval.datasets import Matrix, digest
from aifbench.retrieval.forks import Child, ChildFailed
from aifbench.retrieval.params import MetricName

_EXTRA = 64
"""Candidates of the float32 search beyond those kept: float64 decides among them."""
_AUDIT_QUERIES = 200
_AUDIT_ROWS = 8192


class TruthError(Exception):
    """Truth that must not be used: it belongs to other data, or float64 contradicts it."""


@dataclass(frozen=True)
class Origin:
    """What a truth belongs to."""

    corpus_sha256: str
    queries_sha256: str
    metric: MetricName
    vectors: int
    queries: int
    depth: int

    @property
    def file_name(self) -> str:
        """Name of its file in the cache."""
        return f"truth-{self.corpus_sha256[:12]}-{self.queries_sha256[:12]}-{self.metric}-k{self.depth}.npz"


@dataclass(frozen=True)
class Truth:
    """The `depth` nearest neighbours of each query, nearest first, ties by id.

    `ids` (q, depth) int64; `distances` (q, depth) float64 as of `exact_distances`; `audited` queries were checked
    against a full float64 search.
    """

    ids: NDArray[np.int64]
    distances: Floats
    audited: int


def depth_for(k: int, vectors: int) -> int:
    """Return how many neighbours to keep for recall@k: beyond k, so that ties at k can be seen."""
    return min(vectors, max(100, 2 * k))


def obtain(
    cache_dir: Path, *, corpus: Matrix, corpus_sha256: str, queries: Matrix, k: int, metric: MetricName
) -> Truth:
    """Return the truth for these queries from the cache, or compute, audit and keep it. Raises `TruthError`."""
    origin = Origin(corpus_sha256, digest(queries), metric, len(corpus), len(queries), depth_for(k, len(corpus)))
    path = cache_dir / origin.file_name
    if not path.exists():
        child = Child(_produce, path, origin, corpus, queries)
        try:
            child.receive()
        except ChildFailed as error:
            raise TruthError(str(error)) from None
        finally:
            child.stop()
    return _read(path, origin)


def _produce(send: Callable[[Any], None], path: Path, origin: Origin, corpus: Matrix, queries: Matrix) -> None:
    """Compute and write a truth in a process of its own: its OpenMP threads must not live in one that forks clients."""
    import faiss

    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    _write(path, origin, compute(corpus, queries, origin.depth, origin.metric))
    send(None)


def compute(corpus: Matrix, queries: Matrix, depth: int, metric: MetricName) -> Truth:
    """Return exact neighbours: float32 exhaustive search for candidates, float64 order, float64 audit of a sample."""
    import faiss

    candidates = min(len(corpus), depth + _EXTRA)
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    _, found = faiss.knn(queries, corpus, candidates, metric=measure)
    ids = np.empty((len(queries), depth), dtype=np.int64)
    distances = np.empty((len(queries), depth))
    for i, row in enumerate(found):
        exact = exact_distances(queries[i], corpus[row], metric)
        order = np.lexsort((row, exact))[:depth]
        ids[i], distances[i] = row[order], exact[order]
    audited = min(_AUDIT_QUERIES, len(queries))
    wrong = audit(corpus, queries[:audited], distances[:audited], metric)
    if wrong:
        raise TruthError(f"a float64 search contradicts the ground truth of {wrong} of {audited} queries")
    return Truth(ids, distances, audited)


def audit(corpus: Matrix, queries: Matrix, distances: Floats, metric: MetricName) -> int:
    """Return the number of queries whose sorted distances (q, k) differ from those of a full float64 search.

    Compared are squared distances for `l2`; 1e-12 of the squared lengths covers rounding in float64.
    """
    k = distances.shape[1]
    q = queries.astype(np.float64)
    q_square = (q * q).sum(axis=1)[:, None]
    best = np.full((len(q), k), np.inf)
    longest = 0.0
    for first in range(0, len(corpus), _AUDIT_ROWS):
        x = corpus[first : first + _AUDIT_ROWS].astype(np.float64)
        x_square = (x * x).sum(axis=1)
        longest = max(longest, float(x_square.max()))
        product = q @ x.T
        keys = {"l2": q_square + x_square - 2 * product, "ip": -product, "cosine": 1.0 - product}[metric]
        best = np.partition(np.concatenate([best, keys], axis=1), k - 1, axis=1)[:, :k]
    expected = distances**2 if metric == "l2" else distances
    wrong = np.abs(np.sort(best, axis=1) - expected) > 1e-12 * (q_square + longest)
    return int(np.count_nonzero(wrong.any(axis=1)))


def _read(path: Path, origin: Origin) -> Truth:
    with np.load(path) as data:
        stored = Origin(**json.loads(str(data["origin"])))
        if stored != origin:
            raise TruthError(f"{path} belongs to other data (corpus {stored.corpus_sha256[:12]}); remove it")
        return Truth(data["ids"], data["distances"], int(data["audited"]))


def _write(path: Path, origin: Origin, truth: Truth) -> None:
    with replaced(path) as file:
        np.savez(
            file,
            origin=json.dumps(asdict(origin)),
            ids=truth.ids,
            distances=truth.distances,
            audited=truth.audited,
        )
