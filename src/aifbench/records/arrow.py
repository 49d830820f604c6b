"""pyarrow, told that there is no pandas: its first conversion would import it, for a second, and nobody needs it."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

__all__ = ["pa", "pq", "read_parquet"]


class _Hidden(MetaPathFinder):
    """Makes `import pandas` fail."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _look_for_pandas_once() -> None:
    """Let pyarrow look while pandas is hidden; it looks once and remembers."""
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(hidden)


def read_parquet(path: Any) -> Any:
    """Return a Parquet file as a table. `pyarrow.parquet.read_table` would import pandas by way of its data sets."""
    return pq.ParquetFile(path).read()


_look_for_pandas_once()
