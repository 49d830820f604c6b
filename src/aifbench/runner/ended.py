"""How a batch ends: a status, the exit code of its job, and the words for it."""

from __future__ import annotations

from aifbench.core.records import BatchStatus

EXIT_CODES: dict[BatchStatus, int] = {"ok": 0, "partial": 0, "config_error": 2, "terminated": 143}
"""Of the other statuses it is 1: the infrastructure broke, and a retry may help."""


class Ended(Exception):
    """The batch ends early with this status."""

    def __init__(self, status: BatchStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
