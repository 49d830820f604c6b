"""Launch and cancel. All that decides is in files, so it holds between processes and over restarts.

<results>/<run>/launch/request.json  what was asked, when, by which process
                       config.yaml   the campaign
                       command.json  the command; keeper.json process.json exit.json: see `supervisor`
                       cancel.json   asks the supervisor to end the run
                       ended-<when>/ how it ended before it was continued
<state>/client/keys/<sha256>.json    which run an Idempotency-Key belongs to, written before the run starts
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.errors import ConfigError
from aifbench.core.ids import digest
from aifbench.files.beneath import Unreadable, list_beneath
from aifbench.files.bounded import json_beneath
from aifbench.files.written import write_beneath
from aifbench.processes.identity import alive, identity
from aifbench.services.client.check import Checked, Checker
from aifbench.services.client.folder import COMMAND, CONFIG, LAUNCH, REQUEST, SMALL_BYTES, RunFolder
from aifbench.services.client.reasons import refuse
from aifbench.services.client.request import LaunchRequest
from aifbench.services.client.runs import ACTIVE, Runs, owners
from aifbench.services.client.slurm import left_jobs
from aifbench.services.client.supervisor import STEPS, cancel_left, end_group
from aifbench.services.settings import private_folder
from aifbench.tables.collect import collect
from aifbench.tables.retry import set_aside

SUBMIT_S = 90.0
"""Longest wait for the first job to be submitted; then the launch counts as accepted and goes on."""
STRIPES = 64
KEYS_KEPT_S = 7 * 86400
_STAMP = re.compile(r"-(\d{8}-\d{6})-[0-9a-f]{4}$")


@dataclass(frozen=True)
class LaunchLimits:
    """How many runs may go on at once, and how many may begin in a minute.

    One at a time where they share this machine: measurements do not share a machine.
    """

    local: int = 1
    slurm: int = 8
    per_minute: int = 5


class Launcher:
    """Starts and ends runs."""

    def __init__(self, checker: Checker, runs: Runs, limits: LaunchLimits | None = None) -> None:
        self.checker, self.runs, self.limits = checker, runs, limits or LaunchLimits()
        self.settings = checker.settings
        self._state = private_folder(private_folder(self.settings.state) / "client")
        self._keys = private_folder(self._state / "keys")
        self._forget_old_keys()

    def launch(self, request: LaunchRequest, key: str | None = None) -> dict[str, Any]:
        """Check and start a run; return `{run_id, state, checks}` once its jobs are submitted. Raises `Refused`.

        The same `key` gives the same run, however often and from however many processes it is asked.
        """
        if key is None:
            return self._launch(request, None)
        name = hashlib.sha256(f"{self.settings.results}\0{key}".encode()).hexdigest()
        wanted = digest(request.model_dump(mode="json"))
        with self._locked(f"key-{int(name[:8], 16) % STRIPES}"):
            known = self._run_of_key(f"{name}.json")
            if known is None:
                return self._launch(request, self._keys / f"{name}.json")
        if known["request"] != wanted:
            hint = "send a new key with each new request"
            raise refuse("duplicate", "this Idempotency-Key was used for another request", hint=hint)
        return self._answer(known["run_id"])

    def rehearse(self, checked: Checked, run: str) -> dict[str, float]:
        """Do the slow checks of a launch and leave nothing; return how long each took in s. Raises `Refused`."""
        with self._new_folder(run) as folder:
            config = _write_config(folder, checked)
        try:
            return self.checker.slow(checked, config)
        finally:
            shutil.rmtree(folder.path)

    def cancel(self, run: str) -> dict[str, Any]:
        """Ask a run to end; what it has measured stays. Raises `Refused` (not_found, not_active)."""
        folder = self.runs.folder(run)
        shown = self.runs.show(run)
        if not shown["launched"]:
            raise refuse("not_active", f"{run} was started by hand", hint="end it where it was started (Ctrl-C)")
        if not folder.ours():
            raise refuse("not_active", f"{run} was launched by somebody else", hint="who launched it can cancel it")
        if shown["state"] not in ACTIVE and not (shown["state"] == "failed" and left_jobs(folder.slurm_runs())):
            raise refuse("not_active", f"{run} has ended: {shown['state']}")
        try:
            folder.touch("cancel.json")
        except OSError as error:
            raise refuse("not_active", f"{run}/{LAUNCH}/cancel.json {error.strerror}", hint="delete it") from None
        threading.Thread(target=_see_it_end, args=(folder,), daemon=True).start()
        return self.runs.show(run)

    def go_on(self, run: str, again: bool) -> dict[str, Any]:
        """Start the workflow of a run that has ended once more; return `{run_id, state}` as `launch` does.

        What is measured stays; with `again`, what is invalid or failed is set aside first. Raises `Refused`
        (not_found, not_active, active, complete, queue_full, start_failed).
        """
        folder = self.runs.folder(run)
        with self._locked("launch"):
            shown, request = self.runs.show(run), folder.read(REQUEST)
            if not shown["launched"] or request is None:
                hint = "run it again where it was started: what is measured is not measured twice"
                raise refuse("not_active", f"{run} was started by hand", hint=hint)
            if shown["state"] in ACTIVE:
                raise refuse("active", f"{run} goes on: {shown['state']}")
            if not folder.has("plan.json"):
                raise refuse("complete", f"{run} has no plan: it ended before", hint="launch it anew")
            if "continue" not in shown["can"] and not (again and "again" in shown["can"]):
                hint = "what is invalid or failed is measured again with again=true" if "again" in shown["can"] else ""
                raise refuse("complete", f"{run}: all cases are measured", hint=hint)
            self._refuse_beside(request["slurm"] is True)
            try:
                _refuse_foreign(folder)
                if again:
                    set_aside(folder.path, collect(folder.path), ())
                self._forget_end(folder, request)
                self._start(folder)
            except ConfigError as error:
                raise refuse("active", str(error)) from None
            except OSError as error:
                hint = "" if isinstance(error, Unreadable) else "make room, then continue it"
                raise refuse("start_failed", f"{run}: {error.strerror}", hint=hint) from None
            deadline = time.monotonic() + SUBMIT_S
            while not folder.has(LAUNCH, "process.json") and time.monotonic() < deadline:
                time.sleep(0.05)
        return self._answer(run)

    def _forget_end(self, folder: RunFolder, request: dict[str, Any]) -> None:
        """Move aside how a run has ended, so that it may begin once more."""
        folder.write(REQUEST, {**request, "by": identity(os.getpid())})
        aside = f"ended-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        folder.set_aside(aside, "exit.json", "cancel.json", "process.json", "keeper.json")

    def _launch(self, request: LaunchRequest, key: Path | None) -> dict[str, Any]:
        run = new_id(request, datetime.now())
        checked = self.checker.cheap(request, run)
        with self._locked("launch"):
            self._refuse_too_many(checked)
            with self._new_folder(run) as folder:
                self._reserve(checked, run, folder)
        try:
            took = self.checker.slow(checked, folder.path / LAUNCH / CONFIG)
            if key is not None:
                known = {"run_id": run, "request": digest(request.model_dump(mode="json")), "at": _now()}
                write_beneath(self._keys, key.name, data=orjson.dumps(known))
        except BaseException:
            shutil.rmtree(folder.path)  # its name is new: nothing but what this launch made is in it
            raise
        return {**self._answer(run), "checks": took}

    def _refuse_beside(self, slurm: bool) -> None:
        most = self.limits.slurm if slurm else self.limits.local
        going = [run for run, on_slurm in self.runs.active() if on_slurm == slurm]
        if len(going) >= most:
            message = f"{len(going)} run(s) going on; at most {most} at once" + ("" if slurm else " on this machine")
            raise refuse("queue_full", message, hint=f"wait for {going[0]}, or cancel it")

    def _refuse_too_many(self, checked: Checked) -> None:
        self._refuse_beside(checked.plan.config.system.slurm is not None)
        recent = [name for name in _names(self.settings.results) if -1 < _age_s(name) < 60]  # clocks are set back
        if len(recent) >= self.limits.per_minute:
            wait = 60 - max(_age_s(name) for name in recent)
            message = f"{len(recent)} launches in the last minute; at most {self.limits.per_minute}"
            raise refuse("rate_limited", message, hint=f"try again in {max(1, round(wait))} s")

    def _reserve(self, checked: Checked, run: str, folder: RunFolder) -> None:
        config = _write_config(folder, checked)
        shown = config.relative_to(self.settings.project) if config.is_relative_to(self.settings.project) else config
        command = self.checker.command(checked.request.profile, shown)
        folder.write(COMMAND, {"argv": command, "cwd": str(self.settings.project)})
        content = {
            "run_id": run,
            "created_at": _now(),
            "profile": checked.request.profile,
            "slurm": checked.plan.config.system.slurm is not None,
            "benchmarks": list(dict.fromkeys(part.benchmark for part in checked.composed.parts)),
            "request": checked.request.model_dump(mode="json", exclude_defaults=True),
            "expected": checked.summary(datetime.now().astimezone()),
            "by": identity(os.getpid()),
        }
        folder.write(REQUEST, content)

    def _answer(self, run: str) -> dict[str, Any]:
        """Start the run unless it has started; return the answer to its launch once its jobs are submitted."""
        folder = RunFolder(self.settings.results, run)
        request = folder.read(REQUEST)
        if request is None:
            raise refuse("duplicate", f"the run {run} of this Idempotency-Key was deleted", hint="send a new key")
        if not folder.has(LAUNCH, "keeper.json"):
            self._start(folder)
        deadline = time.monotonic() + SUBMIT_S
        slurm = request["slurm"] is True
        while not submitted(folder, slurm) and time.monotonic() < deadline:
            if folder.has(LAUNCH, "exit.json") and not submitted(folder, slurm):
                lines = [line for line in folder.said().splitlines() if line.strip()]
                said = lines[-1].strip() if lines else "it said nothing"
                raise refuse("start_failed", f"{run}: {said}"[:500], hint=f"see results/{run}/launch/snakemake.log")
            time.sleep(0.05)
        return {"run_id": run, "state": self.runs.show(run)["state"]}

    def _start(self, folder: RunFolder) -> None:
        with folder.append("keeper.log") as errors:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "aifbench.services.client.supervisor", str(folder.path / LAUNCH)],
                cwd=self.settings.project,
                env=self.checker.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        threading.Thread(target=supervisor.wait, daemon=True).start()  # no zombie while this process lives

    @contextlib.contextmanager
    def _new_folder(self, run: str) -> Iterator[RunFolder]:
        """Make the folder of a run, which must be new; an error of the disk is a refusal."""
        folder, made = RunFolder(self.settings.results, run), False
        try:
            self.settings.results.mkdir(parents=True, exist_ok=True)
            folder.make()
            made = True
            yield folder
        except OSError as error:
            if made:
                shutil.rmtree(folder.path, ignore_errors=True)
            hint = "make room, or name another folder with --results"
            raise refuse("start_failed", f"the results folder: {error.strerror}", hint=hint) from None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock among all processes and threads of this user."""
        with (self._state / f"{name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _run_of_key(self, name: str) -> dict[str, Any] | None:
        """Return what is kept of an Idempotency-Key, None where nothing is."""
        try:
            known = json_beneath(self._keys, name, most=SMALL_BYTES)
        except FileNotFoundError:
            return None
        return known if isinstance(known, dict) else None

    def _forget_old_keys(self) -> None:
        for path in self._keys.glob("*.json"):
            if time.time() - path.stat().st_mtime > KEYS_KEPT_S:
                path.unlink(missing_ok=True)


def new_id(request: LaunchRequest, now: datetime) -> str:
    """Return a fresh id, such as `storage-quick-20261126-103000-1f2e`."""
    names = dict.fromkeys(part.preset or part.benchmark or "" for part in request.parts.values())
    name = "-".join(names)[:40].strip("-") or "run"
    return f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def submitted(folder: RunFolder, slurm: bool) -> bool:
    """Return whether the jobs of a run are submitted: here, whether Snakemake has begun its first."""
    return folder.has("plan.json") and (not slurm or folder.submitted())


def _write_config(folder: RunFolder, checked: Checked) -> Path:
    folder.write(CONFIG, checked.text)
    return folder.path / LAUNCH / CONFIG


def _refuse_foreign(folder: RunFolder) -> None:
    """Refuse to start what somebody else may have written. Raises `Refused` (start_failed)."""
    foreign = folder.foreign()
    if foreign is not None:
        hint = f"if all in it is yours: chmod -R go-w {folder.path}" if foreign.ours else "launch it anew"
        raise refuse("start_failed", foreign.problem, hint=hint)


def _see_it_end(folder: RunFolder) -> None:
    """See that a run ends: by its supervisor, or without it where that has died, or dies at it."""
    supervisor = folder.read("keeper.json")
    lived = alive(supervisor)
    while alive(supervisor):
        time.sleep(0.1)
    if lived is False or (lived and not folder.has(LAUNCH, "exit.json")):
        _end_without_supervisor(folder, folder.read("process.json"))


def _end_without_supervisor(folder: RunFolder, process: dict[str, Any] | None) -> None:
    """End a run whose supervisor has ended: its workflow, batches on this machine that outlived it, jobs in Slurm."""
    for number, seconds in STEPS:
        groups, pids = _at_work(folder, process)
        if not groups and not pids:
            break
        for group in groups:
            end_group(group, number)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while any(_at_work(folder, process)) and time.monotonic() < deadline:
            time.sleep(0.1)
    cancel_left(folder)


def _at_work(folder: RunFolder, process: dict[str, Any] | None) -> tuple[list[int], list[int]]:
    """Return the process groups and the processes that work at a run: those that its files name, and that do."""
    groups = [process["pid"]] if process is not None and alive(process) else []
    mine, measuring = ([pid for pid in named if concerns(pid, folder.run)] for named in (groups, owners(folder)))
    return mine, measuring


def concerns(pid: int, run: str) -> bool:
    """Return whether a process of this user works at a run, as its command line tells.

    A file that others may have written must not name another process of ours, which would then be ended.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() and f"/{run}/".encode() in command


def _names(results: Path) -> list[str]:
    """Return what this user has in a folder."""
    try:
        return [name for name, facts in list_beneath(results) if facts.st_uid == os.geteuid()]
    except OSError:
        return []


def _age_s(name: str) -> float:
    """Return how long ago a run was launched, by its id; for other names infinity."""
    match = _STAMP.search(name)
    if not match:
        return float("inf")
    try:
        return (datetime.now() - datetime.strptime(match[1], "%Y%m%d-%H%M%S")).total_seconds()
    except ValueError:
        return float("inf")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
