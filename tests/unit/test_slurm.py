"""Asking Slurm: deadlines, what its errors mean, which jobs live. The texts are those of Slurm 22.05."""

import stat

import pytest

from aifbench.core.system import Slurm
from aifbench.machine.doctor import _slurm
from aifbench.slurm import ask as asking
from aifbench.slurm.accounting import accounted
from aifbench.slurm.ask import SlurmError, ask
from aifbench.slurm.queue import QueuedJob, cancel_named, job_lives, own_jobs


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program of Slurm from the lines of a shell script."""

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def kind_of(call, *arguments):
    with pytest.raises(SlurmError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def test_what_is_not_there_and_what_does_not_answer_is_unreachable(program, monkeypatch):
    monkeypatch.setattr(asking, "DEADLINE_S", 0.2)
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        with pytest.raises(SlurmError, match=r"^the program squeue is not on PATH$"):
            ask("squeue")
    program("squeue", "exec sleep 60")
    with pytest.raises(SlurmError, match=r"^squeue does not answer within 0\.2 s$") as caught:
        ask("squeue")
    assert caught.value.kind == "unreachable"
    program("scontrol", "echo 'slurm_load_nodes error:\nUnable to contact slurm controller' >&2; exit 1")
    assert kind_of(ask, "scontrol") == "unreachable"


def test_the_database_has_a_deadline_of_its_own(program, monkeypatch):
    monkeypatch.setattr(asking, "DEADLINE_S", 0.1)
    program("sacct", "sleep 0.5; echo told")
    assert ask("sacct") == "told\n"


def test_nothing_is_read_from_the_terminal_and_odd_bytes_are_no_error(program):
    program("squeue", r"cat; printf 'caf\351\n'")
    assert ask("squeue") == "caf\ufffd\n"
    assert ask("squeue", script="given\n") == "given\ncaf\ufffd\n"


@pytest.mark.parametrize(
    ("state", "lives"),
    [("PENDING", True), ("RUNNING", True), ("COMPLETING", True), ("REQUEUE_HOLD", True), ("COMPLETED", False),
     ("NODE_FAIL", False), ("", False)],
)  # fmt: skip
def test_a_job_lives_until_it_has_ended(program, state, lives):
    program("squeue", f"echo {state}")
    assert job_lives("7") is lives


def test_a_job_that_the_controller_has_forgotten_has_ended_and_one_that_it_does_not_tell_is_not_known(program):
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert not job_lives("7")
    program("squeue", "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1")
    assert kind_of(job_lives, "7") == "unreachable"


def test_the_queue_is_told_line_by_line(program):
    program(
        "squeue",
        "echo '17|RUNNING|None|cpu|1-00:00:00|a|b'; echo 'squeue: odd'; echo '18|PENDING|(Priority)|gpu|UNLIMITED|'",
    )
    assert own_jobs() == [
        QueuedJob("17", "RUNNING", "None", "cpu", 86400.0, "a|b"),
        QueuedJob("18", "PENDING", "(Priority)", "gpu", None, ""),
    ]


def test_one_that_cannot_be_cancelled_does_not_spare_the_others(program, tmp_path):
    program("scancel", f'echo "$@" >> {tmp_path}/asked; [ "$1" != --name=a ]')
    cancel_named(["a", "b"])
    assert (tmp_path / "asked").read_text() == "--name=a\n--name=b\n"


def test_jobs_are_accounted_in_several_questions(program, tmp_path, monkeypatch):
    monkeypatch.setattr("aifbench.slurm.accounting._AT_ONCE", 2)
    program("sacct", f'echo x >> {tmp_path}/asked; case "$*" in *1,2*) exit 1;; esac; echo "3|RESIZING|5|1|"')
    assert accounted(["1", "2", "3"]) == {
        "3": {"state": "RESIZING", "ended": False, "elapsed_s": 5, "nodes": 1, "energy_j": None}
    }
    assert (tmp_path / "asked").read_text() == "x\nx\n"


def test_the_doctor_asks_slurm_and_says_what_is_missing(program, monkeypatch):
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        found = list(_slurm(Slurm(account="p1", partition="cpu", qos="short")))
    assert [(row.what, row.state, row.seen) for row in found] == [
        ("Slurm", "fail", "the program scontrol is not on PATH")
    ]
    program(
        "scontrol", 'case "$1" in ping) echo "Slurmctld(primary) at node is UP";; *) echo "MinJobAge = 300 sec";; esac'
    )
    program("sacctmgr", 'case "$*" in *assoc*) printf "p2\\np1\\np1\\n";; *) printf "normal\\n";; esac')
    program("sinfo", "echo 'cpu*|up|2|8|16000|(null)|infinite'; echo 'cpu*|up|3|64|8000|(null)|infinite'")
    found = {row.what: row for row in _slurm(Slurm(account="p1", partition="cpu", gpu_partition="gpu", qos="short"))}
    assert {what: row.state for what, row in found.items()} == {
        "Slurm": "ok", "account": "ok", "partition cpu": "ok", "partition gpu": "fail", "qos short": "fail",
        "MinJobAge": "ok",
    }  # fmt: skip
    assert found["partition cpu"].seen == "up, 5 nodes, 64 CPUs"
    assert found["partition gpu"].todo == "one of: cpu"
    assert found["qos short"].todo == "one of: normal"
