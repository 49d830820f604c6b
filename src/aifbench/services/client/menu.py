"""The menu: what can be launched, with which limits and where. From the same models and files that check a launch."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from aifbench.campaign.schema import suite_model
from aifbench.core.benchmark import Benchmark
from aifbench.core.params import Params
from aifbench.core.system import System
from aifbench.core.units import format_size, parse_size
from aifbench.registry import benchmarks
from aifbench.services.client.check import MOST_CASES, Checker
from aifbench.services.client.launch import LaunchLimits
from aifbench.services.client.reasons import CODES
from aifbench.services.client.request import LaunchRequest
from aifbench.services.problems import Refused


def menu(checker: Checker, limits: LaunchLimits) -> dict[str, Any]:
    """Return benchmarks, presets, profiles and codes. Presets tell what they take on each profile that they run on.

    `broken_presets`: files that are no presets, each with its problem; the others stay usable.
    """
    profiles = checker.profiles()
    presets, broken = checker.presets()
    return {
        "benchmarks": [_benchmark(checker, benchmark) for benchmark in benchmarks().values()],
        "presets": [
            {
                "id": preset.id,
                "title": preset.title,
                "text": preset.text,
                "benchmark": preset.benchmark,
                "suite": preset.suite,
                "profiles": {
                    profile: _takes(checker, preset.id, profile)
                    for profile, system in profiles.items()
                    if system.slurm is not None or not preset.scheduler
                },
            }
            for preset in presets.values()
        ],
        "broken_presets": [{"id": name, "problem": str(error)} for name, error in broken.items()],
        "profiles": [_profile(checker, name, system) for name, system in profiles.items()],
        "limits": {**asdict(limits), "cases": MOST_CASES},
        "request": request_schema(),
        "codes": {code: reason.meaning for code, reason in CODES.items()},
    }


@cache
def request_schema() -> dict[str, Any]:
    """Return the JSON Schema of a launch, whole in itself: it stands within the OpenAPI document."""
    schema = LaunchRequest.model_json_schema()
    whole: dict[str, Any] = inlined(schema, schema.pop("$defs"))
    return whole


def inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with its definitions in the place of the references to them."""
    if isinstance(value, list):
        return [inlined(inner, definitions) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {key: inlined(inner, definitions) for key, inner in value.items() if key != "$ref"}
    if "$ref" in value:
        return {**inlined(definitions[value["$ref"].rpartition("/")[2]], definitions), **found}
    return found


@cache
def suite_schema(benchmark: str) -> dict[str, Any]:
    """Return the JSON Schema of a suite of a benchmark, as editors have it. Raises KeyError for another name."""
    return TypeAdapter(suite_model(benchmarks()[benchmark])).json_schema()


def _benchmark(checker: Checker, benchmark: Benchmark) -> dict[str, Any]:
    """Return what people are told and asked about a benchmark."""
    told, config = benchmark.menu(), checker.settings.project / "config"
    files = {key: sorted(path.stem for path in config.glob(pattern)) for key, pattern in told.files.items()}
    return {
        "name": benchmark.name,
        "text": told.text,
        "outputs": list(benchmark.headline),
        "has_server": benchmark.has_server,
        "setup": sorted(benchmark.params.setup_names()),
        "defaults": _defaults(benchmark.params),
        "suggestions": {**told.words, **files},
        "axis": told.axis,
        "question": told.question,
        "shown": list(told.shown),
        "hardware": {path: part.text for path, part in told.hardware.items()},
    }


def _defaults(params: type[Params]) -> dict[str, Any]:
    """Return the defaults that a form can show: numbers and words; sizes with their unit."""
    found = {}
    for name, field in params.model_fields.items():
        value = field.get_default()
        if any(getattr(mark, "func", None) is parse_size for mark in field.metadata) and isinstance(value, int):
            value = format_size(value)
        if isinstance(value, str | int | float) and value != "":
            found[name] = value
    return found


def _takes(checker: Checker, preset: str, profile: str) -> dict[str, Any]:
    """Return the expected time of a preset on a profile, or why it cannot be launched there now."""
    request = LaunchRequest(preset=preset, profile=profile)
    try:
        checked = checker.cheap(request, "menu")
    except Refused as refused:
        reason = {"code": refused.code, "message": refused.message, "hint": refused.hint}
        return {"status": "ko", "reason": reason}
    totals = checked.plan.summary()["totals"]
    return {"status": "ok", **{key: totals[key] for key in ("cases", "batches", "expected_s", "node_hours")}}


def _profile(checker: Checker, name: str, system: System) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "system": system.name,
        "container": system.container,
        "limits": system.limits.model_dump(),
        "clients": {
            name: benchmark.params.most_clients(system.limits.clients) for name, benchmark in benchmarks().items()
        },
        "node": system.node.model_dump() if system.node else None,
        "slurm": None,
    }
    if system.slurm is not None:
        account = system.slurm.account or os.environ.get("SBATCH_ACCOUNT")
        found["slurm"] = {**system.slurm.model_dump(exclude={"account"}), "account": bool(account)}
        try:
            found["slurm"]["partitions"] = [asdict(partition) for partition in checker.slurm.partitions()]
        except Refused as refused:
            found["slurm"] |= {"partitions": [], "problem": refused.message}
    return found
