"""The kernel timer that paces a load."""

import selectors
import time

from aifbench.load.timer import Timer


def test_it_becomes_readable_at_its_time_and_not_before():
    timer = Timer()
    with selectors.DefaultSelector() as selector:
        selector.register(timer, selectors.EVENT_READ)
        assert selector.select(0) == []
        at = time.monotonic_ns() + 30_000_000
        timer.set(at)
        assert selector.select(0) == []
        assert selector.select(5)
        assert time.monotonic_ns() >= at
        timer.clear()
        assert selector.select(0) == []
        timer.clear()  # nothing to read
        timer.set(1)  # long past
        assert selector.select(5)
    timer.close()


def test_a_later_time_replaces_an_earlier_one():
    timer = Timer()
    with selectors.DefaultSelector() as selector:
        selector.register(timer, selectors.EVENT_READ)
        timer.set(time.monotonic_ns() + 20_000_000)
        timer.set(time.monotonic_ns() + 10_000_000_000)
        assert selector.select(0.1) == []
    timer.close()
