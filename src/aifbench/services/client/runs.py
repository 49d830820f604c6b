"""Runs as their files tell them: counts are kept, nothing else, so a restart loses nothing.

A launched run keeps its files in `<results>/<run>/launch/` (see `supervisor` and `launch`); a campaign that was
started by hand has none and is shown all the same. Others may have written in a results
folder: all is read through `folder`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from aifbench.files.beneath import list_beneath, open_beneath, stat_beneath
from aifbench.files.bounded import json_beneath
from aifbench.files.written import atomic_write
from aifbench.processes.identity import alive
from aifbench.services.client.folder import CONFIG, LAUNCH, REQUEST, SMALL_BYTES, RunFolder
from aifbench.services.client.reasons import refuse
from aifbench.services.client.tally import Tally
from aifbench.services.ids import is_id
from aifbench.services.problems import Problem
from aifbench.services.result_files import entries_beneath
from aifbench.services.settings import Settings, private_folder
from aifbench.services.values import LAST_S, listed, mapping, moment, number, text

State = Literal["queued", "running", "cancelling", "ended", "complete", "cancelled", "failed", "incomplete"]
ACTIVE = frozenset({"queued", "running", "cancelling"})
"""`ended`: all is measured, and its workflow came to its end. `complete`: all is measured, but its processes were
killed before that. `incomplete` is a campaign started by hand of which not all is measured; whether it still runs is
not known here."""
CHATTER = ("Elapsed time:", "Complete log(s):", "Select jobs", "Execute ", "[")
"""How lines of Snakemake begin that tell nothing about a run."""
CANCELLING = "its jobs are being ended"
COMPLETE = "all is measured, though its workflow was killed before its end"
CHECKING_S = 600.0
"""Longest time between the request of a run and its start; after it nobody is at it any more."""
REPORT_S = 120.0
MADE = frozenset({"report", "tables", "cases.csv"})
"""What `aifbench report` makes of the records of a run."""
READABLE = MADE | {"plan.json", "batches", "gate.txt"}
"""What stands in the folder of a run and is shown with its report; not how it was launched."""
MARKERS = (("plan.json",), (LAUNCH, REQUEST))
"""A folder with one of these is one of a run."""


class Runs:
    """All runs below a results folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tallies: dict[str, Tally] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()

    def folder(self, run: str) -> RunFolder:
        """Return the results folder of a run. Raises `Refused` (not_found)."""
        if not is_id(run) or not _is_run(self.settings.results / run):
            raise refuse("not_found", f"{run}: no such run", field="id", hint="the list of runs has their ids")
        return RunFolder(self.settings.results, run)

    def all(self) -> list[dict[str, Any]]:
        """Return all runs, newest first."""
        names = [name for name, _ in self._entries() if is_id(name) and _is_run(self.settings.results / name)]
        with self._lock:
            self._tallies = {name: tally for name, tally in self._tallies.items() if name in names}
        found = [self._show(RunFolder(self.settings.results, name)) for name in names]
        return sorted(found, key=lambda run: (run["created_at"] or "", run["id"]), reverse=True)

    def active(self) -> Iterator[tuple[str, bool]]:
        """Yield name and whether it uses Slurm of each launched run of this user that goes on."""
        for name, facts in self._entries():
            folder = RunFolder(self.settings.results, name)
            request = _request(folder) if facts.st_uid == os.geteuid() and is_id(name) else None
            if request is not None and self._launched(folder, request)[0] in ACTIVE:
                yield name, request["slurm"] is True

    def show(self, run: str) -> dict[str, Any]:
        """Return all that is known of a run. Raises `Refused` (not_found)."""
        return self._show(self.folder(run))

    def config(self, run: str) -> str | None:
        """Return the campaign of a launched run as YAML, None for one that was started by hand."""
        return self.folder(run).text(CONFIG)

    def log(self, run: str) -> str:
        """Return the end of what Snakemake said."""
        return self.folder(run).said()

    def report(self, run: str) -> BinaryIO:
        """Open the report as one self-contained page, made now from what is recorded unless the run has ended.

        Raises `Problem` (409) when there is nothing to report yet.
        """
        folder = self.folder(run)
        if not folder.has("plan.json"):
            raise Problem(409, "nothing is planned yet, so there is no report; try again in some seconds")
        if not self._has_own_report(folder):
            self._partial(folder)
        try:
            return self.open(run, ("report", "index.html"))
        except FileNotFoundError:
            raise Problem(409, "the report could not be made; `aifbench report` on the results says why") from None

    def open(self, run: str, parts: Sequence[str]) -> BinaryIO:
        """Open a file that the report of a run leads to, as the parts of its path in the run's folder.

        Raises FileNotFoundError when it is not there, or not one of those.
        """
        return open_beneath(self._root(run, parts), run, *parts)

    def entries(self, run: str, parts: Sequence[str]) -> list[tuple[str, int | None]]:
        """Return names and sizes in bytes (None: a folder) in a folder that the report of a run leads to.

        Raises FileNotFoundError when it is not there, or not one of those.
        """
        return entries_beneath(self._root(run, parts), run, *parts)

    def _entries(self) -> list[tuple[str, os.stat_result]]:
        """Return names and facts of the folders of the results; none when those cannot be listed."""
        try:
            return [found for found in list_beneath(self.settings.results) if stat.S_ISDIR(found[1].st_mode)]
        except OSError:
            return []

    def _show(self, folder: RunFolder) -> dict[str, Any]:
        """Return all that is known of a run. What its files say is taken piece by piece: it may be anything."""
        request = _request(folder)
        counts, (done, planned), problems = self._count(folder.run)
        plan = self._tally(folder.run).plan
        state, message = self._by_hand(folder) if request is None else self._launched(folder, request)
        ended = folder.read("exit.json") or {}
        launch = request or {}
        expected = plan.expected_s if plan else number(mapping(launch.get("expected")).get("expected_s"))
        benchmarks = plan.benchmarks if plan else [name for name in listed(launch.get("benchmarks")) if text(name)]
        return {
            "id": folder.run,
            "launched": request is not None,
            "state": state,
            "message": message,
            "created_at": moment(launch.get("created_at")) or _time(folder.changed("plan.json")),
            "ended_at": moment(ended.get("ended_at")),
            "profile": text(launch.get("profile"), 100),
            "preset": text(mapping(launch.get("request")).get("preset"), 100),
            "benchmarks": [name[:100] for name in benchmarks[:20]],
            "expected_s": expected,
            "repetitions": {"done": done, "planned": planned},
            "counts": counts,
            "report": plan is not None,
            "can": _actions(state, request, _code(ended), counts) if request is not None else [],
            "problem": "; ".join([*folder.problems.values(), *problems])[:500] or None,
        }

    def _root(self, run: str, parts: Sequence[str]) -> Path:
        """Return the folder of runs in which it is: what a report is made into stands aside while the run goes on."""
        folder = self.folder(run)
        if not parts or parts[0] not in READABLE:
            raise FileNotFoundError(parts)
        if parts[0] in MADE and not self._has_own_report(folder):
            return self._shadows()
        return self.settings.results

    def _has_own_report(self, folder: RunFolder) -> bool:
        return self._show(folder)["state"] in {"ended", "failed"} and folder.has("report", "index.html")

    def _shadows(self) -> Path:
        return private_folder(private_folder(private_folder(self.settings.state) / "client") / "reports")

    def _partial(self, folder: RunFolder) -> None:
        """Make a report outside the run's own folder, in which Snakemake may be writing."""
        shadow = private_folder(self._shadows() / folder.run)
        mark, signature = shadow / "signature", repr(_signature(folder))
        with self._building:
            if not mark.exists() or mark.read_text() != signature:
                shutil.rmtree(shadow)
                _make_report(folder.path, private_folder(shadow))
                atomic_write(mark, signature.encode())

    def _launched(self, folder: RunFolder, request: dict[str, Any]) -> tuple[State, str]:
        """Return the state of a launched run and a line about it."""
        ended, cancelled = folder.read("exit.json"), folder.has(LAUNCH, "cancel.json")
        supervisor = folder.read("keeper.json")
        lives = [alive(supervisor), alive(folder.read("process.json"))]
        if ended is None and (True in lives or None in lives):
            if cancelled:
                return "cancelling", CANCELLING
            return "running" if _has_begun(folder) else "queued", _last_line(folder)
        if owners(folder):  # its workflow was killed, or it went on by hand
            return _measures_on(folder)
        ended = ended or folder.read("exit.json")  # it may have ended between two looks
        if ended is not None:
            return self._ended(folder, request["slurm"] is True, _code(ended), cancelled)
        return self._without_end(folder, request, supervisor is not None, cancelled)

    def _ended(self, folder: RunFolder, slurm: bool, code: int | None, cancelled: bool) -> tuple[State, str]:
        counts = self._count(folder.run)[0]
        whole = _is_whole(counts)
        killed = code is not None and code < 0
        if code == 0 or (whole and not cancelled):
            return ("complete", COMPLETE) if killed else ("ended", _last_line(folder))
        if cancelled:
            return "cancelled", "what it has measured stays"
        parts = [f"its workflow was ended by signal {-(code or 0)}"] if killed else []
        if counts is not None:
            parts.append(f"{counts['missing']} of {sum(counts.values())} cases are not measured")
        if killed and slurm:
            parts.append("its jobs may still be in the queue: cancel removes them")
        return "failed", "; ".join(parts) or _last_line(folder)

    def _without_end(
        self, folder: RunFolder, request: dict[str, Any], started: bool, cancelled: bool
    ) -> tuple[State, str]:
        """Return the state of a run of which no process lives and whose end nobody wrote down."""
        if cancelled:
            return "cancelled", ""
        if not started:
            age_s = time.time() - (folder.changed(LAUNCH, REQUEST) or 0) / 1e9
            checking = alive(mapping(request["by"])) is not False and age_s < CHECKING_S
            return ("queued", "is being checked") if checking else ("failed", "never started: the service ended before")
        if folder.has("gate.txt"):
            return "ended", _last_line(folder)
        if _is_whole(self._count(folder.run)[0]):
            return "complete", COMPLETE
        return "failed", "its process was killed, or the machine went down"

    def _by_hand(self, folder: RunFolder) -> tuple[State, str]:
        if owners(folder):
            return "running", "started by hand"
        if folder.has("gate.txt") or _is_whole(self._count(folder.run)[0]):
            return "ended", "started by hand"
        return "incomplete", "started by hand"

    def _tally(self, run: str) -> Tally:
        with self._lock:
            return self._tallies.setdefault(run, Tally(self.settings.results, run))

    def _count(self, run: str) -> tuple[dict[str, int] | None, tuple[int, int | None], list[str]]:
        """Return the cases by state, the repetitions done and planned, and what of its records is not read."""
        return self._tally(run).look()


def _is_whole(counts: dict[str, int] | None) -> bool:
    return counts is not None and counts["missing"] == 0


def _code(ended: dict[str, Any]) -> int | None:
    code = ended.get("code")
    return code if type(code) is int and -64 <= code <= 255 else None


def _actions(state: State, request: dict[str, Any], code: int | None, counts: dict[str, int] | None) -> list[str]:
    """Return what may be asked of a launched run: cancel, continue, again (measure what is not valid once more)."""
    if state in ACTIVE:
        return [] if state == "cancelling" else ["cancel"]
    found, counts = [], counts or {}
    if state == "failed" and request["slurm"] is True and (code or -1) < 0:
        found.append("cancel")  # its jobs may still be in the queue
    if counts.get("missing"):
        found.append("continue")
    if counts.get("invalid") or counts.get("failed"):
        found.append("again")
    return found


def _measures_on(folder: RunFolder) -> tuple[State, str]:
    """Return the state of a run whose workflow has ended while a batch of it measures on this machine."""
    asked, ended = folder.changed(LAUNCH, "cancel.json"), folder.changed(LAUNCH, "exit.json")
    if asked is not None and (ended is None or asked > ended):
        return "cancelling", CANCELLING
    return "running", "a batch of it measures, though the workflow that was launched has ended"


def _make_report(results: Path, out: Path) -> None:
    """Run `aifbench report` in a process of its own. Raises `Problem` (409) when it takes too long."""
    try:
        subprocess.run(
            [sys.executable, "-m", "aifbench", "report", str(results), "--out", str(out)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=REPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Problem(409, f"the report took more than {REPORT_S:g} s; run `aifbench report` on the results") from None


def _last_line(folder: RunFolder) -> str:
    lines = [line for line in folder.said().splitlines() if line.strip() and not line.startswith(CHATTER)]
    return lines[-1].strip()[:300] if lines else ""


def _is_run(path: Path) -> bool:
    """Return whether something of a run stands in a folder, be it what it should be or not."""
    if path.is_symlink():
        return False
    for parts in MARKERS:
        with contextlib.suppress(OSError):
            path.joinpath(*parts).lstat()
            return True
    return False


def _request(folder: RunFolder) -> dict[str, Any] | None:
    """Return the request of a launched run, None for what is none."""
    found = folder.read(REQUEST)
    return found if found is not None and {"run_id", "by", "slurm"} <= found.keys() else None


def _has_begun(folder: RunFolder) -> bool:
    """Return whether a batch has begun: its job is not waiting any more."""
    return any(folder.has("batches", batch, "batch.json") for batch in folder.batches())


def _signature(folder: RunFolder) -> list[tuple[str, int, int]]:
    """Return what changes when a record of the run changes."""
    records = [("batches", batch, name) for batch in folder.batches() for name in ("batch.json", "cases.jsonl")]
    found = []
    for parts in (("plan.json",), *records):
        with contextlib.suppress(OSError):
            facts = stat_beneath(folder.results, folder.run, *parts)
            found.append(("/".join(parts), facts.st_size, facts.st_mtime_ns))
    return found


def owners(folder: RunFolder) -> list[int]:
    """Return the pids of the processes on this machine that measure batches of a run now."""
    found = []
    for batch in folder.batches():
        with contextlib.suppress(OSError):
            owner = mapping(json_beneath(folder.results, folder.run, "batches", batch, "owner.lock", most=SMALL_BYTES))
            if alive(owner):
                found.append(owner["pid"])
    return found


def _time(written_ns: int | None) -> str | None:
    if written_ns is None or not 0 <= written_ns < LAST_S * 10**9:  # a file's time may be set to anything
        return None
    return datetime.fromtimestamp(written_ns // 10**9, UTC).isoformat(timespec="seconds")
