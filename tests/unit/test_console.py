"""What a batch says while it runs, without a terminal and on one."""

import os
import pty
import re
import subprocess
import sys
import time

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_specs
from aifbench.runner import batch as runner
from aifbench.runner import console
from aifbench.runner.console import Console
from tests.workflow.campaign import RETRIEVAL, ROOT, write

BUSY = """
import sys, time
from aifbench.runner import console
with console.Console("storage-a") as shown:
    shown.show("building the [index]")
    time.sleep(2.4)
    shown.begin(4, lambda: 90.0)
    shown.advance("case 1")
"""


def lines(said, count):
    """Wait for some lines of a console and return them."""
    found = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += said.readouterr().err.splitlines()
        time.sleep(0.02)
    return found


def test_a_silent_step_is_told_again_and_again_with_its_time(monkeypatch, capsys):
    assert console.EVERY_S < 10
    monkeypatch.setattr(console, "EVERY_S", 0.05)
    with Console("storage-a") as shown:
        assert re.fullmatch(r"storage-a: starting, \d+ s", lines(capsys, 1)[0])
        shown.show("building the index")
        assert re.fullmatch(r"storage-a: building the index, \d+ s", lines(capsys, 4)[-1])
        shown.begin(8, lambda: 150.0)
        shown.advance("case 1")
        shown.advance("case 2")
        found = lines(capsys, 4)
        assert "storage-a: 2/8, ~2 min 30 s to measure; case 2" in found
        assert re.fullmatch(r"storage-a: 2/8, ~2 min 30 s to measure; building the index, \d+ s", found[-1])
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_the_step_from_the_start():
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150"}
    process = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, env=environment, stderr=writer)
    os.close(writer)
    said = b""
    try:
        while data := os.read(reader, 65536):
            said += data
    except OSError:  # how the other end of a terminal says that it is closed
        pass
    os.close(reader)
    assert process.wait(20) == 0
    text = said.decode()
    assert len(set(re.findall(r"building the \[index\], (\d+ s)", text))) > 1
    assert "1/4" in text
    assert "~1 min 30 s to measure" in text


def test_a_batch_says_that_it_begins_before_anything_else(tmp_path):
    """Also where it cannot: its spec is not even there."""
    command = [sys.executable, "-m", "aifbench", "run", "--spec", str(tmp_path / "retrieval-a.json"), "--out", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == "retrieval-a: begins"
    assert done.returncode == 2


def test_each_part_of_a_batch_is_a_step(tmp_path, monkeypatch):
    steps = []

    class Noting(Console):
        def show(self, step):
            steps.append(step)
            super().show(step)

    monkeypatch.setattr(runner, "Console", Noting)
    small = {**RETRIEVAL, "vectors": 500, "queries": 50, "axes": {"index": ["Flat"], "top_k": [1]}, "search": {}}
    plan = make_plan(read_config([write(tmp_path, {**small, "repetitions": 1})]))
    write_specs(plan, plan.config.results)
    (spec,) = (plan.config.results / "specs").iterdir()
    assert runner.run_batch(spec, plan.config.results / "batches" / spec.stem) == 0
    assert steps[:2] == ["checking this machine", "round 1: preparing"]
    assert "round 1: building the index Flat on synthetic" in steps
    assert [step.rpartition(": ")[2] for step in steps if step.startswith("round 1: top_k=1: ")] == [
        "ground truth", "warmup", "measure", "score",
    ]  # fmt: skip
    assert steps[-1] == "ending what was started"
