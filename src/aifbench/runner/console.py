"""What a person sees while a batch runs: a bar with the step and its time (without a terminal: a line now and then)."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from aifbench.core.units import duration

EVERY_S = 8.0
"""Longest silence without a terminal."""


class Console:
    """Progress of one batch on standard error, from `with` on. It is silent for less than ten seconds at a time."""

    def __init__(self, batch: str) -> None:
        self._batch = batch
        self._step, self._since = "starting", time.monotonic()
        self._done = self._total = 0
        self._remaining_s: Callable[[], float] | None = None
        self._left, self._asked = "", -math.inf
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._said = time.monotonic() - EVERY_S / 2  # a line was there before the imports
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        console = RichConsole(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("{task.fields[batch]}", style="bold", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Step(self),
            )
            # Once a second: the bar is drawn beside measurements.
            self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=1)
            self._task = self._progress.add_task("", total=None, batch=self._batch)
            self._progress.start()
        else:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._ended.set()
        if self._progress:
            self._progress.stop()
        else:
            self._ticker.join()

    @property
    def step(self) -> str:
        """What is being done now, for how long, and how long all may still take."""
        took = f"{self._step}, {duration(time.monotonic() - self._since)}"
        return f"{self._left}; {took}" if self._left else took

    def begin(self, total: int, remaining_s: Callable[[], float]) -> None:
        """Say how many repetitions are to come, and who knows how long they take."""
        self._total, self._remaining_s = total, remaining_s
        self._update()

    def show(self, step: str) -> None:
        """Say what is being done from now on."""
        self._step, self._since = step, time.monotonic()

    def advance(self, text: str) -> None:
        """Count one finished repetition; one that replaces an invalid one was not foreseen in the total."""
        self._done += 1
        self._total = max(self._total, self._done)
        self._update()
        if not self._progress and (self._done * 4 // self._total) > ((self._done - 1) * 4 // self._total):
            self._say(f"{self._done}/{self._total}, {self._left}; {text}")

    def _update(self) -> None:
        """Ask for the time left here, between measurements and not beside them, and not each time: it costs."""
        if self._remaining_s is not None and time.monotonic() - self._asked >= EVERY_S / 2:
            self._left, self._asked = f"~{duration(self._remaining_s())} to measure", time.monotonic()
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self._done, total=self._total or None)

    def _tick(self) -> None:
        while not self._ended.wait(max(0.0, self._said + EVERY_S - time.monotonic())):
            if time.monotonic() - self._said >= EVERY_S:
                self._say(f"{self._done}/{self._total}, {self.step}" if self._total else self.step)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        print(f"{self._batch}: {text}", file=sys.stderr, flush=True)


class _Step(ProgressColumn):
    """The step of a console, as it is when the bar is drawn."""

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._console = console

    def render(self, task: Task) -> Text:
        """Return the step as plain text: names in it may look like markup."""
        return Text(self._console.step)
