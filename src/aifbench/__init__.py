"""aifbench: benchmarks of AI factories whose numbers carry their own error and a verdict."""

__version__ = "0.2.0.dev0"
