"""The menus of the benchmarks, and that the doors of the house know no benchmark by its name."""

import ast
import re
from pathlib import Path

import pytest

from aifbench.core.menu import Hardware, Menu
from aifbench.registry import benchmarks
from aifbench.services.client.request import Resources

SOURCE = Path("src/aifbench")
DOORS = [SOURCE / "services", SOURCE / "cli", SOURCE / "cli.py"]
_JS_LITERAL = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`")
_JS_KEY = re.compile(r"[{,]\s*(\w+)\s*:|\.(\w+)\b")


def literals(path):
    """Yield the texts that a file of Python or JavaScript holds as literals; in JavaScript, keys and properties too."""
    text = path.read_text()
    if path.suffix == ".py":
        constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        yield from (value for value in constants if isinstance(value, str))
    else:
        code = re.sub(r"(?m)(^|\s)//.*$", "", text)
        for pattern in (_JS_LITERAL, _JS_KEY):
            yield from ("".join(found.groups("")) for found in pattern.finditer(code))


def names_in(path):
    """Return the literals of a file that are the name of a benchmark, or of a preset that is called by one."""
    return [
        text for text in literals(path) if any(text == name or text.startswith(f"{name}-") for name in benchmarks())
    ]


def test_the_doors_of_the_house_hold_no_name_of_a_benchmark():
    files = [path for door in DOORS for path in ([door] if door.is_file() else sorted(door.rglob("*")))]
    files = [path for path in files if path.suffix in {".py", ".js"}]
    assert len(files) > 40
    assert {str(path): found for path in files if (found := names_in(path))} == {}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", "if name == 'storage': pass", ["storage"]),
        ("a.py", "KINDS = {'inference': 1}  # retrieval", ["inference"]),
        ("a.py", "'''storage devices'''", []),
        ("a.js", 'if (one.name === "retrieval") {}', ["retrieval"]),
        ("a.js", "const needed = { storage: [], inference: [] };", ["storage", "inference"]),
        ("a.js", "value = `storage-quick`;  // inference", ["storage-quick"]),
        ("a.js", 'el("p", {}, "kept in the session storage")', []),
    ],
)
def test_a_name_is_found_where_it_is_a_literal(tmp_path, name, text, found):
    (tmp_path / name).write_text(text)
    assert names_in(tmp_path / name) == found


def test_every_benchmark_has_a_menu_of_fields_that_it_has():
    known = {f"{part}.{field}" for part in ("server", "clients") for field in
             Resources.model_fields[part].annotation.model_fields}  # fmt: skip
    units = set()
    for name, benchmark in benchmarks().items():
        menu = benchmark.menu()
        assert menu.axis in benchmark.params.model_fields
        assert menu.text.endswith("."), name
        assert set(menu.hardware) <= known
        units.add(menu.unit)
    assert units == {"queries", "requests", "blocks"}


@pytest.mark.parametrize(
    "more",
    [
        {"axis": "k"},
        {"shown": ("datset",)},
        {"words": {"indx": ("Flat",)}},
        {"files": {"prompt": "prompts/*.txt"}},
        {"hardware": {"server.gpus": Hardware("engine.gpus", "")}},
    ],
)
def test_a_menu_that_names_what_is_no_field_is_refused(more):
    """As the terminal asked for `k`, which no suite knows."""
    params = benchmarks()["retrieval"].params
    menu = Menu(**{"text": "t", "axis": "top_k", "question": "q", "unit": "u", **more})
    with pytest.raises(ValueError, match=r"the menu names '.+', which is no field of RetrievalParams"):
        menu.check(params)
