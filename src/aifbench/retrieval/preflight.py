"""What only this machine can tell of a retrieval case: data, memory, and FAISS's own opinion of index and search."""

from __future__ import annotations

from collections.abc import Iterator

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.retrieval.datasets import asked_metric, missing
from aifbench.retrieval.hdf5 import read_shape
from aifbench.retrieval.params import HDF5_ENDINGS, KNOWN, MetricName, RetrievalParams

_COPIES = 3
"""Corpus in the builder, the index, and either the data's source or the written file's pages."""


def check(params: RetrievalParams, system: System) -> Iterator[ConfigError]:
    """Yield one error per thing that cannot work here."""
    import faiss
    import psutil

    from aifbench.retrieval.build import faiss_metric

    reason = missing(params.dataset)
    if reason:
        yield ConfigError("dataset", params.dataset, reason, kind="not_here")
        return
    dim, n = params.dim, params.vector_count
    metric: MetricName = "l2" if params.metric == "auto" else params.metric
    if params.dataset in KNOWN:
        dim = KNOWN[params.dataset].dim
        metric = KNOWN[params.dataset].metric if params.metric == "auto" else params.metric
    elif params.dataset.endswith(HDF5_ENDINGS):
        try:
            rows, queries, dim, known = read_shape(params.dataset)
            metric = asked_metric(params, known)
        except ConfigError as error:
            yield error
            return
        if params.dim not in (None, dim):
            yield ConfigError("dim", params.dim, f"{params.dataset} has dimension {dim}")
        if n is not None and n > rows:
            yield ConfigError("vectors", n, f"{params.dataset} has only {rows}")
        n = min(n or rows, rows)
        if params.queries + params.warmup_queries > queries:
            yield ConfigError("queries", params.queries, f"{params.dataset} holds {queries}, warm-up included")
        if params.top_k > n:
            yield ConfigError("top_k", params.top_k, f"the index holds only {n} vectors")
    assert dim is not None
    assert n is not None
    needed, free = _COPIES * 4 * n * dim, psutil.virtual_memory().available
    if needed > free:
        gib = f"about {needed / 2**30:.1f} GiB to build, {free / 2**30:.1f} GiB is free"
        problem = f"{n} vectors of dimension {dim} need {gib}"
        yield ConfigError("vectors", params.vectors, problem, kind="not_here")
    try:
        index = faiss.index_factory(dim, params.index, faiss_metric(metric))
    except RuntimeError as error:
        yield ConfigError("index", params.index, f"FAISS does not take it: {_last(error)}")
        return
    for name, value in params.search.items():
        try:
            faiss.ParameterSpace().set_index_parameter(index, name, value)
        except RuntimeError as error:
            yield ConfigError(f"search.{name}", value, f"FAISS does not take it for {params.index}: {_last(error)}")


def _last(error: RuntimeError) -> str:
    """Return what FAISS says after the place in its source."""
    return str(error).rsplit(": ", maxsplit=1)[-1].strip()
