"""The spec of a batch as its job reads it: the resolved input of one job, all that influences the measurement."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from aifbench.core.ids import derived_seed
from aifbench.core.repetitions import Repetitions
from aifbench.core.system import System


class SpecCase(BaseModel):
    """One case of a batch."""

    model_config = ConfigDict(extra="forbid")

    case: str
    params: dict[str, Any]
    repetitions: Repetitions
    order: str


class Spec(BaseModel):
    """Content of `specs/<batch>.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    campaign: str
    batch: str
    benchmark: str
    seed: int
    system: System
    setup: dict[str, Any]
    cases: list[SpecCase]

    def case_seed(self, case: str, repetition: int) -> int:
        """Return the seed of one repetition of one case."""
        return derived_seed(self.seed, case, repetition)
