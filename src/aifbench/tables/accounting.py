"""What Slurm accounted for the jobs of a campaign, kept in `jobs.json`: Slurm itself forgets, and a report travels.

{job id: {state, ended, elapsed_s, nodes, energy_j}}     energy is null where the site does not account it
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.records import Invocation
from aifbench.records.reading import Reader
from aifbench.records.sealed import seal
from aifbench.records.store import BatchStore, atomic_write

FILE = "jobs.json"
LOST = "what Slurm accounted; delete it, and Slurm is asked again"
FIELDS = ("JobIDRaw", "State", "ElapsedRaw", "NNodes", "ConsumedEnergyRaw")
UNENDED = {"PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED"}
_AT_ONCE = 500
_TIMEOUT_S = 60


def slurm_job(invocation: Invocation) -> str | None:
    """Return the id of the Slurm job of an invocation, None where there was none."""
    slurm = invocation.provenance.get("slurm")
    found = slurm.get("job_id") if isinstance(slurm, dict) else None
    return found if isinstance(found, str) else None


def account(results: Path, out: Path | None = None) -> None:
    """Ask Slurm about the jobs of all batches that are not known to have ended, and add what it says to `jobs.json`.

    Does nothing where no batch ran in a Slurm job or where that file is damaged, and leaves out what Slurm does not
    tell. `out`: the folder of the file, when it is another one.
    """
    files = Reader(results)
    known = jobs_in(files) | (read_jobs(out) if out else {})
    if files.damage:
        return
    stores = [BatchStore.of(results, name) for name in files.folders("batches")]
    records = [record for store in stores if (record := store.read_record()) is not None]
    ids = {job for record in records for invocation in record.invocations if (job := slurm_job(invocation))}
    asked = sorted(job for job in ids if not known.get(job, {}).get("ended"))
    for start in range(0, len(asked), _AT_ONCE):
        known |= _ask(asked[start : start + _AT_ONCE])
    if known:
        text = orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        atomic_write((out or results) / FILE, seal(text))


def read_jobs(results: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept of the jobs by their ids; nothing where there is no such file."""
    return jobs_in(Reader(results))


def jobs_in(files: Reader) -> dict[str, dict[str, Any]]:
    """Return the same from an open results folder; what is damaged is named there."""
    with files.naming(FILE, LOST):
        found = files.json(FILE)
        jobs = {job: told for job, told in found.items() if _is_job(told)}
        if len(jobs) < len(found):
            files.tell(FILE, f"has {len(found) - len(jobs)} entries that are no job", LOST)
        return jobs
    return {}


def _is_job(told: Any) -> bool:
    """Return whether an entry says of a job what we write."""
    if not isinstance(told, dict) or not isinstance(told.get("state"), str):
        return False
    numbers = [told.get(name) for name in ("elapsed_s", "nodes", "energy_j")]
    return all(one is None or (isinstance(one, int | float) and 0 <= one < 1e15) for one in numbers)


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
