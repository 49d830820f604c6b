import gzip
import math

import faiss
import h5py
import numpy as np
import pytest

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.retrieval import datasets, truth
from aifbench.retrieval.datasets import card, digest, lid, read_dataset, synthetic
from aifbench.retrieval.params import RetrievalParams
from aifbench.retrieval.preflight import check

SHIPPED = ["glove-50", "fashion-mnist"]


@pytest.fixture(autouse=True)
def _one_thread():
    faiss.omp_set_num_threads(1)


def shipped(name, **values):
    reason = datasets.missing(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return RetrievalParams(dataset=name, index="Flat", **values)


def test_synthetic_is_reproducible_and_a_longer_set_begins_with_the_shorter():
    whole = synthetic(10_500, 24, seed=5)
    assert whole.shape == (10_500, 24)
    assert whole.dtype == np.float32
    assert np.array_equal(whole[:70], synthetic(70, 24, seed=5))
    assert not np.array_equal(whole[:70], synthetic(70, 24, seed=6))
    assert not np.array_equal(whole[:70], synthetic(70, 24, seed=5, stream=1))
    assert np.abs(whole).max() <= 1.0
    assert np.array_equal(whole * 4096, np.rint(whole * 4096))


def test_synthetic_bytes_do_not_change():
    expected = "15ee93bb8a97189cf039419dbfdd1400d73e7eae9e13b212bdec7a720ac8afb2"
    assert digest(synthetic(1000, 32, seed=1)) == expected


@pytest.mark.parametrize("dim", [32, 128, 512])
def test_synthetic_is_about_as_hard_as_real_embeddings(dim):
    found = card(read_dataset(RetrievalParams(dataset="synthetic", dim=dim, vectors=20_000, index="Flat")))
    assert 13 <= found["lid"] <= 25
    assert found["duplicate_rows"] == 0


def test_lid_by_hand():
    # distances 1 and 2: logs are log(1/2) and 0, so the estimate is 2 / log 2
    assert lid(np.array([[1.0, 2.0]])) == pytest.approx(2 / math.log(2))
    # distance 0 (a duplicate) is left out; a query with equal distances has none
    assert lid(np.array([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0]])) == pytest.approx(2 / math.log(2))
    assert lid(np.array([[0.0, 0.0]])) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets(name):
    params = shipped(name, vectors=3000)
    data = read_dataset(params)
    again = read_dataset(params.model_copy(update={"vectors": 1000}))
    assert len(data.corpus) == 3000
    assert np.array_equal(data.corpus[:1000], again.corpus)
    assert np.array_equal(data.queries, again.queries)
    assert len(data.queries) == 10_000
    found = card(data)
    assert 8 <= found["lid"] <= 30
    assert found["licence"] in {"PDDL-1.0", "MIT"}
    assert found["corpus_sha256"] == digest(data.corpus)
    if name == "glove-50":
        assert data.metric == "cosine"
        assert np.allclose(np.linalg.norm(data.corpus, axis=1), 1.0, atol=1e-6)
    other = read_dataset(params.model_copy(update={"data_seed": 2}))
    assert digest(other.corpus) != found["corpus_sha256"]


@pytest.mark.parametrize("name", SHIPPED)
def test_queries_are_held_out(name):
    data = read_dataset(shipped(name))
    rows = {row.tobytes() for row in data.corpus}
    assert sum(query.tobytes() in rows for query in data.queries) == 0


def test_card_counts_duplicate_rows():
    data = read_dataset(RetrievalParams(dataset="synthetic", dim=8, vectors=300, index="Flat"))
    data.corpus[10:13] = data.corpus[5]
    assert card(data)["duplicate_rows"] == 3


def hdf5(path, n=400, queries=200, dim=6, distance="euclidean", **names):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file[names.get("train", "train")] = rng.normal(size=(n, dim)).astype(np.float32)
        file["test"] = rng.normal(size=(queries, dim)).astype(np.float32)
        file.attrs["distance"] = distance
    return RetrievalParams(dataset=str(path), index="Flat", queries=100, warmup_queries=10)


@pytest.mark.parametrize(("distance", "metric"), [("euclidean", "l2"), ("angular", "cosine"), ("ip", "ip")])
def test_hdf5_of_ann_benchmarks(tmp_path, distance, metric):
    params = hdf5(tmp_path / "a.hdf5", distance=distance)
    assert list(check(params, System(name="here"))) == []
    data = read_dataset(params)
    assert (data.corpus.shape, data.queries.shape, data.metric) == ((400, 6), (200, 6), metric)


@pytest.mark.parametrize(
    ("values", "change", "parts"),
    [
        ({"distance": "jaccard"}, {}, ["dataset", "jaccard", "euclidean"]),
        ({"train": "other"}, {}, ["dataset", "`train`"]),
        ({}, {"vectors": 401}, ["vectors = 401", "400"]),
        ({}, {"dim": 7}, ["dim = 7", "6"]),
        ({}, {"queries": 191}, ["queries = 191", "200"]),
        ({}, {"top_k": 401}, ["top_k = 401", "400"]),
    ],
)
def test_hdf5_that_does_not_fit(tmp_path, values, change, parts):
    params = hdf5(tmp_path / "a.h5", **values).model_copy(update=change)
    (error,) = check(params, System(name="here"))
    assert all(part in str(error) for part in parts), str(error)


def test_a_file_that_is_not_idx(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01" + bytes(20)))
    with pytest.raises(ConfigError, match="not an IDX file"):
        datasets._idx_images(path)


def test_cosine_refuses_a_vector_without_direction():
    with pytest.raises(ConfigError, match="length 0"):
        datasets._unit(np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_truth_is_what_an_exhaustive_search_in_float64_finds(metric):
    rng = np.random.default_rng(1)
    corpus, queries = (rng.normal(size=(n, 3)).astype(np.float32) for n in (400, 20))
    if metric == "cosine":
        corpus, queries = datasets._unit(corpus), datasets._unit(queries)
    found = truth.compute(corpus, queries, 30, metric)
    assert found.audited == 20
    q, x = queries.astype(np.float64), corpus.astype(np.float64)
    keys = np.linalg.norm(q[:, None] - x[None], axis=2) if metric == "l2" else -(q @ x.T)
    assert found.ids.tolist() == np.argsort(keys, axis=1)[:, :30].tolist()
    offset = 1.0 if metric == "cosine" else 0.0
    assert np.allclose(found.distances, np.sort(keys, axis=1)[:, :30] + offset, rtol=0, atol=1e-12)


def test_ties_are_in_the_order_of_ids():
    corpus = np.array([[1.0], [-1.0], [1.0], [5.0]], dtype=np.float32)
    found = truth.compute(corpus, np.zeros((1, 1), dtype=np.float32), 4, "l2")
    assert found.ids.tolist() == [[0, 1, 2, 3]]
    assert found.distances.tolist() == [[1.0, 1.0, 1.0, 5.0]]


def test_depth_shows_ties_past_k_and_never_exceeds_the_corpus():
    assert [truth.depth_for(k, 10_000) for k in (1, 50, 51, 500)] == [100, 100, 102, 1000]
    assert truth.depth_for(10, 12) == 12


def test_audit_finds_a_planted_lie():
    rng = np.random.default_rng(2)
    corpus, queries = rng.normal(size=(500, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    found = truth.compute(corpus, queries, 10, "l2")
    assert truth.audit(corpus, queries, found.distances, "l2") == 0
    wrong = found.distances.copy()
    wrong[3] = np.append(wrong[3, 1:], wrong[3, -1] + 0.1)  # the nearest one left out
    assert truth.audit(corpus, queries, wrong, "l2") == 1


def test_cache_keeps_the_truth_and_refuses_that_of_other_data(tmp_path):
    rng = np.random.default_rng(3)
    corpus, queries = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)

    def obtain(corpus):
        return truth.obtain(tmp_path, corpus=corpus, corpus_sha256=digest(corpus), queries=queries, k=5, metric="l2")

    first = obtain(corpus)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    second = obtain(corpus)
    assert path.stat().st_mtime_ns == stamp
    assert np.array_equal(first.ids, second.ids)
    assert first.ids.shape == (7, 100)
    other = corpus + 1
    path.rename(tmp_path / path.name.replace(digest(corpus)[:12], digest(other)[:12]))
    with pytest.raises(truth.TruthError, match="belongs to other data"):
        obtain(other)
