"""The servers of a batch: their places, their start until each has answered a request, and whether they live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aifbench.core.benchmark import Place, Server
from aifbench.core.errors import ConfigError
from aifbench.core.params import Params
from aifbench.core.system import System
from aifbench.processes.containers import Containers
from aifbench.processes.process import Group, free_port
from aifbench.processes.started import Started
from aifbench.runner.ended import Ended
from aifbench.slurm import job as nodes


class Servers:
    """The servers of one batch, all alike: those that it starts, or those that are there already.

    `folder` is the batch's: each server has a folder of its own in its `work`, all write to its `server.log`.
    """

    def __init__(self, server: Server[Any], setup: Params, system: System, folder: Path) -> None:
        self._server, self._setup, self._system = server, setup, system
        self._work_dir = folder / "work"
        self._groups: list[Group] = []
        self.log = folder / "server.log"
        self.endpoints: list[str] = []

    def images(self) -> set[str]:
        """Return the image that the servers are started in; none where they are there already."""
        command = self._server.command(self._setup, Place("127.0.0.1", 0, self._system, self._work_dir))
        return set() if command is None else {command.image}

    def check(self) -> Iterator[ConfigError]:
        """Yield what the workflow should have made before the batch, and what is not there."""
        return self._server.check(self._setup, self._system)

    def start(
        self, host: str, containers: Containers, started: Started, wanted: Callable[[], bool]
    ) -> list[dict[str, Any]]:
        """Start what the batch serves itself, at `host`, and wait until each server has answered a request.

        `wanted` turns false when nobody waits any more. Returns facts about the first answers. Raises `ServerNotReady`,
        and `Ended` where the job has too few GPUs.
        """
        began = time.monotonic()
        places = self._places(host, self._server.count(self._setup))
        self.endpoints = [self._server.endpoint(self._setup, place) for place in places]
        for place in places:
            command = self._server.command(self._setup, place)
            if command is not None:
                argv, environment = containers.wrap(command, place.home.name)
                group = Group(argv, stderr=self.log, environment=environment)
                started.add(group, "server" if len(places) == 1 else place.home.name)
                self._groups.append(group)
        ready = []
        for endpoint in self.endpoints:
            left_s = self._system.limits.server_ready_s - (time.monotonic() - began)
            facts = self._server.wait_ready(endpoint, self._setup, left_s, lambda: wanted() and self.alive())
            ready.append({"ready_s": time.monotonic() - began, **facts})
        return ready

    def describe(self) -> list[dict[str, Any]]:
        """Return what each server tells of itself."""
        return [self._server.describe(endpoint, self._setup) for endpoint in self.endpoints]

    @property
    def see_log(self) -> str:
        """The end of a message about servers that wrote a log: where that is."""
        return f"; see {self.log}" if self._groups else ""

    def alive(self) -> bool:
        """Return whether all servers that were started still run."""
        return all(group.alive() for group in self._groups)

    def _places(self, host: str, count: int) -> list[Place]:
        """Return a place for each server: a folder, a port, and its share of the job's GPUs."""
        wanted = self._setup.gpus()
        given = nodes.devices()
        devices = tuple(map(str, range(wanted))) if given is None else given
        if len(devices) < wanted:
            raise Ended("config_error", f"the servers are to have {wanted} GPUs; the job was given {len(devices)}")
        share = wanted // count
        places = []
        for number in range(count):
            home = (self._work_dir / f"server-{number + 1}").absolute()
            home.mkdir(parents=True, exist_ok=True)
            own = devices[number * share : (number + 1) * share]
            places.append(Place(host, free_port(host), self._system, home, own))
        return places
