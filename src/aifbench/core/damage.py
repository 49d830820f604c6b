"""What is wrong with a file of a results folder, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass


class Damaged(ValueError):
    """A file does not hold what was written; the message goes on where the file's name ends."""


@dataclass(frozen=True)
class Damage:
    """One damaged file, its path from the results folder on."""

    file: str
    problem: str
    lost: str

    def __str__(self) -> str:
        """Return it as one clause, such as `plan.json is empty; lost: the plan`."""
        return f"{self.file} {self.problem}; lost: {self.lost}"
