"""Results for whoever analyses them: `aifbench.results.load("results/laptop")` (docs/analysis.md)."""

from aifbench.tables.frames import DamagedResults, Frames, load

__all__ = ["DamagedResults", "Frames", "load"]
