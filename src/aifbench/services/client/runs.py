"""Runs as their files tell them: nothing is remembered, so a restart loses nothing.

A launched run keeps its files in `<results>/<run>/launch/` (see `keeper` and `launch`); a campaign that was started by
hand has none and is shown all the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from aifbench.files import list_beneath, open_beneath
from aifbench.records.collect import collect
from aifbench.services.client.identity import alive, read
from aifbench.services.client.reasons import refuse
from aifbench.services.ids import is_id
from aifbench.services.problems import Problem, Refused
from aifbench.services.settings import Settings, private_folder

State = Literal["queued", "running", "cancelling", "ended", "cancelled", "failed", "incomplete"]
ACTIVE = frozenset({"queued", "running", "cancelling"})
"""`incomplete` is a campaign started by hand of which not all is measured; whether it still runs is not known here."""
TAIL_BYTES = 8192
CHATTER = ("Elapsed time:", "Complete log(s):", "Select jobs", "Execute ", "[")
"""How lines of Snakemake begin that tell nothing about a run."""
CANCELLING = "its jobs are being ended"
COUNT_AGAIN_S = 5.0
CHECKING_S = 600.0
"""Longest time between the request of a run and its start; after it nobody is at it any more."""
REPORT_S = 120.0
MADE = frozenset({"report", "tables", "cases.csv"})
"""What `aifbench report` makes of the records of a run."""
READABLE = MADE | {"plan.json", "batches", "gate.txt"}
"""What stands in the folder of a run and is shown with its report; not how it was launched."""
_CASE = re.compile(rb'[^{]*\{[^{}]*"case":"([^"]+)"')
"""The case of a line of cases.jsonl: it stands before what the case was given."""


class Runs:
    """All runs below a results folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._counts: dict[str, tuple[float, Any, dict[str, int] | None]] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()

    def folder(self, run: str) -> Path:
        """Return the results folder of a run. Raises `Refused` (not_found)."""
        folder = self.settings.results / run
        if not is_id(run) or folder.is_symlink() or not _is_run(folder):
            raise refuse("not_found", f"{run}: no such run", field="id", hint="the list of runs has their ids")
        return folder

    def all(self) -> list[dict[str, Any]]:
        """Return all runs, newest first."""
        try:
            entries = [entry for entry in os.scandir(self.settings.results) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        found = []
        for entry in entries:
            if is_id(entry.name) and _is_run(Path(entry.path)):
                with contextlib.suppress(Refused, FileNotFoundError):  # a launch that was refused takes its folder away
                    found.append(self.show(entry.name))
        return sorted(found, key=lambda run: (run["created_at"] or "", run["id"]), reverse=True)

    def active(self) -> Iterator[dict[str, Any]]:
        """Yield the request.json of each launched run that goes on."""
        try:
            entries = list(os.scandir(self.settings.results))
        except OSError:
            return
        for entry in entries:
            request = _request(Path(entry.path))
            if request is not None and self._launched(Path(entry.path), request)[0] in ACTIVE:
                yield request

    def show(self, run: str) -> dict[str, Any]:
        """Return all that is known of a run. Raises `Refused` (not_found)."""
        folder = self.folder(run)
        request = _request(folder)
        plan = _plan(folder)
        if request is not None:
            state, message = self._launched(folder, request)
        else:
            state, message = self._by_hand(folder)
        done, planned = _progress(folder, plan)
        ended = read(folder / "launch" / "exit.json") or {}
        launch = request or {}
        counts = self._count(folder, state in ACTIVE)
        return {
            "id": run,
            "launched": request is not None,
            "state": state,
            "message": message,
            "created_at": launch.get("created_at") or _time(folder / "plan.json"),
            "ended_at": ended.get("ended_at"),
            "profile": launch.get("profile"),
            "preset": (launch.get("request") or {}).get("preset"),
            "benchmarks": plan["benchmarks"] if plan else launch.get("benchmarks", []),
            "expected_s": plan["expected_s"] if plan else (launch.get("expected") or {}).get("expected_s"),
            "repetitions": {"done": done, "planned": planned},
            "counts": counts,
            "report": plan is not None,
            "can": _actions(state, request, ended, counts) if request is not None else [],
        }

    def config(self, run: str) -> str | None:
        """Return the campaign of a launched run as YAML, None for one that was started by hand."""
        folder = self.folder(run)
        try:
            with open_beneath(self.settings.results, folder.name, "launch", "config.yaml") as file:
                return file.read().decode()
        except FileNotFoundError:
            return None

    def log(self, run: str) -> str:
        """Return the end of what Snakemake said."""
        return tail(self.folder(run) / "launch" / "snakemake.log")

    def report(self, run: str) -> bytes:
        """Return the report as one self-contained page, made now from what is recorded unless the run has ended.

        Raises `Problem` (409) when there is nothing to report yet.
        """
        folder = self.folder(run)
        if not (folder / "plan.json").is_file():
            raise Problem(409, "nothing is planned yet, so there is no report; try again in some seconds")
        if not self._has_own_report(folder):
            self._partial(folder)
        try:
            with self.open(run, ("report", "index.html")) as file:
                return file.read()
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
        found = []
        for name, facts in list_beneath(self._root(run, parts), run, *parts):
            if stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode):
                found.append((name, None if stat.S_ISDIR(facts.st_mode) else facts.st_size))
        return sorted(found)

    def _root(self, run: str, parts: Sequence[str]) -> Path:
        """Return the folder of runs in which it is: what a report is made into stands aside while the run goes on."""
        folder = self.folder(run)
        if not parts or parts[0] not in READABLE:
            raise FileNotFoundError(parts)
        if parts[0] in MADE and not self._has_own_report(folder):
            return self._shadows()
        return self.settings.results

    def _has_own_report(self, folder: Path) -> bool:
        return self.show(folder.name)["state"] in {"ended", "failed"} and (folder / "report" / "index.html").is_file()

    def _shadows(self) -> Path:
        return private_folder(private_folder(private_folder(self.settings.state) / "client") / "reports")

    def _partial(self, folder: Path) -> None:
        """Make a report beside the run's own files, which Snakemake may be writing."""
        shadow = private_folder(self._shadows() / folder.name)
        for name in ("plan.json", "batches", "specs"):
            link = shadow / name
            if not link.is_symlink() and (folder / name).exists():
                link.symlink_to((folder / name).absolute())
        mark, signature = shadow / "signature", repr(_signature(folder))
        with self._building:
            if not mark.exists() or mark.read_text() != signature:
                _make_report(shadow)
                mark.write_text(signature)

    def _launched(self, folder: Path, request: dict[str, Any]) -> tuple[State, str]:
        """Return the state of a launched run and a line about it."""
        launch = folder / "launch"
        ended, cancelled = read(launch / "exit.json"), (launch / "cancel.json").exists()
        keeper = read(launch / "keeper.json")
        lives = [alive(keeper), alive(read(launch / "process.json"))]
        if ended is None and (True in lives or None in lives):
            if cancelled:
                return "cancelling", CANCELLING
            return "running" if _has_begun(folder) else "queued", _last_line(launch / "snakemake.log")
        if owners(folder):  # its workflow was killed, or it went on by hand
            return _measures_on(launch)
        ended = ended or read(launch / "exit.json")  # it may have ended between two looks
        if ended is not None:
            return self._ended(folder, request, ended.get("code"), cancelled)
        return _without_end(folder, request, keeper is not None, cancelled)

    def _ended(self, folder: Path, request: dict[str, Any], code: int | None, cancelled: bool) -> tuple[State, str]:
        said = _last_line(folder / "launch" / "snakemake.log")
        counts = self._count(folder, active=False)
        whole = counts is not None and counts["missing"] == 0
        if code == 0 or (whole and not cancelled):
            return "ended", said
        if cancelled:
            return "cancelled", "what it has measured stays"
        killed = code is not None and code < 0
        parts = [f"its workflow was ended by signal {-(code or 0)}"] if killed else []
        if counts is not None:
            parts.append(f"{counts['missing']} of {sum(counts.values())} cases are not measured")
        if killed and request["slurm"]:
            parts.append("its jobs may still be in the queue: cancel removes them")
        return "failed", "; ".join(parts) or said

    def _by_hand(self, folder: Path) -> tuple[State, str]:
        if owners(folder):
            return "running", "started by hand"
        if (folder / "gate.txt").is_file():
            return "ended", "started by hand"
        counts = self._count(folder, active=False)
        return ("ended" if counts and counts["missing"] == 0 else "incomplete"), "started by hand"

    def _count(self, folder: Path, active: bool) -> dict[str, int] | None:
        """Return the number of cases by state; None while nothing is planned. Counted again only after a change."""
        signature = _signature(folder)
        with self._lock:
            known = self._counts.get(folder.name)
        recent = known is not None and active and time.monotonic() - known[0] < COUNT_AGAIN_S
        if known is not None and (recent or known[1] == signature):
            return known[2]
        try:
            tables = collect(folder)
            counts = tables.counts() if tables.rows["cases"] and not tables.plan_lost else None
        except OSError:  # nothing is planned yet
            counts = None
        with self._lock:
            self._counts[folder.name] = time.monotonic(), signature, counts
        return counts


def _actions(state: State, request: dict[str, Any], ended: dict[str, Any], counts: dict[str, int] | None) -> list[str]:
    """Return what may be asked of a launched run: cancel, continue, again (measure what is not valid once more)."""
    if state in ACTIVE:
        return [] if state == "cancelling" else ["cancel"]
    found, counts = [], counts or {}
    if state == "failed" and request["slurm"] and (ended.get("code") or -1) < 0:
        found.append("cancel")  # its jobs may still be in the queue
    if counts.get("missing"):
        found.append("continue")
    if counts.get("invalid") or counts.get("failed"):
        found.append("again")
    return found


def _measures_on(launch: Path) -> tuple[State, str]:
    """Return the state of a run whose workflow has ended while a batch of it measures on this machine."""
    asked, ended = _changed(launch / "cancel.json"), _changed(launch / "exit.json")
    if asked is not None and (ended is None or asked > ended):
        return "cancelling", CANCELLING
    return "running", "a batch of it measures, though the workflow that was launched has ended"


def _without_end(folder: Path, request: dict[str, Any], started: bool, cancelled: bool) -> tuple[State, str]:
    """Return the state of a run of which no process lives and whose end nobody wrote down."""
    if cancelled:
        return "cancelled", ""
    if not started:
        age_s = time.time() - (folder / "launch" / "request.json").stat().st_mtime
        checking = alive(request["by"]) is not False and age_s < CHECKING_S
        return ("queued", "is being checked") if checking else ("failed", "never started: the service ended before")
    if (folder / "gate.txt").is_file():
        return "ended", _last_line(folder / "launch" / "snakemake.log")
    return "failed", "its process was killed, or the machine went down"


def _make_report(folder: Path) -> None:
    """Run `aifbench report` in a process of its own. Raises `Problem` (409) when it takes too long."""
    try:
        subprocess.run(
            [sys.executable, "-m", "aifbench", "report", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=REPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Problem(409, f"the report took more than {REPORT_S:g} s; run `aifbench report` on the results") from None


def tail(path: Path) -> str:
    """Return the last lines of a text, without terminal codes; empty when it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = text.splitlines()[1 if size > TAIL_BYTES else 0 :]
    return "\n".join("".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines)


def _last_line(log: Path) -> str:
    lines = [line for line in tail(log).splitlines() if line.strip() and not line.startswith(CHATTER)]
    return lines[-1].strip()[:300] if lines else ""


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "plan.json").is_file() or (folder / "launch" / "request.json").is_file()
    except OSError:  # somebody else's
        return False


def _request(folder: Path) -> dict[str, Any] | None:
    """Return the request of a launched run, None for what is none."""
    found = read(folder / "launch" / "request.json")
    return found if found is not None and {"run_id", "by", "slurm"} <= found.keys() else None


def _plan(folder: Path) -> dict[str, Any] | None:
    """Return what a list shows of plan.json; None when it is not there, or is none that this version knows."""
    try:
        plan = orjson.loads((folder / "plan.json").read_bytes())
        return {
            "benchmarks": sorted({str(case["benchmark"]) for case in plan["cases"]}),
            "repetitions": {str(case["case"]): int(case["repetitions"]["min"]) for case in plan["cases"]},
            "expected_s": float(plan["totals"]["expected_s"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has_begun(folder: Path) -> bool:
    """Return whether a batch has begun: its job is not waiting any more."""
    return next(folder.glob("batches/*/batch.json"), None) is not None


def _progress(folder: Path, plan: dict[str, Any] | None) -> tuple[int, int | None]:
    """Return the recorded and the planned repetitions (the fewest that the plan asks for) of the plan's cases."""
    if plan is None:
        return 0, None
    done: Counter[str] = Counter()
    for path in folder.glob("batches/*/cases.jsonl"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
            done.update(found[1].decode() for line in lines if (found := _CASE.match(line)))
    planned = plan["repetitions"]
    return sum(min(done[case], count) for case, count in planned.items()), sum(planned.values())


def _signature(folder: Path) -> list[tuple[str, int, int]]:
    """Return what changes when a record of the run changes."""
    paths = [folder / "plan.json", *folder.glob("batches/*/cases.jsonl"), *folder.glob("batches/*/batch.json")]
    found = []
    for path in sorted(paths):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.parent.name, facts.st_size, facts.st_mtime_ns))
    return found


def owners(folder: Path) -> list[int]:
    """Return the pids of the processes on this machine that measure batches of a run now."""
    return [pid for lock in folder.glob("batches/*/owner.lock") if (pid := _owner(lock)) is not None]


def _owner(lock: Path) -> int | None:
    try:
        owner = orjson.loads(lock.read_bytes())
        stat = Path(f"/proc/{owner['pid']}/stat").read_text()
        lives = os.uname().nodename == owner["host"] and stat.rsplit(")", 1)[1].split()[19] == owner["started"]
        return int(owner["pid"]) if lives else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _time(path: Path) -> str | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except FileNotFoundError:
        return None
