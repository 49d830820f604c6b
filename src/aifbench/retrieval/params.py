"""Parameters of a retrieval case. Pure and light: FAISS itself is asked only in `preflight`."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import field_validator, model_validator

from aifbench.core.errors import ConfigError, FieldError
from aifbench.core.params import MOST_CASES, Params, setup, vary
from aifbench.core.paths import PathText

MetricName = Literal["l2", "ip", "cosine"]


class KnownSet(NamedTuple):
    """What is known of a shipped data set without opening it: vectors for the index, dimension, metric."""

    vectors: int
    dim: int
    metric: MetricName


QUERY_POOL = 10_000
"""Rows held out of every index. Measured queries are its first rows, warm-up queries its last."""
KNOWN = {"glove-50": KnownSet(400_000 - QUERY_POOL, 50, "cosine"), "fashion-mnist": KnownSet(60_000, 784, "l2")}
SYNTHETIC = "synthetic"
SYNTHETIC_VECTORS = 100_000
HDF5_ENDINGS = (".hdf5", ".h5")

_PART = re.compile(
    r"(?:PCA(?:R|W|WR)?\d+|OPQ\d+(?:_\d+)?|RR\d+|ITQ\d*|L2norm|Pad\d+"  # transforms
    r"|(?:IVF\d+[kM]?|IMI\d+x\d+)(?:_HNSW\d*|_NSG\d*|_Flat|\(.+\))?"  # coarse quantizers
    r"|HNSW\d*(?:_\d+\+?PQ\d*|_PQ\d+\w*|_SQ\w+|_2x\d+)?|NSG\d*"  # graphs
    r"|Flat|FlatDedup|SQ\w+|PQ\d+\w*(?:\+\d+)?|PQ\d+x\d+fs\w*|(?:RQ|LSQ|PRQ|PLSQ)\d+x\w+|RaBitQ\w*|ZnLattice\w+|LSH\w*"
    r"|IDMap2?|RFlat|Refine\(.+\))",
    re.ASCII,
)
_NEEDS = {"nprobe": ("IVF", "IMI"), "efSearch": ("HNSW",), "max_codes": ("IVF", "IMI"), "k_factor": ("Refine", "RFlat")}
"""Kind of index that a search parameter belongs to."""
_LONGEST_SLUG = 210
"""With the hash of a batch and its part, what a file system takes as a name."""
_IVF = re.compile(r"(?:^|,)IVF(\d+)([kM]?)", re.ASCII)


class RetrievalParams(Params):
    """One point of a retrieval matrix: data and index (shared by a batch), and how it is searched."""

    label_fields: ClassVar[tuple[str, ...]] = (
        "index", "search", "top_k", "clients", "batch_size", "threads", "dataset",
    )  # fmt: skip

    metrics: ClassVar[tuple[str, ...]] = (
        "execution_time_s", "queries_per_second", "cpu_per_query_s", "concurrency_achieved", "latency_mean_s",
        "latency_p50_s", "latency_p90_s", "latency_p95_s", "latency_p99_s", "latency_p999_s", "recall_at_k",
        "recall_tie_at_k", "build_time_s", "train_time_s", "add_time_s", "index_bytes", "memory_bytes",
    )  # fmt: skip

    dataset: PathText = setup(
        ..., f"`{'`, `'.join(KNOWN)}`, `{SYNTHETIC}`, or the path of a file of ann-benchmarks' HDF5 layout"
    )
    vectors: int | None = setup(None, "vectors in the index: the first n after a seeded shuffle; empty means all", ge=1)
    dim: int | None = setup(None, f"dimension; needed for `{SYNTHETIC}`, otherwise that of the data", ge=1, le=65_536)
    metric: Literal["auto", "l2", "ip", "cosine"] = setup("auto", "distance; `auto` takes the one of the data set")
    index: str = setup(..., "FAISS index_factory string, such as `Flat`, `HNSW32` or `IVF1024,Flat`", max_length=200)
    build_threads: int = setup(0, "OpenMP threads that build the index; 0 means all cores", ge=0, le=1024)
    data_seed: int = setup(1, "seed of the shuffle, and of the generator of synthetic data", ge=0)

    top_k: int = vary(10, "neighbours asked for", ge=1, le=10_000)
    clients: int = vary(1, "concurrent searchers, each with one call in flight (closed loop)", ge=1)
    batch_size: int = vary(1, "queries in one search call", ge=1)
    threads: int = vary(1, "OpenMP threads of one search call", ge=1, le=1024)
    queries: int = vary(1000, "distinct queries, held out of the index, each answered once", ge=1)
    search: dict[str, int] = vary({}, "FAISS search parameters, such as nprobe or efSearch; empty: FAISS's defaults")
    recall_floor: float = vary(0.5, "a repetition with a lower mean recall is invalid", ge=0, le=1)
    warmup_queries: int = vary(100, "least number of untimed queries before the timed ones", ge=1)

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        if value not in (*KNOWN, SYNTHETIC) and not value.endswith(HDF5_ENDINGS):
            names = ", ".join([*KNOWN, SYNTHETIC])
            raise ValueError(f"unknown data set; allowed: {names}, or a path ending in .hdf5 or .h5")
        return value

    @field_validator("index")
    @classmethod
    def _plausible_index(cls, value: str) -> str:
        for part in _split(value):
            if not _PART.fullmatch(part):
                raise ValueError(f"'{part}' is no part of an index_factory string such as Flat, HNSW32 or IVF1024,Flat")
        return value

    @field_validator("search")
    @classmethod
    def _positive_search(cls, value: dict[str, int]) -> dict[str, int]:
        for name, number in value.items():
            if number < 1:
                raise ValueError(f"{name} = {number} must be at least 1")
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _fits_together(self) -> RetrievalParams:
        known = KNOWN.get(self.dataset)
        if self.dataset == SYNTHETIC and self.dim is None:
            raise FieldError("dim", f"needed for the data set '{SYNTHETIC}'")
        if known and self.dim not in (None, known.dim):
            raise FieldError("dim", f"{self.dataset} has dimension {known.dim}, not {self.dim}")
        if known and self.vectors and self.vectors > known.vectors:
            raise FieldError("vectors", f"{self.dataset} has {known.vectors} besides the held-out queries")
        n = self.vector_count
        if n is not None and self.top_k > n:
            raise FieldError("top_k", f"{self.top_k} neighbours asked for, but the index holds {n} vectors")
        nlist = self.nlist
        if nlist and n is not None and nlist > n:
            raise FieldError("index", f"{nlist} lists need at least as many vectors, not {n}")
        for name, kinds in _NEEDS.items():
            if name in self.search and not any(kind in self.index for kind in kinds):
                raise FieldError("search", f"{name} has no meaning for the index {self.index}")
        if nlist and self.search.get("nprobe", 1) > nlist:
            raise FieldError("search", f"nprobe = {self.search['nprobe']} exceeds the {nlist} lists of {self.index}")
        if self.queries + self.warmup_queries > QUERY_POOL:
            raise FieldError(
                "queries", f"more than the {QUERY_POOL} held out, with {self.warmup_queries} of the warm-up"
            )
        if self.batch_size * self.clients > self.queries:
            most, least = max(1, self.queries // self.batch_size), self.batch_size * self.clients
            raise FieldError(
                "queries",
                f"{self.queries} cannot keep {self.clients} clients busy with {self.batch_size} per call: "
                f"at most {most} client{'' if most == 1 else 's'}, or at least {least} queries",
            )
        return self

    @property
    def vector_count(self) -> int | None:
        """Vectors in the index, None while only the file knows."""
        if self.vectors is not None:
            return self.vectors
        if self.dataset in KNOWN:
            return KNOWN[self.dataset].vectors
        return SYNTHETIC_VECTORS if self.dataset == SYNTHETIC else None

    @property
    def nlist(self) -> int | None:
        """Lists of an inverted-file index, None for others."""
        match = _IVF.search(self.index)
        return int(match[1]) * {"": 1, "k": 1024, "M": 1024**2}[match[2]] if match else None

    @classmethod
    def suite_field(cls, name: str) -> tuple[Any, Any] | None:
        """`search` of a suite is {index: {parameter: value or list of values}}."""
        return (dict[str, dict[str, int | list[int]]], {}) if name == "search" else None

    @classmethod
    def resolve(cls, point: dict[str, Any], folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Expand the suite's `search` for this point's index (product over lists); find the file of a data set."""
        values = dict(point)
        dataset = values.get("dataset")
        if isinstance(dataset, str) and dataset.endswith(HDF5_ENDINGS):
            found = (folder / dataset for folder in folders if os.path.isfile(folder / dataset))
            values["dataset"] = str(next(found, dataset))
        search = values.get("search", {})
        if not any(isinstance(value, Mapping) for value in search.values()):  # a point's own: {parameter: value}
            return [values]
        index = values.get("index", "")
        grid = search.get(index, {})
        lists = [choice if isinstance(choice, list) else [choice] for choice in grid.values()]
        if math.prod(map(len, lists)) > MOST_CASES:
            raise ConfigError(f"search.{index}", grid, "all values with each other are too many cases", f"{MOST_CASES}")
        if not all(lists):
            raise ConfigError(f"search.{index}", grid, "an empty list gives no case")
        return [{**values, "search": dict(zip(grid, choice, strict=True))} for choice in itertools.product(*lists)]

    @classmethod
    def check_suite(cls, points: Sequence[Mapping[str, Any]]) -> None:
        """Raise `ConfigError` when a suite's `search` names an index that no point of the suite has."""
        indexes = {point["index"] for point in points if "index" in point}
        for point in points:
            for name, value in point.get("search", {}).items():
                if isinstance(value, Mapping) and name not in indexes:
                    problem = "no case of the suite has this index"
                    raise ConfigError("search", name, problem, kind="unknown_name", choices=sorted(indexes))

    def reads(self) -> tuple[Path, ...]:
        """The file of the data set, where it is one."""
        return (Path(self.dataset),) if self.dataset.endswith(HDF5_ENDINGS) else ()

    def site_identity(self) -> dict[str, Any]:
        """Beside the set-up, FAISS itself judges the search parameters."""
        return {**self.setup_identity(), "search": self.search}

    def slug(self) -> str:
        """Data set and index, such as `glove-50-hnsw32`."""
        name = Path(self.dataset).stem if self.dataset.endswith(HDF5_ENDINGS) else self.dataset
        return "-".join(re.findall(r"[a-z0-9]+", f"{name} {self.index}".lower()))[:_LONGEST_SLUG]

    def expected_seconds(self, repetitions: int) -> float:
        """Forking and scoring, and one pass over the queries, at the speed of two cores of 2025."""
        n, dim = self._size()
        work = 2e-10 * n * dim if self.index.endswith("Flat") and not self.nlist and "HNSW" not in self.index else 2e-4
        return repetitions * (0.2 + work * (self.queries + self.warmup_queries))

    def expected_setup_seconds(self) -> float:
        """Data, truth and index build, at the speed of two cores of 2025."""
        n, dim = self._size()
        per_vector = 1e-4 if "HNSW" in self.index or "NSG" in self.index else 2e-5 if self.nlist else 1e-6
        return 5.0 + n * (per_vector + 2e-8 * dim)

    def _size(self) -> tuple[int, int]:
        known = KNOWN.get(self.dataset)
        return self.vector_count or 1_000_000, self.dim or (known.dim if known else 128)


def _split(index: str) -> list[str]:
    """Split an index_factory string at the commas outside parentheses."""
    return re.split(r",(?![^(]*\))", index)
