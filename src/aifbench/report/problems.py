"""Cases that are not valid, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aifbench.analysis.cases import Case
from aifbench.report.load import Results, alike

_DAMAGE = ("raw events are damaged", "cases.jsonl is damaged", "of its recorded repetitions", "recorded twice")
_BY_REASON: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("plan.json is damaged",),
        "Delete plan.json and run the campaign again: it is written anew, and nothing is measured again.",
    ),
    (_DAMAGE, "A file was damaged: `aifbench retry`, then run the campaign again. What can be read stays."),
    (("enospc", "edquot", "no space"), "Free space where the case writes, or lower file_size."),
    (("erofs", "eacces", "eperm"), "Choose a path where this user may write (paths.target of the system, or path)."),
    (("direct_unsupported",), "This file system has no direct I/O: choose another path, or another mode."),
    (("worker_crashed",), "See worker.log of the batch; often memory ran out."),
    (("timeout", "no answer in time"), "It took too long: see worker.log and the resource lines, or ask for less."),
    (
        ("own work", "own threads"),
        "The measuring process itself was the limit: use fewer clients, or give it more cores.",
    ),
    (
        ("little", "in flight", "at work together"),
        "Fewer operations were in flight than asked: see worker and server in the drawer; use fewer clients.",
    ),
    (
        ("exhaustive index", "truth covers", "not be computed"),
        "The ground truth does not fit the data: remove it from the cache folder and run again.",
    ),
    (("recall",), "Raise the search setting (nprobe, efSearch), or lower recall_floor if so low a recall is meant."),
    (
        ("not cold", "not warm", "not direct", "contradicted"),
        "The cache was not in the asked state: keep other work off the node, or choose another mode.",
    ),
    (
        ("verif", "corrupt"),
        "What was read is not what was written: do not trust this file system until it is known why.",
    ),
    (("request", "connect", "reset", "http_5"), "See server.log of the batch; use fewer clients or more slots."),
    (("token", "finish"), "The server's own count differs, or answers ended early: see the raw file."),
)
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
    """Return groups of cases that share state, benchmark, kind of reason and advice, most cases first.

    `reason` is that of the first of `cases`; the others differ from it in numbers only.
    """
    groups: dict[tuple[str, str, str, str], list[tuple[str, Case]]] = {}
    statuses = {name: (record.status, record.reason) for name, record in results.batches.items()}
    for case in results.cases:
        if case.state != "valid":
            reason, advice = explain(case, statuses)
            groups.setdefault((case.state, case.benchmark, alike(reason), advice), []).append((reason, case))
    order = ("failed", "invalid", "missing")
    ordered = sorted(groups.items(), key=lambda entry: (order.index(entry[0][0]), -len(entry[1])))
    return [
        {
            "state": state,
            "benchmark": benchmark,
            "reason": found[0][0],
            "advice": advice,
            "cases": [case for _, case in found],
        }
        for (state, benchmark, _, advice), found in ordered
    ]


def explain(case: Case, statuses: Mapping[str, tuple[str, str | None]]) -> tuple[str, str]:
    """Return why a case is not valid and what to do."""
    damaged = any(word in reason for reason in case.reasons for word in _DAMAGE)
    if case.state == "missing" and not damaged:
        if case.batch not in statuses:
            return "no record", NOT_RUN
        status, reason = statuses[case.batch]
        text = f"batch {status.replace('_', ' ')}" + (f": {reason}" if reason else "")
        return text, _BY_STATUS[status]
    reason = "; ".join(dict.fromkeys(case.reasons)) or "no reason given"
    lower = reason.lower()
    advice = next((text for words, text in _BY_REASON if any(word in lower for word in words)), UNKNOWN)
    return reason, advice
