"""The documents, and the blocks of code in them, each with its mark."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "config/*.md", "deploy/*.md", "tests/slurm/*.md")
    for path in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: what its mark says (`run`, `file: PLACE`, `not run: the reason`), its language and its text."""

    place: str
    mark: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, from top to bottom."""
    text = (ROOT / page).read_text()
    return [
        Block(f"{page}:{text[: found.start()].count(chr(10)) + 1}", found[1] or "", found[2], found[3])
        for found in BLOCK.finditer(text)
    ]
