"""Where a campaign runs: paths, limits, containers and scheduler of one machine or cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aifbench.core.paths import FilePath, PathText
from aifbench.core.strict import Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A name that the scheduler or the module system knows. It ends up in commands, so it holds no sign of a shell."""
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+/-]*$")]
Option = Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=[A-Za-z0-9_.,:/-]+)?$")]


class Limits(Strict):
    """What the plan refuses to exceed on this system."""

    clients: int = Field(64, ge=1, description="most concurrent clients of one case")
    server_ready_s: float = Field(
        300.0, gt=0, le=7200, description="longest time until a server that a batch starts has answered a request"
    )
    job_hours: float | None = Field(
        None, gt=0, description="longest time that the scheduler gives a job; longer batches are refused: see `pack`"
    )
    space_fraction: float = Field(
        0.5, gt=0, le=1, description="largest part of the free space of `paths.target` that one case may fill"
    )


class Paths(Strict):
    """Folders, relative to the folder in which the command runs."""

    cache: FilePath = Field(Path("cache"), description="ground truth and prepared data, kept between campaigns")
    target: FilePath = Field(
        Path("cache/target"),
        description="where the storage benchmark writes its files when a suite gives no `path`",
    )
    images: FilePath = Field(Path("cache/images"), description="container images, <name>.sif, made once or put there")
    models: FilePath = Field(Path("cache/models"), description="language models of Ollama, pulled once or imported")


class Apptainer(Strict):
    """How containers are started."""

    command: PathText = Field("apptainer", min_length=1, description="the program, or its path")
    options: tuple[Option, ...] = Field((), description="more options of `apptainer exec`, such as --userns")
    binds: tuple[FilePath, ...] = Field((), description="more folders that containers see, besides those of the batch")


class Node(Strict):
    """What one job gets of a node."""

    cores: int = Field(ge=1, description="cores that a job asks for")
    memory_mib: int = Field(ge=512, description="memory that a job asks for, in MiB")
    gpus: int = Field(0, ge=0, description="GPUs of one node of `gpu_partition`")


class Slurm(Strict):
    """What jobs ask the scheduler for."""

    account: Name | None = Field(None, description="account that pays; needed, but never written into a shared file")
    partition: Name = Field("cpu", description="partition of jobs without a GPU")
    gpu_partition: Name | None = Field(None, description="partition of jobs with GPUs")
    qos: Name | None = Field(None, description="quality of service")

    def partition_for(self, gpus: int) -> str:
        """Return the partition of a job with so many GPUs."""
        return self.gpu_partition or self.partition if gpus else self.partition


class Job(Strict):
    """What each job of a suite asks for; what is absent is as the system says."""

    cores: int | None = Field(None, ge=1, description="cores of each node")
    memory_mib: int | None = Field(None, ge=512, description="memory of each node in MiB")
    partition: Name | None = Field(None, max_length=64, description="partition, which must have what the suite needs")


class System(Strict):
    """One machine or cluster."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="part of every case's id: numbers of two systems never mix"
    )
    container: Literal["none", "apptainer"] = Field(
        "none", description="container that cases run in; `none` is said in every record"
    )
    paths: Paths = Field(default_factory=Paths, description="folders")
    limits: Limits = Field(default_factory=Limits, description="what the plan refuses to exceed")
    apptainer: Apptainer = Field(default_factory=Apptainer, description="how containers are started")
    modules: tuple[Module, ...] = Field((), description="environment modules that a job loads, such as Apptainer")
    slurm: Slurm | None = Field(None, description="the scheduler; absent: jobs run on this machine")
    node: Node | None = Field(None, description="what a job gets of a node; needed with `slurm`")

    def for_job(self, job: Job | None) -> System:
        """Return the system as the jobs of a suite have it; one without a scheduler is left as it is."""
        if job is None or self.slurm is None or self.node is None:
            return self
        asked = job.model_dump(exclude_none=True)
        partition = asked.pop("partition", None)
        places = {"partition": partition, "gpu_partition": partition} if partition else {}
        slurm, node = self.slurm.model_copy(update=places), self.node.model_copy(update=asked)
        return self.model_copy(update={"slurm": slurm, "node": node})

    @model_validator(mode="after")
    def _slurm_needs_a_node(self) -> System:
        if self.slurm is not None and self.node is None:
            raise ValueError("slurm needs `node`: the cores and the memory that a job asks for")
        return self
