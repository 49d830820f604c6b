"""Several processes that send one load together, where one core is not enough for it.

Each has the clients, or the requests of the schedule, whose number modulo the processes is its own, prepared
beforehand; all begin at one time of CLOCK_MONOTONIC, which the processes of a machine share. What comes back is one
load.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np

from aifbench.load.client import Load, StreamingClient
from aifbench.load.http import Target
from aifbench.load.schedules import shards
from aifbench.processes.die_with_parent import die_with_parent

HEAD_START_NS = 20_000_000
"""Between the last process's word that it is ready and the start."""
_FORK = multiprocessing.get_context("fork")


class ClientProcessFailed(RuntimeError):
    """One of the processes ended without an answer."""


class ClientProcesses:
    """Runs loads as `StreamingClient` does, over `processes` of them."""

    def __init__(self, targets: Sequence[Target], clients: int, processes: int, *, reuse: bool = True) -> None:
        self._clients, self._count = clients, min(processes, clients)
        self._members: list[tuple[Any, Connection]] = []
        for place in range(self._count):
            ours, theirs = _FORK.Pipe()
            numbers = range(place, clients, self._count)
            foreign = [ours, *(connection for _, connection in self._members)]
            arguments = (os.getpid(), theirs, foreign, StreamingClient(targets, numbers, reuse=reuse))
            process = _FORK.Process(target=_member, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process, connection in self._members:
            connection.close()
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
        self._members = []

    def run(
        self, requests: Sequence[Sequence[bytes]], offsets_s: Sequence[float], timeout_s: float, think_s: float = 0.0
    ) -> Load:
        """Run closed loops (see `StreamingClient.run`). Raises `ClientProcessFailed`."""
        return self._run(
            lambda place: (
                "run",
                (requests[place :: self._count], offsets_s[place :: self._count], timeout_s, think_s),
            )
        )

    def run_schedule(self, requests: Sequence[Sequence[bytes]], at_s: Sequence[float], timeout_s: float) -> Load:
        """Run an open schedule (see `StreamingClient.run_schedule`). Raises `ClientProcessFailed`."""
        parts = [part.tolist() for part in shards(np.asarray(at_s), self._count)]
        return self._run(
            lambda place: (
                "run_schedule",
                (
                    [requests[index] for index in parts[place]],
                    [at_s[index] for index in parts[place]],
                    timeout_s,
                    parts[place],
                ),
            )
        )

    def _run(self, job: Callable[[int], tuple[str, tuple[Any, ...]]]) -> Load:
        try:
            for place, (_, connection) in enumerate(self._members):
                connection.send(job(place))
            self._receive()  # each says that it is ready
            start = time.monotonic_ns() + HEAD_START_NS
            for _, connection in self._members:
                connection.send(start)
            return merged(self._receive())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ClientProcessFailed("a process of the load ended without an answer") from None

    def _receive(self) -> list[Any]:
        return [connection.recv() for _, connection in self._members]


def load_client(
    targets: Sequence[Target], clients: int, processes: int, *, reuse: bool = True
) -> StreamingClient | ClientProcesses:
    """Return what sends a load from so many processes: this one, or several."""
    if processes == 1:
        return StreamingClient(targets, clients, reuse=reuse)
    return ClientProcesses(targets, clients, processes, reuse=reuse)


def merged(loads: Sequence[Load]) -> Load:
    """Return the load that several processes made together."""
    return Load(
        exchanges=sorted((e for load in loads for e in load.exchanges), key=lambda e: (e.client, e.index)),
        start_ns=min(load.start_ns for load in loads),
        end_ns=max(load.end_ns for load in loads),
        cpu_s=sum(load.cpu_s for load in loads),
        stamp_source="kernel" if all(load.stamp_source == "kernel" for load in loads if load.exchanges) else "read",
        exchanges_with_read_stamps=sum(load.exchanges_with_read_stamps for load in loads),
        clock_offset_start_ns=loads[0].clock_offset_start_ns,
        clock_offset_end_ns=loads[0].clock_offset_end_ns,
        connections_opened=sum(load.connections_opened for load in loads),
        addresses=[next(filter(None, each), None) for each in zip(*(load.addresses for load in loads), strict=True)],
    )


def _member(parent: int, connection: Connection, foreign: list[Connection], client: StreamingClient) -> None:
    die_with_parent(parent)
    for other in foreign:  # ends of pipes that the fork inherited: an open copy would hide the parent's end
        other.close()

    def gate() -> int:
        connection.send("ready")
        start: int = connection.recv()
        return start

    with client:
        while True:
            try:
                method, arguments = connection.recv()
            except EOFError:
                return
            connection.send(getattr(client, method)(*arguments, gate=gate))
