"""Which process is meant, for longer than its pid lives: also start time, boot and host. Whether it still runs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> dict[str, Any]:
    """Return what tells this process from any later one with its pid: `{pid, started, boot, host}`."""
    return {"pid": pid, "started": _started(pid), "boot": _boot(), "host": socket.gethostname()}


def alive(known: Mapping[str, Any] | None) -> bool | None:
    """Return whether the process of an identity still runs; None when it is on another host, where only that can tell.

    What names no process is not alive. Where the boot is missing, as in a lock of version 0.1, it is not compared.
    """
    if known is None or known.get("host") is None:
        return False
    if known["host"] != socket.gethostname():
        return None
    pid, started = known.get("pid"), known.get("started")
    if type(pid) is not int or pid < 1 or started is None:
        return False
    return bool(_started(pid) == started and known.get("boot", _boot()) == _boot())


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the state on (proc(5)); None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in {"Z", "X"} else fields


def _started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot."""
    fields = stat_fields(pid)
    return None if fields is None else fields[19]


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()
