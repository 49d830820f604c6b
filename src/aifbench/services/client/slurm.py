"""What the client asks Slurm: partitions, whether it would take a job, and to cancel what is left of a run.

Argument lists only, each with a deadline; partitions are asked for at most every 30 s.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aifbench.campaign.resources import JobResources
from aifbench.services.client.reasons import refuse
from aifbench.services.problems import Refused

TIMEOUT_S = 20.0
FRESH_S = 30.0
UP = "up"

REFUSALS = (
    (r"invalid account|account/partition combination|invalid qos|user's group not permitted", "no_allocation"),
    (r"partition.*(not available|inactive|drain|is down)|partition-level.*down", "partition_down"),
    (r"invalid partition", "invalid_config"),
    (r"AssocMaxSubmitJob|QOSMaxSubmitJob|job submit limit|MaxJobCount", "queue_full"),
    (r"unable to contact|connection (refused|timed out|failure)|socket timed out|controller", "slurm_unreachable"),
    (r"", "over_limit"),
)
"""The first pattern that is found in what sbatch says names the code."""


@dataclass(frozen=True)
class Partition:
    """One partition as `sinfo` shows it. Absent numbers are None."""

    name: str
    state: str
    nodes: int
    cores: int | None
    memory_mib: int | None
    gpus: str | None
    time_limit: str
    default: bool


class SlurmClient:
    """Asks Slurm's commands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: tuple[float, list[Partition] | Refused] | None = None

    def partitions(self) -> list[Partition]:
        """Return the partitions, at most 30 s old. Raises `Refused` (slurm_unreachable), also for up to 30 s."""
        with self._lock:
            if self._partitions is None or time.monotonic() - self._partitions[0] > FRESH_S:
                try:
                    found: list[Partition] | Refused = parse_partitions(
                        _ask("sinfo", "--noheader", "--format", "%P|%a|%D|%c|%m|%G|%l")
                    )
                except Refused as refused:
                    found = refused
                self._partitions = time.monotonic(), found
            known = self._partitions[1]
        if isinstance(known, Refused):
            raise refuse(known.code, known.message, hint=known.hint)
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
            answer = subprocess.run(
                ["sbatch", "--test-only", *arguments(resources)],
                input="#!/bin/sh\ntrue\n",
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreachable("sbatch", error) from None
        if answer.returncode:
            raise from_sbatch(answer.stderr, resources)


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


def from_sbatch(text: str, resources: JobResources) -> Refused:
    """Return the refusal that sbatch's words mean."""
    lines = [line for line in text.splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "no reason given"
    said = re.sub(r"^(?:(?:sbatch|error|allocation failure|Batch job submission failed):\s*)+", "", said)
    code = next(code for pattern, code in REFUSALS if re.search(pattern, text, re.IGNORECASE))
    places = {"partition_down": "resources.job.partition", "invalid_config": "resources.job.partition"}
    places |= {"no_allocation": "profile", "over_limit": "resources.job"}
    asked = f"{resources.nodes} node(s), {resources.cores} cores, {resources.memory_mib} MiB, {resources.gpus} GPU(s)"
    hint = {
        "over_limit": f"the job asks for {asked}, {resources.minutes} min in partition {resources.partition}",
        "no_allocation": f"account {resources.account}, QOS {resources.qos or 'none'}; see `sacctmgr show assoc`",
        "queue_full": "wait until some of your jobs have ended",
    }.get(code, "")
    return refuse(code, f"Slurm would not take the job: {said}", field=places.get(code), hint=hint)


def parse_partitions(text: str) -> list[Partition]:
    """Return the partitions of `sinfo --format '%P|%a|%D|%c|%m|%G|%l'`; groups of nodes of one are put together."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) != 7:
            continue
        name, state, nodes, cores, memory, gpus, limit = cells
        default, name = name.endswith("*"), name.rstrip("*")
        known = found.get(name)
        fresh = Partition(
            name,
            state,
            (known.nodes if known else 0) + (_number(nodes) or 0),
            _larger(known.cores if known else None, _number(cores)),
            _larger(known.memory_mib if known else None, _number(memory)),
            (known.gpus if known else None) or (gpus if gpus.startswith("gpu") else None),
            limit,
            default,
        )
        found[name] = fresh
    return list(found.values())


def cancel_jobs(names: Iterable[str]) -> None:
    """Cancel the jobs that a run of Snakemake has left; each bears one of these names."""
    for name in names:
        subprocess.run(
            ["scancel", f"--name={name}"], capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )


def left_jobs(names: Sequence[str]) -> list[str]:
    """Return the ids of the jobs with these names that Slurm still has."""
    return _ask("squeue", "--noheader", f"--name={','.join(names)}", "--format", "%i").split() if names else []


def _ask(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _unreachable(argv[0], error) from None
    return done.stdout


def _unreachable(program: str, error: Exception) -> Refused:
    if isinstance(error, FileNotFoundError):
        message = f"the program {program} is not on PATH"
    elif isinstance(error, subprocess.CalledProcessError):
        lines: Sequence[str] = (error.stderr or "").strip().splitlines()
        message = f"{program}: {lines[-1] if lines else f'exit code {error.returncode}'}"
    else:
        message = f"{program} does not answer within {TIMEOUT_S:g} s"
    return refuse("slurm_unreachable", message, hint="try again later; `sinfo` tells whether Slurm answers")


def _number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _larger(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
