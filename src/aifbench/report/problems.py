"""Cases that are not valid, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aifbench.analysis.cases import Case
from aifbench.checks.kinds import DAMAGE
from aifbench.registry import kinds
from aifbench.report.load import Results

_BY_ERROR = {
    **dict.fromkeys(("enospc", "edquot"), "Free space where the case writes, or lower file_size."),
    **dict.fromkeys(
        ("erofs", "eacces", "eperm"),
        "Choose a path where this user may write (paths.target of the system, or path).",
    ),
    "direct_unsupported": "This file system has no direct I/O: choose another path, or another mode.",
    "worker_crashed": "See worker.log of the batch; often memory ran out.",
    "timeout": "It took too long: see worker.log and the resource lines, or ask for less.",
}
_BY_STATUS: dict[str, str] = {
    "running": "Its job had not ended: build the report again later.",
    "ok": "Its job ended without this case: run the campaign again.",
    "partial": "Its job ended without this case: run the campaign again.",
    "server_not_ready": "The server did not come up: see server.log of the batch, then run again.",
    "server_crashed": "The server ended: see server.log of the batch, then run again.",
    "client_error": "The measuring process broke: see worker.log of the batch, then run again.",
    "timeout": "The job ran out of time: run again, what is recorded is kept.",
    "terminated": "The job was ended from outside: run again, what is recorded is kept.",
    "config_error": "The configuration cannot work on this machine: mend it as the reason says.",
}
NOT_RUN = "Its job has left no record: run the campaign again."
UNKNOWN = "See the reason and the raw file of the case."


def rows(results: Results) -> list[dict[str, Any]]:
    """Return groups of cases that share state, benchmark, kinds of reasons and advice, most cases first.

    `reason` is that of the first of `cases`; the others differ from it in numbers only.
    """
    groups: dict[tuple[Any, ...], list[tuple[str, str, Case]]] = {}
    statuses = {name: (record.status, record.reason) for name, record in results.batches.items()}
    for case in results.cases:
        if case.state != "valid":
            reason, advice = explain(case, statuses)
            alike = tuple(note.alike for note in case.reasons) if case.state != "missing" else reason
            groups.setdefault((case.state, case.benchmark, alike, advice), []).append((reason, advice, case))
    order = ("failed", "invalid", "missing")
    ordered = sorted(groups.values(), key=lambda found: (order.index(found[0][2].state), -len(found)))
    return [
        {
            "state": found[0][2].state,
            "benchmark": found[0][2].benchmark,
            "reason": found[0][0],
            "advice": found[0][1],
            "cases": [case for *_, case in found],
        }
        for found in ordered
    ]


def explain(case: Case, statuses: Mapping[str, tuple[str, str | None]]) -> tuple[str, str]:
    """Return why a case is not valid and what to do."""
    told = dict.fromkeys(note.kind for note in case.reasons)
    damage = next((kind for kind in DAMAGE if kind.name in told), None)
    if case.state == "missing" and damage is None:
        if case.batch not in statuses:
            return "no record", NOT_RUN
        status, reason = statuses[case.batch]
        text = f"batch {status.replace('_', ' ')}" + (f": {reason}" if reason else "")
        return text, _BY_STATUS[status]
    reason = case.why or "no reason given"
    if damage is not None:
        return reason, damage.advice
    errors = (_BY_ERROR.get(repetition.error_kind or "", "") for repetition in case.repetitions)
    advice = (kinds()[kind].advice for kind in told if kind in kinds())
    return reason, next(filter(None, [*errors, *advice]), UNKNOWN)
