"""Base of the parameters of a case: one point of a suite's matrix, all values resolved.

A benchmark describes its parameters as one subclass of `Params`. Fields marked with `setup()` are what the cases of a
batch share because it is dear to prepare (a model, an index, a file system); the others vary within a batch. Both the
YAML keys, the JSON Schema and the ids follow from the fields, so there is no second list to keep in step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from aifbench.core.strict import Strict
from aifbench.core.units import format_size, parse_size

SETUP = {"part": "setup"}
MOST_CASES = 100_000
"""Cases of one suite."""


def setup(default: Any, description: str, **kwargs: Any) -> Any:
    """Return a field that all cases of one batch share (`...` as default: the field is required)."""
    return Field(default, description=description, json_schema_extra=dict(SETUP), **kwargs)


def vary(default: Any, description: str, **kwargs: Any) -> Any:
    """Return a field that may differ between the cases of one batch."""
    return Field(default, description=description, **kwargs)


class Params(Strict):
    """Parameters of one case. Subclasses are frozen, strict about keys and hashable through their canonical dump."""

    model_config = ConfigDict(validate_default=True)

    label_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name a case to a reader, most telling first."""

    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics that a repetition yields; a stopping rule may name one of them."""

    @classmethod
    @cache
    def setup_names(cls) -> frozenset[str]:
        """Names of the fields that a batch shares."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("part") == "setup"
        )

    @classmethod
    @cache
    def sizes(cls) -> frozenset[str]:
        """Names of the fields that are sizes in bytes."""
        marks = ((name, mark) for name, field in cls.model_fields.items() for mark in field.metadata)
        return frozenset(name for name, mark in marks if getattr(mark, "func", None) is parse_size)

    @classmethod
    def most_clients(cls, limit: int) -> int:
        """Return the most clients of a case where the system allows `limit`."""
        field = cls.model_fields.get("clients")
        bounds: list[int] = [mark.le for mark in field.metadata if hasattr(mark, "le")] if field else []
        return min([limit, *bounds])

    @classmethod
    def suite_field(cls, name: str) -> tuple[Any, Any] | None:
        """Return the (type, default) of a suite-level key that differs from the field's own type, or None.

        Such a key (retrieval's `search`) is turned into field values by `resolve`.
        """
        return None

    @classmethod
    def check_suite(cls, points: Sequence[Mapping[str, Any]]) -> None:
        """Raise `ConfigError` for what is wrong with the points of a suite taken together (overridden)."""

    @classmethod
    def resolve(cls, point: dict[str, Any], folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Turn one point of the matrix, as the user wrote it, into the field values of one or more cases.

        `folders` are searched, in order, for files that a value names. Raises `ConfigError`.
        """
        return [point]

    def shown(self, name: str) -> str:
        """Return the value of a field for a reader, such as `index=HNSW32` or `file_size=64MiB`."""
        value = getattr(self, name)
        if name in self.sizes():
            value = format_size(value)
        elif isinstance(value, BaseModel):
            return str(getattr(value, "kind", value))
        elif isinstance(value, Mapping):
            return " ".join(f"{key}={number}" for key, number in value.items())
        return f"{name}={value}"

    def is_default(self, name: str) -> bool:
        """Return whether a field has its default value."""
        field = type(self).model_fields[name]
        return not field.is_required() and bool(getattr(self, name) == field.get_default(call_default_factory=True))

    def identity(self) -> dict[str, Any]:
        """Return what influences the measurement, defaults left out, so that a new field renames no old case."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def setup_identity(self) -> dict[str, Any]:
        """Return the shared part of `identity`."""
        names = self.setup_names()
        return {key: value for key, value in self.identity().items() if key in names}

    def site_identity(self) -> dict[str, Any]:
        """Return what the check of this machine depends on: one check serves all cases that agree in it."""
        return self.setup_identity()

    def slug(self) -> str:
        """Return a short name of the shared part: lower-case letters, digits, `.` and `-` (overridden)."""
        return ""

    def reads(self) -> tuple[Path, ...]:
        """Return the files and folders outside the system's own that the batch needs (overridden)."""
        return ()

    def images(self) -> list[str]:
        """Return the container images that the batch needs besides `aifbench` (overridden)."""
        return []

    def models(self) -> list[Any]:
        """Return the engines whose models must be in the system's folder before the batch (overridden)."""
        return []

    def writes(self) -> tuple[Path, ...]:
        """Return the folders outside the system's own that the batch writes in; they are made (overridden)."""
        return ()

    def under_test(self, target: Path) -> tuple[Path, ...]:
        """Return the folders whose speed is measured; `target` is the system's own (overridden)."""
        return ()

    def secrets(self) -> tuple[str, ...]:
        """Return the names of environment variables that hold keys which the batch needs (overridden)."""
        return ()

    def nodes(self) -> int:
        """Return the nodes that a batch needs (overridden)."""
        return 1

    def gpus(self) -> int:
        """Return the GPUs that a batch needs on its first node (overridden)."""
        return 0

    def expected_seconds(self, repetitions: int) -> float:
        """Return the expected measuring time of `repetitions` runs of this case in seconds (overridden)."""
        return 1.0 * repetitions

    def expected_setup_seconds(self) -> float:
        """Return the expected time to prepare the batch in seconds (overridden)."""
        return 1.0
