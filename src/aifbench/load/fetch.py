"""A plain request outside of any measurement: small answers about a server."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any

import orjson

from aifbench.load.http import Target

MOST_BYTES = 8 << 20
"""Of an answer; what is longer is cut, and then no JSON."""


def ask(target: Target, path: str, timeout_s: float, body: bytes | None = None) -> tuple[int, bytes]:
    """Return (status, body) of a GET, or of a POST of JSON, past any proxy.

    Each address of the host is tried in turn. Raises OSError or http.client.HTTPException.
    """
    connection: http.client.HTTPConnection
    if target.tls:
        context = ssl.create_default_context(cafile=target.ca_file)
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    try:
        method = "GET" if body is None else "POST"
        connection.putrequest(method, target.full(path), skip_host=True, skip_accept_encoding=True)
        for name, value in target.fields(body):
            connection.putheader(name, value)
        connection.endheaders(body)
        deadline = time.monotonic() + timeout_s
        response = connection.getresponse()
        return response.status, _read(response, deadline)
    finally:
        connection.close()


def ask_json(target: Target, path: str, body: Any = None, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Return the JSON object that a server answers, or None when it answers anything else."""
    try:
        status, answer = ask(target, path, timeout_s, None if body is None else orjson.dumps(body))
        value = orjson.loads(answer)
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
        return None
    return value if status == 200 and isinstance(value, dict) else None


def objects(value: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a list in an answer, none where it holds anything else."""
    listed = (value or {}).get(key)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    parts, size = [], 0
    while size < MOST_BYTES and (part := response.read1(65536)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    return b"".join(parts)
