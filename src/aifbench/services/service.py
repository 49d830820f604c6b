"""What the three services have in common: routes, a life, and metrics as a view of their state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from fastapi import APIRouter
from prometheus_client.core import Metric

from aifbench.services.settings import Settings

PREFIX = "/api/v1"


class Service:
    """One service. A subclass sets `name`, fills `router` and overrides what it needs.

    All methods are called on the event loop of the server; blocking work belongs in `anyio.to_thread`.
    """

    name: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.router = APIRouter(prefix=PREFIX, tags=[self.name])

    async def start(self) -> None:
        """Begin; called once before the first request. Raises ConfigError when the service cannot work."""

    async def stop(self) -> None:
        """End; called once after the last request. Nothing that was accepted is lost."""

    async def reload(self) -> None:
        """Read the files again that the user edits; called on SIGHUP."""

    def not_ready(self) -> str | None:
        """Return why the service cannot answer yet, in one line, or None when it can."""
        return None

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this moment for `/metrics`. Pure: reads state, changes nothing, does not block."""
        return ()
