"""Do 95 % intervals hold the truth in 95 of 100 campaigns? A queue whose mean is known (M/M/1) tells.

Requests of one run follow each other through a queue, so their times are anything but independent: an interval over
requests is far too narrow. Ours are over repetitions.
"""

import numpy as np
import pytest

from aifbench.stats.intervals import mean_interval

CAMPAIGNS, REPETITIONS, REQUESTS, WARMUP = 1500, 10, 4000, 1000


def times_in_system(load: float, generator: np.random.Generator, runs: int) -> np.ndarray:
    """Return the time in the system of each request after the warm-up, one row per run; service takes 1 in the mean.

    Lindley's recursion in closed form: a wait is the walk of (service - gap) above its lowest point so far.
    """
    shape = (runs, WARMUP + REQUESTS)
    service = generator.standard_exponential(shape)
    steps = np.zeros(shape)
    steps[:, 1:] = service[:, :-1] - generator.standard_exponential(shape)[:, 1:] / load
    walk = np.cumsum(steps, axis=1)
    return (walk - np.minimum.accumulate(np.minimum(walk, 0.0), axis=1) + service)[:, WARMUP:]


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
def test_intervals_over_repetitions_hold_the_truth(load):
    generator = np.random.default_rng(20)
    truth = 1 / (1 - load)  # mean time in an M/M/1 system, in mean service times
    held = 0
    for _ in range(CAMPAIGNS):
        interval = mean_interval(times_in_system(load, generator, REPETITIONS).mean(axis=1).tolist())
        held += interval.low <= truth <= interval.high
    coverage = held / CAMPAIGNS
    print(f"load {load}: {coverage:.1%}")
    assert coverage >= 0.93


def test_intervals_over_requests_would_not():
    generator = np.random.default_rng(20)
    held = 0
    for _ in range(300):
        (run,) = times_in_system(0.8, generator, 1)
        half = 1.96 * run.std(ddof=1) / np.sqrt(run.size)
        held += abs(run.mean() - 5) <= half
    assert held / 300 < 0.4
