"""Where cases ran: in which container, and by which plan. Numbers of two places never stand together untold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from aifbench.analysis.cases import CONTAINER, Case
from aifbench.checks.kinds import DIFFERENT_CONTAINERS
from aifbench.core.records import BatchRecord, Invocation
from aifbench.files.bounded import read_beneath
from aifbench.records.planned import Planned

if TYPE_CHECKING:
    from aifbench.report.load import Results

NONE = "none"


def container_of(plan: Planned, invocation: Invocation) -> str:
    """Return the container in which a job's cases ran: `none`, `apptainer`, `docker`, or one within the other.

    The configuration names the one that the cases are started in; what the runner itself stands in, its record tells.
    """
    within = plan.system.get("container", NONE)
    around = invocation.environment.get("container")
    found = [str(kind) for kind in (within, around) if kind and kind != NONE]
    return " in ".join(found) or NONE


def containers(results: Results) -> dict[str, int]:
    """Return the containers in which jobs ran, with how many jobs did; the planned one before any has run."""
    found: dict[str, int] = {}
    for record in results.batches.values():
        for invocation in record.invocations:
            kind = container_of(results.plan, invocation)
            found[kind] = found.get(kind, 0) + 1
    return found or {str(results.plan.system.get("container", "unknown")): 0}


def tell_apart(cases: Iterable[Case], batches: Mapping[str, BatchRecord], plan: Planned) -> None:
    """Make the container an axis of the cases, so that nothing compares or joins them, where there is more than one."""
    ran: list[tuple[Case, list[str]]] = []
    for case in cases:
        jobs = {job.index: job for job in batches[case.batch].invocations} if case.batch in batches else {}
        places = [container_of(plan, jobs[one.invocation]) for one in case.repetitions if one.invocation in jobs]
        if places:
            ran.append((case, list(dict.fromkeys(places))))
    if len({place for _, places in ran for place in places}) < 2:
        return
    for case, places in ran:
        case.axes[CONTAINER] = " and ".join(places)
        case.label = f"{case.label} · {CONTAINER}={case.axes[CONTAINER]}"
        if len(places) > 1:
            case.notes.append(DIFFERENT_CONTAINERS.caution(containers=", ".join(places)))


def leave_out(root: Path, plan: Planned, cases: dict[str, Case], batches: dict[str, BatchRecord]) -> Iterable[str]:
    """Take out what the plan does not name: cases and batches of an earlier plan, or of another system. Say what."""
    planned = {entry.case for entry in plan.cases}
    named = set(plan.batches)
    stale = [id for id in cases if planned and id not in planned]
    others: dict[str, list[str]] = {}
    for name in [name for name in batches if named and name not in named]:
        others.setdefault(_system_of(root, name), []).append(name)
        del batches[name]
    if stale:
        for id in stale:
            del cases[id]
        yield f"{len(stale)} case{'' if len(stale) == 1 else 's'} of the tables that the plan does not name"
    for system, names in others.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"{shown}: not of this plan{system}; no number here is theirs"


def _system_of(root: Path, batch: str) -> str:
    """Return the system that the spec of a batch names, as an addition to a sentence; empty where it does not tell."""
    try:
        system = orjson.loads(read_beneath(root, "specs", f"{batch}.json"))["system"]
        return f", but of system {system['name']}, container {system['container']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
