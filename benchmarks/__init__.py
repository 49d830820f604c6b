"""Our own speed and accuracy. `make bench` prints one line per bar and writes benchmarks/results/bench.json."""
