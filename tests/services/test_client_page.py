"""The tab Launch in a real Chromium on a real server: from the form to the report, by pointer and by keyboard."""

import json
import re
import time

import pytest

from tests.services.checkout import checkout
from tests.services.live import Live
from tests.services.test_client_live import end_all, launch, wait_for

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = pytest.mark.browser


@pytest.fixture
def server(tmp_path):
    checkout(tmp_path / "project")
    with Live(tmp_path, "client", tcp=0) as live:
        yield live
        end_all(live)


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def page(context, server):
    """The tab, loaded; the test fails when the page raised an error or broke its own policy."""
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{address(server)}/#token={server.token()}")
    page.wait_for_selector(".figures dd")
    yield page
    # A value that is refused on purpose is a 4xx, and the browser writes it down.
    assert [text for text in said if "status of 4" not in text] == []


def address(server):
    return "http://127.0.0.1:" + server.said().split("127.0.0.1:")[1].split("/")[0]


def question(page, place):
    return page.locator(f"[data-place='{place}']")


def checked(page, change):
    """Make a change and wait until the server has judged the form again."""
    before = page.locator(".launch").get_attribute("data-checked") or "0"
    change()
    page.locator(f".launch[data-checked]:not([data-checked='{before}'])").wait_for()


def set_values(page, place, *values):
    row = question(page, place)
    while row.locator("li").count():
        row.get_by_role("button", name="remove").first.click()
    for value in values:
        row.locator("input").fill(value)
        row.locator("input").press("Enter")


def figure(page, name):
    return page.locator(f".figures dt:text-is('{name}') + dd").inner_text()


def violations(page):
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], one["help"], [node["target"] for node in one["nodes"]]) for one in found]


def test_the_form_is_that_of_the_schema(page):
    assert page.locator("[name=start]").count() == 7 + 3
    assert page.locator("[value=inference-gpu]").is_disabled()
    assert question(page, "config.mode").get_by_role("button", pressed=True).all_inner_texts() == ["direct", "warm"]
    assert question(page, "config.file_size").locator("li").all_inner_texts() == ["64MiB\n×"]
    assert question(page, "resources.job.cores").count() == 0  # no scheduler on this machine
    page.get_by_text("More parameters").click()
    assert question(page, "config.layout").get_by_role("button").all_inner_texts() == ["file-per-client", "shared"]
    assert question(page, "config.path").count() == 0  # a place is no matter of the form
    page.locator("[value=inference-quick]").check()
    question(page, "config.engine.kind").wait_for()
    assert question(page, "config.engine.slots").locator("input").input_value() == "4"
    assert question(page, "config.engine.slots").locator("input").get_attribute("max") == "256"
    page.get_by_label("Engine").select_option("ollama")
    assert question(page, "config.engine.parallel").count() == 1
    assert question(page, "config.engine.slots").count() == 0


def test_a_preset_with_a_slip_is_one_card(page, server):
    (server.project / "config" / "presets" / "broken.yaml").write_text("title: broken\n  text: [\n")
    page.reload()
    page.wait_for_selector(".figures dd")
    card = page.locator(".broken .start")
    assert card.count() == 1
    assert "invalid config" in card.inner_text()
    assert "config/presets/broken.yaml: line 2: not valid YAML" in card.inner_text()
    assert page.locator("[name=start]").count() == 7 + 3
    assert page.get_by_role("button", name="Launch").is_enabled()
    assert violations(page) == []


def test_values_change_the_plan(page):
    assert figure(page, "Cases") == "2, 6 repetitions"
    checked(page, lambda: question(page, "config.mode").get_by_role("button", name="buffered-cold").click())
    assert figure(page, "Cases") == "3, 9 repetitions"
    checked(page, lambda: set_values(page, "clients", "1", "2", "4"))
    checked(page, lambda: page.get_by_label("Repetitions").fill("2"))
    assert figure(page, "Cases") == "9, 18 repetitions"
    page.get_by_text("The campaign as YAML").click()
    shown = page.locator(".summary pre").inner_text()
    assert re.search(r"axes:.*mode:\s+- direct\s+- buffered-cold\s+- warm", shown, re.DOTALL)
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("in the clipboard").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".summary pre").text_content()


def test_what_an_emptied_field_stands_for_is_said(page):
    size = question(page, "config.file_size")
    checked(page, lambda: size.get_by_role("button", name="remove").click())
    assert size.locator("input").get_attribute("placeholder") == "64MiB (preset)"
    assert size.locator("input").bounding_box()["width"] == 260  # not cut
    mode = question(page, "config.mode")
    checked(page, lambda: mode.get_by_role("button", name="direct").click())
    checked(page, lambda: mode.get_by_role("button", name="warm").click())
    assert mode.locator(".fallback").evaluate_all("all => all.map((one) => one.dataset.source)") == [" (preset)"] * 2
    checked(page, lambda: page.get_by_label("Repetitions").fill(""))
    assert page.get_by_label("Repetitions").get_attribute("placeholder") == "3 (preset)"
    assert figure(page, "Cases") == "2, 6 repetitions"
    page.locator("[value=inference-quick]").check()
    slots = question(page, "config.engine.slots").locator("input")
    slots.wait_for()
    assert slots.get_attribute("placeholder") == "4 (preset)"


def test_enter_in_a_field_launches_nothing(page, server):
    asked = []
    page.on("request", lambda request: asked.append((request.method, request.url.rpartition("/")[2])))
    field = page.get_by_label("Repetitions")
    checked(page, lambda: field.fill("2"))
    field.press("Enter")
    checked(page, lambda: field.fill("1"))
    assert ("POST", "runs:validate") in asked
    assert ("POST", "runs") not in asked


def test_a_start_whose_form_is_not_there_yet_is_not_launched(page):
    def late(route):
        time.sleep(0.5)
        route.continue_()

    page.route("**/menu/retrieval/schema", late)
    button = page.get_by_role("button", name="Launch")
    assert button.is_enabled()
    page.locator("[value=retrieval-quick]").check()
    assert button.is_disabled()
    question(page, "config.index").wait_for()
    page.locator(".summary button.main:enabled").wait_for()


@pytest.mark.slow
def test_the_panel_says_started_when_it_is(page):
    """Telling the seconds went on while the list of runs was asked for, and its last word stayed."""

    def late(route):
        if route.request.method == "GET":
            time.sleep(1.5)
        route.continue_()

    checked(page, lambda: set_values(page, "config.file_size", "1MiB"))
    page.route("**/api/v1/runs", late)
    page.get_by_role("button", name="Launch").click()
    row = page.locator("[data-run]")
    row.wait_for()
    page.get_by_label("open the report of").and_(page.locator(":focus")).wait_for()
    assert page.locator(".summary [role=status] .help").inner_text() == f"Started: {row.get_attribute('data-run')}"


def test_what_varies_and_where_files_go_is_said(page):
    assert figure(page, "Varied") == "mode (2)"
    checked(page, lambda: page.locator("[value=retrieval-quick]").check())
    assert figure(page, "Varied") == "index (2), search.HNSW32.efSearch (2)"
    assert "A file is named in a preset, not here" in question(page, "config.dataset").inner_text()


def test_the_form_comes_back_as_it_was_left(context, tmp_path):
    checkout(tmp_path / "project")
    with Live(tmp_path, "client", "log", tcp=0) as live:
        page = context.new_page()
        page.goto(f"{address(live)}/#token={live.token()}")
        page.wait_for_selector(".figures dd")
        checked(page, lambda: page.locator("[value=storage-full]").check())
        checked(page, lambda: set_values(page, "clients", "3"))
        checked(page, lambda: page.get_by_label("Repetitions").fill("7"))
        page.get_by_role("link", name="Log").click()
        page.locator(".tab.log").wait_for()
        page.get_by_role("link", name="Launch").click()
        page.wait_for_selector(".figures dd")
        assert page.locator("[name=start]:checked").get_attribute("value") == "storage-full"
        assert question(page, "clients").locator("li").all_inner_texts() == ["3\n×"]
        assert page.get_by_label("Repetitions").input_value() == "7"
        checked(page, lambda: page.get_by_label("Repetitions").fill("2"))  # it is still judged
        checked(page, lambda: page.locator("[value=storage-quick]").check())
        assert page.get_by_label("Repetitions").input_value() == "3"


def test_a_problem_is_said_at_its_field(page):
    checked(page, lambda: set_values(page, "config.block_size", "3MiB"))
    wrong = page.locator(".question.wrong")
    assert wrong.count() == 1
    assert "must be a multiple of block_size" in wrong.locator(".problem").inner_text()
    field = wrong.locator("input")
    assert field.get_attribute("aria-invalid") == "true"
    assert wrong.locator(".problem").get_attribute("id") in field.get_attribute("aria-describedby")
    assert page.get_by_role("button", name="Launch").is_disabled()
    assert violations(page) == []
    checked(page, lambda: set_values(page, "config.block_size", "1MiB"))
    assert page.locator(".question.wrong").count() == 0
    assert page.get_by_role("button", name="Launch").is_enabled()
    checked(page, lambda: set_values(page, "clients", "65"))
    assert "at most 64" in question(page, "clients").locator(".problem").inner_text()


def in_launch(page):
    return page.get_by_role("group", name="In this launch")


def asks(page, change, **wanted):
    """Make a change and wait until the form asks for a launch with these fields; return what it asks for."""
    found = {}

    def has(request):
        if not request.url.endswith("runs:validate"):
            return False
        found.update(request.post_data_json)
        return {key: request.post_data_json.get(key) for key in wanted} == wanted

    with page.expect_request(has):
        change()
    return found


def test_several_benchmarks_in_one_launch(page):
    disk, neighbours = (
        {"preset": "storage-quick", "config": {}, "clients": 2},
        {"preset": "retrieval-quick", "config": {}},
    )
    asks(page, lambda: set_values(page, "clients", "2"), **disk)
    add = page.get_by_role("button", name="Add another benchmark")
    asks(page, add.click, services=[disk, neighbours], profile="laptop", preset=None)
    page.locator(".figures").get_by_text("5, 15 repetitions").wait_for()
    assert figure(page, "Varied").startswith("storage-quick: mode (2), retrieval-quick: index (2)")
    assert in_launch(page).get_by_role("button", pressed=True).inner_text() == "2 · Retrieval in a minute"
    assert page.locator("[name=start]:checked").get_attribute("value") == "retrieval-quick"
    neighbours = {**neighbours, "config": {"axes": {"top_k": [1, 5]}}}
    asks(page, lambda: set_values(page, "config.top_k", "1", "5"), services=[disk, neighbours])
    cores = question(page, "resources.clients.cores").locator("input")
    neighbours = {**neighbours, "resources": {"clients": {"cores": 1}}}
    asks(page, lambda: cores.fill("1"), services=[disk, neighbours])
    page.get_by_text("Seed and budget").click()
    asks(page, lambda: page.get_by_label("Budget").fill("1.5"), services=[disk, neighbours], node_hours=1.5)
    # The first comes back as it was left; a card is about the one that is shown.
    in_launch(page).get_by_role("button", name="1 · Storage in a minute", exact=True).click()
    assert question(page, "clients").locator("li").all_inner_texts() == ["2\n×"]
    full = {"preset": "storage-full", "config": {}}
    asks(page, page.locator("[value=storage-full]").check, services=[full, neighbours])
    assert violations(page) == []
    asks(page, in_launch(page).get_by_role("button", name="remove 1").click, **neighbours, services=None)
    assert in_launch(page).get_by_role("button", name="remove").count() == 0
    # The same benchmark may be in a launch twice; its second is told apart.
    for _ in range(3):
        checked(page, add.click)
    page.get_by_text("The campaign as YAML").click()
    names = re.findall(r"^- name: (\S+)", page.locator(".summary pre").inner_text(), re.MULTILINE)
    assert len(names) == len(set(names)) == 4


def test_a_problem_names_the_benchmark_that_has_it(page):
    checked(page, lambda: page.get_by_role("button", name="Add another benchmark").click())
    checked(page, lambda: set_values(page, "config.top_k", "30000"))
    in_launch(page).get_by_role("button", name="1 · Storage in a minute", exact=True).click()
    assert page.locator(".question.wrong").count() == 0
    wrong = in_launch(page).locator("li.wrong")
    assert wrong.inner_text().startswith("2 · Retrieval in a minute")
    assert page.locator(".summary .problem").inner_text().startswith("2 · Top k: 30000")
    assert page.locator(".summary button.main").is_disabled()
    wrong.get_by_role("button", name="2 ·").first.click()
    assert "30000" in question(page, "config.top_k").locator(".problem").inner_text()
    assert violations(page) == []
    checked(page, lambda: in_launch(page).get_by_role("button", name="remove 2").click())
    assert page.locator(".summary button.main").is_enabled()
    assert in_launch(page).locator("li.wrong").count() == 0


def test_keys_as_json(page):
    page.get_by_text("More parameters").click()
    box = page.get_by_label("Further keys")
    checked(page, lambda: box.fill('{"exclude": [{"mode": "warm"}]}'))
    assert figure(page, "Cases") == "1, 3 repetitions"
    checked(page, lambda: box.fill('{"exclude": '))
    assert "Is not JSON" in question(page, "config").locator(".problem").inner_text()
    checked(page, lambda: box.fill('{"exclud": []}'))
    assert "did you mean 'exclude'?" in question(page, "config").locator(".problem").inner_text()


@pytest.mark.slow
def test_axe_finds_nothing_and_nothing_overflows(page, server):
    run = launch(server).json()["run_id"]
    page.reload()
    page.wait_for_selector(f"[data-run={run}] .counts .state.ok", timeout=60_000)
    page.get_by_text("More parameters").click()
    page.get_by_text("The campaign as YAML").click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    for width in (390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    checked(page, lambda: page.get_by_role("button", name="Add another benchmark").click())
    checked(page, lambda: page.locator("[value=inference-full]").check())
    assert in_launch(page).get_by_role("button", pressed=True).inner_text() == "2 · Inference, clients against latency"
    for scheme, width in (("light", 390), ("dark", 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert violations(page) == []


@pytest.mark.slow
def test_from_the_form_to_the_report(page, server, context):
    checked(page, lambda: set_values(page, "config.file_size", "1MiB"))
    checked(page, lambda: page.get_by_label("Repetitions").fill("2"))
    page.get_by_role("button", name="Launch").click()
    row = page.locator("[data-run]")
    row.wait_for()
    (run,) = [path.name for path in server.results.iterdir()]
    assert row.get_attribute("data-run") == run
    assert page.locator(":focus").get_attribute("aria-label") == f"open the report of {run}"
    row.locator("td:first-child .state.ok").wait_for(timeout=60_000)
    assert row.locator(".counts").inner_text() == "2 valid"
    assert row.get_by_role("button", name="cancel").is_hidden()
    with context.expect_page() as opened:
        row.get_by_role("button", name="report").click()
    report = opened.value
    # Waits look for elements: `wait_for_function` needs `eval` from its second look on, which the policy forbids.
    report.locator("html[data-ready=yes]").wait_for()
    assert report.title() == f"{run} · aifbench"
    # The report runs its scripts, and reaches neither this page's token nor its interface.
    assert report.evaluate("window.origin") == "null"
    tried = report.evaluate("fetch('/api/v1/runs').then(() => 'reached', () => 'kept out')")
    assert tried == "kept out"
    kept = report.evaluate("(() => { try { return sessionStorage.length } catch (error) { return error.name } })()")
    assert kept == "SecurityError"
    report.get_by_role("link", name="SVG").first.click()
    report.locator("svg").wait_for()
    report.go_back()
    report.get_by_role("link", name="batches", exact=True).click()
    report.get_by_role("link", name="storage-").click()
    report.get_by_role("link", name="cases.jsonl").click()
    report.get_by_text('"benchmark":"storage"').first.wait_for()


@pytest.mark.slow
def test_a_cancelled_run_is_continued_from_its_details(page, server):
    body = {"preset": "storage-quick", "config": {"axes": {"file_size": "1MiB"}, "repetitions": 15}}
    run = launch(server, body).json()["run_id"]
    assert wait_for(server, run, "running")
    server.post(f"/api/v1/runs/{run}:cancel", b"")
    wait_for(server, run, "cancelled")
    row = page.locator(f"[data-run={run}]")
    row.locator(".state.off").first.wait_for()
    row.get_by_role("button", name="details").click()
    dialog = page.locator("dialog")
    assert "repetitions: 15" in dialog.get_by_label("campaign as YAML").inner_text()
    assert "aifbench run" in dialog.get_by_label("end of the log").inner_text()
    assert violations(page) == []
    dialog.get_by_role("button", name="Continue").click()
    row.locator("td:first-child .state.ok").wait_for(timeout=60_000)
    row.get_by_role("button", name="details").click()
    dialog.get_by_role("button", name="Close").wait_for()
    assert dialog.get_by_role("button", name="Continue").count() == 0


def test_a_folder_without_a_checkout_says_what_to_do(context, tmp_path):
    with Live(tmp_path / "away", "client", tcp=0) as live:
        page, said = context.new_page(), []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{address(live)}/#token={live.token()}")
        page.get_by_text("Start it in a checkout of aifbench, or name one with --project.").wait_for()
        page.get_by_text("No run yet.").wait_for()
        assert said == []


@pytest.mark.slow
def test_cancel_asks_first(page, server):
    body = {"preset": "storage-quick", "config": {"axes": {"file_size": "1MiB"}, "repetitions": 500}}
    run = launch(server, body).json()["run_id"]
    page.reload()
    row = page.locator(f"[data-run={run}]")
    button = page.get_by_role("button", name="Launch")
    button.click()
    page.get_by_text("at most 1 at once").wait_for()
    assert button.is_enabled()  # what stands in the way may pass
    row.get_by_role("button", name="cancel").click()
    dialog = page.get_by_role("dialog")
    assert violations(page) == []
    assert page.locator(":focus").inner_text() == "Keep it going"
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert wait_for(server, run, "queued", "running")
    row.get_by_role("button", name="cancel").click()
    dialog.get_by_role("button", name="Cancel the run").click()
    row.locator(".state.off").first.wait_for(timeout=60_000)
    page.get_by_text("at most 1 at once").wait_for(state="hidden")
    page.locator(".summary button.main:enabled").wait_for()
    assert wait_for(server, run, "cancelled")


def test_by_keyboard_alone(page, server):
    page.locator("[value=storage-quick]").focus()
    page.keyboard.press("ArrowDown")
    page.locator("[value=storage-full]:checked").wait_for()
    checked(page, lambda: page.keyboard.press("ArrowUp"))
    size = question(page, "config.file_size").locator("input")
    size.focus()
    page.keyboard.press("Backspace")
    page.keyboard.type("1MiB")
    checked(page, lambda: page.keyboard.press("Enter"))
    assert question(page, "config.file_size").locator("li").all_inner_texts() == ["1MiB\n×"]
    page.get_by_role("button", name="Launch").focus()
    page.keyboard.press("Enter")
    page.locator("[data-run]").wait_for()
    page.get_by_text("Started: ").wait_for()


def test_a_token_that_may_only_read_is_told_so(context, server):
    page = context.new_page()
    page.goto(f"{address(server)}/#token={server.token('read')}")
    page.locator(".summary .problem").wait_for()
    assert "it needs the scope 'launch'" in page.locator(".summary .problem").inner_text()
    assert page.get_by_role("button", name="Launch").is_disabled()


def test_names_of_others_are_text(page, server):
    evil = "<img src=x onerror=alert(1)>"
    plan = {
        "cases": [{"case": "aaaaaaaaaaaa", "benchmark": evil, "repetitions": {"min": 1}}],
        "batches": [],
        "totals": {"expected_s": 1},
    }
    (server.results / "x").mkdir()
    (server.results / "x" / "plan.json").write_text(json.dumps(plan))
    page.reload()
    page.locator("[data-run=x]").wait_for()
    assert page.locator("img").count() == 0
    assert evil in page.locator("[data-run=x]").inner_text()
