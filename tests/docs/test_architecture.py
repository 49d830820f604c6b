"""The documents say what the code is: the rooms and their order, and one version."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import aifbench
from tests.docs.pages import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACES = ("src/aifbench", "", "tests/fixtures/toy_benchmark")
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def rooms_of_the_table():
    """Return the rooms of the table, one list between two lines in bold."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = re.search(r"\| room \|.*?\n\|[-|]+\|\n(.*?\n)\n", text, re.DOTALL)[1]
    found = [[]]
    for row in table.splitlines():
        cell = row.split("|")[1].strip()
        if cell.startswith("**"):
            found.append([])
        else:
            found[-1].append(cell.strip("`"))
    return found


def test_the_table_of_rooms_is_the_import_contract():
    assert rooms_of_the_table() == [[room.strip() for room in layer.split("|")] for layer in LAYERS]


def test_every_room_is_there():
    package = Path(aifbench.__file__).parent
    there = {path.parent.name for path in package.glob("*/__init__.py")} | {
        path.stem for path in package.glob("[!_]*.py")
    }
    assert {room for rooms in rooms_of_the_table() for room in rooms} == there


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_module_that_is_not_there(page):
    """Paths in backticks, such as `report/findings.py`; `metrics.py` alone may be any benchmark's."""
    for name in re.findall(r"`(?:src/aifbench/)?([a-z_]+(?:/[a-z_]+)*/[a-z_]+\.py)`", (ROOT / page).read_text()):
        assert any((ROOT / place / name).exists() for place in (*PLACES, Path(page).parent)), name


def test_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert aifbench.__version__ == PROJECT["project"]["version"] == cited
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert aifbench.__version__.removesuffix(".dev0") == newest
