"""The one error of configuration: a single line that names key, value, what is allowed and where."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

_LONGEST_KEY, _LONGEST_VALUE, _LONGEST_TEXT = 200, 100, 1500


class Written(str):
    """A value that an error shows as it was written, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


NULL = Written("null")
"""A value that is null, told apart from None: no value."""


ErrorKind = Literal["invalid", "unknown_key", "unknown_name", "required", "over_limit", "not_here"]
ERROR_KINDS: dict[ErrorKind, str] = {
    "invalid": "the value cannot work, by itself or with the others",
    "unknown_key": "nothing reads this key",
    "unknown_name": "there is nothing of this name; `choices` are the names that there are",
    "required": "the key, or a value of it, is needed",
    "over_limit": "it would work, but asks for more than the system or the budget gives",
    "not_here": "this machine lacks what it names, or cannot reach, read or write it",
}


class ConfigError(Exception):
    """A configuration that cannot work. `key` is a dotted path such as `suites[1].axes.top_k`.

    `value` None: the error is about no value; one that is null is `NULL`. `problem` and `allowed` are words for a
    reader; a program goes by `kind`, and by `choices`: the names that may stand there, where they can be listed.
    """

    def __init__(
        self,
        key: str,
        value: Any,
        problem: str,
        allowed: str = "",
        where: str = "",
        *,
        kind: ErrorKind = "invalid",
        choices: Iterable[str] = (),
    ) -> None:
        self.key, self.value, self.problem, self.where = key, value, problem, where
        self.kind, self.choices = kind, tuple(choices)
        self.allowed = allowed or ", ".join(self.choices)
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return the one line, such as `config.yaml: suites[0].axes.top_k = 0: must be at least 1`."""
        place = f"{self.where}: " if self.where else ""
        value = "" if self.value is None else f" = {shown(self.value)}"
        allowed = f" (allowed: {_cut(self.allowed, _LONGEST_TEXT)})" if self.allowed else ""
        line = f"{place}{_cut(self.key, _LONGEST_KEY)}{value}: {_cut(self.problem, _LONGEST_TEXT)}{allowed}"
        return _escaped(" ".join(line.split()))

    def at(self, where: str, prefix: str = "") -> ConfigError:
        """Return the same error placed in a file, with `prefix` before the key."""
        key = f"{prefix}.{self.key}" if prefix else self.key
        return ConfigError(key, self.value, self.problem, self.allowed, where, kind=self.kind, choices=self.choices)


class FieldError(ValueError):
    """What a validator of a model has against one field of it, or against how that goes with others."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}")


def told(error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors says: the words of a ValueError of ours, else its own."""
    cause = error.get("ctx", {}).get("error")
    return str(cause) if isinstance(cause, ValueError) else str(error["msg"])


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
    return ConfigError(key, None, hint, where=where, kind="unknown_key", choices=() if near else sorted(known))


def given(value: Any) -> Any:
    """Return a value that was given, for an error: also where it is null."""
    return NULL if value is None else value


def shown(value: Any) -> str:
    """Return a value for an error, of at most 100 characters: texts in quotes, all else as YAML has it."""
    return _cut(_plain(value), _LONGEST_VALUE)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_plain(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) else str(value)


def _cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters; of a longer one the beginning and the end, where a path says most."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - 3 - tail]}...{text[-tail:]}"


def _escaped(text: str) -> str:
    """Return a text in which nothing is left that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
