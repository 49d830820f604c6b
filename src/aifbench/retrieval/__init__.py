"""Nearest-neighbour search with FAISS: exact truth, timed search, recall beside every speed."""
