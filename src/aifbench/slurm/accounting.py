"""What Slurm has accounted for jobs, as `sacct` tells it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from aifbench.slurm.ask import LIVE, SlurmError, ask

_FIELDS = ("JobIDRaw", "State", "ElapsedRaw", "NNodes", "ConsumedEnergyRaw")
_AT_ONCE = 500


def accounted(jobs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return `{job id: {state, ended, elapsed_s, nodes, energy_j}}` of the jobs about which Slurm tells something."""
    known: dict[str, dict[str, Any]] = {}
    shape = ("--noheader", "--parsable2", "--allocations", "--format", ",".join(_FIELDS))
    for start in range(0, len(jobs), _AT_ONCE):
        with contextlib.suppress(SlurmError):
            known |= parse(ask("sacct", *shape, "--jobs", ",".join(jobs[start : start + _AT_ONCE])))
    return known


def parse(text: str) -> dict[str, dict[str, Any]]:
    """Return the jobs of `sacct --parsable2`; lines that are none of a job are left out."""
    jobs = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) != len(_FIELDS) or not cells[0].isdigit():
            continue
        job, state, elapsed, nodes, energy = cells
        state = state.split(maxsplit=1)[0] if state else "UNKNOWN"  # CANCELLED by 1234
        jobs[job] = {
            "state": state,
            "ended": state not in LIVE,
            "elapsed_s": int(elapsed) if elapsed.isdigit() else None,
            "nodes": int(nodes) if nodes.isdigit() else None,
            "energy_j": int(energy) or None if energy.isdigit() else None,
        }
    return jobs
