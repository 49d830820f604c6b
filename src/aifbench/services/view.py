"""Show one results folder in a browser, without the services: `aifbench view`.

It is served as they are: on a Unix socket that only its owner can open, by the same guard. No token is needed, since
the kernel says who connects; nothing can be changed, and nothing outside the folder is given, not by a link either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.responses import Response

from aifbench.files.beneath import folder_beneath, open_beneath
from aifbench.services.guard import Guard
from aifbench.services.problems import Problem, answer_problems
from aifbench.services.reach import browser_is_here, can_show, show, tunnel
from aifbench.services.result_files import entries_beneath, file_answer, listing, report_answer
from aifbench.services.serve import NEAR_PORT, bind_private, carry, end_on, quiet_logging
from aifbench.services.settings import Limits, private_folder

INDEX = "index.html"


def serve(results: Path, folder: Path, say: Callable[[str], None], here: bool | None = None) -> None:
    """Serve `results` on a socket in `folder`, which is made for the owner alone, until it is interrupted or ended.

    `here`: the browser is on this machine (default: found out), where it opens the file itself.
    """
    here = browser_is_here() if here is None else here
    path = private_folder(folder, ours=False) / f"view-{os.getpid()}.sock"

    def tell() -> None:
        if here:
            report = (results.absolute() / "report" / INDEX).as_uri()
            say(f"open:                  {report}")
            if can_show():
                show(report)
        say(f"{'from another machine' if here else 'on your own machine'}:  {tunnel(NEAR_PORT, path)}")
        say("                       (with the options and the address that you log in with, such as -p 8822)")
        say(f"then open there:       http://localhost:{NEAR_PORT}/report/{INDEX}")
        say("Ctrl-C ends it.")

    with contextlib.closing(bind_private(path)) as listener, contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_run(create_view(results.absolute()), listener, tell))
        finally:
            path.unlink(missing_ok=True)
    say("ended")


async def _run(app: FastAPI, listener: socket.socket, tell: Callable[[], None]) -> None:
    quiet_logging()
    ended = end_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    tell()
    await carry(app, [listener], Limits(), ended)


def create_view(results: Path) -> FastAPI:
    """Return the application that shows a results folder to who comes through a socket of their own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.streams = set()
    app.add_middleware(Guard, tokens=None, port_tokens=None, limits=Limits())
    answer_problems(app)

    @app.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def file(path: str) -> Response:
        return await run_sync(_answer, results, path)

    return app


def _answer(results: Path, path: str) -> Response:
    """Return a file, or the report or the list of a folder (its path ends in a slash)."""
    *folder, name = path.split("/")
    with contextlib.suppress(OSError):
        if name == INDEX:
            return report_answer(open_beneath(results, *folder, name))
        if name:
            return file_answer(name, open_beneath(results, *folder, name))
        with contextlib.suppress(FileNotFoundError):
            return report_answer(open_beneath(results, *folder, INDEX))
        return listing(path or results.name, entries_beneath(results, *folder))
    with contextlib.suppress(OSError), folder_beneath(results, *folder, name):
        to = quote(path.lstrip("/"))  # `//host/` would lead to another host
        return Response(status_code=301, headers={"location": f"/{to}/"})
    raise Problem(404, "no such file here")
