"""The log service."""

from __future__ import annotations

from typing import ClassVar

from aifbench.services.service import Service


class LogService(Service):
    """The log service."""

    name: ClassVar[str] = "log"
