"""Builds the index of a batch in a process of its own: `python -m aifbench.retrieval.build FOLDER < params.json`.

Every round then reads the same file into a fresh process, so that the rounds differ in nothing, and the memory of the
index can be told from that of building it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import faiss
import numpy as np
import orjson

from aifbench.core.errors import ConfigError
from aifbench.files.written import atomic_write, replaced
from aifbench.retrieval import datasets
from aifbench.retrieval.params import MetricName, RetrievalParams
from aifbench.retrieval.search import available_cores

INDEX = "index.faiss"
CORPUS = "corpus.npy"
QUERIES = "queries.npy"
FACTS = "build.json"
"""Written last: where it is, the others are complete."""


def build(params: RetrievalParams, folder: Path) -> None:
    """Load the data, train and fill the index, and write index, corpus, query pool and facts into `folder`."""
    dataset = datasets.read_dataset(params)
    threads = params.build_threads or available_cores()
    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(dataset.corpus.shape[1], params.index, faiss_metric(dataset.metric))
    train_s = None
    begin = time.perf_counter()
    if not index.is_trained:
        index.train(dataset.corpus)
        train_s = time.perf_counter() - begin
    added = time.perf_counter()
    index.add(dataset.corpus)
    add_s = time.perf_counter() - added
    with replaced(folder / INDEX) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # not in its stubs
    for name, array in ((CORPUS, dataset.corpus), (QUERIES, dataset.queries)):
        with replaced(folder / name) as file:
            np.save(file, array)
    facts = {
        "train_s": train_s,
        "add_s": add_s,
        "build_threads": threads,
        "index_bytes": (folder / INDEX).stat().st_size,
        "card": datasets.card(dataset),
    }
    atomic_write(folder / FACTS, orjson.dumps(facts))


def faiss_metric(metric: MetricName) -> int:
    """Return FAISS's constant; under `cosine` all vectors have length 1, so that it is the inner product."""
    constant: int = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    return constant


def main() -> int:
    """Build from the parameters on standard input; a fault is one line on standard error and exit code 1."""
    try:
        build(RetrievalParams.model_validate_json(sys.stdin.buffer.read()), Path(sys.argv[1]))
    except (ConfigError, RuntimeError, MemoryError, OSError) as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
