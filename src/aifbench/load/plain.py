"""A plain request outside of any measurement: small answers about a server."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Any

import orjson

from aifbench.load.http import Target


def get(target: Target, path: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    """Return (status, body) of a GET, past any proxy. Raises OSError or http.client.HTTPException."""
    connection: http.client.HTTPConnection
    if target.tls:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    try:
        connection.request("GET", target.path + path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get_json(
    target: Target, path: str, headers: Mapping[str, str] | None = None, timeout_s: float = 5.0
) -> dict[str, Any] | None:
    """Return the JSON object that a GET gives, or None when it gives anything else."""
    try:
        status, body = get(target, path, headers or {}, timeout_s)
        value = orjson.loads(body)
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
        return None
    return value if status == 200 and isinstance(value, dict) else None
