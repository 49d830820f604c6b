"""plan.json as it is found: entries that fit, and a word on what does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from aifbench.core.damage import Damaged
from aifbench.core.records import CaseRecord
from aifbench.core.repetitions import Repetitions
from aifbench.files.beneath import is_name
from aifbench.records.reading import Reader, check_version

FILE = "plan.json"
LOST = "what was to be measured, and how often"


class _Entry(BaseModel):
    batch: str


class PlannedCase(_Entry):
    """One case of a plan."""

    case: str
    benchmark: str
    suites: list[str]
    label: str
    params: dict[str, Any]
    repetitions: Repetitions

    @classmethod
    def unplanned(cls, record: CaseRecord, batch: str) -> PlannedCase:
        """Return what a record tells of its case, where no plan does."""
        return cls(
            batch=batch,
            case=record.case,
            benchmark=record.benchmark,
            suites=[],
            label=record.case,
            params=record.input,
            repetitions=Repetitions(min=1, max=1),
        )


class PlannedBatch(_Entry):
    """One batch of a plan."""

    nodes: Annotated[int, Field(ge=1)] = 1
    expected_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class Planned:
    """What plan.json says; `lost` where it cannot be read."""

    cases: list[PlannedCase] = field(default_factory=list)
    batches: dict[str, PlannedBatch] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """All of it, as it stands there."""
    lost: bool = False


Entry = TypeVar("Entry", bound=_Entry)


def read_plan(files: Reader) -> Planned:
    """Return the plan of a results folder; what of it is damaged or missing is named."""
    with files.naming(FILE, LOST):
        if not files.is_there(FILE):
            raise Damaged("is missing")
        return _planned(files.json(FILE), files)
    return Planned(lost=True)


def _planned(facts: dict[str, Any], files: Reader) -> Planned:
    check_version(facts)
    listed, batches, system = facts.get("cases"), facts.get("batches"), facts.get("system")
    if not isinstance(listed, list):
        raise Damaged("is no plan: it lists no cases")
    cases: dict[str, PlannedCase] = {}
    for entry in listed:
        if (case := _entry(PlannedCase, entry)) is not None:
            cases.setdefault(case.case, case)
    if len(cases) < len(listed):
        files.tell(FILE, f"has {len(listed) - len(cases)} of {len(listed)} entries that are no case of its own", LOST)
    found = (_entry(PlannedBatch, entry) for entry in (batches if isinstance(batches, list) else []))
    known = {batch.batch: batch for batch in found if batch is not None}
    for case in cases.values():
        known.setdefault(case.batch, PlannedBatch(batch=case.batch))
    return Planned(list(cases.values()), known, system if isinstance(system, dict) else {}, facts)


def _entry(model: type[Entry], value: Any) -> Entry | None:
    """Return an entry of the plan; None for what is none, or names a batch that can be no folder of ours."""
    try:
        entry = model.model_validate(value)
    except (ValidationError, RecursionError):
        return None
    return entry if is_name(entry.batch) else None
