import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aifbench.retrieval.forks import Child, ChildFailed

SPINNING = """
import os, time
from aifbench.retrieval.forks import Child

def spin(send):
    send(os.getpid())
    while True:
        pass

print(Child(spin).receive(), flush=True)
time.sleep(60)
"""


def test_a_forked_searcher_dies_with_the_worker_even_in_a_busy_loop():
    parent = subprocess.Popen([sys.executable, "-c", SPINNING], stdout=subprocess.PIPE, text=True)
    child = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    deadline = time.monotonic() + 5
    while child.exists() and child.read_text().rsplit(")", 1)[1].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or child.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    parent.stdout.close()


def test_what_a_child_raises_is_told():
    def broken(send):
        raise ValueError("no\nsuch thing")

    child = Child(broken)
    with pytest.raises(ChildFailed, match="no such thing"):
        child.receive()
    child.stop()
