"""Files of vectors that come from anybody: what is read lies in the file itself, and all else is one line."""

import os

import h5py
import numpy as np
import pytest

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.retrieval.datasets import read_dataset
from aifbench.retrieval.params import RetrievalParams
from aifbench.retrieval.preflight import check
from tests.unit.test_retrieval_data import hdf5


def vectors(n=60, dim=4):
    return np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)


def external_link(file, secret):
    file["train"] = h5py.ExternalLink(secret, "/train")


def soft_link_to_a_link(file, secret):
    file["group/out"] = h5py.ExternalLink(secret, "/")
    file["train"] = h5py.SoftLink("/group/out/train")


def external_storage(file, secret):
    file.create_dataset("train", (60, 4), np.float32, external=[(secret, 0, 960)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((60, 4), np.float32)
    layout[:] = h5py.VirtualSource(secret, "train", (60, 4))
    file.create_virtual_dataset("train", layout)


def group(file, secret):
    file.create_group("train")["emb"] = vectors()


def named_type(file, secret):
    file["train"] = np.dtype("f4")


def nothing(file, secret):
    pass


def dangling(file, secret):
    file["train"] = h5py.SoftLink("/not/there")


def through_a_data_set(file, secret):
    file["a"] = vectors()
    file["train"] = h5py.SoftLink("/a/b")


def circle(file, secret):
    file["a"], file["train"] = h5py.SoftLink("/train"), h5py.SoftLink("/a")


def texts(file, secret):
    file["train"] = np.array([["a", "b"]] * 60, dtype=h5py.string_dtype())


def bytes_(file, secret):
    file["train"] = np.array([[b"a", b"b"]] * 60)


def compound(file, secret):
    file["train"] = np.zeros((60, 4), dtype=[("x", "f4"), ("y", "f4")])


def ragged(file, secret):
    file.create_dataset("train", (60, 4), h5py.vlen_dtype(np.float32))


def references(file, secret):
    file.create_dataset("train", (60, 4), h5py.ref_dtype)


def complex_(file, secret):
    file["train"] = vectors().astype(np.complex64)


def arrays(file, secret):
    file.create_dataset("train", (60, 4), np.dtype((np.float32, (2,))))


def flat(file, secret):
    file["train"] = np.arange(60, dtype=np.float32)


def cube(file, secret):
    file["train"] = np.zeros((3, 4, 5), np.float32)


def scalar(file, secret):
    file["train"] = 1.0


def null_space(file, secret):
    file["train"] = h5py.Empty("f4")


def no_rows(file, secret):
    file["train"] = np.zeros((0, 4), np.float32)


def no_columns(file, secret):
    file["train"] = np.zeros((60, 0), np.float32)


def filtered(file, secret):
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((60, 4))
    stored.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((60, 4))
    h5py.h5d.create(file.id, b"train", h5py.h5t.IEEE_F32LE, space, stored)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (external_link, "is a link to another file: "),
        (soft_link_to_a_link, "is a link to another file: "),
        (external_storage, "keeps its values in another file: "),
        (virtual, "is virtual: its values are in other files"),
        (group, "is a group"),
        (named_type, "is no data set"),
        (nothing, "is missing"),
        (dangling, "is a link to nothing"),
        (through_a_data_set, "is a link to nothing"),
        (circle, "is a link to itself"),
        (texts, "holds object, no numbers"),
        (bytes_, "holds |S1, no numbers"),
        (compound, "no numbers"),
        (ragged, "no numbers"),
        (references, "no numbers"),
        (complex_, "holds complex64, no numbers"),
        (arrays, "no numbers"),
        (flat, "has the shape (60,)"),
        (cube, "has the shape (3, 4, 5)"),
        (scalar, "has the shape ()"),
        (null_space, "has the shape None"),
        (no_rows, "has the shape (0, 4)"),
        (no_columns, "has the shape (60, 0)"),
        (filtered, "is compressed by filter 32015, which is not here"),
    ],
)
def test_what_is_no_data_set_of_the_file_itself_is_refused_by_plan_and_batch(tmp_path, make, said):
    """The other file is there and would be read: `train` of it is a set of vectors that fits."""
    secret = str(tmp_path / "secret.hdf5")
    with h5py.File(secret, "w") as file:
        file["train"] = vectors()
    path = tmp_path / "odd.hdf5"
    with h5py.File(path, "w") as file:
        make(file, secret)
        file["test"] = vectors()
        file.attrs["distance"] = "euclidean"
    params = RetrievalParams(dataset=str(path), index="Flat", queries=30, warmup_queries=10)
    (planned,) = check(params, System(name="here"))
    with pytest.raises(ConfigError) as loaded:
        read_dataset(params)
    for line in (str(planned), str(loaded.value)):
        assert "odd.hdf5': `train` " in line
        assert said in line


def test_links_within_the_file_and_to_it_are_followed(tmp_path):
    path = tmp_path / "real.hdf5"
    with h5py.File(path, "w") as file:
        file["data/sets/one"] = vectors()
        file["data/two"] = h5py.SoftLink("./sets/one")
        file["train"] = h5py.SoftLink("/data/two")
        file["test"] = file["data/sets/one"]
        file.attrs["distance"] = "euclidean"
    (tmp_path / "link.hdf5").symlink_to(path)
    params = RetrievalParams(dataset=str(tmp_path / "link.hdf5"), index="Flat", queries=30, warmup_queries=10)
    assert list(check(params, System(name="here"))) == []
    found = read_dataset(params)
    assert np.array_equal(np.sort(found.corpus, axis=0), np.sort(vectors(), axis=0))


def test_a_link_of_a_kind_that_programs_define_is_refused(tmp_path):
    """HDF5 writes no such link from Python: the type of an external one (64) is set to 65 in the file."""
    path = tmp_path / "user.hdf5"
    with h5py.File(path, "w", libver="latest") as file:
        file["train"] = h5py.ExternalLink("elsewhere", "/train")
        file["test"] = vectors()
        file.attrs["distance"] = "euclidean"
    raw = path.read_bytes()
    place = raw.index(b"\x05train") - 1
    assert raw[place] == 64
    changed = raw[:place] + bytes([65]) + raw[place + 1 :]
    path.write_bytes(changed)
    params = RetrievalParams(dataset=str(path), index="Flat", queries=30, warmup_queries=10)
    (error,) = check(params, System(name="here"))
    assert "`train` is a link to another file" in str(error) or "cannot be read as HDF5" in str(error)


@pytest.mark.parametrize(
    ("distance", "metric"),
    [
        (np.bytes_(b"angular"), "cosine"),
        (np.array(["angular"], dtype=h5py.string_dtype()), "cosine"),
        (np.array([b"euclidean"]), "l2"),
        ("Angular", "cosine"),
        ("cosine", "cosine"),
        ("l2", "l2"),
        ("dot", "ip"),
        (None, "l2"),
    ],
)
def test_the_distance_is_understood_however_it_is_stored(tmp_path, distance, metric):
    params = hdf5(tmp_path / "a.hdf5")
    with h5py.File(params.dataset, "a") as file:
        del file.attrs["distance"]
        if distance is not None:
            file.attrs["distance"] = distance
    if distance is None:
        (error,) = check(params, System(name="here"))
        assert "metric = 'auto': " in str(error)
        assert "a.hdf5 has no attribute `distance` (allowed: l2, ip, cosine)" in str(error)
        with pytest.raises(ConfigError, match="no attribute"):
            read_dataset(params)
        params = params.model_copy(update={"metric": "l2"})
    assert list(check(params, System(name="here"))) == []
    assert read_dataset(params).metric == metric


@pytest.mark.parametrize("distance", ["hamming", "", np.array(["l2", "ip"], dtype=h5py.string_dtype()), 3, b"\xff"])
def test_another_distance_is_refused_with_those_that_are_known(tmp_path, distance):
    params = hdf5(tmp_path / "a.hdf5", distance=distance)
    (error,) = check(params, System(name="here"))
    assert "is not supported (allowed: euclidean, l2, angular" in str(error)


@pytest.mark.parametrize(
    ("change", "metric", "said"),
    [
        (
            lambda a, b: (np.where(np.arange(60)[:, None] == 7, 0, a), b),
            "cosine",
            "vectors of {}: 1 of 60 have",
        ),
        (
            lambda a, b: (a, np.where(np.arange(60)[:, None] == 3, 0, b)),
            "cosine",
            "queries of {}: 1 of 60 have",
        ),
        (lambda a, b: (a * 1e20, b * 1e20), "l2", "its distances do not fit float32: vectors are up to"),
        (lambda a, b: (a * 1e20, b * 1e20), "ip", "its distances do not fit float32"),
        (lambda a, b: (a * 1e-25, b * 1e-25), "l2", "its distances do not fit float32"),
        (lambda a, b: (a.astype(np.float64) * 1e60, b), "l2", "`train` has values beyond float32"),
        (lambda a, b: (a, np.where(b > 1, np.nan, b)), "l2", "`test` has values that are not finite"),
        (lambda a, b: (np.where(a > 1, np.inf, a), b), "l2", "`train` has values that are not finite"),
    ],
)
def test_values_that_have_no_distances_are_refused(tmp_path, change, metric, said):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = change(vectors(), vectors())
        file.attrs["distance"] = metric
    with pytest.raises(ConfigError) as caught:
        read_dataset(RetrievalParams(dataset=str(path), index="Flat", queries=30, warmup_queries=10))
    assert said.format(path) in str(caught.value)


def test_large_values_under_cosine_and_integers_are_taken(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = vectors() * 1e20, (vectors() * 9).astype(np.int16) + 1
        file.attrs["distance"] = "angular"
    found = read_dataset(RetrievalParams(dataset=str(path), index="Flat", queries=30, warmup_queries=10))
    assert np.allclose(np.linalg.norm(found.corpus, axis=1), 1, atol=1e-6)


def test_a_damaged_file_is_one_line(tmp_path):
    params = hdf5(tmp_path / "a.hdf5")
    whole = (tmp_path / "a.hdf5").read_bytes()
    chance = np.random.default_rng(1)
    cut = [whole[: int(at)] for at in chance.integers(0, len(whole), 25)]
    garbled = [bytes(len(whole)), b"text", whole[:512] + chance.bytes(len(whole) - 512)]
    for content in [*cut, *garbled]:
        (tmp_path / "a.hdf5").write_bytes(content)
        (error,) = check(params, System(name="here"))
        assert "a.hdf5': " in str(error)
        assert str(error).isprintable()


def test_a_data_set_that_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.hdf5")
    (tmp_path / "b.hdf5").mkdir()
    for name, said in (("a", "is no regular file"), ("b", "is no regular file"), ("n" * 300, "no such file")):
        params = RetrievalParams(dataset=str(tmp_path / f"{name}.hdf5"), index="Flat")
        (error,) = check(params, System(name="here"))
        assert said in str(error)
