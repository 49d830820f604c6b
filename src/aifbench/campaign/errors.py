"""The one error of configuration: a single line that names key, value, what is allowed and where."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any


class ConfigError(Exception):
    """A configuration that cannot work. `key` is a dotted path such as `suites[1].axes.top_k`.

    `over_limit`: it would work, but asks for more than the system or the budget gives.
    """

    def __init__(
        self, key: str, value: Any, problem: str, allowed: str = "", where: str = "", *, over_limit: bool = False
    ) -> None:
        self.key, self.value, self.problem, self.allowed, self.where = key, value, problem, allowed, where
        self.over_limit = over_limit
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return the one line, such as `config.yaml: suites[0].axes.top_k = 0: must be at least 1`."""
        place = f"{self.where}: " if self.where else ""
        value = "" if self.value is None else f" = {_short(self.value)}"
        allowed = f" (allowed: {self.allowed})" if self.allowed else ""
        return " ".join(f"{place}{self.key}{value}: {self.problem}{allowed}".split())

    def at(self, where: str, prefix: str = "") -> ConfigError:
        """Return the same error placed in a file, with `prefix` before the key."""
        key = f"{prefix}.{self.key}" if prefix else self.key
        return ConfigError(key, self.value, self.problem, self.allowed, where, over_limit=self.over_limit)


def full_disk(error: OSError) -> str | None:
    """Return the words for a disk that takes no more, or for a quota; None for another error."""
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{os.strerror(error.errno)}"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that a wrong one most likely means, if there is one."""
    found = get_close_matches(name, known, n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_key(key: str, name: str, known: list[str], where: str = "") -> ConfigError:
    """Return the error for a key that nothing reads, with the nearest known key or the list of all."""
    near = nearest(name, known)
    hint = f"unknown key, did you mean '{near}'?" if near else "unknown key"
    return ConfigError(key, None, hint, "" if near else ", ".join(sorted(known)), where)


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
