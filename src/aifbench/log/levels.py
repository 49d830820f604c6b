"""Which statements are written: rules with a level and an end. The log service and the jobs decide by the same code.

The service keeps its configurations in `<results>/.services/log-configs.json`, where jobs find them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import json_beneath

FILE = Path(".services") / "log-configs.json"
"""Where the configurations are, below the folder of all results."""
LARGEST_FILE = 1 << 20
MOST_RULES = 1000
LEVELS = (0, 1, 2)
LONGEST_PATTERN = 128
MATCHED = ("run", "benchmark", "batch", "service")
"""Fields of a statement that a configuration can choose by."""

Fields = Mapping[str, str | None]


@dataclass(frozen=True)
class Rule:
    """One configuration: statements of `level` and above are written until `expires` (Unix seconds).

    `match` maps fields to patterns such as `ollama-*`; no pattern for a field takes any value, also none.
    """

    name: str
    level: int
    expires: float
    match: Mapping[str, str]

    def covers(self, fields: Fields) -> bool:
        """Return whether a statement with these fields is one of those that this rule is about."""
        return all(fnmatchcase(fields.get(field) or "", pattern) for field, pattern in self.match.items())


@dataclass(frozen=True)
class Threshold:
    """What the rules say about statements with certain fields: `level` (None: nothing is on) until `until`.

    `known`: some rule is about them, be it over or not. `name` is the rule that decides.
    """

    level: int | None
    until: float
    known: bool
    name: str | None = None


def threshold(rules: Iterable[Rule], fields: Fields, now: float) -> Threshold:
    """Return what holds at `now` (Unix seconds): of all valid rules that cover the fields the most verbose one."""
    covering = [rule for rule in rules if rule.covers(fields)]
    valid = [rule for rule in covering if now < rule.expires]
    if not valid:
        return Threshold(None, math.inf, bool(covering), covering[-1].name if covering else None)
    best = min(valid, key=lambda rule: (rule.level, -rule.expires))
    return Threshold(best.level, min(rule.expires for rule in valid), True, best.name)


def read_rules(file: Path) -> list[Rule]:
    """Return the rules that the service has written; none when it never did.

    Others may have written there: raises ValueError for a broken file, and for what is none.
    """
    try:
        entries = json_beneath(file.parents[1], *file.parts[-2:], most=LARGEST_FILE)["configs"]
        if len(entries) > MOST_RULES:
            raise ValueError(f"more than {MOST_RULES} rules")
        return [_rule(entry) for entry in entries]
    except Unreadable as error:
        raise ValueError(f"{file}: {error.problem}") from error
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise ValueError(f"{file}: {error!r}") from error


def _rule(entry: Mapping[str, Any]) -> Rule:
    """Return one rule. Raises an error when a value is of another kind."""
    level, match = entry["logLevel"], dict(entry["match"])
    if type(level) is not int or level not in LEVELS or not all(_is_short(text) for text in (*match, *match.values())):
        raise TypeError("a rule is a level and patterns")
    expires = 0.0 if entry["ended"] else datetime.fromisoformat(entry["expires_at"]).timestamp()
    return Rule(str(entry["name"])[:LONGEST_PATTERN], level, expires, match)


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_PATTERN


class RulesFile:
    """The rules of a file, read again when it has changed; a broken file keeps the last good ones."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._rules: list[Rule] = []

    def rules(self) -> list[Rule]:
        """Return the rules as the file has them now."""
        try:
            found = os.lstat(self._file)
            state = (found.st_mtime_ns, found.st_size, found.st_ino)
            if state != self._seen:
                with contextlib.suppress(ValueError):
                    self._rules = read_rules(self._file)
                self._seen = state
        except FileNotFoundError:
            self._rules, self._seen = [], None
        except OSError:
            pass
        return self._rules


def job_fields(run: str | None, benchmark: str | None, batch: str) -> Fields:
    """Return the fields of a job's statements that a rule can choose by."""
    return {"run": run, "benchmark": benchmark, "batch": batch, "service": "job"}
