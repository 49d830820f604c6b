"""What a site has and lacks: one row per check, with what to do about each that fails. Submits nothing unless asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from aifbench.core.system import Slurm, System
from aifbench.slurm import site
from aifbench.slurm.ask import SlurmError

State = Literal["ok", "note", "fail"]
Value = TypeVar("Value")
LEAST_MIN_JOB_AGE_S = 60
"""Three times the 15 s until the profile's first look at a job, and some: later, squeue has forgotten it."""
_TIMEOUT_S = 60
_JOB_TIMEOUT_S = 300


@dataclass(frozen=True)
class Finding:
    """One row: what was checked, how it stands, what was seen, what to do."""

    what: str
    state: State
    seen: str
    todo: str = ""


def examine(system: System, results: Path, *, job: bool = False) -> Iterator[Finding]:
    """Yield the findings about a campaign's system and folders; with `job`, also those from a job of each partition."""
    paths = system.paths
    folders = [("results", results), ("paths.cache", paths.cache), ("paths.target", paths.target)]
    if system.container == "apptainer":
        folders += [("paths.images", paths.images), ("paths.models", paths.models)]
    for name, folder in folders:
        yield writable(name, folder)
    if system.slurm is not None:
        yield from _slurm(system.slurm)
        for name in dict.fromkeys([system.slurm.partition, system.slurm.partition_for(gpus=1)]):
            yield from (
                _inside_job(system, name)
                if job
                else [Finding(f"inside a job of {name}", "note", "not looked at", "aifbench doctor --job submits one")]
            )
    else:
        yield from inside(system)


def inside(system: System) -> Iterator[Finding]:
    """Yield what only the place where batches run can tell."""
    if system.container == "apptainer":
        yield _apptainer(system)
    yield _cgroup()
    yield _gpus()
    yield _network()


def writable(name: str, folder: Path) -> Finding:
    """Check that a folder, or the nearest one above it that exists, can be written."""
    probe = folder.absolute()
    while not probe.exists():
        probe = probe.parent
    if not os.access(probe, os.W_OK):
        return Finding(name, "fail", f"{probe} cannot be written", f"set {name} of the system to a folder of yours")
    free = shutil.disk_usage(probe).free / 2**30
    return Finding(name, "ok", f"{folder}, {free:.0f} GiB free")


def _slurm(slurm: Slurm) -> Iterator[Finding]:
    try:
        ping = site.ping()
    except SlurmError as error:
        ping = str(error)
    if "UP" not in ping:
        yield Finding("Slurm", "fail", ping, "log in to a node that submits jobs, or ask the site")
        return
    yield Finding("Slurm", "ok", ping)
    user = _ask("id", "-un") or ""
    accounts = _told(lambda: site.accounts(user))
    if slurm.account is None:
        todo = f"export SBATCH_ACCOUNT=..., one of: {', '.join(accounts) or 'none known'}"
        yield Finding("account", "fail", "none is set", todo)
    elif slurm.account not in accounts:
        todo = f"one of: {', '.join(accounts) or 'none known'}"
        yield Finding("account", "fail", f"{user} may not use {slurm.account}", todo)
    else:
        yield Finding("account", "ok", slurm.account)
    partitions = {partition.name: partition for partition in _told(site.partitions)}
    for name in dict.fromkeys([slurm.partition, slurm.gpu_partition or slurm.partition]):
        if found := partitions.get(name):
            yield Finding(f"partition {name}", "ok", f"{found.state}, {found.nodes} nodes, {found.cores} CPUs")
        else:
            todo = f"one of: {', '.join(sorted(partitions))}"
            yield Finding(f"partition {name}", "fail", "Slurm does not know it", todo)
    if slurm.qos:
        every = _told(site.qualities)
        ok = slurm.qos in every
        yield Finding(f"qos {slurm.qos}", "ok" if ok else "fail", "known" if ok else "Slurm does not know it",
                      "" if ok else f"one of: {', '.join(every)}")  # fmt: skip
    age_s = next(iter(_told(site.least_job_age_s)), None)
    if age_s is None:
        yield Finding("MinJobAge", "note", "Slurm does not tell", "")
    else:
        enough = age_s >= LEAST_MIN_JOB_AGE_S
        todo = (
            "" if enough else "squeue forgets jobs before they are looked at: lower slurm-init-seconds in the profile"
        )
        yield Finding("MinJobAge", "ok" if enough else "fail", f"{age_s} s", todo)


def _inside_job(system: System, name: str) -> list[Finding]:
    """Look from inside a job of a partition: this very command, started by srun."""
    assert system.slurm is not None
    account = ["--account", system.slurm.account] if system.slurm.account else []
    qos = ["--qos", system.slurm.qos] if system.slurm.qos else []
    step = ["srun", "--quiet", *account, *qos, "--partition", name, "--nodes=1", "--ntasks=1", "--time=5"]
    command = [sys.executable, "-m", "aifbench.machine.doctor", system.model_dump_json()]
    try:
        answer = subprocess.run([*step, *command], capture_output=True, text=True, timeout=_JOB_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding(f"job in {name}", "fail", str(error), "look at squeue: is the partition full?")]
    if answer.returncode:
        said = " ".join(answer.stderr.split())[-200:]
        return [Finding(f"job in {name}", "fail", said, "the same srun by hand tells more")]
    return [
        Finding(f"{name}: {row['what']}", row["state"], row["seen"], row["todo"]) for row in json.loads(answer.stdout)
    ]


def _apptainer(system: System) -> Finding:
    command = system.apptainer.command
    found = _ask(command, "--version")
    if found is None:
        todo = "name its module in `modules` of the system"
        return Finding("Apptainer", "note" if system.modules else "fail", f"{command} is not on PATH", todo)
    return Finding("Apptainer", "ok", found)


def _cgroup() -> Finding:
    try:
        text = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().splitlines()
    except OSError as error:
        return Finding("cgroup", "note", str(error), "memory and CPU are then summed over processes")
    return Finding("cgroup", "ok", text[-1])


def _gpus() -> Finding:
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)) if count else ""
        pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no permission
        return Finding("GPU", "note", "none is visible here", "")
    return Finding("GPU", "ok", f"{count}x {name}")


def _network() -> Finding:
    """Look for a way out without sending anything: a default route (proc(5), net/route)."""
    todo = "put images into paths.images, and import models with `gguf`"
    try:
        routes = [line.split() for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]]
    except OSError as error:
        return Finding("network", "note", str(error), todo)
    if any(fields[1] == "00000000" for fields in routes):
        return Finding("network", "ok", "there is a default route (nothing was sent)")
    return Finding("network", "note", "there is no default route: nothing can be pulled here", todo)


def _ask(*argv: str) -> str | None:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _told(question: Callable[[], list[Value]]) -> list[Value]:
    """Return what Slurm answers, nothing where it does not."""
    try:
        return question()
    except SlurmError:
        return []


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in inside(System.model_validate_json(sys.argv[1]))]))
