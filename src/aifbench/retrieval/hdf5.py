"""Vectors of a file in ann-benchmarks' HDF5 layout: 2-D data sets `train` and `test`, attribute `distance`.

A file may come from anybody, so only what lies in the file itself is read: HDF5 would open any other file that a link,
a storage list or a virtual data set names, and its bytes would become vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aifbench.core.errors import ConfigError
from aifbench.retrieval.params import MetricName

DISTANCES: dict[str, MetricName] = {
    "euclidean": "l2", "l2": "l2", "angular": "cosine", "cosine": "cosine", "ip": "ip", "dot": "ip",
}  # fmt: skip
"""What the attribute may say, in any case of letters."""
_MOST_HOPS = 8
"""Soft links that are followed, one after the other, within the file."""


class Shape(NamedTuple):
    """What a file says without its values; `metric` is None where it has no attribute `distance`."""

    vectors: int
    queries: int
    dim: int
    metric: MetricName | None


def read_shape(path: str) -> Shape:
    """Return vectors, queries, dimension and metric of a file. Raises `ConfigError`."""
    with _opened(path) as file:
        return _shape(file, path)


def read_vectors(path: str) -> tuple[NDArray[np.float32], NDArray[np.float32], MetricName | None]:
    """Return vectors, queries and metric of a file. Raises `ConfigError`."""
    with _opened(path) as file:
        shape = _shape(file, path)
        train, test = (_float32(_data_set(file, name, path)[:], name, path) for name in ("train", "test"))
    return train, test, shape.metric


def _shape(file: Any, path: str) -> Shape:
    (n, dim), (queries, query_dim) = (_data_set(file, name, path).shape for name in ("train", "test"))
    if dim != query_dim:
        raise ConfigError("dataset", path, f"`train` has dimension {dim} and `test` {query_dim}")
    return Shape(int(n), int(queries), int(dim), _metric(file, path))


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open a file; whatever HDF5 finds wrong with it, now or while it is read, is one line."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ConfigError("dataset", path, f"cannot be read as HDF5: {error}") from None


def _data_set(file: Any, name: str, path: str) -> Any:
    """Return a data set of vectors that lies in the file. Raises `ConfigError`."""
    try:
        data_set = _object(file, name)
        problem = _problem(data_set)
    except LookupError as error:
        problem = str(error.args[0])
    if problem:
        raise ConfigError("dataset", path, f"`{name}` {problem}", "2-D data sets `train` and `test` of numbers")
    return data_set


def _object(file: Any, name: str) -> Any:
    """Return what has this name, found by links within the file. Raises LookupError with what is wrong."""
    import h5py

    place: Any = file
    parts, hops = [name], 0
    while parts:
        part = parts.pop(0)
        try:
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        except TypeError:  # a kind of link that a program defines for itself: it leads anywhere
            raise LookupError("is a link to another file") from None
        if link is None:
            raise LookupError("is a link to nothing" if hops else "is missing")
        if isinstance(link, h5py.ExternalLink):
            raise LookupError(f"is a link to another file: {link.filename}")
        if isinstance(link, h5py.SoftLink):
            hops += 1
            if hops > _MOST_HOPS:
                raise LookupError("is a link to itself")
            place = file if link.path.startswith("/") else place
            parts = [*(step for step in link.path.split("/") if step not in {"", "."}), *parts]
        else:
            place = place[part]
    return place


def _problem(item: Any) -> str | None:
    """Return why an object is no data set of vectors that lies in the file, None when it is one."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        return "is a group" if isinstance(item, h5py.Group) else "is no data set"
    if item.external:
        return f"keeps its values in another file: {item.external[0][0]}"
    if item.is_virtual:
        return "is virtual: its values are in other files"
    if item.dtype.kind not in "fiub":
        return f"holds {item.dtype}, no numbers"
    if item.ndim != 2 or not all(item.shape):
        return f"has the shape {item.shape}"
    stored = item.id.get_create_plist()
    codes = (stored.get_filter(number)[0] for number in range(stored.get_nfilters()))
    absent = next((code for code in codes if not h5py.h5z.filter_avail(code)), None)
    return None if absent is None else f"is compressed by filter {absent}, which is not here"


def _metric(file: Any, path: str) -> MetricName | None:
    if "distance" not in file.attrs:
        return None
    value = file.attrs["distance"]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    metric = DISTANCES.get(text.lower())
    if metric is None:
        raise ConfigError("dataset", path, f"its distance '{text}' is not supported", choices=DISTANCES)
    return metric


def _float32(values: NDArray[Any], name: str, path: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(values, dtype=np.float32)
    if np.isfinite(rows).all():
        return rows
    problem = "values beyond float32" if np.isfinite(values).all() else "values that are not finite"
    raise ConfigError("dataset", path, f"`{name}` has {problem}")
