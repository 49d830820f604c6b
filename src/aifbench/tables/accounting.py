"""What Slurm accounted for the jobs of a campaign, kept in `jobs.json`: Slurm itself forgets, and a report travels.

{job id: {state, ended, elapsed_s, nodes, energy_j}}     energy is null where the site does not account it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from aifbench.core.records import Invocation
from aifbench.files.written import atomic_write
from aifbench.records.reading import Reader
from aifbench.records.sealed import seal
from aifbench.records.store import BatchStore
from aifbench.slurm.accounting import accounted

FILE = "jobs.json"
LOST = "what Slurm accounted; delete it, and Slurm is asked again"


def slurm_job(invocation: Invocation) -> str | None:
    """Return the id of the Slurm job of an invocation, None where there was none."""
    slurm = invocation.provenance.get("slurm")
    job = slurm.get("job_id") if isinstance(slurm, dict) else None
    return job if isinstance(job, str) else None


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
    known |= accounted(asked)
    if known:
        text = orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        atomic_write((out or results) / FILE, seal(text))


def read_jobs(results: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept of the jobs by their ids; nothing where there is no such file."""
    return jobs_in(Reader(results))


def jobs_in(files: Reader) -> dict[str, dict[str, Any]]:
    """Return the same from an open results folder; what is damaged is named there."""
    with files.naming(FILE, LOST):
        entries = files.json(FILE)
        jobs = {job: entry for job, entry in entries.items() if _is_job(entry)}
        if len(jobs) < len(entries):
            files.tell(FILE, f"has {len(entries) - len(jobs)} entries that are no job", LOST)
        return jobs
    return {}


def _is_job(entry: Any) -> bool:
    """Return whether an entry says of a job what we write."""
    if not isinstance(entry, dict) or not isinstance(entry.get("state"), str):
        return False
    numbers = [entry.get(name) for name in ("elapsed_s", "nodes", "energy_j")]
    return all(value is None or (isinstance(value, int | float) and 0 <= value < 1e15) for value in numbers)
