"""Show a results folder in a browser, through a socket that only its owner can open: `aifbench view`.

On a login node a port is open to everybody who is logged in there; a Unix socket with mode 0600 in a folder of one's
own is not. SSH carries it to a port of the reader's own machine. Read only; nothing outside the folder is given, not
by a link either.
"""

from __future__ import annotations

import mimetypes
import os
import signal
import socketserver
import stat
from collections.abc import Callable
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from aifbench.files import CHUNK, list_beneath, open_beneath
from aifbench.services.reach import browser_is_here, can_show, show, tunnel
from aifbench.services.settings import private_folder

HOSTS = {"localhost", "127.0.0.1"}
"""Names under which a tunnel is opened; a page of somebody else that makes a browser come here uses its own."""
INDEX = "index.html"
_HTML = "text/html; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, results: Path) -> None:
        self.results = results
        super().__init__(*args)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "open it as localhost")
            return False
        return True

    def do_GET(self) -> None:
        """Send a file, or the list of a folder (its path ends in a slash)."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send what is known of a file."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        parts = [unquote(part) for part in path.split("/")[1:]]
        try:
            file, kind = self._folder(parts[:-1]) if not parts or not parts[-1] else self._file(parts)
        except OSError:
            if self._is_folder(parts):
                self._redirect(f"{path}/")
            else:
                self.send_error(HTTPStatus.NOT_FOUND, "no such file here")
            return
        with file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if with_body:
                self._send(file, size)

    def _send(self, file: BinaryIO, size: int) -> None:
        """Send the bytes that were announced: a file may grow meanwhile, and one that shrank ends the connection."""
        while size and (piece := file.read(min(size, CHUNK))):
            self.wfile.write(piece)
            size -= len(piece)
        self.close_connection = self.close_connection or size > 0

    def _file(self, parts: list[str]) -> tuple[BinaryIO, str]:
        kind, packed = mimetypes.guess_type(parts[-1])
        plain = kind is not None and kind.startswith("text/")
        name = "application/octet-stream" if kind is None or packed else f"{kind}; charset=utf-8" if plain else kind
        return open_beneath(self.results, *parts), name

    def _folder(self, parts: list[str]) -> tuple[BinaryIO, str]:
        try:
            return open_beneath(self.results, *parts, INDEX), _HTML
        except FileNotFoundError:
            rows = [
                (name + "/" * stat.S_ISDIR(facts.st_mode))
                for name, facts in sorted(list_beneath(self.results, *parts))
                if name.isprintable() and (stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode))
            ]
        items = "".join(f'<li><a href="{quote(row)}">{escape(row)}</a></li>' for row in rows)
        title = escape("/".join(parts) or self.results.name)
        return BytesIO(f"<!doctype html><title>{title}</title><h1>{title}</h1><ul>{items}</ul>".encode()), _HTML

    def _is_folder(self, parts: list[str]) -> bool:
        try:
            list_beneath(self.results, *parts)
        except OSError:
            return False
        return True

    def _redirect(self, to: str) -> None:
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", f"/{to.lstrip('/')}")  # `//host/` would lead to another host
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def address_string(self) -> str:
        return "tunnel"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about single requests."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(results: Path, folder: Path, say: Callable[[str], None], here: bool | None = None) -> None:
    """Serve `results` on a socket in `folder`, which is made for the owner alone, until SIGINT or SIGTERM.

    `here`: the browser is on this machine (default: found out), where it opens the file itself.
    """
    here = browser_is_here() if here is None else here
    path = private_folder(folder, ours=False) / f"view-{os.getpid()}.sock"
    handler = partial(_Handler, results=results.absolute())
    before = os.umask(0o177)
    try:
        server = _Server(str(path), handler)
    finally:
        os.umask(before)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if here:
            report = (results.absolute() / "report" / "index.html").as_uri()
            say(f"open:                  {report}")
            if can_show():
                show(report)
        say(f"{'from another machine' if here else 'on your own machine'}:  {tunnel(8080, path)}")
        say("                       (with the options and the address that you log in with, such as -p 8822)")
        say("then open there:       http://localhost:8080/report/index.html")
        say("Ctrl-C ends it.")
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        say("ended")
    finally:
        server.server_close()
        path.unlink(missing_ok=True)
