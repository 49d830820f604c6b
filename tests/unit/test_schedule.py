"""What a batch still measures, in which order, and when a case has enough repetitions."""

import pytest

from aifbench.campaign.spec import Spec
from aifbench.core.notes import FAILED
from aifbench.core.records import Metric, Validity
from aifbench.core.system import System
from aifbench.runner.schedule import pending, remaining, rounds
from tests.unit.test_store import record

TIME = "execution_time_s"


def spec(*rules, order="given", seed=1):
    """A batch of the cases a, b, ... with these rules of repetition."""
    cases = [
        {"case": case, "params": {}, "repetitions": rule, "order": order}
        for case, rule in zip("abcdefgh", rules, strict=False)
    ]
    return Spec(
        schema_version=1, campaign="c", batch="b", benchmark="storage", seed=seed, system=System(name="here"),
        setup={}, cases=cases,
    )  # fmt: skip


def measured(verdicts, case="a"):
    """One record per letter: valid, invalid (-) or failed (x)."""
    bad = Validity.of([FAILED.against(error="disturbed", message="by other work")])
    kinds = {"v": ("ok", Validity()), "-": ("ok", bad), "x": ("failed", bad)}
    return [
        record(case=case, repetition=number, status=kinds[verdict][0], validity=kinds[verdict][1])
        for number, verdict in enumerate(verdicts)
    ]


def timed(*values):
    metrics = [{TIME: Metric(value=value, unit="s", n=1, method="wall", reason="lost")} for value in values]
    return [record(case="a", repetition=number, metrics=each) for number, each in enumerate(metrics)]


def cases(entries):
    return "".join(entry.case for entry in entries)


def wanted(batch, records):
    """The rounds in which something would be measured now."""
    return [repetition for repetition in rounds(batch) if pending(batch, records, repetition)]


def test_a_round_measures_each_case_once_that_has_not_been_measured_in_it():
    batch = spec(3, 3, 3)
    records = {"a": measured("v"), "b": measured("vv")}
    assert [cases(pending(batch, records, repetition)) for repetition in range(3)] == ["c", "ac", "abc"]


def test_the_given_order_is_kept_and_a_shuffled_one_differs_by_round_and_by_seed():
    given, shuffled = spec(*[2] * 8), spec(*[2] * 8, order="shuffled")
    assert [cases(pending(given, {}, repetition)) for repetition in (0, 1)] == ["abcdefgh", "abcdefgh"]
    first, second = (cases(pending(shuffled, {}, repetition)) for repetition in (0, 1))
    other = cases(pending(spec(*[2] * 8, order="shuffled", seed=2), {}, 0))
    assert len({first, second, other, "abcdefgh"}) == 4
    assert {"".join(sorted(each)) for each in (first, second, other)} == {"abcdefgh"}
    assert cases(pending(shuffled, {}, 0)) == first


def test_what_is_measured_takes_nothing_from_the_order_of_the_rest():
    batch = spec(*[2] * 8, order="shuffled")
    before = cases(pending(batch, {}, 1))
    assert cases(pending(batch, {"c": measured("vv", "c")}, 1)) == before.replace("c", "")


@pytest.mark.parametrize(
    ("verdicts", "again"),
    [
        ("vvvvv", []), ("vvvv-", [5]), ("vvv--", []), ("vvvvx", []), ("vvv-x", []), ("vvvv-v", []), ("vvvv--", []),
    ],
)  # fmt: skip
def test_an_invalid_repetition_is_measured_again_once_and_a_failed_one_never(verdicts, again):
    assert wanted(spec(5), {"a": measured(verdicts)}) == again


def test_of_eleven_repetitions_three_may_be_replaced():
    batch = spec(11)
    assert rounds(batch) == range(14)
    assert wanted(batch, {"a": measured("---" + "v" * 8)}) == [11, 12, 13]
    assert wanted(batch, {"a": measured("----" + "v" * 7)}) == []


@pytest.mark.parametrize(
    ("values", "goes_on"),
    [
        ((1.0, 1.0), True),  # fewer than the fewest
        ((1.0, 1.0, 1.0), False),
        ((1.0, 1.5, 2.0), True),  # the half width is 1.24 s of 1.5 s
        ((1.0, 1.01, 1.02), False),  # 0.0248 s of 1.01 s
        ((1.0, 1.0, None), True),  # two values are fewer than the fewest
    ],
)
def test_a_case_is_repeated_until_its_interval_is_narrow(values, goes_on):
    batch = spec({"min": 3, "max": 9, "until": {"metric": TIME, "half_width": "5%"}})
    assert bool(pending(batch, {"a": timed(*values)}, len(values))) is goes_on


def test_at_most_the_most_repetitions_are_measured():
    batch = spec({"min": 2, "max": 4, "until": {"metric": TIME, "half_width": "1%"}})
    assert wanted(batch, {"a": timed(1.0, 2.0, 3.0, 4.0)}) == []


def test_what_remains_is_counted_up_to_the_most_repetitions_of_each_case():
    batch = spec(3, {"min": 2, "max": 5, "until": {"metric": TIME, "half_width": "5%"}})
    expected_s = {"a": 2.0, "b": 0.5}
    assert remaining(batch, {}, expected_s) == (8.5, 8)
    assert remaining(batch, {"a": measured("v-x"), "b": measured("vv", "b")}, expected_s) == (1.5, 3)
