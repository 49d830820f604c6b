"""Show a results folder in a browser, through a socket that only its owner can open: `aifbench view`.

On a login node a port is open to everybody who is logged in there; a Unix socket with mode 0600 in a folder of one's
own is not. SSH carries it to a port of the reader's own machine. Read only; nothing outside the folder is given.
"""

from __future__ import annotations

import os
import signal
import socketserver
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from aifbench.services.reach import browser_is_here, can_show, show, tunnel
from aifbench.services.settings import private_folder

HOSTS = {"localhost", "127.0.0.1"}
"""Names under which a tunnel is opened; a page of somebody else that makes a browser come here uses its own."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "open it as localhost")
            return False
        return True

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
    handler = partial(_Handler, directory=str(results.absolute()))
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
