"""No program reads a sentence that another part of the house has made: it goes by kinds and values."""

import ast
from pathlib import Path

import pytest

SOURCES = Path("src/aifbench")
SENTENCES = {
    "allowed", "caution", "cautions", "hint", "lost", "message", "method", "msg", "note", "notes", "problem", "reason",
    "reasons", "why",
}  # fmt: skip
"""Names of what is told to a reader."""
PARSERS = {
    "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "rfind", "rindex", "rpartition", "rsplit",
    "split", "splitlines", "startswith",
}  # fmt: skip


def name_of(node):
    """The last name of `case.reasons[0]`, `note` or `str(error.problem)`."""
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    if isinstance(node, ast.Call):
        return name_of(node.args[0]) if len(node.args) == 1 else None
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def read_sentences(tree):
    """Yield the name and line of each sentence that is parsed, searched, or looked up in a list of others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if node.func.attr in PARSERS:
                found = name_of(node.func.value)
            else:
                found = name_of(node.args[1]) if of_re and len(node.args) > 1 else None
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            found = name_of(node.comparators[0]) if isinstance(node.left, ast.Constant | ast.Name) else None
        else:
            continue
        if found in SENTENCES:
            yield found, node.lineno


@pytest.mark.parametrize("file", sorted(SOURCES.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCES)))
def test_no_sentence_is_read(file):
    place = file.relative_to(SOURCES).as_posix()
    found = list(read_sentences(ast.parse(file.read_text())))
    assert found == [], place


@pytest.mark.parametrize(
    "line",
    [
        "note.startswith('noisy:')",
        "value.method.rpartition('; ')[2]",
        "error.problem.startswith('unknown key')",
        "error.allowed.split(', ')",
        "any(' is memory: ' in note for note in case.notes)",
        "any(word in reason for reason in case.reasons for word in words)",
        "re.findall(NUMBER, note)",
        "'written' in problem",
    ],
)
def test_the_habit_would_be_found(line):
    assert list(read_sentences(ast.parse(line)))
