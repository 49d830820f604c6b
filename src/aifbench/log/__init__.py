"""Statements of a batch, and the levels that they obey."""
