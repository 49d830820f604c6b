"""What is left to measure of a batch, in which order, and when a case has enough repetitions. Pure.

A round measures each case that wants it once: the repetitions of a case are spread over the life of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aifbench.campaign.spec import Spec, SpecCase
from aifbench.core.ids import derived_seed
from aifbench.core.records import CaseRecord
from aifbench.stats.intervals import mean_interval

Records = Mapping[str, Sequence[CaseRecord]]
"""What is recorded of a batch, by case."""


def rounds(spec: Spec) -> range:
    """Return the numbers of all rounds that there can be, with those that replace invalid repetitions."""
    return range(max(entry.repetitions.max + entry.repetitions.spare for entry in spec.cases))


def pending(spec: Spec, records: Records, repetition: int) -> list[SpecCase]:
    """Return the cases that round `repetition` measures: those in given order, then the shuffled ones, by the seed."""
    cases = [entry for entry in spec.cases if _wants(entry, records.get(entry.case, ()), repetition)]
    shuffled = [entry for entry in cases if entry.order == "shuffled"]
    given = [entry for entry in cases if entry.order != "shuffled"]
    return given + sorted(shuffled, key=lambda entry: derived_seed(spec.seed, "order", repetition, entry.case))


def remaining(spec: Spec, records: Records, expected_s: Mapping[str, float]) -> tuple[float, int]:
    """Return the seconds that are expected, and the number of repetitions, up to the most of each case.

    `expected_s` is the expected time of one repetition of each case in seconds.
    """
    left = {entry.case: len(_unmeasured(entry, records.get(entry.case, ()))) for entry in spec.cases}
    return sum(count * expected_s[case] for case, count in left.items()), sum(left.values())


def _unmeasured(entry: SpecCase, records: Sequence[CaseRecord]) -> set[int]:
    return set(range(entry.repetitions.max)) - {record.repetition for record in records}


def _wants(entry: SpecCase, records: Sequence[CaseRecord], repetition: int) -> bool:
    """Return whether a case is measured in a round, from what is recorded of it: the stopping rule."""
    rule = entry.repetitions
    if repetition >= rule.max + rule.spare or any(record.repetition == repetition for record in records):
        return False
    valid = [record for record in records if record.validity.valid]
    if repetition >= rule.max:
        # A failure is not replaced: it makes the case a failed one.
        replaceable = len(records) - len(valid) <= rule.spare and all(record.status == "ok" for record in records)
        return len(valid) < rule.min and replaceable
    if repetition < rule.min or rule.until is None:
        return True
    metrics = (record.metrics.get(rule.until.metric) for record in valid)
    values = [metric.value for metric in metrics if metric is not None and metric.value is not None]
    if len(values) < rule.min:
        return True
    interval = mean_interval(values)
    return interval.half_width is None or interval.half_width > rule.until.half_width * abs(interval.mean)
