"""The Slurm job that a batch runs in, and its nodes. Where there is no Slurm, there is one node."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import Any

from aifbench.slurm.ask import SlurmError, ask


def own_node() -> str | None:
    """Return Slurm's name of this node, None outside a job."""
    return os.environ.get("SLURMD_NODENAME")


def devices() -> tuple[str, ...] | None:
    """Return the GPUs that this job was given, as CUDA names them; None where nobody says which."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if listed is None else tuple(name for name in listed.split(",") if name)


def allocation() -> dict[str, Any]:
    """Return what this job may use on its node: cores and memory in bytes with the source of each, null without one."""
    cores, memory = _number("SLURM_CPUS_ON_NODE"), None
    if megabytes := _number("SLURM_MEM_PER_NODE"):  # 0 stands for all that the node has
        memory = megabytes << 20
    elif (megabytes := _number("SLURM_MEM_PER_CPU")) and cores:
        memory = cores * megabytes << 20
    return {
        "cores": cores or len(os.sched_getaffinity(0)),
        "cores_source": "Slurm" if cores else "CPU affinity",
        "memory_bytes": memory,
        "memory_source": None if memory is None else "Slurm",
    }


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def second_node() -> str:
    """Return a node of this job that is not this one. Raises `SlurmError`, also when there is none.

    Inside a step, SLURM_JOB_NODELIST names the nodes of the step: the job's own are asked for.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise SlurmError("topology two-node needs a Slurm job of two nodes, and this is none", "refused")
    listed = ask("squeue", "--noheader", "--jobs", job, "--format", "%N").strip()
    others = [name for name in ask("scontrol", "show", "hostnames", listed).split() if name != own_node()]
    if not others:
        raise SlurmError(f"topology two-node needs two nodes, but job {job} has only {listed}", "refused")
    return others[0]


def address(node: str) -> str:
    """Return the address at which other nodes of the cluster reach `node`. Raises `SlurmError`."""
    match = re.search(r"\bNodeAddr=(\S+)", ask("scontrol", "show", "node", node))
    if match is None:
        raise SlurmError(f"Slurm does not tell the address of node {node}", "refused")
    return match[1]


def job_end() -> float | None:
    """Return when this job's time is over (seconds of the epoch); None outside a job, or when Slurm does not tell."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    try:
        return datetime.fromisoformat(ask("squeue", "--noheader", "--jobs", job, "--format", "%e").strip()).timestamp()
    except (SlurmError, ValueError):
        return None


def on_node(node: str, argv: list[str]) -> list[str]:
    """Return the command that runs `argv` on another node of this job, as a step beside the batch's own."""
    one = ["--nodes=1", "--ntasks=1", f"--nodelist={node}"]
    return ["srun", "--overlap", *one, "--unbuffered", "--kill-on-bad-exit=1", *argv]
