"""The page in a real Chromium: the token, the shell, and the tab Log by keyboard and pointer, light and dark."""

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.services.live import Live
from tests.services.tunnel import Tunnel

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = pytest.mark.browser
CONFIGS = "/api/v1/log/configs"


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "log", tcp=0) as live:
        put(live, "debug-inference", 0, 3000, run="laptop-*", benchmark="inference")
        for number in range(6):
            send(live, number % 3, f"repetition {number}")
        yield live


def put(server, name, level, seconds, **match):
    end = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    body = {"logLevel": level, "expires_at": end, "match": match}
    assert server.ask("PUT", f"{CONFIGS}/{name}", body).status == 200


def send(server, level, msg, run="laptop-1", **fields):
    statement = {"level": level, "msg": msg, "run": run, "benchmark": "inference", "batch": "chat", **fields}
    return server.post("/api/v1/log", statement).json()


def address(server):
    return re.search(r"http://127\.0\.0\.1:\d+/", server.said())[0]


@pytest.fixture
def open_page(browser, server):
    """A function that opens the page; the test fails when it complained or asked for anything of others."""
    contexts, said, asked = [], [], []

    def opened(fragment=None, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(address(server) + (f"#token={server.token()}" if fragment is None else fragment))
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    opened.said = said
    yield opened
    for context in contexts:
        context.close()
    assert [text for text in said if "401" not in text] == []
    assert all(url.startswith((address(server), "data:")) for url in asked)
    assert not any(server.token() in url.partition("#")[0] for url in asked)


def lines(page):
    return page.locator(".lines li")


def expect(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def test_the_token_leaves_the_address_and_is_in_no_cookie(open_page, server):
    page = open_page()
    assert page.url == address(server)
    assert page.evaluate("sessionStorage.getItem('aifbench-token')") == server.token()
    assert page.evaluate("document.cookie") == ""
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.wait_for_selector("html[data-ready=log]", state="attached")
    assert page.title() == "Log · aifbench"


@pytest.mark.parametrize(
    ("token", "said"), [("wrong", "not the server's"), ("cut…", "is not whole"), ("", "is not whole")]
)
def test_a_wrong_token_in_the_address_is_said_to_be_wrong(open_page, token, said):
    page = open_page(f"#token={token}")
    page.get_by_role("alert").wait_for()
    assert said in page.get_by_role("alert").inner_text()
    assert "token=" not in page.url


def test_without_a_token_it_is_asked_for(open_page, server):
    page = open_page("")
    assert page.title() == "Token · aifbench"
    assert page.locator("nav a").count() == 0
    page.keyboard.type("wrong-token")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "not the server's" in page.get_by_role("alert").inner_text()
    page.get_by_label("Token").fill(server.token())
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector("html[data-ready=log]", state="attached")


def test_statements_of_before_and_of_now_are_there_once(open_page, server):
    page = open_page()
    expect(lambda: lines(page).count() == 7)
    for number in range(6, 10):
        send(server, 2, f"repetition {number}")
    expect(lambda: lines(page).count() == 11)
    texts = lines(page).locator(".msg").all_inner_texts()
    assert texts[1:] == [f"repetition {number}" for number in range(10)]
    assert lines(page).last.locator(".state").inner_text() == "error"


def test_hostile_text_is_shown_and_does_nothing(open_page, server):
    page = open_page()
    expect(lambda: lines(page).count() == 7)
    send(server, 1, "<img src=x onerror=alert(1)>\n\x1b[31m\u202egnp.exe\x9b", case="<b>c</b>")
    expect(lambda: lines(page).count() == 8)
    last = lines(page).last
    assert last.locator(".msg").inner_text() == "<img src=x onerror=alert(1)>\\u000a\\u001b[31m\\u202egnp.exe\\u009b"
    assert last.locator("img, b").count() == 0


def test_filters_of_level_and_run(open_page, server):
    page = open_page()
    expect(lambda: lines(page).count() == 7)
    page.get_by_label("Show").select_option("2")
    expect(lambda: lines(page).count() == 2)
    send(server, 1, "below")
    send(server, 2, "above")
    expect(lambda: lines(page).count() == 3)
    assert lines(page).last.locator(".msg").inner_text() == "above"
    page.get_by_label("Show").select_option("0")
    put(server, "other", 0, 60, run="other")
    send(server, 0, "of another run", run="other")
    page.locator("#log-run").fill("other")
    expect(lambda: lines(page).locator(".msg").all_inner_texts() == ["of another run"])


def test_pause_holds_and_loses_nothing(open_page, server):
    page = open_page()
    expect(lambda: lines(page).count() == 7)
    page.get_by_role("button", name="Pause").click()
    send(server, 0, "held")
    page.get_by_role("button", name="Go on (1)").wait_for()
    assert lines(page).count() == 7
    page.get_by_role("button", name="Go on (1)").click()
    expect(lambda: lines(page).last.locator(".msg").inner_text() == "held")


def test_a_configuration_is_set_seen_counted_down_and_deleted(open_page, server):
    page = open_page()
    page.locator("#config-name").fill("from-page")
    page.locator("#config-level").select_option("1")
    page.get_by_role("button", name="Until 8 h from now").click()
    page.locator("#config-benchmark").fill("storage")
    page.locator("#config-name").press("Enter")
    row = page.locator("tr[data-config=from-page]")
    row.wait_for()
    cells = row.locator("td").all_inner_texts()
    assert cells[:2] == ["warning and above", "benchmark storage"]
    assert cells[3] in {"8 h 00 min", "7 h 59 min"}
    kept = server.get(f"{CONFIGS}/from-page").json()
    assert (kept["logLevel"], kept["match"]) == (1, {"benchmark": "storage"})
    assert abs(kept["remaining_s"] - 8 * 3600) < 30
    page.get_by_role("button", name="Delete from-page").click()
    row.wait_for(state="detached")
    assert server.get(f"{CONFIGS}/from-page").status == 404


def test_a_reason_stands_at_its_field(open_page, server):
    page = open_page()
    page.locator("#config-name").fill("late")
    page.locator("#config-until").fill("2020-01-01T12:00:00")
    page.get_by_role("button", name="Set", exact=True).click()
    problem = page.locator("form.config .problem")
    problem.wait_for()
    assert "is in the past" in problem.inner_text()
    assert page.locator("#config-until").get_attribute("aria-invalid") == "true"
    assert page.locator("#config-until").evaluate("(node) => node === document.activeElement")
    open_page.said.clear()  # Chromium tells each answer above 399


def test_an_expiry_and_a_change_by_others_are_seen_without_reloading(open_page, server):
    page = open_page()
    put(server, "brief", 0, 2)
    row = page.locator("tr[data-config=brief]")
    row.wait_for()
    expect(lambda: row.locator("td").nth(3).inner_text() == "over")
    expect(lambda: "'brief' is over" in lines(page).last.inner_text())


def test_those_that_are_over_are_told_and_cleared(open_page, server):
    page = open_page()
    told = page.locator(".warning")
    page.locator("tr[data-config=debug-inference]").wait_for()
    assert not told.is_visible()
    put(server, "brief", 0, 0.5)
    put(server, "short", 0, 0.6)
    told.get_by_text("Over: brief, short. A job that only such a configuration is about writes errors only.").wait_for()
    told.get_by_role("button", name="Clear those that are over").click()
    told.wait_for(state="hidden")
    assert page.locator("tr[data-config]").count() == 1
    assert [config["name"] for config in server.get(CONFIGS).json()["configs"]] == ["debug-inference"]


def test_the_page_says_who_sends_and_what_is_written_without_a_configuration(open_page, server):
    page = open_page()
    page.get_by_text(
        "Sent by other programs (docs/log.md says how) since the service has started: 6 written"
    ).wait_for()
    page.get_by_role("button", name="Delete debug-inference").click()
    page.get_by_text("What other programs send to this service is not written.").wait_for()
    assert send(server, 2, "sent for nothing")["filtered"] == 1


def test_a_broken_file_is_told(open_page, server):
    page = open_page()
    file = server.project / "config" / "logging.yaml"
    file.parent.mkdir()
    file.write_text("configs: [{name: x, logLevel: 7, expires_at: 2036-01-01T00:00:00Z}]")
    expect(lambda: server.get(CONFIGS).json()["file"]["problem"])
    page.reload()
    page.locator("section .problem").first.wait_for()
    told = "configs.0.logLevel: 7 is no level (0: info and above, 1: warnings and errors, 2: errors)"
    assert told in page.locator("section .problem").first.inner_text()


def test_through_a_tunnel_the_page_goes_on_after_a_restart_and_never_sends_the_token(browser, tmp_path):
    with Live(tmp_path, "log") as server, Tunnel(server.socket) as tunnel:
        put(server, "all", 0, 600)
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://localhost:{tunnel.port}/#token={server.token()}")
        page.locator(".push .state.live").wait_for()
        server.stop()
        page.locator(".push .state.warn").wait_for()
        server.start()
        page.locator(".push .state.live").wait_for()
        threading.Timer(0.2, send, (server, 0, "after the restart")).start()
        expect(lambda: "after the restart" in page.locator(".lines").inner_text())
        context.close()
        assert b"aifbench-hmac nonce=" in tunnel.sent
        assert server.token().encode() not in tunnel.sent


def test_everything_is_reached_by_keyboard(open_page):
    page = open_page()
    expect(lambda: lines(page).count() == 7)
    reached, unseen = [], []
    name = "(document.activeElement.id || document.activeElement.className || document.activeElement.textContent)"
    for _ in range(32):  # the field of a date has eight stops
        page.keyboard.press("Tab")
        reached.append(page.evaluate(name))
        if page.evaluate("document.activeElement !== document.body"):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            unseen += [reached[-1]] if outline == "none" else []
    unseen = [one for one in unseen if one != "config-until"]  # its button has an outline of Chromium's own
    for wanted in ("skip", "Delete", "config-name", "config-until", "config-service", "log-level", "log-run", "lines"):
        assert any(wanted in one for one in reached), (wanted, reached)
    assert unseen == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_hangs_over(open_page, server, scheme, width):
    put(server, "brief", 2, 0.1)
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    expect(lambda: lines(page).count() >= 8)
    page.locator(".warning").wait_for()
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_nothing_where_the_token_is_asked_for(open_page):
    page = open_page("")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_a_page_of_another_origin_cannot_ask_or_show_this_one(browser, server):
    """From another port of this host, with the token stolen: the browser says where it comes from, and is refused."""
    import http.server

    target = address(server)

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = f"<title>evil</title><iframe src='{target}'></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://localhost:{evil.server_port}/")
        script = """async ([url, headers, method]) => {
            const mode = Object.keys(headers).length ? "cors" : "no-cors";
            try { return (await fetch(url, {method, headers, mode})).status; } catch (error) { return String(error); }
        }"""
        stolen = {"Authorization": f"Bearer {server.token()}"}
        for method in ("GET", "POST", "DELETE"):
            found = page.evaluate(script, [f"{target}api/v1/log/configs/debug-inference", stolen, method])
            assert "Failed to fetch" in found
        page.evaluate(script, [f"{target}api/v1/log", {}, "POST"])
        framed = page.frames[1] if len(page.frames) > 1 else None
        assert framed is None or "aifbench" not in framed.content()
        context.close()
        evil.shutdown()
    assert server.get(f"{CONFIGS}/debug-inference").status == 200
    assert json.loads(server.get("/api/v1/log/status").body)["statements"]["written"] == 6
