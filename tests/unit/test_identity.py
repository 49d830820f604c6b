"""Which process is meant, and whether it still runs: by its pid, its start, the boot and the host."""

import os
import subprocess
import time

import pytest

from aifbench.processes.identity import alive, identity


def test_this_process_is_alive_and_one_that_ended_is_not():
    assert alive(identity(os.getpid())) is True
    with subprocess.Popen(["sleep", "60"]) as other:
        known = identity(other.pid)
        assert alive(known) is True
        other.kill()
        deadline = time.monotonic() + 10
        while alive(known) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive(known) is False  # a zombie: nobody has waited for it yet
        assert other.returncode is None
    assert alive(known) is False


@pytest.mark.parametrize("change", [{"started": "1"}, {"started": None}, {"boot": "x"}, {"pid": -1}, {"pid": "1"}])
def test_a_later_process_with_its_pid_is_another_one(change):
    assert alive({**identity(os.getpid()), **change}) is False


def test_of_another_host_nothing_is_known():
    assert alive({**identity(os.getpid()), "host": "elsewhere"}) is None


def test_a_lock_of_version_0_1_tells_no_boot():
    known = identity(os.getpid())
    del known["boot"]
    assert alive({**known, "slurm_job": None}) is True
    assert alive({**known, "started": "1"}) is False


@pytest.mark.parametrize("nothing", [None, {}, {"pid": 1}])
def test_what_names_no_process_is_not_alive(nothing):
    assert alive(nothing) is False
