"""What a benchmark says of its cases is said in these words: numbers, axes, curves, charts, findings. Pure."""
