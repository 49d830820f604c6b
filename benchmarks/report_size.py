"""Size and first paint of a report over 120 000 resource samples, in a real Chromium."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.browser.chromium import ARGUMENTS, EXECUTABLE  # noqa: E402
from tests.fixtures.results import write_results  # noqa: E402

from aifbench import report  # noqa: E402

POINTS = 120_000
MOST_BYTES = 1_000_000
MOST_PAINT_S = 1.0
OPENINGS = 5


def measure() -> list[dict[str, Any]]:
    """Return {id, value, unit, goal, met} of the page's size and of the slowest first paint of five openings."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "laptop"
        write_results(results, resource_points=POINTS)
        page = report.build(results).path
        size = page.stat().st_size
        paint = first_paint_s(page)
    return [
        {"id": "report_bytes", "value": size, "unit": "bytes", "goal": f"<= {MOST_BYTES}", "met": size <= MOST_BYTES},
        {
            "id": "report_first_paint",
            "value": paint,
            "unit": "s",
            "goal": f"<= {MOST_PAINT_S}",
            "met": paint is not None and paint <= MOST_PAINT_S,
        },
    ]


def first_paint_s(page: Path) -> float | None:
    """Return the slowest first contentful paint of a few openings in seconds, None without a browser."""
    if not EXECUTABLE.exists():
        return None
    from playwright.sync_api import sync_playwright

    script = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)"
    paints = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(EXECUTABLE), args=ARGUMENTS)
        for _ in range(OPENINGS):
            context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
            tab = context.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_function(f"{script}.length === 1")
            paints.append(tab.evaluate(script)[0] / 1000)
            context.close()
        browser.close()
    return max(paints)


if __name__ == "__main__":
    for row in measure():
        print(json.dumps(row))
