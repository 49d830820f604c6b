"""All clients of one case: started together, told when to begin, ended on every way out."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from aifbench.core.benchmark import CaseFailed
from aifbench.storage.client import Job, serve
from aifbench.storage.params import StorageParams
from aifbench.storage.workspace import held_signals

HEAD_START_NS = 20_000_000
HEAD_START_PER_OPERATION_NS = 200
"""Time from a command to the common start of all clients: each makes its list of operations, then sleeps until then."""

_END_S = 10.0


class Group:
    """Client processes as a context: `command` runs one phase in all of them and returns their results in order."""

    def __init__(self, params: StorageParams, folder: Path, seed: int) -> None:
        self._jobs = [Job(params, folder, client, seed, os.getpid()) for client in range(params.clients)]
        self._head_start_ns = HEAD_START_NS + HEAD_START_PER_OPERATION_NS * params.blocks_per_client
        self._processes: list[BaseProcess] = []
        self._channels: list[Connection] = []

    def __enter__(self) -> Group:
        """Start the processes. Forked: the worker has one thread, and a start costs 10 ms rather than an import."""
        context = multiprocessing.get_context("fork")
        try:
            for job in self._jobs:
                with held_signals():
                    ours, theirs = context.Pipe()
                    process = context.Process(target=serve, args=(job, theirs), daemon=True)
                    process.start()
                    self._processes.append(process)
                    self._channels.append(ours)
                    theirs.close()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_END_S)
        for channel in self._channels:
            channel.close()

    def command(self, name: str) -> list[dict[str, Any]]:
        """Run phase `name` in all clients at once. Raises `CaseFailed` as soon as one client fails or dies."""
        start_ns = time.monotonic_ns() + self._head_start_ns
        for channel in self._channels:
            with suppress(BrokenPipeError):  # it has died: reading its answer tells
                channel.send((name, start_ns))
        results: dict[int, dict[str, Any]] = {}
        while len(results) < len(self._channels):
            waiting = {id(channel): index for index, channel in enumerate(self._channels) if index not in results}
            for ready in wait([self._channels[index] for index in waiting.values()]):
                index = waiting[id(ready)]
                results[index] = self._answer(index)
        return [results[index] for index in range(len(self._channels))]

    def _answer(self, index: int) -> dict[str, Any]:
        try:
            answer = self._channels[index].recv()
        except (EOFError, ConnectionError):
            self._processes[index].join(_END_S)
            code = self._processes[index].exitcode
            raise CaseFailed("client_died", f"client {index} ended with exit code {code}") from None
        if answer[0] == "failed":
            raise CaseFailed(answer[1], f"client {index}: {answer[2]}")
        result: dict[str, Any] = answer[1]
        return result
