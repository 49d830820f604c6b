"""What was found, in sentences computed from the records. Silent where the data do not carry a sentence.

Only valid cases with an interval over at least two repetitions speak. A ratio of two numbers comes with the widest
range that their 95 % intervals allow (low over high to high over low), and is called a difference only when that range
leaves out 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, log
from statistics import median
from typing import Any

from aifbench.checks.contamination import NOISY
from aifbench.core.states import STATES
from aifbench.report.charts import metric_name
from aifbench.report.curves import CLIENTS, FIND, RATE, Load, curves, knee_of, knee_text
from aifbench.report.load import (
    Case,
    Results,
    Value,
    alike,
    axis_name,
    axis_value,
    independent,
    inside,
    varying,
    worst_of,
)
from aifbench.report.numbers import count, factor, fixed, number
from aifbench.report.places import NONE, containers
from aifbench.report.searches import outcomes

RECALL_TARGET = 0.95
WIDE = 0.25
"""Half-width over value above which, in the median, the numbers are called badly repeatable."""
EXACT_INDEX = "Flat"
MANY_NOISY = 0.25
"""Share of cases beside which other work ran, above which the first screen does not say yes."""
NBSP = "\u00a0"
"""Keeps an axis and its value on one line."""


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; with a case it is a number that leads to that case."""

    text: str
    case: str | None = None


@dataclass(frozen=True)
class Finding:
    """One sentence, the benchmark it is about and the chart that shows it."""

    benchmark: str
    figure: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The sentence without its links."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Ratio:
    """Quotient of two values with the range that their intervals allow."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the range leaves out 1."""
        return self.low > 1 or self.high < 1

    def __str__(self) -> str:
        """Return `12.1× (11.4–12.8)`."""
        return factor(self.value, self.low, self.high)


def findings(results: Results) -> dict[str, list[Finding]]:
    """Return the sentences of each benchmark, the most telling first."""
    makers: dict[str, tuple[Callable[[list[Case]], Finding | None], ...]] = {
        "retrieval": (best_index, retrieval_clients, retrieval_top_k, build_cost),
        "inference": (first_token, throughput_knee, highest_load, rate_knee, stream_speed),
        "storage": (fastest, block_size_effect, mode_effect),
    }
    found: dict[str, list[Finding]] = {}
    for benchmark in results.benchmarks:
        cases = [case for case in results.of(benchmark) if case.state == "valid"]
        made = [
            results.part(f"the finding {maker.__name__}", partial(maker, cases))
            for maker in (makers.get(benchmark, ()) if cases else ())
        ]
        found[benchmark] = [finding for finding in made if finding is not None]
    return found


def headline(found: Mapping[str, list[Finding]], most: int = 6) -> list[Finding]:
    """Return the first sentences of each benchmark in turn, at most `most` and at most three of one benchmark."""
    turns = [sentences[place] for place in range(3) for sentences in found.values() if place < len(sentences)]
    chosen = turns[:most]
    return [finding for sentences in found.values() for finding in sentences if finding in chosen]


def ratio(top: Value, bottom: Value) -> Ratio | None:
    """Return top / bottom of two quantities that cannot be negative; None without intervals or with a 0."""
    if top.low is None or top.high is None or bottom.low is None or bottom.high is None:
        return None
    if not top.value or not bottom.value:
        return None
    highest = top.high / bottom.low if bottom.low > 0 else inf
    return Ratio(top.value / bottom.value, max(0.0, top.low) / bottom.high, highest)


# -- retrieval ---------------------------------------------------------------------------------------------------------


def best_index(cases: list[Case]) -> Finding | None:
    """Say which index answers fastest at the recall target, and how that compares with exact search."""
    usable, group = _indexes(cases)
    best = _winner(group)
    if best is None:
        return _no_index(group)
    recall = f"recall@{best.axes['top_k']}"
    parts = [Part(f"{_index(best)} reaches {recall} "), _link(best, "recall_at_k"), Part(" at ")]
    parts.append(_link(best, "queries_per_second", "queries/s"))
    exact = next((case for case in group if case.axes.get("index") == EXACT_INDEX), None)
    if exact is not None:
        against = ratio(best.metrics["queries_per_second"], exact.metrics["queries_per_second"])
        if against is not None and against.differs:
            parts += [Part(", "), Part(str(against), exact.id), Part(" the rate of exact search")]
        else:
            parts.append(Part(", which is not shown to differ from exact search"))
    free = {"index", *(axis for axis in varying(usable) if axis.startswith("search."))}
    parts.append(Part(f"{_where(best, group, usable, free)}."))
    return Finding("retrieval", "retrieval_frontier", tuple(parts))


def _no_index(group: list[Case]) -> Finding | None:
    """Say which approximate index comes closest when none reaches the target."""
    others = [case for case in group if case.axes.get("index") != EXACT_INDEX]
    if not others:
        return None
    best = max(others, key=lambda case: _of(case, "recall_at_k"))
    target = f"recall@{best.axes['top_k']} of {RECALL_TARGET}"
    text = f"No approximate index reaches {target}; the closest is {_index(best)} with "
    return Finding("retrieval", "retrieval_frontier", (Part(text), _link(best, "recall_at_k"), Part(".")))


def _indexes(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """Return the cases with rate and recall, and those of them that differ only in index and search settings."""
    usable = [case for case in cases if _sure(case, "queries_per_second") and case.measured("recall_at_k")]
    free = {"index", *(axis for axis in varying(usable) if axis.startswith("search."))}
    group = _fullest(usable, free, "index", {"top_k": 10, "clients": 1, "batch_size": 1, "threads": 1})
    return usable, group or []


def _winner(group: list[Case]) -> Case | None:
    """Return the approximate index with the highest rate at the recall target."""
    able = [case for case in group if case.axes["index"] != EXACT_INDEX and _of(case, "recall_at_k") >= RECALL_TARGET]
    return max(able, key=lambda case: _of(case, "queries_per_second"), default=None)


def retrieval_clients(cases: list[Case]) -> Finding | None:
    """Say what more concurrent searchers bring to the fastest index at the target."""
    return _effect(
        cases,
        axis="clients",
        metric="queries_per_second",
        figure="retrieval_execution_time",
        text="From {a} to {b} concurrent clients, {what} answers {ratio} as many queries/s ({x} to {y})",
        none="From {a} to {b} concurrent clients, queries/s of {what} is not shown to change ({x} and {y})",
        what=_index,
        unit="queries/s",
        like=_winner(_indexes(cases)[1]),
    )


def retrieval_top_k(cases: list[Case]) -> Finding | None:
    """Say what a larger k costs."""
    return _effect(
        cases,
        axis="top_k",
        metric="execution_time_s",
        figure="retrieval_execution_time",
        text="From k = {a} to {b}, {what} takes {ratio} the execution time ({x} to {y})",
        none="From k = {a} to {b}, the execution time of {what} is not shown to change ({x} and {y})",
        what=_index,
        like=_winner(_indexes(cases)[1]),
    )


def build_cost(cases: list[Case]) -> Finding | None:
    """Say which index is dearest to build."""
    by_index: dict[Any, Case] = {}
    for case in cases:
        if case.measured("build_time_s") and case.measured("index_bytes"):
            by_index.setdefault(case.axes.get("index"), case)
    if len(by_index) < 2:
        return None
    ordered = sorted(by_index.values(), key=lambda case: _of(case, "build_time_s"))
    first, last = ordered[0], ordered[-1]
    parts = [Part(f"{last.axes['index']} takes longest to build, "), _link(last, "build_time_s"), Part(" for ")]
    parts += [_link(last, "index_bytes"), Part(f"; {first.axes['index']} takes "), _link(first, "build_time_s")]
    parts += [Part(" for "), _link(first, "index_bytes"), Part(".")]
    return Finding("retrieval", "retrieval_frontier", tuple(parts))


# -- inference ---------------------------------------------------------------------------------------------------------


def first_token(cases: list[Case]) -> Finding | None:
    """Say how long a reader waits, alone and with most clients."""
    return _effect(
        cases,
        axis="clients",
        metric="time_to_first_token_s",
        figure="inference_time_to_first_token",
        text="The first token comes after {x} with {a} client{s} and after {y} with {b}, {ratio} as long",
        none="The first token comes after {x} with {a} client{s} and after {y} with {b}: no difference is shown",
    )


def stream_speed(cases: list[Case]) -> Finding | None:
    """Say how fast one stream is, alone and with most clients."""
    return _effect(
        cases,
        axis="clients",
        metric="tokens_generated_per_second",
        figure="inference_tokens_per_second",
        text="One stream gets {x} with {a} client{s} and {y} with {b}",
        none="One stream gets {x} with {a} client{s} and {y} with {b}: no difference is shown",
        unit="tokens/s",
    )


def throughput_knee(cases: list[Case]) -> Finding | None:
    """Say from how many clients on all streams together gain less, or why no such place is found."""
    return _knee(cases, CLIENTS, "inference_latency_throughput", "all streams together", "tokens/s")


def rate_knee(cases: list[Case]) -> Finding | None:
    """Say from which rate on the server answers less than more requests bring, or why no such place is found."""
    return _knee(cases, RATE, "inference_latency_rate", "the server", "requests/s")


def _knee(cases: list[Case], load: Load, figure: str, who: str, unit: str) -> Finding | None:
    """Say where the knee of the curve with most loads is, or why there is none."""
    found = curves([case for case in cases if _sure(case, load.throughput)], load)
    curve = max(found, key=len, default=[])
    if len(curve) < 3:
        return None
    told, last = knee_of(curve, load), curve[-1]
    where = _where(last, curve, [case for one in found for case in one], {load.axis})
    if told.load is None:
        parts = [Part(f"No knee is found up to {_at(last, load)}: {told.reason}. There {who} reached ")]
        return Finding("inference", figure, (*parts, _link(last, load.throughput, unit), Part(f"{where}.")))
    assert told.before is not None
    assert told.after is not None
    near = min(curve, key=lambda case: abs(log(float(case.axes[load.axis]) / (told.load or 1))))
    parts = [Part("Throughput has its knee at "), Part(knee_text(told, load), near.id)]
    parts.append(Part(f": a doubling brings {2**told.before:.2f}× before it and {2**told.after:.2f}× beyond it. "))
    parts += [Part(f"With {_at(near, load)} {who} reached "), _link(near, load.throughput, unit), Part(f"{where}.")]
    return Finding("inference", figure, tuple(parts))


def _at(case: Case, load: Load) -> str:
    return load.shown(float(case.axes[load.axis]))


def highest_load(cases: list[Case]) -> Finding | None:
    """Say how high a load keeps the SLO, as the first search found."""
    searches = [case for case in cases if FIND in case.axes]
    if not searches:
        return None
    case = searches[0]
    metric, unit = f"{case.axes[FIND]}_under_slo", "clients" if case.axes[FIND] == "clients" else "requests/s"
    slo = {axis: axis_value(axis, value) for axis, value in case.axes.items() if axis.startswith("slo.")}
    bounds = " and ".join(
        f"{axis.removeprefix('slo.').removesuffix('_s').replace('_', ' ')} of at most {bound.replace(' ', NBSP)}"
        for axis, bound in slo.items()
    )
    served = f"{fixed(100 * float(case.axes.get('find_share', 1.0)), 0)} % of the requests have a {bounds}"
    where = _where(case, [case], searches, set())
    if case.measured(metric):
        others = f" ({outcomes(case)})" if outcomes(case) else ""
        parts = [Part("Up to "), _link(case, metric, unit), Part(f"{others}, {served}{where}.")]
    elif metric in case.metrics:
        parts = [Part(f"The search for the most {unit} at which {served} ended with: ")]
        parts += [Part(case.metrics[metric].reason or "no result", case.id), Part(f"{where}.")]
    else:
        return None
    return Finding("inference", "inference_search", tuple(parts))


# -- storage -----------------------------------------------------------------------------------------------------------


def fastest(cases: list[Case]) -> Finding | None:
    """Say where writing and reading are fastest; a read from memory speaks only where there is no other."""
    names = varying(cases)
    parts: list[Part] = []
    cold = [case for case in cases if case.axes.get("mode") != "warm" and _sure(case, "read_bandwidth_mib_s")]
    for metric, what, among in (
        ("write_bandwidth_mib_s", "writing", cases),
        ("read_bandwidth_mib_s", "reading from cold" if cold else "reading from memory", cold or cases),
    ):
        usable = [case for case in among if _sure(case, metric) and not _in_memory(case)]
        if len(usable) > 1:
            best = max(usable, key=lambda case: _of(case, metric))
            where = Part(f" ({_settings(best, names)})")
            parts += [Part(f"; {what} is fastest at "), _link(best, metric, "MiB/s"), where]
    if not parts:
        return None
    first = parts[0].text.removeprefix("; ")
    return Finding("storage", "storage_bandwidth", (Part(first[:1].upper() + first[1:]), *parts[1:], Part(".")))


def _in_memory(case: Case) -> bool:
    """Whether a case was measured on a file system in memory, which says nothing about storage."""
    return any(" is memory: " in note for note in case.notes)


def block_size_effect(cases: list[Case]) -> Finding | None:
    """Say what larger operations bring."""
    return _effect(
        cases,
        axis="block_size",
        metric="write_bandwidth_mib_s",
        figure="storage_bandwidth",
        text="Blocks of {b} instead of {a} give {ratio} the write bandwidth ({x} to {y})",
        none="Blocks of {b} instead of {a} are not shown to change the write bandwidth ({x} and {y})",
        unit="MiB/s",
    )


def mode_effect(cases: list[Case]) -> Finding | None:
    """Say how far apart the modes of reading are: a warm read shows memory, not the device."""
    usable = [case for case in cases if _sure(case, "read_bandwidth_mib_s")]
    group = _fullest(usable, {"mode"}, "mode", {})
    if group is None or len(group) < 2:
        return None
    slow, quick = (pick(group, key=lambda case: _of(case, "read_bandwidth_mib_s")) for pick in (min, max))
    apart = ratio(quick.metrics["read_bandwidth_mib_s"], slow.metrics["read_bandwidth_mib_s"])
    if apart is None or not apart.differs:
        return None
    parts = [Part(f"Reading in mode {quick.axes['mode']} is "), Part(str(apart), quick.id)]
    parts += [Part(f" as fast as in mode {slow.axes['mode']} ("), _link(quick, "read_bandwidth_mib_s", "MiB/s")]
    parts += [Part(" and "), _link(slow, "read_bandwidth_mib_s", "MiB/s"), Part(")")]
    parts.append(Part(": memory answers, not the device" if quick.axes["mode"] == "warm" else ""))
    parts.append(Part(f"{_where(quick, group, usable, {'mode'})}."))
    return Finding("storage", "storage_bandwidth", tuple(parts))


# -- whether to believe it ---------------------------------------------------------------------------------------------


def trust(results: Results) -> list[tuple[Part, ...]]:
    """Return what a reader needs to judge the numbers: verdicts, repetitions, intervals, instrument, machine."""
    valid = [case for case in results.cases if case.state == "valid"]
    lines: list[tuple[Part, ...]] = []
    done = sorted({case.done for case in valid})
    if valid:
        least, most = done[0], done[-1]
        times = f"{least}" if least == most else f"{least} to {most}"
        plural = "repetition" if most == 1 else "repetitions"
        lines.append((Part(f"Each valid case stands on {times} {plural}, each in a fresh process."),))
    spreads = _spreads(valid)
    if spreads:
        worst, case, name = max(spreads, key=lambda entry: entry[0])
        typical = median(entry[0] for entry in spreads)
        text = f"The 95 % interval of a main number is ± {_percent(typical)} of it in the median; the widest is ± "
        lines.append((Part(text), Part(_percent(worst), case.id), Part(f" ({metric_name(name)}, {case.label}).")))
    errors = [
        (value.instrument / abs(value.value), case, name)
        for case in valid
        for name, value in case.metrics.items()
        if value.instrument is not None and value.value
    ]
    if errors:
        share, case, name = max(errors, key=lambda entry: entry[0])
        lines.append(
            (
                Part("Instrument: our own measuring path errs by at most "),
                Part(_percent(share), case.id),
                Part(f" ({metric_name(name)}, {case.label})."),
            )
        )
    else:
        lines.append((Part("Instrument: its error was not measured."),))
    noted = [case for case in valid if case.notes]
    if noted:
        kinds: dict[str, list[str]] = {}
        for case in noted:
            for kind, note in {alike(note): note for note in case.notes}.items():
                kinds.setdefault(kind, []).append(note)
        common = worst_of(max(kinds.values(), key=len))
        lines.append((Part(f"Cautions: {len(noted)} of {len(valid)} valid cases bear one; most often: {common}."),))
    notes = machine_notes(results)
    if notes:
        lines.append((Part(f"Machine: {'; '.join(notes)}."),))
    return lines


def _spreads(cases: list[Case]) -> list[tuple[float, Case, str]]:
    """Return (half-width over value, case, metric) of all contract outputs."""
    return [
        (spread, case, name)
        for case in cases
        for name in _headline_metrics(case.benchmark)
        if (value := case.measured(name)) is not None and (spread := value.relative_half) is not None
    ]


def verdict(results: Results) -> str:
    """Return one sentence on how much of the campaign can be used, and one on what is damaged."""
    files = len({damage.file for damage in results.damage})
    if not files:
        return _usable(results)
    return (
        f"{_usable(results)} {count(files, 'file')} of this folder {'is' if files == 1 else 'are'} damaged or missing."
    )


def _usable(results: Results) -> str:
    total, valid = len(results.cases), results.count("valid")
    if not total:
        return "No case is planned: there is nothing to believe yet."
    spreads = _spreads([case for case in results.cases if case.state == "valid"])
    typical = median(spread for spread, _, _ in spreads) if spreads else None
    wide = typical is not None and typical > WIDE
    if valid == total:
        if typical is None:
            return (
                f"All {total} cases passed every check, but without intervals nobody knows how far they would repeat."
            )
        if wide:
            text = f"All {total} cases passed every check, but they repeat badly: their main numbers carry"
            return f"{text} ± {_percent(typical)} in the median. Read them as orders of magnitude."
        return _all_valid(results)
    counts = {state: results.count(state) for state in STATES if state != "valid"}
    others = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    if not valid:
        return f"No: none of the {total} cases is valid ({others})."
    one = total - valid == 1
    marked = f"The {'other' if one else 'others'} ({others}) {'is' if one else 'are'} marked"
    marked += f", and no sentence rests on {'it' if one else 'them'}."
    if wide and typical is not None:
        marked += f" The valid ones repeat badly: ± {_percent(typical)} in the median."
    return f"{valid} of {total} cases passed every check. {marked}"


def _all_valid(results: Results) -> str:
    total = len(results.cases)
    noisy = sum(any(note.startswith(NOISY) for note in case.notes) for case in results.cases)
    if noisy > MANY_NOISY * total:
        text = f"With care: all {total} cases passed every check, but beside {noisy} of them other work used the cores."
        return f"{text} Run them again on a quiet node before you compare."
    return f"Yes, as far as our checks reach: all {total} cases passed every one."


def machine_notes(results: Results) -> list[str]:
    """Return what about the machines weakens the numbers: virtual, no container, shared, changed sources."""
    notes: dict[str, None] = {}
    for record in results.batches.values():
        for invocation in record.invocations:
            environment = invocation.environment
            if environment.get("virtualised"):
                notes["virtual: cores may be shared with others, and disks cached by the host"] = None
            governor = inside(environment, "cpu").get("governor")
            if governor not in (None, "performance"):
                notes[f"CPU governor {governor}"] = None
            if inside(invocation.provenance, "git").get("dirty"):
                notes["measured by sources with uncommitted changes"] = None
    found = containers(results)
    if len(found) > 1:
        notes["jobs ran in different containers: their cases are told apart"] = None
    elif NONE in found:
        notes["no container: libraries are those of the machine"] = None
    elif results.plan.system.get("container") == NONE:
        notes[f"all ran within one {next(iter(found))} container: libraries are those of its image"] = None
    return list(notes)


# -- parts of sentences ------------------------------------------------------------------------------------------------


def _effect(
    cases: list[Case],
    *,
    axis: str,
    metric: str,
    figure: str,
    text: str,
    none: str,
    what: Callable[[Case], str] = lambda case: "",
    unit: str | None = None,
    like: Case | None = None,
) -> Finding | None:
    """Compare the ends of `axis`, all else equal, in the group of cases with most values of it, nearest to `like`."""
    usable = [case for case in cases if _sure(case, metric) and FIND not in case.axes]
    group = _fullest(usable, {axis}, axis, like.axes if like else {})
    if group is None or len(group) < 2:
        return None
    group.sort(key=lambda case: case.axes[axis])
    first, last = group[0], group[-1]
    change = ratio(last.metrics[metric], first.metrics[metric])
    if change is None:
        return None
    pieces = {
        "{a}": Part(axis_value(axis, first.axes[axis])),
        "{b}": Part(axis_value(axis, last.axes[axis])),
        "{s}": Part("" if first.axes[axis] == 1 else "s"),
        "{what}": Part(what(first)),
        "{x}": _link(first, metric, unit),
        "{y}": _link(last, metric, unit),
        "{ratio}": Part(str(change), last.id),
    }
    parts = _filled(text if change.differs else none, pieces)
    shown = {"index"} | {name for name in varying(usable) if name.startswith("search.")} if what is _index else set()
    parts.append(Part(f"{_where(first, group, usable, {axis} | shown)}."))
    return Finding(first.benchmark, figure, tuple(parts))


def _filled(text: str, pieces: Mapping[str, Part]) -> list[Part]:
    parts = [Part(text)]
    for name, piece in pieces.items():
        split: list[Part] = []
        for part in parts:
            head, found, tail = part.text.partition(name) if part.case is None else (part.text, "", "")
            split += [Part(head, part.case), *([piece, Part(tail)] if found else [])]
        parts = [part for part in split if part.text]
    return parts


def _fullest(cases: list[Case], free: Iterable[str], axis: str, prefer: Mapping[str, Any]) -> list[Case] | None:
    """Return the cases that agree in all but `free`, of the group with most values of `axis`; None if it has one.

    Among equals: the one that meets most of `prefer`, then the first of the plan.
    """
    free = set(free)
    groups: dict[tuple[Any, ...], list[Case]] = {}
    names = [name for name in varying(cases) if name not in free]
    for case in cases:
        if axis in case.axes:
            groups.setdefault(tuple(case.axes.get(name) for name in names), []).append(case)
    if not groups:
        return None
    best = max(
        groups.values(),
        key=lambda group: (
            len({case.axes[axis] for case in group}),
            sum(group[0].axes.get(name) == value for name, value in prefer.items()),
        ),
    )
    return best if len({case.axes[axis] for case in best}) > 1 else None


def _sure(case: Case, metric: str) -> bool:
    """Return whether a case has a value with an interval."""
    value = case.measured(metric)
    return value is not None and value.low is not None and value.high is not None and value.n >= 2


def _of(case: Case, metric: str) -> float:
    value = case.metrics[metric].value
    assert value is not None
    return value


def _link(case: Case, metric: str, unit: str | None = None) -> Part:
    """Return `14 200 ± 340 queries/s` as a number that leads to its case. A value near 1 stays a share."""
    value = case.metrics[metric]
    assert value.value is not None
    return Part(number(value.value, value.half, value.unit if unit is None else unit), case.id)


def _index(case: Case) -> str:
    settings = _settings(case, [name for name in case.axes if name.startswith("search.")])
    return f"{case.axes.get('index', 'the index')}{f' ({settings})' if settings else ''}"


def _where(case: Case, group: list[Case], usable: list[Case], free: set[str]) -> str:
    """Return the settings that tell this group of cases from the others, such as ` (prompt short)`."""
    inside = varying(group)
    names = [name for name in varying(usable) if name not in free and name not in inside]
    settings = _settings(case, independent(names, usable))
    return f" ({settings})" if settings else ""


def _settings(case: Case, names: list[str]) -> str:
    """Return axes and their values, such as `block size 1MiB, mode direct`."""
    given = [name for name in names if name in case.axes]
    return ", ".join(f"{axis_name(name).replace('_', ' ')}{NBSP}{axis_value(name, case.axes[name])}" for name in given)


def _headline_metrics(benchmark: str) -> tuple[str, ...]:
    from aifbench.registry import benchmarks

    entry = benchmarks().get(benchmark)
    return entry.headline if entry else ()


def _percent(share: float) -> str:
    """Return a share in percent with two significant digits."""
    if share >= 0.1:
        return f"{fixed(share * 100, 0)} %"
    return f"{fixed(share * 100, 1)} %" if share >= 0.001 else "less than 0.1 %"
