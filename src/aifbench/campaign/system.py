"""Where a campaign runs: paths and limits of one machine or cluster (`config/systems/*.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What the plan refuses to exceed on this system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: int = Field(64, ge=1, description="most concurrent clients of one case")
    space_fraction: float = Field(
        0.5, gt=0, le=1, description="largest part of the free space of `paths.target` that one case may fill"
    )


class Paths(BaseModel):
    """Folders, relative to the folder in which the command runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache: Path = Field(Path("cache"), description="ground truth and prepared data, kept between campaigns")
    target: Path = Field(
        Path("cache/target"),
        description="where the storage benchmark writes its files when a suite gives no `path`",
    )


class System(BaseModel):
    """One machine or cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="part of every case's id: numbers of two systems never mix"
    )
    container: Literal["none"] = Field(
        "none", description="container that cases run in; `none` is said in every record"
    )
    paths: Paths = Field(default_factory=Paths, description="folders")
    limits: Limits = Field(default_factory=Limits, description="what the plan refuses to exceed")
