"""The inference benchmark: time to first token and tokens per second of a served language model."""
