"""The commands and files of the documents, as they stand there, in a clean copy of the checkout.

The mark before a block says what becomes of it:

    <!-- run -->                     bash or python: run in the copy, after those before it
    <!-- run: campaign -->           the same, but a case may be invalid: other work may have run beside the tests
    <!-- run: services -->           the same beside `aifbench serve`; a JSON block is a request that may be launched
    <!-- file: config/mine.yaml -->  written into the copy
    <!-- suite: inference -->        keys of a suite: the plan takes them
    <!-- not run: the reason -->

A block of `text` needs none, nor do those of a page that says `<!-- run by tests/unit/test_x.py -->`.
The copy has a home of its own with a space in its name, and no XDG variables.
"""

import csv
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import certifi
import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, blocks
from tests.services.live import Unix

pytestmark = pytest.mark.timeout(900)  # the README's campaign takes a minute, on a busy machine several
MARK = re.compile(r"run|run: campaign|run: services|file: [\w./-]+|suite: \w+|not run: .{8,}")
ACTIVE = re.compile("run|file|suite")
STARTED = [page for page in PAGES if page != "README.md" and any(ACTIVE.match(block.mark) for block in blocks(page))]
LANGUAGES = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-c"]}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_marked(page):
    elsewhere = re.findall(r"^<!-- run by (\S+) -->$", (ROOT / page).read_text(), re.MULTILINE)
    assert all(Path(page).name in (ROOT / test).read_text() for test in elsewhere)
    for block in () if elsewhere else blocks(page):
        assert MARK.fullmatch(block.mark) or (block.language == "text" and not block.mark), block.place
    fences = re.findall(r"^\s*```", (ROOT / page).read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a fence that is indented, or has an unusual language"


class Checkout:
    """A clean copy of the checkout, in a home of its own."""

    def __init__(self, home):
        self.folder = home / "project"
        names = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
        for name in filter(None, names.split("\0")):
            if (ROOT / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name, follow_symlinks=False)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        path = f"{self.folder}/.venv/bin:{os.environ['PATH']}"  # as after `source .venv/bin/activate`
        reader = {"SBATCH_ACCOUNT": "p200000", "GATEWAY_KEY": "x", "ROUTE": "x"}  # what a reader has set
        self.there = {"cwd": self.folder, "env": {**kept, **reader, "HOME": str(home), "PATH": path}}
        self.services = None

    def run(self, *command):
        done = subprocess.run(command, **self.there, capture_output=True, text=True, timeout=600, check=False)
        return done.returncode, done.stdout, done.stderr

    def serve(self):
        """Start the services, once."""
        if self.services:
            return
        command = [".venv/bin/aifbench", "serve", "--no-open"]
        self.services = subprocess.Popen(
            command, **self.there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while not (line := self.services.stdout.readline()).startswith("open:"):
            assert line, "the services did not start"

    def do(self, block):
        """Do what the mark of a block says."""
        kind, _, rest = block.mark.partition(": ")
        if kind == "file":
            (self.folder / rest).write_text(block.text)
        elif kind == "suite":
            self.plan(block, rest)
        elif kind == "run" and block.language == "json":
            self.ask(block)
        elif kind == "run":
            if rest == "services":
                self.serve()
            script = "set +e\n" + block.text if rest == "campaign" else block.text
            code, printed, complaints = self.run(*LANGUAGES[block.language], script)
            assert code == 0, f"{block.place}: {complaints or printed}"
            if rest == "services":
                assert complaints == "", block.place
                check_answers(block, printed)

    def plan(self, block, benchmark):
        """Plan a campaign of a suite with these keys; the server that they name is nobody's."""
        authority = self.folder / "our-authority.pem"
        shutil.copy(certifi.where(), authority)
        keys = yaml.safe_load(block.text.replace("/etc/ssl/our-authority.pem", str(authority)))
        suite = {"name": "shown", "benchmark": benchmark, **keys}
        file = self.folder / "config" / "shown.yaml"
        file.write_text(yaml.safe_dump({"campaign": "shown", "suites": [suite]}))
        code, _, complaints = self.run("aifbench", "plan", "--no-check-machine", "--config", str(file))
        assert (code, complaints) == (0, ""), block.place

    def ask(self, block):
        """Send a request that launches nothing. A machine may lack the images or the cluster; all else is a fault."""
        self.serve()
        token, socket = (
            self.run(".venv/bin/aifbench", "where", what)[1].strip() for what in ("token-launch", "socket")
        )
        connection = Unix(socket)
        headers = {"Authorization": f"Bearer {Path(token).read_text().strip()}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/runs:validate", block.text, headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        possible = {"image_missing", "slurm_unreachable"}
        assert answer["status"] == "ok" or answer["reason"]["code"] in possible, (block.place, answer)

    def close(self):
        if self.services:
            self.services.terminate()
            self.services.wait(20)
            self.services.stdout.close()


def check_answers(block, printed):
    """Every request of a block is answered by one JSON document, and none by a refusal."""
    decoder, found, text = json.JSONDecoder(), [], printed.strip()
    while text:
        answer, end = decoder.raw_decode(text)
        found.append(answer)
        text = text[end:].strip()
    asked = re.findall(r"http://localhost|\$configs", block.text.replace("configs=http://localhost", ""))
    assert len(found) == len(asked), block.place
    assert all(answer.get("status", "ok") == "ok" for answer in found), block.place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The copy after the README's own commands: its campaign is measured and reported."""
    made = Checkout(tmp_path_factory.mktemp("a home"))
    try:
        for block in blocks("README.md"):
            made.do(block)
        yield made
    finally:
        made.close()


def test_the_readme_measures_and_reports(checkout):
    results = checkout.folder / "results" / "mine"
    assert (results / "report" / "index.html").stat().st_size > 100_000
    with (results / "cases.csv").open() as lines:
        states = Counter(row["state"] for row in csv.DictReader(lines))
    assert states.total() == 20
    assert set(states) <= {"valid", "invalid"}


def test_the_mistake_of_the_readme_is_told_as_it_stands_there(checkout):
    (said,) = (block.text for block in blocks("README.md") if block.text.startswith("aifbench: config/mine.yaml"))
    file = checkout.folder / "config" / "mine.yaml"
    right = file.read_text()
    file.write_text(right.replace("top_k: ", "topk: "))
    code, _, complaints = checkout.run("aifbench", "plan", "--config", "config/mine.yaml")
    file.write_text(right)
    assert (code, complaints) == (2, said)


@pytest.mark.parametrize("page", STARTED)
def test_commands_work_as_they_stand(checkout, page):
    for block in blocks(page):
        checkout.do(block)


def test_where_tells_paths_and_names_what_it_does_not_know(checkout):
    checkout.serve()

    def where(*words):
        code, printed, complaints = checkout.run(".venv/bin/aifbench", "where", *words)
        return code, printed.removesuffix("\n"), complaints

    connection = Unix(where("socket")[1])
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert len(Path(where("token-read")[1]).read_text().strip()) == 43
    folder = Path(where("token-read", "--tcp", "8091")[1]).parent
    assert re.fullmatch(r"tcp-[^.]+-8091", folder.name)
    code, _, said = where("tocken")
    assert (code, said) == (
        2,
        "aifbench: what = 'tocken': no such file (allowed: socket, token-launch, token-read, token-ingest)\n",
    )
    assert where("socket", "--tcp", "8091")[0] == 2
