"""All processes of a batch: whatever becomes of their runner, they end."""

from __future__ import annotations

import os
from collections.abc import Mapping

from aifbench.processes.process import Group
from aifbench.processes.watchdog import Watchdog


class Started:
    """The groups that were started and have not ended. A watchdog ends them when this process is killed with -9."""

    def __init__(self) -> None:
        self.roles: Mapping[str, int] = {"runner": os.getpid()}
        """Pid by role, for the samples; replaced as a whole, since another thread reads it."""
        self._groups: list[Group] = []
        self._watchdog = Watchdog()

    def add(self, group: Group, role: str | None) -> None:
        """Take in a group that was started; without a role it does nothing that samples could tell."""
        self._groups.append(group)
        self._watchdog.watch(group.pid)
        if role is not None:
            self.roles = {**self.roles, role: group.pid}

    def remove(self, group: Group) -> None:
        """Forget a group that has ended, and its role."""
        self._groups.remove(group)
        self._watchdog.forget(group.pid)
        self.roles = {role: pid for role, pid in self.roles.items() if pid != group.pid}

    def end(self) -> None:
        """End all that is left, what was started last first. Safe to call twice."""
        with self._watchdog:
            while self._groups:
                group = self._groups.pop()
                group.stop()
                self._watchdog.forget(group.pid)
