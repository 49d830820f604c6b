"""The one way to ask Slurm's programs: an argument list, a deadline, and one error that says what went wrong."""

from __future__ import annotations

import re
import subprocess
from typing import Literal

LIVE = frozenset(
    {
        "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING",
        "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT",
    }
)  # fmt: skip
"""States of a job that waits, runs or is ending, as squeue and sacct name them. In all others it has ended."""
DEADLINE_S = 30.0
"""Longest wait for the controller."""
DATABASE_DEADLINE_S = 60.0
"""Longest wait for the database of accounts, which sacct and sacctmgr ask."""
_OF_DATABASE = frozenset({"sacct", "sacctmgr"})

Kind = Literal[
    "unreachable", "unknown_job", "no_allocation", "partition_down", "unknown_partition", "queue_full", "refused"
]
_MEANINGS: tuple[tuple[str, Kind], ...] = (
    (r"invalid job id", "unknown_job"),
    (r"invalid account|account/partition combination|invalid qos|user's group not permitted", "no_allocation"),
    (r"partition.*(not available|inactive|drain|is down)|partition-level.*down", "partition_down"),
    (r"invalid partition", "unknown_partition"),
    (r"AssocMaxSubmitJob|QOSMaxSubmitJob|job submit limit|MaxJobCount", "queue_full"),
    (r"unable to contact|connection (refused|timed out|failure)|socket timed out|controller", "unreachable"),
    (r"", "refused"),
)
"""The first pattern that is found in what a program says on standard error names the kind."""
_PREFIX = re.compile(r"^(?:(?:sbatch|error|allocation failure|Batch job submission failed):\s*)+")
_SHOWN = 300
"""Characters of what a program says."""


class SlurmError(Exception):
    """Slurm does not give what was asked for; the message is one line.

    `kind` is what it means: `unreachable` (no program, no controller, no answer in time), `unknown_job` (forgotten),
    or why a job would not be taken. `said` is the last line of what the program said, without its prefixes.
    """

    def __init__(self, message: str, kind: Kind, said: str = "") -> None:
        super().__init__(message)
        self.kind, self.said = kind, said


def ask(program: str, *arguments: str, script: str | None = None) -> str:
    """Return what one of Slurm's programs prints. `script` is its standard input. Raises `SlurmError`."""
    deadline_s = DATABASE_DEADLINE_S if program in _OF_DATABASE else DEADLINE_S
    try:
        answer = subprocess.run(
            [program, *arguments],
            input=script or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=deadline_s,
            check=False,
        )
    except FileNotFoundError:
        raise SlurmError(f"the program {program} is not on PATH", "unreachable") from None
    except OSError as error:
        raise SlurmError(f"{program} cannot be started: {error.strerror}", "unreachable") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{program} does not answer within {deadline_s:g} s", "unreachable") from None
    if answer.returncode:
        raise refusal(program, answer.stderr, answer.returncode)
    return answer.stdout


def refusal(program: str, text: str, code: int) -> SlurmError:
    """Return the error of a program that has said `text` on standard error and ended with an exit code."""
    kind = next(kind for pattern, kind in _MEANINGS if re.search(pattern, text, re.IGNORECASE))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = _PREFIX.sub("", lines[-1]) if lines else f"exit code {code}"
    return SlurmError(f"{program}: {' '.join(text.split())[:_SHOWN] or said}", kind, said)
