"""The client service."""

from __future__ import annotations

from typing import ClassVar

from aifbench.services.service import Service


class ClientService(Service):
    """The client service."""

    name: ClassVar[str] = "client"
