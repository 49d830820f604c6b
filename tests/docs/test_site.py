"""The site of the documents: every link leads somewhere, and nothing comes from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

MKDOCS = Path(sys.executable).with_name("mkdocs")


def test_the_site_is_built_from_all_pages_and_fetches_nothing(tmp_path):
    site = tmp_path / "site"
    done = subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")} - {"404"}
    assert made == {re.sub(r"README$", "index", page.removesuffix(".md")) for page in PAGES}
    for path in site.rglob("*.html"):
        page = path.read_text()
        fetched = re.findall(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?([^\s\">]+)", page)
        assert fetched
        assert [place for place in fetched if re.match(r"(https?:)?//", place)] == [], path
