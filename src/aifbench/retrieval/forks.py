"""Forked processes that share the index of their parent and report through a pipe.

Clients are processes, not threads: threads of one interpreter hand a lock to each other around each call, which adds
microseconds to a search of ten. A fork shares the index without a copy. The parent must not have run an OpenMP region
with several threads: its pool would not live on in the child.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from aifbench.processes.die_with_parent import die_with_parent

_FORK = multiprocessing.get_context("fork")


class ChildFailed(Exception):
    """A forked process raised (the message is its) or ended without an answer."""


class Child:
    """One forked process that runs `target(send, *args)`; `receive` returns what it sent."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self._connection, child_end = _FORK.Pipe()
        self._process = _FORK.Process(target=_run, args=(os.getpid(), target, child_end, args), daemon=True)
        self._process.start()
        child_end.close()

    def receive(self) -> Any:
        """Return the next thing sent. Raises `ChildFailed`."""
        try:
            kind, value = self._connection.recv()
        except EOFError:
            self._process.join()
            raise ChildFailed(f"a search process ended with exit code {self._process.exitcode}") from None
        if kind == "error":
            raise ChildFailed(value)
        return value

    def stop(self) -> None:
        """End the process, if it has not ended by itself, and wait for it."""
        self._connection.close()
        self._process.join(0.2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(parent: int, target: Callable[..., None], connection: Connection, args: tuple[Any, ...]) -> None:
    die_with_parent(parent)  # a fork does not inherit it: a killed worker would leave searchers spinning at their gate
    try:
        target(lambda value: connection.send(("value", value)), *args)
    except Exception as error:
        connection.send(("error", " ".join(str(error).split()) or type(error).__name__))
