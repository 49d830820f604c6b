"""Which process is meant, for longer than its pid lives: also start time, boot and host."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import orjson

from aifbench.files import json_beneath, write_beneath

MOST_BYTES = 1 << 16
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
    pid = known["pid"]
    if type(pid) is not int or pid <= 1:
        return False
    return bool(known["boot"] == BOOT.read_text().strip() and known["started"] == _started(pid))


def concerns(pid: int, run: str) -> bool:
    """Return whether a process of this user works at a run, as its command line tells.

    A file that others may have written must not name another process of ours, which would then be ended.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() and f"/{run}/".encode() in command


def read(path: Path) -> dict[str, Any] | None:
    """Return the mapping of a file of JSON, None when it is not there or no such thing."""
    try:
        found = json_beneath(path.parent, path.name, most=MOST_BYTES)
    except OSError:
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, data: dict[str, Any], *, new: bool = False) -> None:
    """Write a file of JSON that is whole or not there, also after a crash. `new`: raises FileExistsError."""
    write_beneath(path.parent, path.name, data=orjson.dumps(data, option=orjson.OPT_INDENT_2), new=new)


def _started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        cells = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if cells[0] in {"Z", "X"} else cells[19]
