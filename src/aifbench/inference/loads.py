"""The two ways to ask a server for more, for charts and sentences: more clients, or a higher rate. Pure."""

from __future__ import annotations

from aifbench.analysis.cases import Case
from aifbench.analysis.curves import Load

FIND = "find"
"""Parameter of a case that searches its load: it has no place on a curve."""
LONGEST_ANSWER = 0.2
"""Part of the time of all requests at the highest rate that one answer at the lowest may take."""


def _closed(case: Case) -> bool:
    return FIND not in case.axes and case.axes.get("schedule.kind", "closed") == "closed"


def _open(case: Case) -> bool:
    return FIND not in case.axes and not _closed(case)


def _too_short(curve: list[Case]) -> str | None:
    """Return why the achieved rate bends by itself: an answer takes long against all requests together."""
    answer = curve[0].measured("end_to_end_latency_s") if curve else None
    whole = curve[-1].measured("makespan_s") if curve else None
    if answer is None or whole is None or answer.value is None or whole.value is None:
        return None
    if answer.value <= LONGEST_ANSWER * whole.value:
        return None
    return (
        f"too few requests: one answer takes {answer.value:.2g} s, all of the highest rate {whole.value:.2g} s, "
        "so that rate would not be reached by any server"
    )


CLIENTS = Load(
    "clients",
    "clients",
    "the number of clients",
    "tokens_generated_per_second_aggregate",
    takes=_closed,
    one="client",
)
RATE = Load(
    "schedule.rate",
    "requests/s",
    "the rate that was asked for, in requests/s",
    "requests_per_second",
    takes=_open,
    bends=_too_short,
)
