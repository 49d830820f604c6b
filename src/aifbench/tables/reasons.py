"""The page of all reasons and cautions, made from their kinds."""

from __future__ import annotations

import re

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


def page() -> str:
    """Return the page as Markdown: a table for each benchmark, and one for what any of them can say."""
    rooms = {name.capitalize(): _table(kinds) for name, kinds in kinds_by_room().items()}
    return "\n".join([_TOP, *(f"## {title}\n\n{table}" for title, table in rooms.items())])


def _table(kinds: list[Kind]) -> str:
    rows = [
        (f"`{kind.name}`", _FORM.sub(r"*\1*", kind.sentence), f"{kind.meaning} {kind.advice}".strip()) for kind in kinds
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [("kind", "sentence", "what it means"), ("---",) * 3, *rows])
