import json

import faiss
import numpy as np
import pytest

from aifbench.core.benchmark import CaseFailed, Context
from aifbench.retrieval import build, datasets, search
from aifbench.retrieval.forks import Child, ChildFailed
from aifbench.retrieval.metrics import evaluate
from aifbench.retrieval.params import RetrievalParams
from aifbench.retrieval.worker import WORKER


@pytest.fixture(autouse=True)
def _one_thread():
    faiss.omp_set_num_threads(1)


def context(folder):
    return Context(
        benchmark="retrieval",
        repetition=0,
        seed=1,
        work_dir=folder / "work",
        cache_dir=folder / "cache",
        target_dir=folder / "target",
        endpoints=(),
        progress=lambda records: None,
        log=lambda level, message: None,
        phase=lambda name: None,
    )


def small(**values):
    base = {"dataset": "synthetic", "dim": 16, "vectors": 2000, "index": "Flat", "queries": 200, "warmup_queries": 20}
    return RetrievalParams(**{**base, **values})


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Workers with a Flat index over 2000 vectors of each data set, made when asked for."""
    workers = {}

    def get(name):
        reason = datasets.missing(name)
        if reason:
            pytest.skip(f"{name}: {reason}")
        if name not in workers:
            workers[name] = WORKER(context(tmp_path_factory.mktemp(name)))
            workers[name].prepare(flat_params(name))
        return workers[name]

    return get


def flat_params(name, **values):
    return small(dataset=name, dim=16 if name == "synthetic" else None, **values)


@pytest.mark.parametrize("name", ["glove-50", "fashion-mnist", "synthetic"])
@pytest.mark.parametrize(
    "path",
    [
        {},
        {"clients": 2},
        {"threads": 2},
        {"batch_size": 7},
        {"batch_size": 100, "clients": 2, "threads": 2},
        {"batch_size": 200, "threads": 2, "top_k": 100},
        {"queries": 1, "top_k": 1},
        {"queries": 5000, "batch_size": 2500, "clients": 2},
    ],
    ids=str,
)
def test_flat_finds_every_true_neighbour_on_every_path(flat, name, path):
    params = flat_params(name, **path)
    measured = flat(name).measure(params)
    assert measured.facts["recall_tie_mean"] == 1.0
    assert measured.facts["recall_id_mean"] == 1.0
    metrics, _ = evaluate(params, measured.raw, measured.facts)
    assert metrics["recall_at_k"].value == 1.0
    assert metrics["execution_time_s"].n == params.queries


def test_each_query_is_answered_once_and_no_client_overlaps_itself(flat):
    params = flat_params("synthetic", clients=3, batch_size=7)
    raw = flat("synthetic").measure(params).raw
    assert raw["first_query"].tolist() == list(range(0, 200, 7))
    assert raw["count"].sum() == 200
    assert (raw["end_ns"] > raw["start_ns"]).all()
    for client in range(3):
        mine = raw["client"] == client
        starts, ends = np.sort(raw["start_ns"][mine]), np.sort(raw["end_ns"][mine])
        assert (starts[1:] >= ends[:-1]).all()


def test_the_warm_up_is_counted_and_not_measured(flat):
    facts = flat("synthetic").measure(flat_params("synthetic", clients=2, warmup_queries=150)).facts
    assert facts["warmup_queries"] >= 150
    assert facts["truth_rows"] == 200
    assert facts["clock_pair_ns"] >= 0
    assert facts["cold_first_query_s"] > 0


def test_rounds_share_one_build_and_give_the_same_recall(tmp_path):
    params = small(index="IVF32,Flat", search={"nprobe": 2})
    first = WORKER(context(tmp_path))
    built = first.prepare(params)
    one = first.measure(params)
    stamp = (tmp_path / "work" / build.INDEX).stat().st_mtime_ns
    second = WORKER(context(tmp_path))
    again = second.prepare(params)
    two = second.measure(params)
    assert (tmp_path / "work" / build.INDEX).stat().st_mtime_ns == stamp
    for key in ("train_s", "add_s", "build_threads", "index_bytes"):
        assert built[key] == again[key] == two.facts[key]
    assert one.facts["recall_id_mean"] == two.facts["recall_id_mean"] < 1.0
    assert built["train_s"] > 0
    json.dumps(two.facts)
    second.close()


def test_search_parameters_of_one_case_do_not_leak_into_the_next(tmp_path):
    worker = WORKER(context(tmp_path))
    params = small(index="IVF32,Flat")
    worker.prepare(params)

    def recall(**values):
        return worker.measure(params.model_copy(update=values)).facts["recall_id_mean"]

    before = recall()
    assert recall(search={"nprobe": 32}) == 1.0
    assert recall() == before < 1.0


def test_an_index_that_cannot_be_built_fails_with_one_line(tmp_path):
    worker = WORKER(context(tmp_path))
    with pytest.raises(CaseFailed, match="could not be built") as caught:
        worker.prepare(small(index="PQ7"))
    assert caught.value.kind == "build_failed"
    assert "\n" not in str(caught.value)


def test_a_search_that_raises_fails_the_case(flat):
    worker = flat("synthetic")
    with pytest.raises(CaseFailed) as caught:
        worker.measure(flat_params("synthetic").model_copy(update={"search": {"nprobe": 3}}))
    assert caught.value.kind == "search_parameter"

    class Broken:
        def search_c(self, *arguments):
            raise RuntimeError("no such list")

    vectors = np.zeros((10, 4), dtype=np.float32)
    with pytest.raises(ChildFailed, match="no such list"):
        search.timed_search(Broken(), vectors, vectors, k=1, batch_size=1, clients=2, threads=1, warmup_queries=1)


def test_a_client_that_dies_is_noticed():
    def die(send):
        raise SystemExit(3)

    child = Child(die)
    with pytest.raises(ChildFailed, match="exit code 3"):
        child.receive()
    child.stop()


def test_share_of_stolen_time():
    assert search.steal_share((1000, 10), (1200, 20)) == 0.05
    assert search.steal_share((1000, 10), (1050, 10)) is None
