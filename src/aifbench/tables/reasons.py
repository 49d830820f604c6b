"""The page of all reasons and cautions, made from their kinds."""

from __future__ import annotations

import re

from aifbench.core.errors import ERROR_KINDS
from aifbench.core.notes import Kind
from aifbench.registry import kinds_by_room

_FORM = re.compile(r"\{(\w+)[^{}]*\}")
_TOP = """\
# Reasons and cautions

What can be said against a number, or beside it: each is of a kind, and has values. Records hold both (`validity` and
the `reason` of a number that is absent, in `cases.jsonl`), `tables/notes.parquet` has a row for each, and in
`cases.csv` the columns `reason_kinds` and `note_kinds` name them, so that cases can be grouped by them. The sentence is
made of them where it is shown.

`severity` tells what it costs: `invalid`, the numbers must not be used; `caution`, they may, by one who knows this;
`absent`, it stands in the place of a number. A place such as *share* is the value of that name in `values`.

This page is made from the code: `aifbench reasons > docs/reasons.md`.
"""
_ERRORS = """\
A configuration that cannot work is refused in one line: file, key, value, what is wrong, what is allowed. Programs go
by its kind.
"""


def page() -> str:
    """Return the page as Markdown: a table for each benchmark, and one for what any of them can say."""
    rooms = {name.capitalize(): _table(kinds) for name, kinds in kinds_by_room().items()}
    errors = _rows(("kind", "what it means"), *((f"`{name}`", meaning) for name, meaning in ERROR_KINDS.items()))
    sections = {**rooms, "Errors of configuration": f"{_ERRORS}\n{errors}"}
    return "\n".join([_TOP, *(f"## {title}\n\n{text}" for title, text in sections.items())])


def _table(kinds: list[Kind]) -> str:
    told = ((f"`{kind.name}`", _FORM.sub(r"*\1*", kind.sentence), f"{kind.meaning} {kind.advice}") for kind in kinds)
    return _rows(("kind", "sentence", "what it means"), *told)


def _rows(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    return "".join(f"| {' | '.join(row).strip()} |\n" for row in (head, ("---",) * len(head), *rest))
