"""What Slurm accounted for the jobs of a campaign, kept in `jobs.json`: Slurm itself forgets, and a report travels.

{job id: {state, ended, elapsed_s, nodes, energy_j}}     energy is null where the site does not account it
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from aifbench.records.models import Invocation
from aifbench.records.store import BatchStore, atomic_write

FILE = "jobs.json"
FIELDS = ("JobIDRaw", "State", "ElapsedRaw", "NNodes", "ConsumedEnergyRaw")
UNENDED = {"PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED"}
_AT_ONCE = 500
_TIMEOUT_S = 60


def slurm_job(invocation: Invocation) -> str | None:
    """Return the id of the Slurm job of an invocation, None where there was none."""
    found: str | None = (invocation.provenance.get("slurm") or {}).get("job_id")
    return found


def account(results: Path, out: Path | None = None) -> None:
    """Ask Slurm about the jobs of all batches that are not known to have ended, and add what it says to `jobs.json`.

    Does nothing where no batch ran in a Slurm job, and leaves out what Slurm does not tell. `out`: the folder of the
    file, when it is another one.
    """
    known = read_jobs(results) | (read_jobs(out) if out else {})
    folders = sorted((results / "batches").glob("*/batch.json"))
    records = [record for path in folders if (record := BatchStore(path.parent).read_record()) is not None]
    ids = {job for record in records for invocation in record.invocations if (job := slurm_job(invocation))}
    asked = sorted(job for job in ids if not known.get(job, {}).get("ended"))
    for start in range(0, len(asked), _AT_ONCE):
        known |= _ask(asked[start : start + _AT_ONCE])
    if known:
        atomic_write((out or results) / FILE, orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def read_jobs(results: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept of the jobs by their ids; nothing where there is no such file."""
    try:
        jobs: dict[str, dict[str, Any]] = orjson.loads((results / FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return jobs


def _ask(jobs: Iterable[str]) -> dict[str, dict[str, Any]]:
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", ",".join(jobs)]
    try:
        answer = subprocess.run(
            [*command, "--format", ",".join(FIELDS)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse(answer.stdout)


def parse(text: str) -> dict[str, dict[str, Any]]:
    """Return the jobs of `sacct --parsable2` with `FIELDS`; lines that are none of a job are left out."""
    found = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) != len(FIELDS) or not cells[0].isdigit():
            continue
        job, state, elapsed, nodes, energy = cells
        state = state.split(maxsplit=1)[0] if state else "UNKNOWN"  # CANCELLED by 1234
        found[job] = {
            "state": state,
            "ended": state not in UNENDED,
            "elapsed_s": int(elapsed) if elapsed.isdigit() else None,
            "nodes": int(nodes) if nodes.isdigit() else None,
            "energy_j": int(energy) or None if energy.isdigit() else None,
        }
    return found
