import subprocess
import sys

import pytest
from pydantic import ValidationError

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.retrieval.params import RetrievalParams
from aifbench.retrieval.preflight import check

BASE = {"dataset": "glove-50", "index": "Flat"}


def problem(**values) -> str:
    with pytest.raises(ValidationError) as caught:
        RetrievalParams(**{**BASE, **values})
    (error,) = caught.value.errors()
    return ".".join(map(str, error["loc"])) + " " + error["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    "index",
    [
        "Flat", "HNSW32", "IVF1024,Flat", "IVF256,PQ10", "PCA20,IVF10,Flat", "OPQ10,IVF10,PQ10x4fs", "NSG32", "SQ8",
        "IVF10_HNSW32,Flat", "IVF4k,SQfp16", "IDMap,Flat", "HNSW32,SQ8", "IVF64(HNSW32),Flat", "IVF4,SQ8,RFlat",
        "IVF10,PQ10+10", "L2norm,Flat", "LSH", "IVF4,RaBitQ",
    ],
)  # fmt: skip
def test_index_strings_that_faiss_takes(index):
    assert RetrievalParams(**{**BASE, "index": index}).index == index


@pytest.mark.parametrize("index", ["", "Flatt", "Flat,", "IVF,Flat", "HNSW 32", "hnsw32", "IVF10;Flat", "PQ"])
def test_index_strings_that_cannot_be(index):
    assert problem(index=index).startswith("index ")


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"top_k": 101, "vectors": 100}, "top_k: 101 neighbours asked for, but the index holds 100 vectors"),
        ({"top_k": 0}, "top_k "),
        ({"dataset": "sift"}, "dataset unknown data set; allowed: glove-50, fashion-mnist, synthetic"),
        ({"dataset": "synthetic"}, "dim: needed"),
        ({"dim": 51}, "dim: glove-50 has dimension 50, not 51"),
        ({"vectors": 400_000}, "vectors: glove-50 has 390000"),
        ({"index": "IVF1024,Flat", "vectors": 1000}, "index: 1024 lists"),
        ({"index": "IVF1k,Flat", "vectors": 1000}, "index: 1024 lists"),
        ({"search": {"nprobe": 4}}, "search: nprobe has no meaning"),
        ({"search": {"efSearch": 0}, "index": "HNSW32"}, "search efSearch = 0"),
        ({"search": {"nprobe": 17}, "index": "IVF16,Flat"}, "search: nprobe = 17 exceeds the 16 lists"),
        ({"queries": 9901}, "queries: more than the 10000 held out"),
        ({"queries": 100, "clients": 2, "batch_size": 51}, "queries: 100 cannot keep 2 clients busy"),
        ({"recall_floor": 1.1}, "recall_floor "),
        ({"nprobe": 3}, "nprobe "),
    ],
)
def test_nonsense_names_its_field(values, start):
    assert problem(**values).strip().startswith(start)


def test_search_of_a_suite_expands_for_its_index_only():
    search = {"HNSW32": {"efSearch": [16, 64]}, "IVF16,Flat": {"nprobe": 4, "max_codes": [100, 200]}}

    def cases(index):
        return [case["search"] for case in RetrievalParams.resolve({**BASE, "index": index, "search": search}, [])]

    assert cases("Flat") == [{}]
    assert cases("HNSW32") == [{"efSearch": 16}, {"efSearch": 64}]
    assert cases("IVF16,Flat") == [{"nprobe": 4, "max_codes": 100}, {"nprobe": 4, "max_codes": 200}]


def test_search_of_one_point_is_taken_as_it_is():
    point = {**BASE, "index": "HNSW32", "search": {"efSearch": 64}}
    assert RetrievalParams.resolve(point, []) == [point]


def test_search_for_an_index_that_no_case_has():
    points = [{"index": "Flat", "search": {"HNSW16": {"efSearch": 16}}}, {"index": "HNSW32", "search": {}}]
    with pytest.raises(ConfigError, match=r"search = 'HNSW16': no case .* \(allowed: Flat, HNSW32\)"):
        RetrievalParams.check_suite(points)
    RetrievalParams.check_suite([{"index": "HNSW16", "search": {"HNSW16": {"efSearch": 16}}}])


def test_an_empty_list_of_search_values():
    with pytest.raises(ConfigError, match="empty list"):
        RetrievalParams.resolve({**BASE, "index": "HNSW32", "search": {"HNSW32": {"efSearch": []}}}, [])


def test_a_file_is_looked_for_in_the_folders(tmp_path):
    (tmp_path / "set.hdf5").touch()
    (found,) = RetrievalParams.resolve({**BASE, "dataset": "set.hdf5"}, [tmp_path / "no", tmp_path])
    assert found["dataset"] == str(tmp_path / "set.hdf5")
    (kept,) = RetrievalParams.resolve({**BASE, "dataset": "none.hdf5"}, [tmp_path])
    assert kept["dataset"] == "none.hdf5"


def test_names_and_shared_part():
    params = RetrievalParams(**{**BASE, "index": "IVF1024,Flat", "top_k": 5, "search": {"nprobe": 8}})
    assert params.slug() == "glove-50-ivf1024-flat"
    assert params.setup_identity() == {"dataset": "glove-50", "index": "IVF1024,Flat"}
    assert params.identity() == {**params.setup_identity(), "top_k": 5, "search": {"nprobe": 8}}
    assert RetrievalParams(dataset="/data/sift-128.hdf5", index="HNSW32").slug() == "sift-128-hnsw32"


def test_importing_the_parameters_loads_no_heavy_library():
    code = (
        "import sys, aifbench.retrieval.params; print(sorted({'faiss', 'numpy', 'h5py', 'psutil'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "faiss" not in loaded
    assert "h5py" not in loaded


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"index": "PQ7"}, ["index = 'PQ7'", "multiple"]),
        ({"index": "HNSW32", "search": {"nosuch": 3}}, ["search.nosuch = 3", "FAISS does not take it for HNSW32"]),
        ({"dataset": "none.hdf5"}, ["dataset = 'none.hdf5'", "no such file"]),
        ({"dataset": "synthetic", "dim": 4096, "vectors": 10**9}, ["vectors = 1000000000", "GiB"]),
    ],
)
def test_preflight_says_what_cannot_work_here(values, parts):
    (error,) = check(
        RetrievalParams(**{"dataset": "synthetic", "dim": 50, "index": "Flat", **values}), System(name="here")
    )
    assert all(part in str(error) for part in parts), str(error)


def test_preflight_lets_good_parameters_pass():
    params = RetrievalParams(
        dataset="synthetic",
        dim=16,
        vectors=1000,
        index="IVF16_HNSW32,Flat",
        search={"nprobe": 4, "quantizer_efSearch": 8},
    )
    assert list(check(params, System(name="here"))) == []
