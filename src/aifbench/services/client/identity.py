"""Which process is meant, for longer than its pid lives: also start time, boot and host. Standard library only."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

KEYS = frozenset({"pid", "started", "boot", "host"})
BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> dict[str, Any]:
    """Return what tells this process from any later one with its pid."""
    return {"pid": pid, "started": _started(pid), "boot": BOOT.read_text().strip(), "host": socket.gethostname()}


def alive(known: dict[str, Any] | None) -> bool | None:
    """Return whether the process still runs; None when it is on another host, where only that host can tell."""
    if known is None or not known.keys() >= KEYS:
        return False
    if known["host"] != socket.gethostname():
        return None
    return bool(known["boot"] == BOOT.read_text().strip() and known["started"] == _started(known["pid"]))


def read(path: Path) -> dict[str, Any] | None:
    """Return the mapping of a file of JSON, None when it is not there or no such thing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, data: dict[str, Any], *, new: bool = False) -> None:
    """Write a file of JSON that is whole or not there, also after a crash. `new`: raises FileExistsError."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if new:
        try:
            os.link(aside, path)
        finally:
            aside.unlink()
    else:
        aside.replace(path)


def _started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        cells = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if cells[0] in {"Z", "X"} else cells[19]
