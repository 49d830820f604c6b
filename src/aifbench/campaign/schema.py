"""JSON Schemas for editors, generated from the models that check the YAML: nothing is said twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from aifbench.campaign.config import CampaignKeys, SuiteKeys
from aifbench.campaign.presets import PresetKeys
from aifbench.core.benchmark import Benchmark
from aifbench.core.system import System
from aifbench.files.written import atomic_write
from aifbench.files.yamlfile import UNREAD
from aifbench.registry import benchmarks

_STRICT = ConfigDict(extra="forbid")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by file name."""
    any_suite: Any = Union[tuple(suite_model(benchmark) for benchmark in benchmarks().values())]  # noqa: UP007
    content: dict[str, Any] = {
        "system": (str | System, Field("laptop", description="name of a file in config/systems, or a mapping")),
        "suites": (list[str | any_suite], Field(min_length=1, description="suites, or names of suite files")),
    }
    campaign = create_model("Campaign", __base__=CampaignKeys, **content)
    preset = create_model("Preset", __base__=PresetKeys, suite=(any_suite, Field(description="keys of a suite")))
    suite = TypeAdapter(any_suite).json_schema() | {"title": "Suite"}
    found: dict[str, dict[str, Any]] = {
        "config": TypeAdapter(campaign).json_schema(),
        "preset": preset.model_json_schema(),
        "suite": suite,
        "system": System.model_json_schema(),
    }
    for top in (found["config"], found["preset"], found["system"], *map(suite["$defs"].get, _names(suite["anyOf"]))):
        top["patternProperties"] = {f"^{UNREAD}": {"description": "read by nothing: a place for anchors"}}
    return {f"{name}.schema.json": {"$schema": _DRAFT, **schema} for name, schema in found.items()}


def _names(references: list[dict[str, str]]) -> list[str]:
    """Return the names of the definitions that are referred to."""
    return [reference["$ref"].rpartition("/")[2] for reference in references]


def write_schemas(folder: Path) -> list[Path]:
    """Write the schemas into `folder` and return their paths."""
    paths = {folder / name: schema for name, schema in schemas().items()}
    for path, schema in paths.items():
        atomic_write(path, render(schema))
    return list(paths)


def render(schema: dict[str, Any]) -> bytes:
    """Return a schema as the content of its file."""
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def suite_model(benchmark: Benchmark) -> type[BaseModel]:
    """Return the model of a suite of one benchmark: common keys, fixed values, and axes over the same fields."""
    title, params = benchmark.name.capitalize(), benchmark.params
    fields = {name: field for name, field in params.model_fields.items() if not field.exclude}

    def model(suffix: str, form: Callable[[Any], Any]) -> Any:
        content: dict[str, Any] = {
            name: (form(field.rebuild_annotation()) | None, Field(None, description=field.description))
            for name, field in fields.items()
        }
        return create_model(f"{title}{suffix}", __config__=_STRICT, **content)

    axes = model("Axes", _one_or_many)
    clause = model("Where", _one_or_many)
    point = model("Point", lambda kind: kind)
    keys: dict[str, Any] = {
        "benchmark": (Literal[benchmark.name], Field(description="benchmark of this suite")),
        "axes": (axes, Field(default_factory=axes, description="product of all values")),
        "zip": (axes, Field(default_factory=axes, description="lists of one length, taken together")),
        "exclude": (_many(clause), Field([], description="points to leave out; a list means any of its values")),
        "include": (_many(point), Field([], description="extra points")),
    }
    for name, field in fields.items():
        form = params.suite_field(name)
        kind: Any = form[0] if form else field.rebuild_annotation()
        keys[name] = (kind | None, Field(None, description=field.description))
    return create_model(f"{title}Suite", __base__=SuiteKeys, **keys)


def _many(kind: Any) -> Any:
    return list[kind]


def _one_or_many(kind: Any) -> Any:
    return kind | list[kind]
