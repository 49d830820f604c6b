"""JSON that carries its own checksum, so that a flipped digit is no silent number.

The last key of an object is `"sum"`: the CRC-32, in hex, of all bytes before it. It is no part of the content. What has
none was written by an earlier version, or by hand, and is taken as it is.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import orjson

from aifbench.core.damage import Damaged

KEY = "sum"
_SEAL = re.compile(rb',\s*"sum":\s*"([0-9a-f]{8})"\s*\}\s*\Z')
_LONGEST = 64
"""Bytes at the end among which a seal is looked for."""


def seal(text: bytes) -> bytes:
    """Return the JSON of an object that is not empty with its checksum as the last key."""
    body = text[: text.rindex(b"}")].rstrip()
    space = b"\n  " if b"\n" in body else b""
    end = b"\n}" if space else b"}"
    return body + b',%b"sum":%b"%08x"' % (space, space[:1] and b" ", zlib.crc32(body)) + end


def is_sealed(text: bytes) -> bool:
    """Return whether there is a checksum. Raises `Damaged` where it says that this is not what was written."""
    match = _SEAL.search(text, max(0, len(text) - _LONGEST))
    if match is not None and zlib.crc32(memoryview(text)[: match.start()]) != int(match[1], 16):
        raise Damaged("was changed after it was written: its checksum does not fit")
    return match is not None


def unseal(text: bytes) -> dict[str, Any]:
    """Return an object of JSON without its checksum. Raises `Damaged` where it is none, or not what was written."""
    if not text.strip():
        raise Damaged("is empty")
    sealed = is_sealed(text)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Damaged(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Damaged("is no JSON object")
    if sealed:
        del value[KEY]
    return value
