"""Whether Slurm has the partition of a job, and would take it: what it says, as refusals of a launch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from aifbench.campaign.resources import JobResources
from aifbench.services.client.reasons import refuse
from aifbench.services.problems import Refused
from aifbench.slurm.ask import SlurmError, ask
from aifbench.slurm.queue import jobs_named
from aifbench.slurm.site import UP, Partition, partitions

FRESH_S = 30.0
"""Age of what is known of the partitions at most."""

CODES = {"unreachable": "slurm_unreachable", "unknown_partition": "invalid_config", "refused": "over_limit"}
"""Our codes for what sbatch's words mean; the others are called as there."""


class SlurmClient:
    """Asks Slurm's commands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: tuple[float, list[Partition] | SlurmError] | None = None

    def partitions(self) -> list[Partition]:
        """Return the partitions, at most 30 s old. Raises `Refused` (slurm_unreachable), also for up to 30 s."""
        with self._lock:
            if self._partitions is None or time.monotonic() - self._partitions[0] > FRESH_S:
                try:
                    self._partitions = time.monotonic(), partitions()
                except SlurmError as error:
                    self._partitions = time.monotonic(), error
            known = self._partitions[1]
        if isinstance(known, SlurmError):
            raise _unreachable(known)
        return known

    def check_partition(self, name: str, resources: JobResources) -> None:
        """Refuse a partition that is not there, not up, or too small. Raises `Refused`."""
        known = {partition.name: partition for partition in self.partitions()}
        place = "resources.job.partition"
        found = known.get(name)
        if found is None:
            hint = f"allowed: {', '.join(sorted(known))}"
            raise refuse("invalid_config", f"{name!r}: no such partition", field=place, hint=hint)
        if found.state != UP:
            usable = ", ".join(sorted(other.name for other in known.values() if other.state == UP))
            raise refuse("partition_down", f"{name} is {found.state}", field=place, hint=f"up: {usable or 'none'}")
        for wanted, most, what in (
            (resources.cores, found.cores, "cores"),
            (resources.memory_mib, found.memory_mib, "memory_mib"),
        ):
            if wanted and most and wanted > most:
                message = f"{wanted}: a node of partition {name} has {most}"
                raise refuse("over_limit", message, field=f"resources.job.{what}", hint=f"at most {most}")

    def test(self, resources: JobResources) -> None:
        """Ask whether Slurm would take such a job (`sbatch --test-only`); nothing is queued. Raises `Refused`."""
        try:
            ask("sbatch", "--test-only", *arguments(resources), script="#!/bin/sh\ntrue\n")
        except SlurmError as error:
            raise from_sbatch(error, resources) from None


def arguments(resources: JobResources) -> list[str]:
    """Return the options of sbatch that Snakemake's plugin gives for these resources."""
    found = [f"--nodes={resources.nodes}", f"--time={resources.minutes}", f"--mem={resources.memory_mib}M"]
    found += [f"--cpus-per-task={resources.cores}"] if resources.cores else []
    tasks = "--ntasks-per-gpu" if resources.gpus else "--ntasks"
    found.append(f"{tasks}={resources.tasks}")
    found += [f"--gpus={resources.gpus}"] if resources.gpus else []
    for name, value in (("account", resources.account), ("partition", resources.partition), ("qos", resources.qos)):
        found += [f"--{name}={value}"] if value else []
    return found


def from_sbatch(error: SlurmError, resources: JobResources) -> Refused:
    """Return the refusal that sbatch's error means."""
    if not error.said:  # it was not asked, or did not answer
        return _unreachable(error)
    code = CODES.get(error.kind, error.kind)
    places = {"partition_down": "resources.job.partition", "invalid_config": "resources.job.partition"}
    places |= {"no_allocation": "profile", "over_limit": "resources.job"}
    asked = f"{resources.nodes} node(s), {resources.cores} cores, {resources.memory_mib} MiB, {resources.gpus} GPU(s)"
    hint = {
        "over_limit": f"the job asks for {asked}, {resources.minutes} min in partition {resources.partition}",
        "no_allocation": f"account {resources.account}, QOS {resources.qos or 'none'}; see `sacctmgr show assoc`",
        "queue_full": "wait until some of your jobs have ended",
    }.get(code, "")
    return refuse(code, f"Slurm would not take the job: {error.said}", field=places.get(code), hint=hint)


def left_jobs(names: Sequence[str]) -> list[str]:
    """Return the ids of the jobs with these names that Slurm still has. Raises `Refused` (slurm_unreachable)."""
    try:
        return jobs_named(names)
    except SlurmError as error:
        raise _unreachable(error) from None


def _unreachable(error: SlurmError) -> Refused:
    return refuse("slurm_unreachable", str(error), hint="try again later; `sinfo` tells whether Slurm answers")
