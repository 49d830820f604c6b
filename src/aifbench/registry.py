"""The benchmarks, by name: those of this package."""

from __future__ import annotations

from aifbench.core.benchmark import Benchmark


def benchmarks() -> dict[str, Benchmark]:
    """Return all benchmarks by name. A new one adds its folder and one line here."""
    from aifbench.inference.params import InferenceParams
    from aifbench.retrieval.params import RetrievalParams
    from aifbench.storage.params import StorageParams

    entries = (
        Benchmark("retrieval", RetrievalParams, ("execution_time_s",)),
        Benchmark("inference", InferenceParams, ("time_to_first_token_s", "tokens_generated_per_second"), True),
        Benchmark("storage", StorageParams, ("write_time_s", "read_time_s")),
    )
    return {entry.name: entry for entry in entries}
