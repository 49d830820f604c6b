"""What the report says of inference: first tokens, streams, knees of loads, and the limits that searches found."""

from __future__ import annotations

from aifbench.analysis.cases import Case, Words
from aifbench.analysis.charts import Spec
from aifbench.analysis.curves import curves
from aifbench.analysis.findings import NBSP, Finding, Part, effect, knee_finding, link, where
from aifbench.analysis.numbers import fixed
from aifbench.analysis.report import BenchmarkReport
from aifbench.inference.loads import CLIENTS, FIND, RATE
from aifbench.inference.params import Slo
from aifbench.inference.search_chart import SearchSpec, outcomes

FIRST_TOKEN, STREAM, ALL_STREAMS = (
    "time_to_first_token_s",
    "tokens_generated_per_second",
    "tokens_generated_per_second_aggregate",
)
GAP, LATENCY = "inter_token_latency_mean_s", "end_to_end_latency_s"
SLO = tuple(f"slo.{name}" for name in Slo.model_fields)
BOUNDS = (
    (FIRST_TOKEN, "slo.time_to_first_token_s"),
    (GAP, "slo.time_per_output_token_s"),
    (LATENCY, "slo.end_to_end_latency_s"),
)

# -- charts ------------------------------------------------------------------------------------------------------------


def fixed_loads(cases: list[Case]) -> list[Case]:
    """Return the cases without those whose load is no axis: searches, and rates, which have a chart of their own."""
    rates = {case.id for curve in curves(cases, RATE) for case in curve}
    return [case for case in cases if FIND not in case.axes and case.id not in rates]


CHARTS = (
    Spec(
        "inference_time_to_first_token",
        "Time to first token",
        (FIRST_TOKEN,),
        prefer=("clients", "output_tokens"),
        select=fixed_loads,
    ),
    Spec(
        "inference_tokens_per_second",
        "Tokens per second, of one stream and of all together",
        (STREAM, ALL_STREAMS),
        prefer=("clients", "output_tokens"),
        select=fixed_loads,
    ),
    Spec(
        "inference_latency_throughput",
        "Latency against throughput, as clients are added",
        (FIRST_TOKEN, GAP, LATENCY),
        against=CLIENTS.throughput,
        along=CLIENTS,
        bounds=BOUNDS,
        if_bounded=LATENCY,
    ),
    Spec(
        "inference_latency_rate",
        "Latency against the achieved rate, as more is asked for",
        (FIRST_TOKEN, GAP, LATENCY),
        against=RATE.throughput,
        along=RATE,
        bounds=BOUNDS,
        if_bounded=LATENCY,
    ),
    SearchSpec("inference_search", "Search for the highest load within the SLO"),
)

# -- findings ----------------------------------------------------------------------------------------------------------


def first_token(cases: list[Case]) -> Finding | None:
    """Say how long a reader waits, alone and with most clients."""
    return effect(
        _without_searches(cases),
        axis="clients",
        metric=FIRST_TOKEN,
        figure="inference_time_to_first_token",
        text="The first token comes after {x} with {a} client{s} and after {y} with {b}, {ratio} as long",
        none="The first token comes after {x} with {a} client{s} and after {y} with {b}: no difference is shown",
    )


def stream_speed(cases: list[Case]) -> Finding | None:
    """Say how fast one stream is, alone and with most clients."""
    return effect(
        _without_searches(cases),
        axis="clients",
        metric=STREAM,
        figure="inference_tokens_per_second",
        text="One stream gets {x} with {a} client{s} and {y} with {b}",
        none="One stream gets {x} with {a} client{s} and {y} with {b}: no difference is shown",
        unit="tokens/s",
    )


def _without_searches(cases: list[Case]) -> list[Case]:
    return [case for case in cases if FIND not in case.axes]


def throughput_knee(cases: list[Case]) -> Finding | None:
    """Say from how many clients on all streams together gain less, or why no such place is found."""
    return knee_finding(cases, CLIENTS, "inference_latency_throughput", "all streams together", "tokens/s")


def rate_knee(cases: list[Case]) -> Finding | None:
    """Say from which rate on the server answers less than more requests bring, or why no such place is found."""
    return knee_finding(cases, RATE, "inference_latency_rate", "the server", "requests/s")


def highest_load(cases: list[Case]) -> Finding | None:
    """Say how high a load keeps the SLO, as the first search found."""
    searches = [case for case in cases if FIND in case.axes]
    if not searches:
        return None
    case = searches[0]
    metric, unit = f"{case.axes[FIND]}_under_slo", "clients" if case.axes[FIND] == "clients" else "requests/s"
    bounds = " and ".join(
        f"{axis.removeprefix('slo.').removesuffix('_s').replace('_', ' ')} of at most "
        f"{case.words.value(axis, value).replace(' ', NBSP)}"
        for axis, value in case.axes.items()
        if axis in SLO
    )
    served = f"{fixed(100 * float(case.axes.get('find_share', 1.0)), 0)} % of the requests have a {bounds}"
    settings = where(case, [case], searches, set())
    if case.measured(metric):
        others = f" ({outcomes(case)})" if outcomes(case) else ""
        parts = [Part("Up to "), link(case, metric, unit), Part(f"{others}, {served}{settings}.")]
    elif metric in case.metrics:
        parts = [Part(f"The search for the most {unit} at which {served} ended with: ")]
        parts += [Part(case.metrics[metric].reason or "no result", case.id), Part(f"{settings}.")]
    else:
        return None
    return Finding("inference_search", tuple(parts))


REPORT = BenchmarkReport(
    charts=CHARTS,
    findings=(first_token, throughput_knee, highest_load, rate_knee, stream_speed),
    columns=(
        ALL_STREAMS,
        "inter_token_latency_p50_s",
        LATENCY,
        "requests_per_second",
        "server_queue_s",
        "goodput_share",
        "clients_under_slo",
        "rate_under_slo",
    ),
    words=Words(
        metrics={
            FIRST_TOKEN: "time to first token",
            STREAM: "tokens per second, one stream",
            ALL_STREAMS: "tokens per second, all streams",
            GAP: "inter-token latency",
            LATENCY: "end-to-end latency",
            "requests_per_second": "requests per second",
            "clients_under_slo": "clients within the SLO",
            "rate_under_slo": "rate within the SLO",
        },
        axes={axis: f"SLO on {axis.removeprefix('slo.').removesuffix('_s')}" for axis in SLO},
        units=dict.fromkeys(SLO, "s"),
        hidden=("prompt_text", "schedule_s"),
        companions={"find_share": FIND},
        untold=SLO,
        off={"servers": 1, "client_processes": 1, "shared_prefix_tokens": 0, "schedule.think_s": 0.0},
    ),
    facts=("probes",),
)
