"""What a site's Slurm offers: whether it answers, its partitions, what this user may use. Each raises `SlurmError`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aifbench.slurm.ask import ask

UP = "up"


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


def ping() -> str:
    """Return the line that says whether the controller is up."""
    return ask("scontrol", "ping").strip().partition("\n")[0]


def partitions() -> list[Partition]:
    """Return all partitions."""
    return parse_partitions(ask("sinfo", "--noheader", "--format", "%P|%a|%D|%c|%m|%G|%l"))


def parse_partitions(text: str) -> list[Partition]:
    """Return the partitions of `sinfo --format '%P|%a|%D|%c|%m|%G|%l'`; groups of nodes of one are put together."""
    known: dict[str, Partition] = {}
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) != 7:
            continue
        name, state, nodes, cores, memory, gpus, limit = cells
        default, name = name.endswith("*"), name.rstrip("*")
        before = known.get(name)
        known[name] = Partition(
            name,
            state,
            (before.nodes if before else 0) + (_number(nodes) or 0),
            _larger(before.cores if before else None, _number(cores)),
            _larger(before.memory_mib if before else None, _number(memory)),
            (before.gpus if before else None) or (gpus if gpus.startswith("gpu") else None),
            limit,
            default,
        )
    return list(known.values())


def accounts(user: str) -> list[str]:
    """Return the accounts that a user may use, sorted."""
    lines = ask("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account").split()
    return sorted(set(lines))


def qualities() -> list[str]:
    """Return the names of all qualities of service."""
    return ask("sacctmgr", "-nP", "show", "qos", "format=name").split()


def least_job_age_s() -> list[int]:
    """Return for how many seconds squeue knows an ended job (MinJobAge), as the only item; none if it is not told."""
    return [int(seconds) for seconds in re.findall(r"MinJobAge\s*=\s*(\d+)", ask("scontrol", "show", "config"))]


def _number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _larger(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
