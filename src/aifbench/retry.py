"""Take repetitions out of a campaign, so that its next run measures them again. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from aifbench.campaign.errors import ConfigError
from aifbench.records.collect import Tables
from aifbench.records.store import BatchStore
from aifbench.runner.lock import Locked, OwnerLock

AGAIN = {"invalid", "failed"}


def set_aside(results: Path, tables: Tables, named: Collection[str]) -> tuple[int, int]:
    """Set aside the cases that are named, or else those that are invalid or failed; return (cases, repetitions).

    Raises `ConfigError` for a case that is not planned and for a batch that is being measured.
    """
    rows = tables.rows["cases"]
    unknown = sorted(set(named) - {row["case"] for row in rows})
    if unknown:
        raise ConfigError("case", unknown[0], f"is no case of {results}")
    chosen = [row for row in rows if (row["case"] in named if named else row["state"] in AGAIN)]
    name, repetitions = f"{datetime.now(UTC):%Y%m%dT%H%M%S}", 0
    for batch in dict.fromkeys(row["batch"] for row in chosen):
        folder = results / "batches" / batch
        if not folder.is_dir():
            continue
        lock = OwnerLock(folder)
        try:
            lock.acquire()
        except Locked as error:
            raise ConfigError("batch", batch, str(error)) from None
        try:
            repetitions += BatchStore(folder).set_aside({row["case"] for row in chosen if row["batch"] == batch}, name)
        finally:
            lock.release()
    return len(chosen), repetitions
