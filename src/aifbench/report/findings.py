"""What the benchmarks found, the most telling first, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median

from aifbench.analysis.cases import Case
from aifbench.analysis.findings import Finding, Part
from aifbench.analysis.numbers import count, fixed
from aifbench.checks.kinds import NOISY
from aifbench.core.states import STATES
from aifbench.report.load import Results, cautions, inside
from aifbench.report.places import NONE, containers

WIDE = 0.25
"""Half-width over value above which, in the median, the numbers are called badly repeatable."""
MANY_NOISY = 0.25
"""Share of cases beside which other work ran, above which the first screen does not say yes."""


def findings(results: Results) -> dict[str, list[Finding]]:
    """Return the sentences of each benchmark, the most telling first."""
    found: dict[str, list[Finding]] = {}
    for benchmark in results.benchmarks:
        cases = [case for case in results.of(benchmark) if case.state == "valid"]
        made = [
            results.part(f"the finding {maker.__name__}", partial(maker, cases))
            for maker in (results.reports[benchmark].findings if cases else ())
        ]
        found[benchmark] = [finding for finding in made if finding is not None]
    return found


def headline(found: Mapping[str, list[Finding]], most: int = 6) -> list[tuple[str, Finding]]:
    """Return the first sentences of each benchmark in turn, at most `most` and at most three of one benchmark."""
    everything = [(name, place) for name, sentences in found.items() for place in range(min(3, len(sentences)))]
    chosen = sorted(everything, key=lambda entry: entry[1])[:most]
    return [(name, found[name][place]) for name, place in everything if (name, place) in chosen]


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
    spreads = _spreads(results)
    if spreads:
        worst, case, name = max(spreads, key=lambda entry: entry[0])
        typical = median(entry[0] for entry in spreads)
        text = f"The 95 % interval of a main number is ± {_percent(typical)} of it in the median; the widest is ± "
        lines.append((Part(text), Part(_percent(worst), case.id), Part(f" ({case.words.metric(name)}, {case.label}).")))
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
                Part(f" ({case.words.metric(name)}, {case.label})."),
            )
        )
    else:
        lines.append((Part("Instrument: its error was not measured."),))
    noted = sum(bool(case.notes) for case in valid)
    if noted:
        common, _ = cautions(valid)[0]
        lines.append((Part(f"Cautions: {noted} of {len(valid)} valid cases bear one; most often: {common}."),))
    notes = machine_notes(results)
    if notes:
        lines.append((Part(f"Machine: {'; '.join(notes)}."),))
    return lines


def _spreads(results: Results) -> list[tuple[float, Case, str]]:
    """Return (half-width over value, case, metric) of all contract outputs of the valid cases."""
    return [
        (spread, case, name)
        for case in results.cases
        for name in (results.headlines[case.benchmark] if case.state == "valid" else ())
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
    spreads = _spreads(results)
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
    noisy = sum(case.bears(NOISY) for case in results.cases)
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


def _percent(share: float) -> str:
    """Return a share in percent with two significant digits."""
    if share >= 0.1:
        return f"{fixed(share * 100, 0)} %"
    return f"{fixed(share * 100, 1)} %" if share >= 0.001 else "less than 0.1 %"
