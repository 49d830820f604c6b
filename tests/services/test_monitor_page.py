"""The tab Monitor in a real Chromium: what it shows, live, by keyboard, after a lost connection, to axe."""

import json
import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.fixtures.results import write_results
from tests.services.batches import GIB, Batch, write_plan
from tests.services.checkout import checkout
from tests.services.live import Live
from tests.services.tunnel import Tunnel

axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright is not installed")
pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202e\x1b[31m"
STEP = {"phase": "read", "case": "c0ffee000001", "repetition": 1, "since_s": 40.0, "expected_s": 30.0}


class World:
    """A server and batches in all states."""

    def __init__(self, folder, *services):
        self.server = Live(folder, *services)
        self.tunnel = Tunnel(self.server.socket)
        results = self.server.results
        gpus = [
            {"index": i, "utilization": 0.9, "memory_bytes": 30 * GIB, "memory_total_bytes": 40 * GIB, "power_w": 300.0}
            for i in range(2)
        ]
        self.chat = Batch(results, "chat", "inference-ollama-mistral-1a2b3c4d", benchmark="inference").start(ago_s=60)
        self.disk = Batch(results, "disk", "storage-target-1a2b3c4d").start(ago_s=60)
        self.stuck = Batch(results, "disk", "storage-scratch-99999999").start(ago_s=200)
        for i in range(60):
            phase = "write" if i < 40 else "read"
            step = {**STEP, "phase": phase, "since_s": 20.0 if i < 40 else 40.0} if i >= 20 else None
            self.chat.sample(float(i), gpu=gpus, records=3 * i)
            self.disk.sample(float(i), records=100 * i, step=step, cpu=0.5 + i % 5)
        self.disk.log("repetition 1: write_time_s 0.5")
        self.disk.log(HOSTILE, level=2, case="c0ffee000001")
        self.stuck.sample(100.0, step={**STEP, "since_s": 90.0})
        for path in (self.stuck.live, self.stuck.store.record_path):
            os.utime(path, (path.stat().st_mtime - 90,) * 2)
        lost = Batch(results, "disk", "storage-lost-55555555").start(lock=False, ago_s=30)
        lost.sample(3.0)
        good = Batch(results, "disk", "storage-good-77777777").start(ago_s=30)
        for i in range(10):
            good.sample(float(i))
        good.done("case-a", 1.0, 4.0)
        good.end()
        Batch(results, "disk", "storage-bad-66666666").start().end("client_error", f"worker ended: {HOSTILE}")
        write_plan(results, "disk", {"storage-later-33333333": 3})

    def __enter__(self):
        self.server.__enter__()
        self.tunnel.__enter__()
        return self

    def __exit__(self, *_):
        self.tunnel.__exit__()
        self.server.__exit__()


@pytest.fixture
def world(tmp_path, request):
    services = getattr(request, "param", ["monitor"])
    if "client" in services:
        checkout(tmp_path / "project")
    with World(tmp_path, *services) as made:
        yield made


@pytest.fixture
def visit(browser, world):
    """A function that opens the tab and checks, at the end, that the page neither complained nor asked elsewhere."""
    opened, said, asked = [], [], set()
    base = f"http://127.0.0.1:{world.tunnel.port}/"

    def visit(rest="", width=1360, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        opened.append(context)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda sent: asked.add(sent.url.split("/")[2]))
        page.goto(f"{base}#token={world.server.token()}")
        page.locator("nav a").first.wait_for()
        page.evaluate("(rest) => { location.hash = `#/monitor${rest}`; }", rest)
        one = rest and not rest.startswith("/run/")
        page.locator("[data-shown=job]" if one else "[data-shown=jobs]").wait_for()
        return page

    yield visit
    for context in opened:
        context.close()
    network = "Failed to load resource"  # the browser's own line about a lost connection or a problem
    assert [text for text in said if not text.startswith(network)] == []
    assert asked == {f"127.0.0.1:{world.tunnel.port}"}


def wait(page, expression, seconds=20):
    """Wait until an expression is true. Playwright's own way would need `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"still not: {expression}"
        page.wait_for_timeout(50)


def line(page, name):
    return page.locator(f"tr[data-job^={name}]")


def cell(page, name, label):
    return line(page, name).locator(f"[data-label='{label}']").inner_text()


def open_job(page, name):
    line(page, name).locator("a").focus()
    page.keyboard.press("Enter")
    page.locator("[data-shown=job]").wait_for()


def test_the_table_answers_the_question(visit):
    page = visit()
    active, ended = page.locator("section[aria-label=Active]"), page.locator("section[aria-label='Recently ended']")
    active.locator("tbody tr").nth(4).wait_for()  # the server has read all batches
    assert active.locator("tbody tr").count() == 5
    assert ended.locator("tbody tr").count() == 2
    assert cell(page, "inference-ollama", "CPU cores").split() == ["1.00", "of", "4"]
    assert "90 %" in cell(page, "inference-ollama", "GPU")
    assert "60.0 GiB of 80.0 GiB" in cell(page, "inference-ollama", "GPU")
    assert "not measured" in cell(page, "storage-target", "GPU")
    assert "100 MiB" in cell(page, "storage-target", "Memory")
    assert "peak 200 MiB, VmHWM" in cell(page, "storage-target", "Memory")
    assert cell(page, "storage-target", "Records/s").startswith("100")
    assert "0 of 2 cases" in cell(page, "storage-target", "Progress")
    assert "no limit" in cell(page, "storage-target", "Elapsed / limit")
    assert re.search(r"stalled: no sample for \d+ min", cell(page, "storage-scratch", "State"))
    assert "lost" in cell(page, "storage-lost", "State")
    assert "pending" in cell(page, "storage-later", "State")
    assert "complete" in cell(page, "storage-good", "State")
    assert "client error" in cell(page, "storage-bad", "State")


def test_hostile_text_is_inert_and_visible(visit):
    page = visit()
    shown = cell(page, "storage-bad", "State")
    assert "<img src=x" in shown
    assert "\\u202e\\u001b" in shown
    open_job(page, "storage-target")
    assert "<img src=x" in page.locator(".job-lines").inner_text()
    assert page.locator("img").count() == 0
    assert "owned" not in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1360])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(visit, tmp_path, scheme, width):
    page = visit(width=width, scheme=scheme)
    for view in ("table", "job"):
        if view == "job":
            open_job(page, "inference-ollama")
            page.locator(".chart polyline").first.wait_for(state="attached")
        found = axe_playwright.Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        page.screenshot(path=str(tmp_path / f"{view}-{scheme}-{width}.png"), full_page=True)


def test_rows_change_by_themselves_and_keep_the_focus(visit, world):
    page = visit()
    line(page, "storage-target").locator("a").focus()
    world.disk.sample(61.0, records=9000, cpu=3.25)
    cores = "tr[data-job^=storage-target] [data-label='CPU cores']"
    wait(page, f'document.querySelector("{cores}").textContent.includes("3.25")')
    assert page.evaluate("document.activeElement.closest('tr')?.dataset.job ?? ''").startswith("storage-target")
    world.disk.done("case-a", 1.0, 2.0)
    world.disk.end("ok")
    page.locator("section[aria-label='Recently ended'] tr[data-job^=storage-target]").wait_for()
    said = page.locator(".monitor > p.sr[role=status]").inner_text()
    assert said == "storage-target-1a2b3c4d: complete"
    assert page.evaluate("document.activeElement.closest('tr')?.dataset.job ?? ''").startswith("storage-target")


def test_a_new_job_appears_by_itself(visit, world):
    page = visit()
    Batch(world.server.results, "fresh", "retrieval-glove-50-flat-12345678", benchmark="retrieval").start()
    line(page, "retrieval-glove").wait_for()
    assert "running" in cell(page, "retrieval-glove", "State")


def test_enter_opens_a_job_and_the_way_back_leads_to_its_row(visit):
    page = visit()
    open_job(page, "storage-target")
    assert page.evaluate("document.activeElement.textContent") == "storage-target-1a2b3c4d"
    assert page.title().startswith("storage-target-1a2b3c4d")
    page.go_back()
    page.locator("[data-shown=jobs]").wait_for()
    wait(page, "document.activeElement.closest('tr')?.dataset.job.startsWith('storage-target')")
    line(page, "storage-good").locator("[data-label=Took]").click()
    page.locator("[data-shown=job]").wait_for()
    assert page.locator("h1").inner_text() == "storage-good-77777777"
    assert page.locator(".chart").count() >= 4  # samples of an ended job come from its table


def test_charts_go_on_live_with_phases_and_log(visit, world):
    page = visit()
    open_job(page, "storage-target")
    titles = page.locator(".chart h3").all_inner_texts()
    assert titles[:3] == ["CPU in use", "Memory of the job", "Work done"]
    assert not any("GPU" in title for title in titles)
    legend = page.locator(".legend").inner_text()
    assert {"worker", "whole node", "write", "read"} <= set(legend.split("\n"))
    assert page.locator(".strip .phase-name").all_text_contents() == ["write", "read"]
    world.disk.sample(62.0, records=9000, cpu=2.75, step={**STEP, "phase": "verify", "since_s": 61.0})
    world.disk.log("repetition 2: read_time_s 0.25")
    wait(page, "document.querySelector('.chart .value').textContent.includes('worker 2.75 cores')")
    assert "verify" in page.locator(".readout").inner_text()
    assert "verify" in page.locator(".legend").inner_text()
    wait(page, "document.querySelector('.job-lines li:last-child').textContent.includes('read_time_s 0.25')")
    last = page.evaluate("document.querySelector('.chart polyline.r1').getAttribute('points').split(' ').length")
    assert last == 61


def test_each_line_of_the_log_is_there_once_whichever_way_it_came_first(visit, world):
    """Each line is in the file before the page asks for the log, and comes by the stream too."""
    page = visit()
    lines = page.locator(".job-lines .msg")

    def write_then_ask(route):
        world.disk.log(f"asked {next(asked)}")
        route.continue_()

    asked = iter(range(100))
    page.route("**/log", write_then_ask)
    open_job(page, "storage-target")
    lines.get_by_text("asked 0", exact=True).wait_for()
    for number in range(3):
        world.disk.log(f"later {number}")
        lines.get_by_text(f"later {number}", exact=True).first.wait_for()
    shown = lines.all_inner_texts()[2:]
    assert len(shown) == len(set(shown))
    assert [text for text in shown if text.startswith("later")] == ["later 0", "later 1", "later 2"]
    assert "asked 0" in shown


def test_an_end_that_nobody_told_is_a_dash(visit, world):
    killed = Batch(world.server.results, "disk", "storage-killed-44444444").start(ago_s=30)
    killed.record.status = "terminated"
    killed.save()
    killed.lock.release()
    page = visit()
    line(page, "storage-killed").wait_for()
    assert cell(page, "storage-killed", "Ended").split() == ["–"]


def test_invalid_cases_are_not_green_and_a_cancelled_job_is_not_red(visit, world):
    results = world.server.results
    for name, invalid in (("dark", ["case-a", "case-b"]), ("light", []), ("old", None)):
        made = Batch(results, "judged", f"storage-{name}-11111111").start()
        for begin in (1.0, 2.0):
            made.done("case-a", begin, begin + 1)
        made.record.invalid = invalid
        made.end()
    for campaign in ("stopped", "gone"):
        Batch(results, campaign, f"storage-{campaign}-11111111").start().end("terminated", "received SIGINT", "SIGINT")
    (results / "gone" / "launch").mkdir()
    (results / "gone" / "launch" / "cancel.json").write_text("{}")
    page = visit()

    def mark(name):
        found = line(page, f"storage-{name}").locator("[data-label=State] .state")
        return found.inner_text(), found.get_attribute("class")

    line(page, "storage-gone").get_by_text("cancelled").wait_for()
    assert mark("dark") == ("complete, 2 invalid", "state warn")
    assert mark("light") == ("complete", "state ok")
    assert mark("old") == ("complete", "state ok")
    assert "validity not told" in cell(page, "storage-old", "Cases")
    assert "told" not in cell(page, "storage-light", "Cases")
    assert mark("gone") == ("cancelled", "state off")
    assert mark("stopped") == ("ended by a signal", "state off")
    assert "received SIGINT" in cell(page, "storage-stopped", "State")
    open_job(page, "storage-dark")
    assert page.locator(".stateline .state").inner_text() == "complete, 2 invalid"
    assert "2 invalid" in page.locator(".tiles div", has_text="Progress").inner_text()


def test_the_cursor_by_keys_and_by_pointer_reads_all_charts(visit):
    page = visit()
    open_job(page, "storage-target")
    slider = page.locator("[role=slider]")
    slider.focus()
    for key in ("PageDown", "ArrowLeft"):
        page.keyboard.press(key)
    told = slider.get_attribute("aria-valuetext")
    assert told.startswith("0:48 after the start, ")
    assert "read. CPU in use: whole node 1.50 cores" in told or "worker 3.50 cores" in told
    assert slider.get_attribute("aria-valuenow") == "48"
    assert "worker 3.50 cores" in page.locator(".chart .value").first.inner_text()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuenow") == "0"
    page.keyboard.press("Escape")
    assert page.locator(".readout").inner_text().startswith("Now: 0:59")
    box = page.locator(".chart svg").first.bounding_box()
    page.mouse.move(box["x"] + 56 + (box["width"] - 66) / 2, box["y"] + 40)
    assert re.match(r"0:(29|30) after the start", page.locator(".readout").inner_text())
    assert page.locator(".chart .cursor[visibility=visible]").count() == page.locator(".chart").count()


def test_the_filter_takes_keys_and_values_of_rows_and_of_their_cases(visit, world):
    chat, disk, later = "inference-ollama-mistral-1a2b3c4d", "storage-target-1a2b3c4d", "storage-later-33333333"
    engine = {"engine": {"kind": "ollama", "model": "mistral:7b"}, "prompt_text": "clients"}
    write_plan(
        world.server.results, "chat", {chat: 2}, params={chat: [{"clients": 2, **engine}, {"clients": 4, **engine}]}
    )
    sizes = {disk: [{"clients": 20, "block_size": 65536}], later: [{"clients": 2, "block_size": 1 << 20}]}
    write_plan(world.server.results, "disk", {disk: 1, later: 1}, params=sizes)
    page = visit()
    field, advice = page.locator("input.filter"), page.locator("p.advice")
    line(page, chat).wait_for()

    def shown():
        return sorted(
            page.locator("tr[data-job]").evaluate_all("(all) => all.map((one) => one.querySelector('a').textContent)")
        )

    wait(page, "document.querySelectorAll('tr[data-job]').length === 7")
    for query, jobs in (
        ("clients:2", [chat, later]), ("clients:20", [disk]), ("clients:4 clients:20", [chat, disk]), ("clients:3", []),
        ("block_size:64KiB", [disk]), ("state:pending", [later]), ("run:chat", [chat]),
        ("engine:ollama model:mistral:7b", [chat]),
        ("state:lost", ["storage-lost-55555555"]), ("state:complete", ["storage-good-77777777"]), ("later", [later]),
        ("state:stalled", ["storage-scratch-99999999"]), ("foo:1", []), ("benchmark:inference clients:2", [chat]),
    ):  # fmt: skip
        field.fill(query)
        wait(page, f"document.querySelectorAll('tr[data-job]').length === {len(jobs)}")
        assert shown() == sorted(jobs), query
    field.fill("foo:1")
    assert advice.inner_text().startswith("No key “foo”. Keys: state, run, job, benchmark, node, clients")
    assert "prompt_text" not in advice.inner_text()
    field.fill("clients:3")
    assert advice.inner_text() == "None has clients 3. Values: 2, 4, 20."
    field.fill("clients:20")
    assert advice.inner_text() == "1 of 7 jobs fit the filter."
    field.fill("")
    wait(page, "document.querySelectorAll('tr[data-job]').length === 7")
    assert advice.is_hidden()


def test_the_table_of_one_run(visit, world):
    page = visit("/run/disk")
    page.get_by_role("heading", name="Jobs of disk").wait_for()
    active = page.locator("section[aria-label=Active] tbody tr")
    active.nth(3).wait_for()
    assert {text.split("\n")[1] for text in active.all_inner_texts()} == {"campaign disk"}
    world.chat.sample(61.0, records=999)  # of another run: the row of it must not appear
    world.disk.sample(61.0, records=7777)
    line(page, "storage-target").get_by_text("7\u202f777 in all").wait_for()
    assert active.count() == 4
    page.get_by_role("link", name="All jobs").click()
    line(page, "inference-ollama").wait_for()
    page.evaluate("() => { location.hash = '#/monitor/run/nobody'; }")
    nobody = page.get_by_text("No such run: the results have no folder nobody.")
    nobody.wait_for()
    assert page.locator(".monitor section:visible").count() == 0
    Batch(world.server.results, "nobody", "storage-late-12345678").start()  # it comes: by itself it is shown
    line(page, "storage-late").wait_for()
    assert not nobody.is_visible()
    (world.server.results / "planned-soon").mkdir()
    page.evaluate("() => { location.hash = '#/monitor/run/planned-soon'; }")
    page.get_by_text("No job of this run is active. A run that was just launched appears here").wait_for()


def test_a_job_page_tells_memory_by_kind_waiting_and_failures(visit, world):
    page = visit()
    open_job(page, "storage-target")
    memory = page.locator(".tiles div", has_text="Memory")
    assert "50.0 MiB anonymous, 40.0 MiB of files, 10.0 MiB shared" in memory.inner_text()
    waiting = page.locator(".chart", has_text="Waiting on the node").locator(".value").inner_text()
    assert waiting == "CPU wait 25 %, memory wait 0 %, I/O wait 50 %"
    records = page.locator(".tiles div", has_text="Records")
    assert "failed" not in records.inner_text()
    world.disk.sample(61.0, records=6100, errors=12)
    records.get_by_text("12 failed").wait_for()


def test_the_page_of_an_ended_job_tells_what_it_has_used(visit, world):
    page = visit()
    open_job(page, "storage-target")
    connection = page.locator(".connection")
    connection.get_by_text("live", exact=True).wait_for()
    assert page.locator(".readout").inner_text().startswith("Now: 0:59")
    world.disk.sample(60.0, records=6000, errors=7, rss=300 << 20, cpu=4.5)
    world.disk.end()
    connection.get_by_text("ended", exact=True).wait_for()
    tile = page.locator(".tiles div")
    tile.get_by_text("in all, 7 failed").wait_for()
    assert "6 000" in tile.filter(has_text="Records").inner_text()
    assert "2.57 cores" in tile.filter(has_text="CPU").inner_text()  # (59 * 0.5 + 12 * 10 + 4.5) / 60
    assert "mean, most 4.50, of 4" in tile.filter(has_text="CPU").inner_text()
    memory = tile.filter(has_text="Memory").inner_text()
    assert "300 MiB" in memory
    assert "mean 103 MiB, peak 600 MiB (sum of VmHWM), limit 8.00 GiB" in memory
    assert "–" in tile.filter(has_text="GPU").inner_text()
    assert page.locator(".readout").inner_text().startswith("At the end: 1:00")


def test_a_job_leads_to_the_jobs_of_its_run_and_has_no_report_without_the_client_service(visit):
    page = visit()
    open_job(page, "storage-target")
    assert page.locator(".under").inner_text().startswith("campaign disk · node node-a · started ")
    assert page.get_by_role("button", name="report").count() == 0
    page.locator(".under").get_by_role("link", name="disk").click()
    page.get_by_role("heading", name="Jobs of disk").wait_for()


@pytest.mark.parametrize("world", [["monitor", "client"]], indirect=True)
def test_a_job_leads_to_the_report_of_its_run(visit, world):
    write_results(world.server.results / "whole")
    page = visit()
    page.locator("tr", has_text="campaign whole").first.locator("a").click()
    report = page.get_by_role("button", name="open the report of whole")
    report.wait_for()
    with page.expect_popup() as opened:
        report.click()
    opened.value.locator("h1").first.wait_for()
    assert opened.value.url.endswith("/report/index.html")


def test_the_log_names_a_case_by_what_it_measures(visit, world):
    plan = {
        "system": {"slurm": None},
        "batches": [{"batch": world.disk.name, "benchmark": "storage", "cases": ["c0ffee000001"], "expected_s": 1}],
        "cases": [
            {"case": "c0ffee000001", "batch": world.disk.name, "label": "warm · 64 MiB", "repetitions": {"min": 2}},
            {"case": "c0ffee000002", "batch": "another", "label": "cold", "repetitions": {"min": 2}},
        ],
    }
    (world.server.results / "disk" / "plan.json").write_text(json.dumps(plan))
    world.disk.log("of no case")
    world.disk.log("of another", case="c0ffee000002")
    page = visit()
    open_job(page, "storage-target")
    told = [(each.inner_text(), each.get_attribute("title")) for each in page.locator(".job-lines .where").all()]
    assert told == [("", None), ("warm · 64 MiB", "case c0ffee000001"), ("", None), ("c0ffee000002", None)]
    world.disk.log("more", case="c0ffee000001")
    page.locator(".job-lines li", has_text="more").get_by_text("warm · 64 MiB").wait_for()
    assert "case warm · 64 MiB" in page.locator(".stateline").inner_text()


@pytest.mark.parametrize("world", [["monitor", "log"]], indirect=True)
def test_a_job_that_writes_errors_only_says_why(visit, world):
    configs, warning = "/api/v1/log/configs", "section[aria-label=Log] .warning"
    page = visit()
    open_job(page, "storage-target")
    assert not page.locator(warning).is_visible()
    end = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    put = {"logLevel": 1, "expires_at": end, "match": {"run": "disk"}}
    assert world.server.ask("PUT", f"{configs}/brief", put).status == 200
    page.locator(warning).get_by_text("writes warnings and errors, as the log configuration brief says").wait_for()
    page.locator(warning).get_by_text("writes errors only: the log configuration brief is over.").wait_for()
    assert world.server.post(f"{configs}:clear", {}).json()["deleted"] == ["brief"]
    page.locator(warning).wait_for(state="hidden")


def test_gpus_have_their_charts(visit):
    page = visit()
    open_job(page, "inference-ollama")
    titles = page.locator(".chart h3").all_inner_texts()
    assert [title for title in titles if title.startswith("GPU")] == ["GPU in use", "GPU memory", "GPU power"]
    values = page.locator(".chart", has_text="GPU power").locator(".value").inner_text()
    assert values == "GPU 0 300 W, GPU 1 300 W"


def test_a_lost_connection_is_said_and_made_again_without_a_gap(visit, world):
    page = visit()
    open_job(page, "storage-target")
    connection = page.locator(".connection")
    wait(page, "document.querySelector('.connection').textContent === 'live'")
    world.server.stop(signal.SIGKILL)
    wait(page, "document.querySelector('.connection').textContent.startsWith('connection lost at')")
    for i in range(60, 66):
        world.disk.sample(float(i), records=100 * i, cpu=1.25)
    world.server.start()
    wait(page, "document.querySelector('.connection').textContent === 'live'", 40)
    wait(page, "document.querySelector('.readout').textContent.startsWith('Now: 1:05')")
    assert connection.inner_text() == "live"
    count = page.evaluate("document.querySelector('.chart polyline.r1').getAttribute('points').split(' ').length")
    assert count == 66
    world.disk.sample(66.0, cpu=2.5)
    wait(page, "document.querySelector('.chart .value').textContent.includes('worker 2.50 cores')")


def test_a_job_that_is_not_there_is_said(visit):
    page = visit(rest="/no-such-job")
    assert page.locator("h1").inner_text() == "No such job"
    assert "There is no job no-such-job in the results" in page.locator(".problem[role=alert]").inner_text()
    assert page.locator(".monitor section:visible, .tiles:visible").count() == 0
