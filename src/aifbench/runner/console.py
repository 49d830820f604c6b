"""What a person sees while a batch runs: a bar with the case and the time left (without a terminal: some lines)."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from aifbench.campaign.plan import duration


class Console:
    """Progress of one batch on standard error."""

    def __init__(self, batch: str, remaining_s: Callable[[], float]) -> None:
        self._batch, self._remaining_s = batch, remaining_s
        self._done = self._total = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, total: int) -> None:
        """Say how many repetitions are to come."""
        self._total = total
        console = RichConsole(stderr=True)
        if console.is_terminal and total:
            columns = (
                TextColumn("{task.fields[batch]}", style="bold"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}  {task.description}"),
            )
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task("", total=total, batch=self._batch, left="")
            self._progress.start()

    def show(self, text: str) -> None:
        """Say what is being done now."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, description=text, left=f"~{duration(self._remaining_s())} left")

    def advance(self, text: str) -> None:
        """Count one finished repetition; one that replaces an invalid one was not foreseen in the total."""
        self._done += 1
        self._total = max(self._total, self._done)
        if self._progress and self._task is not None:
            self._progress.update(
                self._task,
                advance=1,
                total=self._total,
                description=text,
                left=f"~{duration(self._remaining_s())} left",
            )
        elif self._total and (self._done * 4 // self._total) > ((self._done - 1) * 4 // self._total):
            left = duration(self._remaining_s())
            print(f"{self._batch}: {self._done}/{self._total}, ~{left} left; {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()
