import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from aifbench.processes.process import Group
from aifbench.records.lock import Locked, OwnerLock


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_stop_ends_the_whole_group_even_one_that_ignores_term(tmp_path):
    script = "trap '' TERM; sleep 100 & echo $!; wait"
    group = Group(["bash", "-c", script], stderr=tmp_path / "err", pipes=True)
    child = int(group.stdout.readline())
    code = group.stop(grace_s=0.3)
    assert code == -signal.SIGKILL
    assert wait_until(lambda: not alive(child) and not alive(group.pid))


def test_a_command_on_the_leash_dies_with_its_parent(tmp_path):
    program = (
        "import os, sys, time; from pathlib import Path; from aifbench.processes.process import Group\n"
        f"group = Group(['sleep', '100'], stderr=Path({str(tmp_path / 'err')!r}))\n"
        "print(group.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert wait_until(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(child))


STRAY = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "100"], process_group=0)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_stop_ends_what_has_left_the_group_but_not_the_session(tmp_path):
    group = Group([sys.executable, "-c", STRAY], stderr=tmp_path / "err", pipes=True)
    child = int(group.stdout.readline())
    assert os.getpgid(child) != os.getpgid(group.pid)
    group.stop()
    assert wait_until(lambda: not alive(child), 3)


def test_the_watchdog_ends_the_sessions_of_a_runner_that_was_killed(tmp_path):
    command = [sys.executable, "-c", STRAY]
    program = (
        "import sys, time; from pathlib import Path\n"
        "from aifbench.processes.process import Group; from aifbench.processes.watchdog import Watchdog\n"
        f"command, errors, dog = {command!r}, Path({str(tmp_path / 'err')!r}), Watchdog()\n"
        "groups = [Group(command, stderr=errors, pipes=True) for _ in range(2)]\n"
        "dog.watch(groups[0].pid); dog.watch(groups[1].pid); dog.forget(groups[1].pid)\n"
        "print(*(int(group.stdout.readline()) for group in groups), dog._process.pid, flush=True); time.sleep(100)"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    watched, forgotten, dog = map(int, runner.stdout.readline().split())
    runner.kill()
    runner.wait()
    runner.stdout.close()
    try:
        assert wait_until(lambda: not alive(watched))
        assert wait_until(lambda: not alive(dog))
        assert alive(forgotten)
    finally:
        os.kill(forgotten, signal.SIGKILL)


def test_lock_refuses_a_second_live_owner_and_takes_over_a_dead_one(tmp_path):
    lock = OwnerLock(tmp_path)
    lock.acquire()
    with pytest.raises(Locked, match=str(os.getpid())):
        OwnerLock(tmp_path).acquire()
    lock.release()
    assert not (tmp_path / "owner.lock").exists()
    ended = subprocess.run(["true"], check=True)
    dead = {"pid": 2**22 - 1, "started": "1", "host": os.uname().nodename, "slurm_job": None}
    (tmp_path / "owner.lock").write_bytes(orjson.dumps(dead))
    OwnerLock(tmp_path).acquire()
    assert orjson.loads((tmp_path / "owner.lock").read_bytes())["pid"] == os.getpid()
    assert ended.returncode == 0


def test_lock_of_another_host_is_respected_and_says_what_to_do(tmp_path):
    other = {"pid": 1, "started": "1", "host": "some-other-node", "slurm_job": "42"}
    (tmp_path / "owner.lock").write_bytes(orjson.dumps(other))
    with pytest.raises(Locked, match=r"some-other-node.*Slurm job 42.*delete"):
        OwnerLock(tmp_path).acquire()
