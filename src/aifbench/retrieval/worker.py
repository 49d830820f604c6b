"""Measures retrieval cases: reads the batch's index, searches it under the clock, and scores what came back."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson

from aifbench.checks.recall import Floats, recall_id, recall_tie, ties_at
from aifbench.core.benchmark import CaseFailed, Context, Measurement, Worker
from aifbench.log.writer import INFO
from aifbench.retrieval import build
from aifbench.retrieval.forks import ChildFailed
from aifbench.retrieval.params import RetrievalParams
from aifbench.retrieval.search import available_cores, clock_pair_ns, timed_search
from aifbench.retrieval.truth import Truth, TruthError, obtain
from aifbench.stats.quantiles import needed


class RetrievalWorker(Worker[RetrievalParams]):
    """One round of a retrieval batch."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        faiss.omp_set_num_threads(1)  # a pool of threads would not live on in the forked clients
        self._folder = context.work_dir
        self._facts: dict[str, Any] = {}
        self._index: Any = None
        self._set: frozenset[str] = frozenset()
        """Search parameters that were set on the index: FAISS has no way back to its defaults but to read it anew."""

    def prepare(self, params: RetrievalParams) -> dict[str, Any]:
        """Build the index unless an earlier round did, read it, and open the vectors. Raises `CaseFailed`."""
        if not (self._folder / build.FACTS).exists():
            self._build(params)
        facts = orjson.loads((self._folder / build.FACTS).read_bytes())
        ctypes.CDLL(None).malloc_trim(0)  # memory freed by imports would otherwise take up the index unseen
        before = _rss_anon_bytes()
        begin = time.perf_counter()
        self._read_index()
        read_s = time.perf_counter() - begin
        grown = _rss_anon_bytes() - before
        self._corpus = np.load(self._folder / build.CORPUS, mmap_mode="r")
        self._queries = np.load(self._folder / build.QUERIES)
        card = facts.pop("card")
        self._metric = card["metric"]
        self._corpus_sha256 = card["corpus_sha256"]
        self._facts = {
            **facts,
            "index_read_s": read_s,
            "memory_bytes": grown if grown > 0 else None,
            "vectors": card["vectors"],
            "dim": card["dim"],
            "metric": card["metric"],
            "lid": card["lid"],
            "cores": available_cores(),
        }
        return {**self._facts, "card": card, "library": _library()}

    def measure(self, params: RetrievalParams) -> Measurement:
        """Search all queries of the case once and score the answers. Raises `CaseFailed`."""
        queries, warmup = self._queries[: params.queries], self._queries[params.queries :]
        truth = self._truth(params, queries)
        self._apply(params.search)
        self.context.phase("warmup")
        try:
            timed = timed_search(
                self._index,
                queries,
                warmup,
                k=params.top_k,
                batch_size=params.batch_size,
                clients=params.clients,
                threads=params.threads,
                warmup_queries=params.warmup_queries,
                on_start=lambda: self.context.phase("measure"),
            )
        except ChildFailed as error:
            raise CaseFailed("search_error", str(error)) from None
        self.context.phase("score")
        self.context.progress(len(timed.raw["count"]))
        by_id = recall_id(timed.ids, truth.ids, params.top_k)
        by_tie = recall_tie(
            timed.ids, truth.distances, params.top_k, queries=queries, corpus=self._corpus, metric=self._metric
        )
        return Measurement(
            timed.raw,
            {
                **self._facts,
                **_spread("recall_id", by_id),
                **_spread("recall_tie", by_tie),
                "queries_with_tie_at_k": ties_at(truth.distances, params.top_k),
                "truth_rows": len(truth.ids),
                "truth_audited": truth.audited,
                "cold_first_query_s": timed.first_query_s,
                "warmup_queries": timed.warmup_queries,
                "warmup_settled": timed.warmup_settled,
                "clock_pair_ns": clock_pair_ns(),
                "cpu_s": timed.cpu_s,
                "involuntary_switches": timed.involuntary_switches,
                "steal_share": timed.steal_share,
            },
        )

    def close(self) -> None:
        """Release the index."""
        self._index = None

    def _build(self, params: RetrievalParams) -> None:
        self.context.log(INFO, f"building the index {params.index} on {params.dataset}")
        child = subprocess.run(
            [sys.executable, "-m", "aifbench.retrieval.build", str(self._folder)],
            input=params.model_dump_json().encode(),
            stderr=subprocess.PIPE,
            check=False,
        )
        printed = child.stderr.decode(errors="replace").strip()
        if printed:
            print(printed, file=sys.stderr)
        if child.returncode:
            last = printed.splitlines()[-1] if printed else f"exit code {child.returncode}"
            raise CaseFailed("build_failed", f"the index {params.index} could not be built: {last}")

    def _read_index(self) -> None:
        self._index = None
        self._index = faiss.read_index(str(self._folder / build.INDEX))
        self._set = frozenset()

    def _truth(self, params: RetrievalParams, queries: Any) -> Truth:
        self.context.phase("ground_truth")
        try:
            return obtain(
                self.context.cache_dir,
                corpus=self._corpus,
                corpus_sha256=self._corpus_sha256,
                queries=queries,
                k=params.top_k,
                metric=self._metric,
            )
        except TruthError as error:
            raise CaseFailed("ground_truth", str(error)) from None

    def _apply(self, search: dict[str, int]) -> None:
        if self._set - search.keys():
            self._read_index()
        try:
            for name, value in search.items():
                faiss.ParameterSpace().set_index_parameter(self._index, name, value)
        except RuntimeError as error:
            raise CaseFailed("search_parameter", " ".join(str(error).split())) from None
        self._set = frozenset(search)


WORKER = RetrievalWorker


def _spread(name: str, per_query: Floats) -> dict[str, Any]:
    """Return mean, least, 1st percentile (where n supports it) and standard deviation over the queries."""
    n = len(per_query)
    return {
        f"{name}_mean": float(per_query.mean()),
        f"{name}_min": float(per_query.min()),
        f"{name}_p1": float(np.quantile(per_query, 0.01)) if n >= needed(0.01) else None,
        f"{name}_std": float(per_query.std(ddof=1)) if n > 1 else None,
    }


def _rss_anon_bytes() -> int:
    """Return the anonymous resident memory of this process: `RssAnon` of /proc/self/status, given in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise CaseFailed("no_rss_anon", "this kernel does not tell RssAnon")


def _library() -> dict[str, Any]:
    """Return what in FAISS and OpenMP decides how a search runs."""
    return {
        "faiss": faiss.__version__,
        "compile_options": faiss.get_compile_options().strip(),
        "blas_threshold": faiss.cvar.distance_compute_blas_threshold,
        **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")},
    }
