"""The monitor: from a file to a real browser, and how soon it knows all runs after a start.

Server, writer and browser share this machine, so times are upper bounds.
"""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

import numpy as np

SAMPLES = 60
RUNS = 1000
MOST_FILE_S, MOST_START_S = 1.5, 2.0


def measure() -> list[dict[str, Any]]:
    """Return the time from the write of a sample to its value on the page, and from the start to all runs known."""
    return [
        _row("file_to_browser_p99", _file_to_browser(), "s", MOST_FILE_S),
        _row(f"start_of_monitor_with_{RUNS}_runs", _start_with_runs(), "s", MOST_START_S),
    ]


# -- file to browser ----------------------------------------------------------------------------------------------

_WATCH = """() => {
  window.seen = {};
  const value = document.querySelector(".chart .value");
  const look = () => {
    const found = /worker ([0-9.]+) cores/.exec(value.textContent);
    if (found && !(found[1] in window.seen)) window.seen[found[1]] = Date.now() / 1000;
  };
  new MutationObserver(look).observe(value, { childList: true, characterData: true, subtree: true });
}"""


def _file_to_browser() -> float | None:
    """Return the p99 of the time from the write of a sample to its value on the page, with samples at about 1 Hz."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    from tests.browser.chromium import ARGUMENTS, EXECUTABLE
    from tests.services.batches import Batch
    from tests.services.live import Live

    if not EXECUTABLE.exists():
        return None
    written: dict[str, float] = {}
    pause = random.Random(1)
    with tempfile.TemporaryDirectory() as name, Live(name, "monitor", tcp=0) as server, sync_playwright() as started:
        batch = Batch(server.results).start()
        batch.sample(0.0)
        batch.sample(1.0)
        address = server.said().split("127.0.0.1:")[1].split("/")[0]
        browser = started.chromium.launch(executable_path=str(EXECUTABLE), args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{address}/#token={server.token()}")
        page.locator("nav a").first.wait_for()
        page.evaluate("location.hash = '#/monitor'")
        page.locator("tr[data-job] a").first.click()
        page.locator(".chart .value").first.wait_for()
        page.evaluate(_WATCH)
        for number in range(2, SAMPLES + 2):
            page.wait_for_timeout(1000 * pause.uniform(0.8, 1.2))
            value = number / 100
            written[f"{value:.2f}"] = time.time()
            batch.sample(float(number), cpu=value)
        page.wait_for_timeout(3000)
        seen = page.evaluate("window.seen")
        browser.close()
    # A value that a later one replaced within the same poll was never on the page by itself: its delay is the later's.
    moments = sorted((float(value), moment) for value, moment in seen.items())
    delays = []
    for value, moment in written.items():
        shown = [at for later, at in moments if later >= float(value)]
        if not shown:
            return None
        delays.append(min(shown) - moment)
    return float(np.quantile(delays, 0.99))


# -- restart ------------------------------------------------------------------------------------------------------


def _start_with_runs() -> float:
    """Return the time from the start of the server's process until it has read the files of all runs, best of three."""
    from tests.services.batches import Batch
    from tests.services.live import Live

    with tempfile.TemporaryDirectory() as name:
        server = Live(name, "monitor")
        for number in range(RUNS):
            batch = Batch(server.results, campaign=f"run-{number}", name=f"storage-x-{number:08x}").start()
            for second in range(30):
                batch.sample(float(second), records=second)
            if number % 50:
                batch.end()
            else:
                batch.lock.release()
                batch.own(host="elsewhere")
        times = []
        for _ in range(3):
            began = time.monotonic()
            with server:
                while server.get("/readyz").status != 200:
                    time.sleep(0.01)
                times.append(time.monotonic() - began)
                count = len(server.get("/api/v1/jobs?state=all&most=1000").json()["jobs"])
                if count != RUNS:
                    raise RuntimeError(f"{count} of {RUNS} runs are shown")
    return min(times)


def _row(name: str, value: float | None, unit: str, most: float) -> dict[str, Any]:
    met = None if value is None else value <= most
    return {"id": name, "value": value, "unit": unit, "goal": f"<= {most:g}", "met": met}
