"""Presets: ready suites of `config/presets/*.yaml`, each with a title and a sentence, that a launch starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aifbench.benchmark import benchmarks
from aifbench.campaign.config import read_mapping
from aifbench.campaign.errors import ConfigError

FOLDER = Path("config/presets")


class PresetKeys(BaseModel):
    """Keys of a preset file, but for `suite`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def load_presets(folder: Path = FOLDER) -> tuple[dict[str, Preset], dict[str, ConfigError]]:
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
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(key, None, first["msg"], "title, text, scheduler, suite", where) from None
    if preset.benchmark not in benchmarks():
        allowed = ", ".join(benchmarks())
        raise ConfigError("suite.benchmark", preset.suite.get("benchmark"), "no such benchmark", allowed, where)
    return preset
