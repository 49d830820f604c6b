"""Presets: ready suites of `config/presets/*.yaml`, each with a title and a sentence, that a launch starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from aifbench.campaign.config import invalid
from aifbench.core.errors import ConfigError, given
from aifbench.core.strict import Strict
from aifbench.files.yamlfile import read_mapping
from aifbench.registry import benchmarks

FOLDER = Path("config/presets")


class PresetKeys(Strict):
    """Keys of a preset file, but for `suite`."""

    title: str = Field(min_length=1, max_length=60, description="name in the menu")
    text: str = Field(min_length=1, max_length=200, description="what it measures, in a sentence")
    scheduler: bool = Field(False, description="it needs a system with Slurm")


class Preset(PresetKeys):
    """One preset; its suite is checked where it is used, by the code that checks every suite."""

    id: str = Field(description="name of its file")
    suite: dict[str, Any] = Field(description="keys of a suite")

    @property
    def benchmark(self) -> str:
        """Name of its benchmark."""
        return str(self.suite.get("benchmark"))


def read_presets(folder: Path = FOLDER) -> tuple[dict[str, Preset], dict[str, ConfigError]]:
    """Return all presets by id, in the order of their ids, and the error of each file that is none."""
    found, broken = {}, {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            found[path.stem] = _read(path)
        except ConfigError as error:
            broken[path.stem] = error
    return found, broken


def _read(path: Path) -> Preset:
    where = str(FOLDER / path.name)
    try:
        preset = Preset(**{**read_mapping(path), "id": path.stem})
    except ConfigError as error:
        raise error.at(where) from None
    except ValidationError as error:
        raise invalid(error, "", where, known=[*PresetKeys.model_fields, "suite"]) from None
    if preset.benchmark not in benchmarks():
        value = given(preset.suite["benchmark"]) if "benchmark" in preset.suite else None
        raise ConfigError(
            "suite.benchmark", value, "no such benchmark", where=where, kind="unknown_name", choices=benchmarks()
        )
    return preset
