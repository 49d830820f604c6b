"""The knee of planted curves: found where it is, and not where there is none."""

from collections.abc import Callable

import numpy as np
import pytest

from aifbench.stats.knee import Knee, knee

LOADS = (1, 2, 4, 8, 16, 32)


def full_at(place: float) -> Callable[[float], float]:
    """Return the throughput of a server that is full from this load on."""
    return lambda load: 50.0 * min(load, place)


def soft(load: float) -> float:
    return 1000 * load / (load + 4)


def measured(
    curve: Callable[[float], float], noise: float, repetitions: int, seed: int, loads: tuple[float, ...] = LOADS
) -> dict[float, list[float]]:
    """Return repetitions with a relative noise that grows twofold over the loads, as queues do."""
    generator = np.random.default_rng(seed)
    return {
        load: (
            curve(load) * np.exp(generator.normal(0, noise * (1 + place / len(loads)), repetitions))
        ).tolist()
        for place, load in enumerate(loads)
    }  # fmt: skip


def exact(curve: Callable[[float], float], loads: tuple[float, ...] = LOADS) -> Knee:
    return knee({load: [curve(load)] * 3 for load in loads})


def test_a_server_that_is_full_from_a_load_on_has_its_knee_there() -> None:
    found = exact(full_at(6))
    assert found.load == pytest.approx(6, rel=0.03)
    assert found.low < 6 < found.high  # type: ignore[operator]
    assert (found.before, found.after) == pytest.approx((1, 0), abs=0.03)
    assert exact(full_at(8)).load == pytest.approx(8)


def test_what_lies_outside_of_the_loads_that_can_tell_is_in_the_interval() -> None:
    """A bend between the first two loads fits as well as one at the second; the same at the other end."""
    early, late = exact(full_at(1.5)), exact(full_at(16))
    assert (early.load, early.low) == (pytest.approx(2), 1)
    assert (late.load, late.high) == (pytest.approx(16), pytest.approx(32))


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (lambda load: 50 * load, "one even line"),
        (lambda load: 50 * load**0.6, "one even line"),
        (lambda load: 50, "not shown to rise"),
        (lambda load: 50 / load, "not shown to rise"),
        (lambda load: 1000 * load / (load + 60), "half as much"),
    ],
)
@pytest.mark.parametrize("noise", [0.005, 0.05, 0.2])
def test_no_knee_where_there_is_none(curve: Callable[[float], float], reason: str, noise: float) -> None:
    found = [knee(measured(curve, noise, 5, seed), seed) for seed in range(60)]
    assert sum(one.load is not None for one in found) <= 1
    assert noise > 0.01 or sum(reason in str(one.reason) for one in found) >= 55


@pytest.mark.parametrize("repetitions", [3, 5, 10])
@pytest.mark.parametrize(
    ("curve", "truth", "noise"),
    [(full_at(6), 6, 0.005), (full_at(6), 6, 0.05), (full_at(5), 5, 0.1), (full_at(8), 8, 0.03), (soft, None, 0.03)],
)
def test_the_interval_holds_the_knee(
    curve: Callable[[float], float], truth: float | None, noise: float, repetitions: int
) -> None:
    """For a soft bend the truth is the best bent line of the curve without noise."""
    at = exact(curve).load if truth is None else truth
    found = [knee(measured(curve, noise, repetitions, seed), seed) for seed in range(80)]
    told = [one for one in found if one.load is not None]
    held = sum(one.low <= at * (1 + 1e-9) and at <= one.high * (1 + 1e-9) for one in told)  # type: ignore[operator]
    print(f"{repetitions} repetitions, noise {noise}: {len(told)} of 80 told, {held / len(told):.1%} hold it")
    assert held >= 0.93 * len(told)
    assert len(told) >= 40
    assert np.median([one.load for one in told]) == pytest.approx(at, rel=0.1)  # type: ignore[type-var]


def test_a_knee_may_be_followed_by_a_decline() -> None:
    for left in (0.7, 0.1):
        found = knee(measured(lambda load, left=left: full_at(6)(load) * (1 if load < 10 else left), 0.02, 5, 1))
        assert found.low < 8 < found.high or found.low < 6 < found.high  # type: ignore[operator]
        assert found.after < 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        ({}, "0 loads cannot tell, 4 are needed"),
        ({1: [1.0] * 5}, "1 load cannot tell, 4 are needed"),
        ({1: [1.0] * 5, 2: [2.0] * 5, 4: [2.0] * 5}, "3 loads cannot tell, 4 are needed"),
        ({1: [1.0, 1.1], 2: [2.0] * 5, 4: [2.0] * 5, 8: [2.0] * 5}, "2 repetitions cannot tell, 3 at each load"),
        ({0: [1.0] * 3, 2: [2.0] * 3, 4: [2.0] * 3, 8: [2.0] * 3}, "above 0"),
        ({1: [0.0] * 3, 2: [2.0] * 3, 4: [2.0] * 3, 8: [2.0] * 3}, "above 0"),
    ],
)
def test_too_little_is_a_reason(curve: dict[float, list[float]], reason: str) -> None:
    found = knee(curve)
    assert found.load is None
    assert reason in str(found.reason)


def test_the_same_numbers_give_the_same_answer() -> None:
    data = measured(full_at(6), 0.05, 5, 3)
    assert knee(data) == knee(data) == knee(dict(reversed(data.items())))
    assert knee({10 * load: [3 * value for value in values] for load, values in data.items()}).load == pytest.approx(
        10 * (knee(data).load or 0)
    )
