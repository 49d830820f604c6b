"""Every test runs with the repository's root as its working folder; at the end, what ran and how long, by part."""

from collections import Counter
from pathlib import Path

import pytest

from tests.browser.chromium import ARGUMENTS, EXECUTABLE

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def browser():
    """A real Chromium without a network."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not EXECUTABLE.exists():
        pytest.skip(f"{EXECUTABLE} is missing")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(EXECUTABLE), args=ARGUMENTS)
        yield chromium
        chromium.close()


def pytest_terminal_summary(terminalreporter):
    ran, left_out, seconds = Counter(), Counter(), Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or not report.nodeid.startswith("tests/"):
                continue
            part = report.nodeid.split("/")[1]
            seconds[part] += report.duration
            if outcome in {"passed", "failed", "error", "xfailed", "xpassed"} and report.when == "call":
                ran[part] += 1
            elif outcome == "skipped":
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                left_out[part, reason.removeprefix("Skipped: ")] += 1
    terminalreporter.section("which parts ran")
    for part in sorted({*ran, *(part for part, _ in left_out)}):
        why = "; ".join(f"{count} not: {reason}" for (of, reason), count in left_out.items() if of == part)
        took = f"{ran[part]:>4} ran in {seconds[part]:.0f} s"
        terminalreporter.write_line(f"{part:<10} {took}{f', {why}' if why else ''}")
