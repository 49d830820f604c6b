"""What speaks against a number, or should be known beside it, as values. A sentence is made of them where one is shown.

A `Kind` is what a room can say: a name, the sentence with places for its values, and what it means. The kinds of a room
stand in its module `kinds`, `registry.kinds` has them all, and `docs/reasons.md` lists them. A `Note` is one kind with
its values: records and tables hold notes, and readers group them by their kinds.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aifbench.core.units import format_size

Severity = Literal["invalid", "caution", "absent"]
"""`invalid`: the numbers must not be used; `caution`: they may, by one who knows this; `absent`: there is no number."""


class Note(BaseModel):
    """One thing to know about a number: its kind, what it costs, and its values (JSON, with units in the names)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    severity: Severity
    values: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def alike(self) -> tuple[str, ...]:
        """What notes have in common that differ in their numbers only."""
        words = (value for value in self.values.values() if not isinstance(value, int | float))
        return self.kind, *(" ".join(value) if isinstance(value, dict) else str(value) for value in words)


@dataclass(frozen=True)
class Kind:
    """One thing that can be said of numbers. In `sentence`, `{name}` is the place of a value, and formats are Python's.

    Besides: `{n:is|are}` is the first word for 1, else the second; `{n:? of #}` is nothing for None; `{n:size}` is a
    size in bytes, `{n:counts}` numbers by name, `{n:changes}` pairs by name, `{n:note}` another note.
    """

    name: str
    sentence: str
    meaning: str
    advice: str = ""
    """What to do about it."""
    worst: str = ""
    """The value by which one of several notes of this kind is the worst: the largest."""

    def against(self, **values: Any) -> Note:
        """Return the note that makes numbers invalid. Raises TypeError for other values than those of the sentence."""
        return self._note("invalid", values)

    def caution(self, **values: Any) -> Note:
        """Return the note that a reader of the numbers should know. Raises TypeError as `against` does."""
        return self._note("caution", values)

    def absent(self, **values: Any) -> Note:
        """Return the note in the place of a number. Raises TypeError as `against` does."""
        return self._note("absent", values)

    @property
    def fields(self) -> set[str]:
        """Names of the values."""
        return {name for _, name, _, _ in string.Formatter().parse(self.sentence) if name}

    def _note(self, severity: Severity, values: dict[str, Any]) -> Note:
        if values.keys() != self.fields:
            raise TypeError(f"{self.name} needs the values {sorted(self.fields)}, not {sorted(values)}")
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}  # numpy's
        return Note(kind=self.name, severity=severity, values=plain)


TEXT = Kind("text", "{text}", "A sentence in a record of a version that knew no kinds.")
FAILED = Kind(
    "failed",
    "failed: {error}: {message}",
    "The repetition could not be measured. `error` is the class of the error.",
)


def kinds_of(module: ModuleType) -> list[Kind]:
    """Return the kinds that a module defines, in its order."""
    return [value for value in vars(module).values() if isinstance(value, Kind)]


def sentence(note: Note, kinds: Mapping[str, Kind]) -> str:
    """Return a note as a sentence. One that a newer version or another package wrote is told by its name and values."""
    if note.kind in kinds:
        with suppress(LookupError, TypeError, ValueError):
            return _Sentence(kinds).format(kinds[note.kind].sentence, **note.values)
    told = ", ".join(f"{name} {value}" for name, value in note.values.items())
    return f"{note.kind}: {told}" if told else note.kind


class _Sentence(string.Formatter):
    """Python's format strings with the forms of `Kind`."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._forms: dict[str, Callable[[Any], str]] = {
            "size": format_size,
            "counts": lambda found: ", ".join(f"{count} {name}" for name, count in found.items()),
            "changes": lambda found: ", ".join(f"{name} {first} to {last}" for name, (first, last) in found.items()),
            "note": lambda found: sentence(Note.model_validate(found), kinds),
        }

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec in self._forms:
            return self._forms[format_spec](value)
        if format_spec.startswith("?"):
            return "" if value is None else format_spec[1:].replace("#", str(value))
        one, choice, other = format_spec.partition("|")
        if choice:
            return one if value == 1 else other
        return str(super().format_field(value, format_spec))
