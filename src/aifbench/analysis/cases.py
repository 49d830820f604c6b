"""Cases as a reader sees them: their numbers over repetitions, and the axes that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from aifbench.core.notes import TEXT, Kind, Note
from aifbench.core.units import format_size

CONTAINER = "container"
"""The axis that tells where cases ran, where there is more than one container."""
LONGEST = 40
"""Characters of an axis value that are shown (a prompt may be a whole text)."""
_UNIT_ENDINGS = ("_mib_s", "_per_second", "_bytes", "_ms", "_s")


@dataclass(frozen=True)
class Words:
    """How the metrics and parameters of a benchmark are called and shown to a reader, by their names."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    """Names of metrics; any other is called as it is written, without its unit."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """Names of parameters; any other is called as its last part is written."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of parameters: `bytes` reads as a size (of a field of type `Size` it is known), others stand behind it."""
    hidden: tuple[str, ...] = ()
    """Parameters that tell no cases apart, as another one names what they hold."""
    companions: Mapping[str, str] = field(default_factory=dict)
    """Parameters that mean nothing without another one, and that one."""
    untold: tuple[str, ...] = ()
    """Parameters of which a caption does not speak."""
    off: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of which a caption does not speak when they have this value."""

    def metric(self, metric: str) -> str:
        """Return a metric's name for a reader."""
        if metric in self.metrics:
            return self.metrics[metric]
        ending = next((ending for ending in _UNIT_ENDINGS if metric.endswith(ending)), "")
        return metric.removesuffix(ending).replace("_", " ")

    def axis(self, axis: str) -> str:
        """Return the name of an axis for a reader: its last part, but `engine.kind` is the engine."""
        head, _, last = axis.rpartition(".")
        return self.axes.get(axis, head if last == "kind" else last)

    def value(self, axis: str, value: Any) -> str:
        """Return one value of an axis for a reader, sizes as sizes."""
        unit = self.units.get(axis)
        if unit == "bytes" and isinstance(value, int):
            return format_size(value)
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "—"}[value]
        if unit is not None and isinstance(value, int | float):
            return f"{value:g} {unit}"
        text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
        text = "".join(char if char.isprintable() else "�" for char in text)
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

    def axes_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what tells cases apart: all parameters but those that another one names or makes meaningless."""
        told = {name: value for name, value in flatten(params).items() if name not in self.hidden}
        return {name: value for name, value in told.items() if self.companions.get(name, name) in told}


@dataclass(frozen=True, slots=True)
class Value:
    """One number of a case over its repetitions. `value` None is absent, and `reason` says why."""

    value: float | None
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""
    instrument: float | None = None
    reason: str | None = None
    reason_kind: str | None = None
    over: str = ""
    """How it was made of those of the repetitions."""

    @property
    def absence(self) -> str:
        """Why there is no value, the same for cases where only numbers differ."""
        return self.reason_kind if self.reason_kind not in {None, TEXT.name} else self.reason or "no reason given"

    @property
    def half(self) -> float | None:
        """Half of the interval's width in the unit of the value; None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def relative_half(self) -> float | None:
        """Half-width over value, without unit."""
        return abs(self.half / self.value) if self.value and self.half is not None else None


@dataclass(frozen=True, slots=True)
class Repetition:
    """One repetition of a case, its numbers by metric name."""

    index: int
    invocation: int
    status: str
    valid: bool
    reasons: list[Note]
    notes: list[Note]
    started_at: str
    t_start_s: float | None
    t_end_s: float | None
    error_kind: str | None
    error_message: str | None
    seed: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Those of its facts that its benchmark's report asks for, of any shape."""


@dataclass(slots=True)
class Case:
    """One planned case with all that is known of it."""

    id: str
    batch: str
    benchmark: str
    label: str
    suites: list[str]
    params: dict[str, Any]
    axes: dict[str, Any]
    state: str
    planned: int
    done: int
    failed: int
    reasons: list[Note]
    notes: list[Note]
    metrics: dict[str, Value] = field(default_factory=dict)
    repetitions: list[Repetition] = field(default_factory=list)
    words: Words = field(default_factory=Words)
    """Those of its benchmark."""
    why: str = ""
    """Its reasons in a sentence."""

    def measured(self, metric: str) -> Value | None:
        """Return the value of a metric, or None when it is absent."""
        found = self.metrics.get(metric)
        return found if found is not None and found.value is not None else None

    def bears(self, kind: Kind) -> bool:
        """Return whether it bears a caution of this kind."""
        return any(note.kind == kind.name for note in self.notes)


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as scalars by name; a nested one is `search.nprobe`. None is left out."""
    axes: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            axes.update({f"{name}.{key}": inner for key, inner in flatten(value).items()})
        elif isinstance(value, list):
            axes[name] = orjson.dumps(value).decode()
        elif value is not None:
            axes[name] = value
    return axes


def varying(cases: list[Case]) -> list[str]:
    """Return the axes that have more than one value among `cases`, in the order of the parameters."""
    names = dict.fromkeys(name for case in cases for name in case.axes)
    return [name for name in names if len({case.axes.get(name) for case in cases}) > 1]


def determines(given: Iterable[str], axis: str, cases: list[Case]) -> bool:
    """Return whether cases with equal values of `given` always have equal values of `axis`.

    Never of the container: where there is more than one it is always told, and no line leads from one to another.
    """
    if axis == CONTAINER:
        return False
    names = tuple(given)
    seen: dict[tuple[Any, ...], Any] = {}
    for case in cases:
        value = case.axes.get(axis)
        if seen.setdefault(tuple(case.axes.get(name) for name in names), value) != value:
            return False
    return True


def independent(axes: Iterable[str], cases: list[Case]) -> list[str]:
    """Return axes without those that the ones before them determine: they would say a thing twice."""
    kept: list[str] = []
    for axis in axes:
        if not kept or not determines(kept, axis, cases):
            kept.append(axis)
    return kept
