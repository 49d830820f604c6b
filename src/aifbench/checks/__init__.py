"""Verdicts: pure functions that return reasons against a number, or cautions about it."""
