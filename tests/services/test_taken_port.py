"""A port of the loopback that another user takes when its server has ended, while a page of it is still open."""

import json
import time

import pytest

from tests.services.checkout import checkout
from tests.services.live import Live
from tests.services.stranger import Squatter, needs_root

pytestmark = [pytest.mark.browser, needs_root]


def answer(status, kind, body):
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "given",
    [
        answer("200 OK", "application/json", json.dumps({"services": ["log"], "path": "/evil", "runs": []})),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\naifbench-proof: 00\r\n\r\ndata: {}\n\n",
    ],
    ids=["answers", "streams"],
)
def test_the_open_page_sends_no_secret_and_stops_for_good(browser, tmp_path, given):
    checkout(tmp_path / "project")
    kept = tmp_path / "kept"
    with Live(tmp_path, tcp=0) as server:
        (server.results / "x").mkdir()
        (server.results / "x" / "plan.json").write_text('{"cases": [], "batches": [], "totals": {}}')
        token, port = server.token(), server.port
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#token={token}")
        page.locator("nav a", has_text="Log").click()
        page.locator(".push .state.live").wait_for()
        server.stop()
        assert not server.tokens.exists()
        with Squatter(port, given, kept) as squatter:
            page.get_by_role("heading", name="The server has ended").wait_for()
            assert "something else answers" in page.get_by_role("alert").inner_text()
            assert squatter.requests()[0].startswith("GET /api/v1/")
            assert page.evaluate("sessionStorage.length") == 0
            asked = len(squatter.requests())
            page.evaluate("location.hash = '#/launch'")
            page.evaluate("import('./common.js').then((common) => common.openReport('x'))")
            page.evaluate("import('./common.js').then((common) => common.api('services')).catch(() => null)")
            time.sleep(2.5)  # a stream would have asked again by now
            assert len(squatter.requests()) == asked
            assert len(context.pages) == 1
            assert token not in kept.read_text()
            assert "earer" not in kept.read_text()
        context.close()


def test_a_new_start_on_the_same_port_is_another_server_to_the_page(browser, tmp_path):
    with Live(tmp_path, "log", tcp=0) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/#token={server.token()}")
        page.locator(".push .state.live").wait_for()
        server.stop()
        server.tcp = server.port
        server.start()
        page.get_by_role("heading", name="The server has ended").wait_for()
        page.evaluate(f"location.hash = '#token={server.token()}'")  # the address of the new one, in the same tab
        page.locator(".push .state.live").wait_for()
        context.close()


def test_a_link_that_is_good_once_opens_the_page_once(browser, tmp_path):
    seen, program = tmp_path / "seen", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.new && mv {seen}.new {seen}\n')
    program.chmod(0o755)
    with Live(tmp_path, "log", here=True, environment={"DISPLAY": ":99", "BROWSER": str(program)}) as server:
        deadline = time.monotonic() + 30
        while not seen.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        link = seen.read_text()
        context = browser.new_context()
        page = context.new_page()
        page.goto(link)
        page.locator(".push .state.live").wait_for()
        assert page.url == link.partition("#")[0]
        page.reload()
        page.locator(".push .state.live").wait_for()
        later = browser.new_context()
        page = later.new_page()
        page.goto(link)
        page.get_by_role("alert").wait_for()
        assert "was used already" in page.get_by_role("alert").inner_text()
        assert server.process.poll() is None
        context.close()
        later.close()
