"""Take repetitions out of a campaign, and damaged files with them, so that its next run measures them again.

Nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aifbench.core.damage import Damage
from aifbench.core.errors import ConfigError
from aifbench.files.beneath import Unreadable, list_beneath
from aifbench.records.lock import Locked, OwnerLock
from aifbench.records.store import BatchStore
from aifbench.tables.collect import Tables

AGAIN = {"invalid", "failed"}


@dataclass(frozen=True)
class SetAside:
    """What was taken out."""

    cases: int
    repetitions: int
    damaged: list[Damage]

    def __str__(self) -> str:
        """Return it in a line."""
        files = len({damage.file for damage in self.damaged})
        text = f"{self.cases} case(s) with {self.repetitions} repetition(s)"
        return f"{text}, {files} damaged file(s)" if files else text


def set_aside(results: Path, tables: Tables, named: Collection[str]) -> SetAside:
    """Set aside the cases that are named, or else those that are invalid or failed, and files that are damaged.

    Raises `ConfigError` for a case that is not planned, for a batch that is being measured, and where the plan is lost:
    then all cases are invalid, though nothing is wrong with what was measured.
    """
    rows = tables.rows["cases"]
    unknown = sorted(set(named) - {row["case"] for row in rows})
    if unknown:
        raise ConfigError("case", unknown[0], f"is no case of {results}")
    if tables.plan_lost:
        problem = "delete it, then run the campaign again: it is written anew, and nothing is measured again"
        raise ConfigError("plan.json", None, f"is damaged or missing; {problem}")
    chosen = [row for row in rows if (row["case"] in named if named else row["state"] in AGAIN)]
    name, repetitions = f"{datetime.now(UTC):%Y%m%dT%H%M%S}", 0
    damaged: list[Damage] = []
    ours = {row["batch"] for row in rows}
    hurt = [
        parts[1] for damage in tables.damage if (parts := damage.file.split("/"))[0] == "batches" and len(parts) > 2
    ]
    for batch in dict.fromkeys([*(row["batch"] for row in chosen), *(name for name in hurt if name in ours)]):
        folder = results / "batches" / batch
        try:
            list_beneath(results, "batches", batch)
        except Unreadable as error:
            raise ConfigError(f"batches/{batch}", None, error.problem) from None
        except FileNotFoundError:
            continue
        lock = OwnerLock(folder)
        try:
            lock.acquire()
        except Locked as error:
            raise ConfigError("batch", batch, str(error)) from None
        try:
            store = BatchStore(folder)
            damaged += store.mend()
            repetitions += store.set_aside({row["case"] for row in chosen if row["batch"] == batch}, name)
        finally:
            lock.release()
    return SetAside(len(chosen), repetitions, damaged)
