"""Why a launch is refused: the closed list of codes, each with its HTTP status and its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aifbench.core.errors import ConfigError, nearest
from aifbench.services.problems import Refused


class Reason(NamedTuple):
    """HTTP status of a code, and what it means."""

    status: int
    meaning: str


CODES = {
    "invalid_request": Reason(422, "the request itself: not JSON, an unknown key, a value of the wrong kind"),
    "unknown_benchmark": Reason(422, "no such benchmark"),
    "unknown_preset": Reason(422, "no such preset, or not on this system"),
    "unknown_profile": Reason(422, "no such profile"),
    "invalid_config": Reason(422, "a value of the configuration cannot work; `field` names it"),
    "over_limit": Reason(422, "it asks for more than the system, the budget, the queue or this service gives"),
    "image_missing": Reason(409, "a container image or a model is not there yet; the hint makes it"),
    "no_allocation": Reason(409, "the scheduler does not take the account, or the quality of service"),
    "partition_down": Reason(503, "the partition is down, drained or inactive"),
    "queue_full": Reason(409, "as many runs are going on as may go on at once"),
    "duplicate": Reason(409, "this Idempotency-Key was used for another request"),
    "rate_limited": Reason(429, "too many launches in a minute"),
    "slurm_unreachable": Reason(503, "the scheduler does not answer"),
    "dry_run_failed": Reason(409, "Snakemake refuses the workflow"),
    "start_failed": Reason(503, "the workflow ended before its jobs were submitted; its log has the details"),
    "not_found": Reason(404, "no such run"),
    "not_active": Reason(409, "the run has ended already, or was not launched here"),
    "active": Reason(409, "the run goes on: wait for its end, or cancel it"),
    "complete": Reason(409, "nothing of the run is left to measure"),
}
"""`unauthorised` is no code of these: without a valid token nothing is read, and the answer is a problem with 401."""


ACCOUNT = "export SBATCH_ACCOUNT=<account> before the service starts"


def refuse(code: str, message: str, *, field: str | None = None, hint: str = "") -> Refused:
    """Return the refusal with this code of `CODES`."""
    return Refused(CODES[code].status, code, message, field=field, hint=hint)


PLACES = frozenset({"path", "url", "gguf", "api_key_env", "headers", "query", "ca_file", "file", "extra"})
"""Keys whose values are places or go to another server: only presets say them."""


def from_config(error: ConfigError, field: str) -> Refused:
    """Return the refusal that a configuration error means; `field` is its key as the request names it."""
    name = error.key.rpartition(".")[2].partition("[")[0]
    if name == "account":
        code = "no_allocation"
    elif name == "benchmark":
        code = "unknown_benchmark"
    else:
        code = "over_limit" if error.kind == "over_limit" else "invalid_config"
    if error.value is not None:
        what = shown(error.value)
    else:  # where the field says it, it is not said twice, but for a key that is no field of the form
        what = "" if name in field and error.kind != "unknown_key" else name
    return refuse(
        code,
        f"{what}: {error.problem}" if what else error.problem,
        field=field,
        hint=ACCOUNT if name == "account" else hint_of(error),
    )


def hint_of(error: ConfigError) -> str:
    """Return what is allowed: the nearest choice where the value looks like one, else all that may stand there."""
    if error.kind == "unknown_key":
        return _allowed(", ".join(key for key in error.choices if key not in PLACES))
    near = nearest(str(error.value), error.choices)
    return f"did you mean {near}? Allowed: {error.allowed}" if near else _allowed(error.allowed)


def _allowed(words: str) -> str:
    return f"allowed: {words}" if words else ""


def one_of(names: Iterable[str], wrong: str) -> str:
    """Return which names may stand in the place of a wrong one, the nearest of them first."""
    known = sorted(names)
    near = nearest(wrong, known)
    return f"did you mean {near}? Allowed: {', '.join(known)}" if near else f"allowed: {', '.join(known)}"


def shown(value: object) -> str:
    """Return a value for a message, at most 60 characters, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
