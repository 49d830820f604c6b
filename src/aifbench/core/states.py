"""The state of a case: which of its repetitions count, and whether they are enough."""

from __future__ import annotations

from collections.abc import Sequence

from aifbench.core.records import CaseRecord
from aifbench.core.repetitions import Repetitions

STATES = ("valid", "invalid", "failed", "missing")


def counted(records: Sequence[CaseRecord], rule: Repetitions) -> list[CaseRecord]:
    """Return the repetitions that a case's numbers are made of.

    The valid ones, where there are enough of them and no more invalid ones than may be replaced; else all that ended.
    """
    ok = [record for record in records if record.status == "ok"]
    valid = [record for record in ok if record.validity.valid]
    return valid if len(valid) >= rule.min and len(ok) - len(valid) <= rule.spare else ok


def state_of(records: Sequence[CaseRecord], rule: Repetitions) -> str:
    """Return the state of a case with these repetitions, one of `STATES`."""
    mine = counted(records, rule)
    if any(record.status == "failed" for record in records):
        return "failed"
    if len(mine) < rule.min:
        return "missing"
    return "valid" if all(record.validity.valid for record in mine) else "invalid"
