"""What the job of a batch asks the scheduler for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aifbench.campaign.plan import Batch
from aifbench.core.system import System

FACTOR, FLOOR_MINUTES = 3.0, 10
"""A job may take three times what is expected, and ten minutes in any case: it ends by itself long before."""

SERVICE_MIB = 16_384


@dataclass(frozen=True)
class JobResources:
    """Request of one job. Without a scheduler, nothing below `minutes` has a meaning."""

    nodes: int
    tasks: int
    gpus: int
    minutes: int
    cores: int | None = None
    memory_mib: int = 1024
    account: str | None = None
    partition: str | None = None
    qos: str | None = None


def job_resources(batch: Batch, system: System, attempt: int = 1) -> JobResources:
    """Return what the job of `batch` asks for; a later attempt gets more time."""
    params, system = batch.cases[0].params, system.for_job(batch.job)
    minutes = max(FLOOR_MINUTES, round(FACTOR * attempt * batch.expected_s / 60))
    if system.limits.job_hours is not None:
        minutes = min(minutes, int(60 * system.limits.job_hours))
    nodes, gpus = params.nodes(), params.gpus()
    if system.slurm is None or system.node is None:
        return JobResources(nodes, nodes, gpus, minutes)
    return JobResources(
        nodes=nodes,
        tasks=nodes,
        gpus=gpus,
        minutes=minutes,
        cores=system.node.cores,
        memory_mib=system.node.memory_mib,
        account=system.slurm.account,
        partition=system.slurm.partition_for(gpus),
        qos=system.slurm.qos,
    )


def service_resources(system: System) -> JobResources:
    """Return what a job that makes an image or fetches a model asks for: some memory of one node without GPUs."""
    if system.slurm is None or system.node is None:
        return JobResources(1, 1, 0, FLOOR_MINUTES)
    memory = min(SERVICE_MIB, system.node.memory_mib)
    slurm = system.slurm
    return JobResources(1, 1, 0, FLOOR_MINUTES, 1, memory, slurm.account, slurm.partition, slurm.qos)
