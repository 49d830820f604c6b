"""Models of a metric, a verdict, a case record and a batch record (the contract between runner and report)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from aifbench.core.notes import TEXT, Note

SCHEMA_VERSION = 2
"""Of records. 2: reasons and notes are values; in 1, which stays readable, they are sentences."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A whole number that a table can hold."""
Seconds = Annotated[float, Field(gt=-1e12, lt=1e12)]
"""A time or duration of some thirty thousand years at most: what is summed stays finite."""

BatchStatus = Literal[
    "running",
    "ok",
    "partial",
    "server_not_ready",
    "server_crashed",
    "client_error",
    "timeout",
    "terminated",
    "config_error",
]
"""`running` while the job lives; `partial`: some cases failed, the rest is measured; the others say what ended it."""

LARGEST = 1e150
"""Below it the square of a value is finite, and so is an interval over several."""


class Record(BaseModel):
    """Base of all records: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid")


class Metric(Record):
    """One measured quantity. Absent is `value=None` with a reason, never 0.

    `n` counts the observations behind `value` (operations within a repetition, repetitions in an aggregate).
    `instrument` is the error of our own measuring path in the same unit, `None` when it was not calibrated.
    `shared` marks a value that is one and the same in all repetitions (an index build, the recall of fixed queries):
    it counts once, with its own `n` and interval.
    """

    value: float | None
    unit: str
    n: Count
    method: str
    ci_low: float | None = None
    ci_high: float | None = None
    instrument: float | None = None
    shared: bool = False
    reason: Note | None = None

    @field_validator("reason", mode="before")
    @classmethod
    def _of_text(cls, reason: Any) -> Any:
        """Take the sentence of an earlier version as a note."""
        return TEXT.absent(text=reason) if isinstance(reason, str) and reason else reason or None

    @model_validator(mode="after")
    def _absent_needs_reason(self) -> Metric:
        if self.value is None and self.reason is None:
            raise ValueError("a metric without a value needs a reason")
        if self.value is not None and not abs(self.value) < LARGEST:
            raise ValueError("a metric's value must be finite; use None with a reason")
        return self

    @classmethod
    def absent(cls, unit: str, reason: Note, *, n: int = 0, method: str = "not measured") -> Metric:
        """Return a metric that says why it has no value."""
        return cls(value=None, unit=unit, n=n, method=method, reason=reason)


class Validity(Record):
    """The verdict that stands before each number. `notes` are cautions that do not invalidate.

    In records of earlier versions both are sentences: notes of the kind `text`.
    """

    valid: bool = True
    reasons: list[Note] = Field(default_factory=list)
    notes: list[Note] = Field(default_factory=list)

    @field_validator("reasons", "notes", mode="before")
    @classmethod
    def _of_texts(cls, value: Any, info: ValidationInfo) -> Any:
        made = TEXT.against if info.field_name == "reasons" else TEXT.caution
        return [made(text=one) if isinstance(one, str) else one for one in value] if isinstance(value, list) else value

    @classmethod
    def of(cls, notes: Iterable[Note]) -> Validity:
        """Return the verdict of notes: valid exactly when none of them is against it."""
        told = list(notes)
        reasons = [note for note in told if note.severity == "invalid"]
        return cls(valid=not reasons, reasons=reasons, notes=[note for note in told if note.severity == "caution"])


class Where(Record):
    """Where a repetition was measured. None: there is none of it."""

    node: str
    client_node: str | None = None
    """Node of the clients where it is another one than the server's."""
    slurm_job_id: str | None = None
    images: dict[str, str] | None = None
    """SHA-256 of each container image by name; None: no container."""


class RawRef(Record):
    """Where the operations of one repetition are stored."""

    file: str
    rows: Count


class CaseError(Record):
    """Why a repetition has no metrics: `kind` is a class of error, `message` one line."""

    kind: str
    message: str


class CaseRecord(Record):
    """One repetition of one case. `t_*_s` are seconds since the start of the batch's invocation (CLOCK_MONOTONIC)."""

    schema_version: int = SCHEMA_VERSION
    benchmark: str
    batch: str
    case: str
    repetition: Count
    invocation: Count
    status: Literal["ok", "failed"]
    input: dict[str, Any]
    seed: Count
    where: Where | None = None
    started_at: str
    t_start_s: Seconds
    t_end_s: Seconds
    metrics: dict[str, Metric] = Field(default_factory=dict)
    validity: Validity
    facts: dict[str, Any] = Field(default_factory=dict)
    raw: RawRef | None = None
    error: CaseError | None = None


class Phase(Record):
    """One stretch of a batch: preflight, server_start, prepare, warmup, measure, teardown."""

    name: str
    t_start_s: Seconds
    t_end_s: Seconds
    case: str | None = None
    repetition: Count | None = None


class Invocation(Record):
    """One run of the batch's job: a batch that was interrupted, or got new cases, has several."""

    index: Count
    started_at: str
    ended_at: str | None = None
    elapsed_s: Seconds | None = None
    measured_s: Seconds = 0.0
    status: BatchStatus = "running"
    reason: str | None = None
    signal: str | None = None
    """Name of the signal that ended it, such as SIGTERM; None: none did, or an earlier version does not tell."""
    phases: list[Phase] = Field(default_factory=list)
    facts: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)


class BatchRecord(Record):
    """What happened to one batch, over all its invocations."""

    schema_version: int = SCHEMA_VERSION
    campaign: str
    batch: str
    benchmark: str
    status: BatchStatus
    reason: str | None = None
    setup: dict[str, Any]
    planned: dict[str, Count]
    """Planned repetitions by case id."""
    done: dict[str, Count] = Field(default_factory=dict)
    reasons: dict[str, Count] = Field(default_factory=dict)
    notes: dict[str, Count] = Field(default_factory=dict)
    """How many repetitions bear each kind of reason, and of caution."""
    invalid: list[str] | None = None
    """Cases that are invalid with the repetitions done so far; None: not told, by an earlier version."""
    invocations: list[Invocation] = Field(default_factory=list)
