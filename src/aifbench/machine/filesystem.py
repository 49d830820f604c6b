"""Facts about a file system: type, options, device, space, alignment of direct I/O."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_STATX_DIOALIGN = 0x2000
_STATX_SIZE = 256
_STATX_DIO_OFFSET = 0x98  # stx_dio_mem_align, stx_dio_offset_align (linux/stat.h)


def describe(directory: Path) -> dict[str, Any]:
    """Return the facts about the file system that holds `directory` (sizes in bytes; what is not known is null)."""
    mount = mount_of(directory)
    space = os.statvfs(directory)
    return {
        **mount,
        "total_bytes": space.f_frsize * space.f_blocks or None,
        "free_bytes": free_bytes(directory),
        "device": _device(os.stat(directory).st_dev),
    }


def free_bytes(directory: Path) -> int | None:
    """Return the bytes that an unprivileged process may still write, None where the file system does not tell."""
    space = os.statvfs(directory)
    return space.f_frsize * space.f_bavail if space.f_blocks else None


def mount_of(directory: Path) -> dict[str, Any]:
    """Return {type, source, mount_point, options} of the mount that holds `directory` (proc(5), mountinfo)."""
    best: dict[str, Any] = {"type": "unknown", "source": None, "mount_point": None, "options": None}
    resolved = directory.resolve()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        fields, (fs_type, source, super_options) = left.split(), right.split(" ", 2)
        point = Path(_unescape(fields[4]))
        if resolved.is_relative_to(point) and len(point.parts) >= len(Path(best["mount_point"] or "").parts):
            options = ",".join(dict.fromkeys((fields[5] + "," + super_options).split(",")))
            best = {"type": fs_type, "source": source, "mount_point": str(point), "options": options}
    return best


def direct_alignment(path: Path) -> dict[str, int] | None:
    """Return {memory, offset} alignment in bytes for direct I/O on a file, null where statx(2) does not tell.

    Both 0: the file does not support direct I/O.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    result = ctypes.create_string_buffer(_STATX_SIZE)
    if not hasattr(libc, "statx") or libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_DIOALIGN, result):
        return None
    (mask,) = struct.unpack_from("I", result, 0)
    if not mask & _STATX_DIOALIGN:
        return None
    memory, offset = struct.unpack_from("II", result, _STATX_DIO_OFFSET)
    return {"memory": memory, "offset": offset}


def _device(number: int) -> dict[str, Any] | None:
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not link.exists():
        return None
    folder = link.resolve()
    name = folder.name
    if not (folder / "queue").exists():
        folder = folder.parent  # a partition: its disk has the queue
    return {
        "name": name,
        "model": _text(folder / "device/model"),
        "rotational": _number(folder / "queue/rotational"),
        "logical_block_size": _number(folder / "queue/logical_block_size"),
        "max_segments": _number(folder / "queue/max_segments"),
        "read_ahead_kb": _number(folder / "queue/read_ahead_kb"),
        "write_cache": _text(folder / "queue/write_cache"),
        "virtual": bool(re.match(r"(vd|xvd|nbd)", name))
        or _text(folder / "device/vendor") in {"QEMU", "VMware", "Msft"},
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
