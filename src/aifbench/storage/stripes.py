"""Stripes of Lustre: over how many targets (OSTs) the files of a folder are spread, and how files came to lie.

Set and read through the attribute `lustre.lov`, as Lustre's own library does, so that nothing but the kernel is needed
inside a container. Layout of its value: `struct lov_user_md_v1` of lustre_user.h, the head of `lov_user_md_v3` too.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

FILE_SYSTEM = "lustre"
ATTRIBUTE = "lustre.lov"
EVERY = -1
"""As a number of stripes: one on each target."""
_HEAD = struct.Struct("=II16xIHH")  # magic, pattern, (id of the object), stripe size, stripe count, first target
_MAGIC_V1, _MAGIC_V3 = 0x0BD10BD0, 0x0BD30BD0
_RAID0 = 1
_ANY_TARGET = 0xFFFF


def set_stripes(folder: Path, count: int, size: int) -> None:
    """Let files that are made in `folder` from now on have `count` stripes of `size` bytes. Raises OSError."""
    os.setxattr(folder, ATTRIBUTE, _HEAD.pack(_MAGIC_V1, _RAID0, size, count & 0xFFFF, _ANY_TARGET))


def stripes_of(file: Path) -> dict[str, Any] | None:
    """Return {count, size} of a file on Lustre, {layout: other} for one with several components, None elsewhere."""
    try:
        value = os.getxattr(file, ATTRIBUTE)
    except OSError:
        return None
    if len(value) < _HEAD.size:
        return {"layout": "other"}
    magic, _, size, count, _ = _HEAD.unpack_from(value)
    return {"count": count, "size": size} if magic in {_MAGIC_V1, _MAGIC_V3} else {"layout": "other"}
