"""What other load generators would have printed for the very same raw events. Pure; raw columns: `requests.columns`.

TTFT, ITL and TPOT are other quantities in other tools: another start, another first event, one value per request or
per gap, another percentile. Here each tool's rule is applied to the stamps of one run, so that reports which differ by
definition alone are not taken for servers that differ. What is translated is the definition, not the client: delays
that a tool's own event loop would have added are not in it.

Source of the rules: the tools' code, in guidellm `schemas/generative/metrics.py` 06cef29 and `statistics.py` 0280467,
aiperf `metrics/types/inter_token_latency_metric.py` 58dd5de and `metric_dicts.py` 0fec57a, vLLM `benchmarks/serve.py`
009e6d4 and `lib/endpoint_request_func.py` 02cfb53, llmperf `token_benchmark_ray.py` f1d6bed, LoadGen `results.cc`
05a9cec (of its TPOT only a description was at hand).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aifbench.checks.load import steady_window
from aifbench.core.benchmark import Raw
from aifbench.core.notes import kinds_of, sentence
from aifbench.inference import kinds
from aifbench.inference.metrics.first_token import first_token_metrics
from aifbench.inference.metrics.gaps import gap_metrics
from aifbench.inference.metrics.latency import request_metrics
from aifbench.inference.metrics.observed import Instrument, Requests
from aifbench.inference.metrics.tokens import generation_metrics
from aifbench.stats import kinds as stats

Floats = NDArray[np.float64]

QUANTITIES = ("TTFT", "ITL", "TPOT", "latency", "throughput", "throughput per request")
STATISTICS = ("mean", "p50", "p99")
WHOLE_RUN = "whole run"
"""Statistic of a rate that is one ratio and no mean."""
PER_SECOND = {"s": 1.0, "ms": 1e3, "ns": 1e9}
"""How many of each tool's unit of time are a second."""
RATE = "tokens/s"
WIDTH = 120
_KINDS = {kind.name: kind for module in (kinds, stats) for kind in kinds_of(module)}


@dataclass(frozen=True)
class Row:
    """One figure as one tool would have printed it, in that tool's own unit."""

    tool: str
    quantity: str
    """One of `QUANTITIES`: figures under the same one are compared with each other, rightly or not."""
    statistic: str
    """One of `STATISTICS`, or `WHOLE_RUN`."""
    metric: str
    """The tool's own name of the figure; empty where it has none."""
    value: float | None
    """None: the note says why."""
    unit: str
    n: int
    """Number of values (requests or gaps) behind the figure; of a rate of the whole run, requests whose tokens count
    (ours: events)."""
    definition: str
    """What starts, what ends, which events count, which statistic."""
    note: str
    """What stands in for something that the raw events do not carry, what the tool would have counted besides, or why
    there is no value."""


BENCHMARK = "inference"


def translate(raw: Raw) -> list[Row]:
    """Return the rows of all six tools for the raw columns of one repetition.

    Failed requests are in no latency; where a tool has them in a duration, the definition says so. A tool that lacks a
    quantity has one row without a value there. Percentiles are given for any n, as the tools do; only ours are absent
    where n does not support them.
    """
    run = _Run(Requests.of(raw), raw)
    return [*_aifbench(run), *_guidellm(run), *_aiperf(run), *_vllm(run), *_llmperf(run), *_mlperf(run)]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text: a block per quantity, a line per tool, times in ms; below it the definitions."""
    groups = [[row for row in rows if row.quantity == quantity] for quantity in QUANTITIES]
    return "\n\n".join(_block(group) for group in groups if group)


class _Run:
    """The successful requests of a repetition, one element per request; stamps in s since the first one sent."""

    def __init__(self, requests: Requests, raw: Raw) -> None:
        self.requests = requests
        self.all_sent, self.all_ended = requests.columns["send"], requests.columns["end"]
        self.send, self.scheduled, self.end = (requests.good(name) for name in ("send", "scheduled", "end"))
        self.tokens = requests.good_tokens_s
        self.first, self.last = (np.array([row[i] for row in self.tokens], dtype=np.float64) for i in (0, -1))
        self.first_event = self.first - np.fmax(self._before_first_token(raw, "first_event_ns"), 0.0)
        self.first_visible = self.first - self._before_first_token(raw, "first_visible_ns")
        """NaN: an answer of reasoning or tool calls alone."""
        self.out = requests.counts
        reused = np.asarray(raw["connection_reused"], dtype=bool)[requests.ok]
        self.fresh = int(np.count_nonzero(~reused))

    def _before_first_token(self, raw: Raw, name: str) -> Floats:
        stamps, tokens = (np.asarray(raw[column], dtype=np.float64) for column in (name, "first_token_ns"))
        before: Floats = (tokens - stamps)[self.requests.ok] / 1e9
        return before

    def per_gap(self, seconds: Floats) -> Floats:
        """Return `seconds` by tokens - 1; NaN for an answer of one token."""
        return _ratio(seconds, self.out - 1)

    def if_failed(self, text: str) -> str:
        """Return `text` when some request failed."""
        return "" if self.requests.ok.all() else text

    def pooled(self) -> str:
        """Say what a tool with a pool of connections might count besides."""
        if not self.fresh:
            return ""
        return (
            f"{self.fresh} of {self.send.size} answers came by a connection not used before: "
            "it would have opened one inside the span, ours was open"
        )

    def own_tokenizer(self) -> str:
        """Say what stands in for a tool's own tokenizer."""
        return f"{self.requests.count_method} stands in for its local tokenizer"


@dataclass(frozen=True)
class _Tool:
    """How one tool names and reduces its values."""

    name: str
    names: tuple[str, str, str]
    """Formats of the names of mean, p50 and p99."""
    quantile: Callable[[Floats, Floats, float], float]
    """From (values, weights, q)."""
    rule: str

    def spread(
        self,
        quantity: str,
        metric: str,
        unit: str,
        *,
        values: Floats,
        weights: Floats | None = None,
        definition: str,
        note: str = "",
    ) -> list[Row]:
        """Return mean, p50 and p99 of values in s or tokens/s. A NaN, or one of weight 0, is no value."""
        weights = np.ones_like(values) if weights is None else weights
        kept = ~np.isnan(values) & (weights > 0)
        values, weights = values[kept] * PER_SECOND.get(unit, 1.0), weights[kept]
        figures: list[float | None] = [None, None, None]
        if values.size:
            quantiles = [self.quantile(values, weights, q) for q in (0.5, 0.99)]
            figures = [float(np.average(values, weights=weights)), *quantiles]
        else:
            note = _said("no request gives a value", note)
        names = [name.format(metric, lower=metric.lower()) for name in self.names]
        definition = f"{definition}; mean, percentiles by {self.rule}"
        return [
            Row(self.name, quantity, statistic, name, figure, unit, int(values.size), definition, note)
            for statistic, name, figure in zip(STATISTICS, names, figures, strict=True)
        ]

    def rate(self, metric: str, run: _Run, *, begin: Floats, end: Floats, definition: str, note: str = "") -> list[Row]:
        """Return the tokens of all successful requests by the time from the first of `begin` to the last of `end`."""
        n, value = int(run.out.size), None
        if not n:
            note = _said("no request gives a value", note)
        elif (length_s := float(np.nanmax(end) - np.nanmin(begin))) > 0:
            value = float(run.out.sum()) / length_s
        else:
            note = _said("the span has no length", note)
        return [Row(self.name, "throughput", WHOLE_RUN, metric, value, RATE, n, definition, note)]

    def lacks(self, quantity: str, reason: str) -> list[Row]:
        """Return the row of a quantity that the tool does not print."""
        unit = RATE if quantity == "throughput per request" else "s"
        return [Row(self.name, quantity, "mean", "", None, unit, 0, "not printed", reason)]


def _linear(values: Floats, _weights: Floats, q: float) -> float:
    return float(np.quantile(values, q))


def _nearest_rank(values: Floats, weights: Floats, q: float) -> float:
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(up_to, q * up_to[-1])])


def _element(values: Floats, _weights: Floats, q: float) -> float:
    return float(np.sort(values)[int(values.size * q)])


GUIDELLM = _Tool("guidellm", ("{}.mean", "{}.median", "{}.percentiles.p99"), _nearest_rank, "nearest rank")
AIPERF = _Tool("aiperf", ("{}.avg", "{}.p50", "{}.p99"), _linear, "linear interpolation")
VLLM = _Tool("vLLM bench serve", ("mean_{}", "median_{}", "p99_{}"), _linear, "linear interpolation")
LLMPERF = _Tool("llmperf", ("{}.mean", "{}.quantiles.p50", "{}.quantiles.p99"), _linear, "linear interpolation")
MLPERF = _Tool(
    "MLPerf LoadGen",
    ("Mean {}", "50.00 percentile {lower}", "99.00 percentile {lower}"),
    _element,
    "element floor(n q) of the sorted values, counted from 0",
)


def _aifbench(run: _Run) -> list[Row]:
    requests, unknown = run.requests, Instrument(None, None)
    window = steady_window(requests.clients, run.all_sent, run.all_ended)
    metrics = {
        **first_token_metrics(requests, unknown),
        **gap_metrics(requests, unknown),
        **generation_metrics(requests, window, unknown),
        **request_metrics(requests, window, unknown),
    }
    spread = "mean, percentiles by linear interpolation where n supports them"
    layout = [
        (
            "TTFT",
            ["time_to_first_token_s", "time_to_first_token_p50_s", "time_to_first_token_p99_s"],
            f"send to first event with text of any channel, one value per request; {spread}",
        ),
        (
            "ITL",
            ["inter_token_latency_mean_s", "inter_token_latency_p50_s", "inter_token_latency_p99_s"],
            f"every gap between successive events with text, all requests together; {spread}",
        ),
        (
            "TPOT",
            ["time_per_output_token_s"],
            "(last - first event with text) / (tokens - 1), one value per request; mean",
        ),
        ("latency", ["end_to_end_latency_s"], "send to end of the response, one value per request; mean"),
        (
            "throughput",
            ["tokens_generated_per_second_aggregate"],
            "tokens stamped in the steady window (every client has begun, none has finished) / its length",
        ),
        (
            "throughput per request",
            ["tokens_generated_per_second"],
            "(tokens - 1) / (last - first event with text), one value per request; mean",
        ),
    ]
    rows = []
    for quantity, names, definition in layout:
        statistics = (WHOLE_RUN,) if quantity == "throughput" else STATISTICS
        for statistic, name in zip(statistics, names, strict=False):
            metric = metrics[name]
            figure = (name, metric.value, metric.unit, metric.n)
            said = sentence(metric.reason, _KINDS) if metric.reason else ""
            rows.append(Row("aifbench", quantity, statistic, *figure, definition, said))
    return rows


def _guidellm(run: _Run) -> list[Row]:
    connecting = "it opens a connection for each request inside the span, ours were open before"
    return [
        *GUIDELLM.spread(
            "TTFT",
            "time_to_first_token_ms",
            "ms",
            values=run.first - run.send,
            definition="send to first event with text of any channel, one value per request",
            note=connecting,
        ),
        *GUIDELLM.spread(
            "ITL",
            "inter_token_latency_ms",
            "ms",
            values=run.per_gap(run.last - run.first),
            weights=run.out - 1,
            definition="(last - first event with text) / (tokens - 1), one value per request, weighing tokens - 1",
        ),
        *GUIDELLM.spread(
            "TPOT",
            "time_per_output_token_ms",
            "ms",
            values=_ratio(run.last - run.send, run.out),
            weights=run.out,
            definition="(last event with text - send) / tokens, TTFT included, one value per request, weighing tokens",
            note=connecting,
        ),
        *GUIDELLM.spread(
            "latency",
            "request_latency",
            "s",
            values=run.end - run.send,
            definition="send to end of the stream, one value per request",
            note=connecting,
        ),
        *GUIDELLM.rate(
            "output_tokens_per_second.mean",
            run,
            begin=run.first,
            end=run.last,
            definition="tokens of successful requests / (first to last event with text of the run)",
            note=_said(
                "it merges events within 0.1 ms",
                run.if_failed("its console, not its report, adds the tokens that failed requests received"),
            ),
        ),
        *GUIDELLM.lacks("throughput per request", "tokens / latency is in each request's record, without a summary"),
    ]


def _aiperf(run: _Run) -> list[Row]:
    itl = run.per_gap(run.last - run.first)
    failed = run.if_failed("besides, it prints adj_ figures in which failed requests last forever")
    return [
        *AIPERF.spread(
            "TTFT",
            "time_to_first_token",
            "ms",
            values=run.first - run.send,
            definition="send (its session made) to first response with content or reasoning, one value per request",
            note=_said(run.pooled(), failed),
        ),
        *AIPERF.spread(
            "ITL",
            "inter_token_latency",
            "ms",
            values=itl,
            definition="(last - first response with content) / (tokens - 1), one value per request",
            note=_said(run.own_tokenizer(), "single gaps are its inter_chunk_latency, in the records", failed),
        ),
        *AIPERF.lacks("TPOT", "its inter_token_latency is what others call TPOT"),
        *AIPERF.spread(
            "latency",
            "request_latency",
            "ms",
            values=run.last - run.send,
            definition="send to last response with content, not the end of the stream, one value per request",
            note=_said(run.pooled(), failed),
        ),
        *AIPERF.rate(
            "output_token_throughput",
            run,
            begin=run.send,
            end=run.last,
            definition="tokens of successful requests / (their first send to their last response with content)",
            note=run.own_tokenizer(),
        ),
        *AIPERF.spread(
            "throughput per request",
            "output_token_throughput_per_user",
            RATE,
            values=_ratio(np.ones_like(itl), itl),
            definition="1 / inter_token_latency, one value per request",
            note=run.own_tokenizer(),
        ),
    ]


def _vllm(run: _Run) -> list[Row]:
    early = run.first_event < run.first
    chunks = [
        np.insert(row, 0, at) if is_early else row
        for row, at, is_early in zip(run.tokens, run.first_event, early, strict=True)
    ]
    first = "the first event of the stream stands in for its first chunk"
    last = "the last event with text stands in for its last chunk, on many servers an empty one right after"
    uncounted = np.isnan(run.requests.good("tokens")).any()
    counted = run.own_tokenizer() if uncounted else ""
    return [
        *VLLM.spread(
            "TTFT",
            "ttft_ms",
            "ms",
            values=run.first_event - run.send,
            definition="send to first chunk with choices, even an empty one, one value per request",
            note=_said(
                first, run.pooled(), run.if_failed("an answer that the server cuts short succeeds there, failed here")
            ),
        ),
        *VLLM.spread(
            "ITL",
            "itl_ms",
            "ms",
            values=np.concatenate([np.diff(row) for row in chunks]) if chunks else np.zeros(0),
            definition="every gap between successive chunks with choices, even empty ones, all requests together",
            note=_said(first, "other empty chunks, as the closing one, left no stamp"),
        ),
        *VLLM.spread(
            "TPOT",
            "tpot_ms",
            "ms",
            values=run.per_gap(run.last - run.first_event),
            definition="(last - first chunk with choices) / (tokens - 1), one value per request",
            note=_said(first, last, counted),
        ),
        *VLLM.spread(
            "latency",
            "e2el_ms",
            "ms",
            values=run.last - run.send,
            definition="send to last chunk with choices, not the end of the stream, one value per request",
            note=_said(last, "printed only if --percentile-metrics names e2el", run.pooled()),
        ),
        *VLLM.rate(
            "output_throughput",
            run,
            begin=run.all_sent,
            end=run.all_ended,
            definition="tokens of successful requests / duration of the benchmark, failed requests included",
            note=_said("first send to last end stands in for the duration", counted),
        ),
        *VLLM.lacks("throughput per request", "it has no such figure"),
    ]


def _llmperf(run: _Run) -> list[Row]:
    events = np.array([row.size for row in run.tokens], dtype=np.float64)
    visible = ~np.isnan(run.first_visible)
    connecting = "it opens a connection for each request inside the span, which the raw events cannot show"
    mute = (
        "" if visible.all() else f"{np.count_nonzero(~visible)} answers without visible text are 0 there, left out here"
    )
    return [
        *LLMPERF.spread(
            "TTFT",
            "ttft_s",
            "s",
            values=run.first_visible - run.send,
            definition="send to first chunk with content (reasoning is none), one value per request",
            note=_said(connecting, mute),
        ),
        *LLMPERF.spread(
            "ITL",
            "inter_token_latency_s",
            "s",
            values=np.where(visible, _ratio(run.last - run.send, events + (run.first_event < run.first)), np.nan),
            definition="sum of the gaps between chunks with content, TTFT among them, / chunks of any kind, "
            "one value per request",
            note=_said(
                "chunks are events with text and an earlier first event; others, as the closing one, left no stamp",
                connecting,
                mute,
            ),
        ),
        *LLMPERF.lacks("TPOT", "its inter_token_latency_s, one value per request and with TTFT, comes nearest"),
        *LLMPERF.spread(
            "latency",
            "end_to_end_latency_s",
            "s",
            values=run.end - run.send,
            definition="send to end of the stream, one value per request",
            note=connecting,
        ),
        *LLMPERF.rate(
            "mean_output_throughput_token_per_s",
            run,
            begin=run.all_sent,
            end=run.all_ended,
            definition="tokens of successful requests / duration of the test, failed requests included",
            note=_said("first send to last end stands in for the duration", run.own_tokenizer()),
        ),
        *LLMPERF.spread(
            "throughput per request",
            "request_output_throughput_token_per_s",
            RATE,
            values=_ratio(run.out, run.end - run.send),
            definition="tokens / latency, TTFT included, one value per request",
            note=_said(run.own_tokenizer(), connecting),
        ),
    ]


def _mlperf(run: _Run) -> list[Row]:
    reported = "the end of the response stands in for the completion that a system under test reports"
    planned = "in a closed loop a request is scheduled when its client's last one ended"
    issued_last = np.lexsort((run.send, run.scheduled))[-1:]
    return [
        *MLPERF.spread(
            "TTFT",
            "First Token latency (ns)",
            "ns",
            values=run.first - run.scheduled,
            definition="scheduled time to first event with text of any channel, one value per request",
            note=_said(planned, run.if_failed("it knows no failed query: one without completion holds up its run")),
        ),
        *MLPERF.lacks("ITL", "it is told of the first token and of the completion, of no gap between"),
        *MLPERF.spread(
            "TPOT",
            "Time to Output Token (ns)",
            "ns",
            values=run.per_gap(run.end - run.first),
            definition="(completion - first token) / (tokens - 1), one value per request",
            note=reported,
        ),
        *MLPERF.spread(
            "latency",
            "latency (ns)",
            "ns",
            values=run.end - run.scheduled,
            definition="scheduled time to completion, one value per request",
            note=_said(reported, planned),
        ),
        *MLPERF.rate(
            "Completed tokens per second",
            run,
            begin=run.scheduled,
            end=run.end[issued_last],
            definition="tokens of all queries / (start of the run to completion of the query scheduled last)",
            note="the first scheduled time stands in for the start of the run; printed in its Server scenario",
        ),
        *MLPERF.lacks("throughput per request", "it has no such figure"),
    ]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, NaN where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _said(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _block(rows: Sequence[Row]) -> str:
    tools = {tool: [row for row in rows if row.tool == tool] for tool in dict.fromkeys(row.tool for row in rows)}
    shown = {row.statistic for row in rows if row.metric}
    statistics = [statistic for statistic in (*STATISTICS, WHOLE_RUN) if statistic in shown]
    width = max(map(len, tools))
    unit = "ms" if rows[0].unit in PER_SECOND else RATE
    lines = [f"{rows[0].quantity}, {unit}", _line("", width, [*statistics, "n"])]
    for tool, mine in tools.items():
        cells = {row.statistic: _cell(row) for row in mine}
        lines.append(_line(tool, width, [*(cells.get(name, "-") for name in statistics), str(max(r.n for r in mine))]))
    for tool, mine in tools.items():
        names = ", ".join(row.metric for row in mine if row.metric)
        note = _said(*dict.fromkeys(row.note for row in mine))
        said = f"{names}: {mine[0].definition}" if names else mine[0].definition
        lines += _wrapped(f"  {tool:<{width}}  ", said)
        lines += _wrapped(" " * (width + 4), f"note: {note}" if note else "")
    return "\n".join(lines)


def _wrapped(lead: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def _line(tool: str, width: int, cells: Sequence[str]) -> str:
    return f"{tool:<{width}}" + "".join(f"{cell:>12}" for cell in cells)


def _cell(row: Row) -> str:
    if row.value is None:
        return "-"
    return f"{row.value / PER_SECOND[row.unit] * 1e3 if row.unit in PER_SECOND else row.value:.3f}"
