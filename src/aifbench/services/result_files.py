"""Files of a results folder as answers, each in a sandbox: a report has its scripts in itself, a file does nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from aifbench.files.beneath import list_beneath
from aifbench.files.tail import CHUNK

REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""In a sandbox a report has an origin of its own: it can reach neither page nor token."""
FILE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
HTML = "text/html; charset=utf-8"
TYPES = {
    "svg": "image/svg+xml",
    "json": "application/json",
    **dict.fromkeys(("jsonl", "log", "md", "txt"), "text/plain; charset=utf-8"),
    "csv": "text/csv; charset=utf-8",
}
"""Types of files by the end of their name; others are saved."""


def entries_beneath(root: Path, *parts: str) -> list[tuple[str, int | None]]:
    """Return names and sizes in bytes (None: a folder) of what can be shown of a folder. Raises FileNotFoundError."""
    return sorted(
        (name, None if stat.S_ISDIR(facts.st_mode) else facts.st_size)
        for name, facts in list_beneath(root, *parts)
        if name.isprintable() and (stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode))
    )


def listing(title: str, entries: list[tuple[str, int | None]]) -> Response:
    """Return a page that lists a folder."""
    rows = "".join(
        f'<li><a href="{quote(name)}/">{escape(name)}/</a></li>'
        if size is None
        else f'<li><a href="{quote(name)}">{escape(name)}</a> {size} bytes</li>'
        for name, size in entries
    )
    page = f"<!doctype html><title>{escape(title)}</title><h1>{escape(title)}</h1><ul>{rows}</ul>"
    return Response(page, media_type=HTML, headers={"content-security-policy": REPORT_POLICY})


def report_answer(file: BinaryIO) -> Response:
    """Return a report."""
    return _stream(file, HTML, REPORT_POLICY)


def file_answer(name: str, file: BinaryIO) -> Response:
    """Return a file as its name says what it is."""
    return _stream(file, TYPES.get(name.rpartition(".")[2], "application/octet-stream"), FILE_POLICY)


def _stream(file: BinaryIO, kind: str, policy: str) -> Response:
    """Return a file, which is read while it is sent, to the size that it has now."""
    size = os.fstat(file.fileno()).st_size

    def parts() -> Iterator[bytes]:
        with file:
            left = size
            while left and (part := file.read(min(left, CHUNK))):
                left -= len(part)
                yield part

    headers = {"content-length": str(size), "content-security-policy": policy}
    return StreamingResponse(parts(), media_type=kind, headers=headers)
