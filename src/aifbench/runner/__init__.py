"""Runs one batch in one job: lock, preflight, server, rounds of fresh worker processes, checkpoint, cleanup."""
