"""The monitor service."""

from __future__ import annotations

from typing import ClassVar

from aifbench.services.service import Service


class MonitorService(Service):
    """The monitor service."""

    name: ClassVar[str] = "monitor"
