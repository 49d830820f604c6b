"""`aifbench menu` and `aifbench runs`: the same launches from a terminal, without a service."""

import contextlib
import os
import re
import subprocess
import sys
import time

import pytest

from tests.services.checkout import ROOT, checkout, settings
from tests.services.test_client_live import running

TINY = ["--preset", "storage-quick", "--set", "axes.file_size=1MiB", "--set", "repetitions=2"]


@pytest.fixture
def terminal(tmp_path):
    project = checkout(tmp_path / "project")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "160",
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }  # fmt: skip
    environment.pop("SBATCH_ACCOUNT", None)

    def call(*arguments, said=""):
        return subprocess.run(
            [sys.executable, "-m", "aifbench", *arguments],
            cwd=project,
            env=environment,
            input=said,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def typed(*arguments, said):
        """Answer the questions in a pseudo-terminal, one line for each; return all that it has shown."""
        keyboard, screen = os.openpty()
        command = [sys.executable, "-m", "aifbench", *arguments]
        with subprocess.Popen(
            command, cwd=project, env=environment, stdin=screen, stdout=screen, stderr=screen
        ) as menu:
            os.close(screen)
            os.write(keyboard, "".join(f"{line}\n" for line in said).encode())
            shown = b""
            with contextlib.suppress(OSError):  # how a terminal ends
                while part := os.read(keyboard, 4096):
                    shown += part
        os.close(keyboard)
        assert menu.returncode == 0, shown.decode()
        return shown.decode()

    call.typed = typed
    yield call
    for folder in project.glob("*/*/launch"):
        if not (folder / "exit.json").exists():
            (folder / "cancel.json").touch()
            deadline = time.monotonic() + 60
            while running(folder) and time.monotonic() < deadline:
                time.sleep(0.1)
        assert not running(folder)


@pytest.mark.slow
def test_launch_list_follow_and_the_way_to_the_report_in_a_folder_whose_name_looks_like_a_command(terminal, tmp_path):
    where = ["--results", "-q$(touch PWNED) {x}"]
    launched = terminal("menu", *TINY, "--yes", *where)
    assert launched.returncode == 0, launched.stderr
    assert "2 cases, 4 repetitions in 1 job(s)" in launched.stdout
    answer, run = launched.stdout.splitlines()[-1].split()
    assert answer == "ok"
    listed = terminal("runs", *where).stdout
    assert run in listed
    assert max(len(line) for line in listed.splitlines()) <= 80
    followed = terminal("runs", run, "--follow", *where)
    assert followed.returncode == 0
    assert f"{run}: ended · 4/4 repetitions · 2 valid" in followed.stdout
    assert (settings(tmp_path).project / where[1] / run / "report" / "index.html").is_file()
    assert list(tmp_path.rglob("PWNED")) == []
    assert terminal("runs", run, "--cancel", *where).stderr.startswith("ko not_active: ")


@pytest.mark.slow
def test_cancel(terminal):
    launched = terminal("menu", "--preset", "storage-quick", "--set", "repetitions=500", "--yes")
    run = launched.stdout.split()[-1]
    second = terminal("menu", *TINY, "--yes")
    assert second.returncode == 1
    assert second.stderr.startswith("ko queue_full: ")
    assert terminal("runs", run, "--continue").stderr.startswith("ko active: ")
    cancelled = terminal("runs", run, "--cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"{run}: cancelled" in cancelled.stdout
    assert f"continue:       aifbench runs {run} --continue" in cancelled.stdout


@pytest.mark.parametrize(("said", "cases"), [("5", 3), ("1,5", 6), ("", 3)])
def test_retrieval_is_launched_with_a_k_from_a_real_terminal(terminal, said, cases):
    """It asked for the axis `k`, of which no suite knows: whatever was said was refused."""
    shown = terminal.typed(
        "menu", "--preset", "retrieval-quick", "--profile", "laptop", said=[said, "1", "2", "n"]
    )  # k, clients, repetitions; then no launch
    assert "neighbours asked for" in shown
    assert f"{cases} cases, {2 * cases} repetitions in" in shown
    assert "ko" not in shown.split()


def test_another_benchmark_is_added_to_the_launch(terminal):
    # storage: file size, clients, repetitions, add; then retrieval by name: k, a wrong number of clients, both again
    shown = terminal.typed(
        "menu", "--preset", "storage-quick", "--profile", "laptop",
        said=["1MiB", "1,2", "2", "add", "retrieval-quick", "5", "99", "2", "1", "n"],
    )  # fmt: skip
    assert "4 cases, 8 repetitions in 1 job(s)" in shown
    assert "ko over_limit services[1].clients: 99: more clients than system 'laptop' allows" in shown
    assert "7 cases, 14 repetitions in 3 job(s)" in shown


def test_the_questions(terminal):
    # profile, preset by number, clients, services, device, repetitions; then no launch
    asked = terminal("menu", said="laptop\n2\n1,2\n\ncpu\n4\nn\n")
    assert asked.returncode == 0, asked.stderr
    assert "2 cases, 8 repetitions in 1 job(s)" in asked.stdout
    assert "ok" not in asked.stdout.split()


def test_a_preset_is_asked_for_by_its_name_too(terminal):
    # wrong, ambiguous and of another system: asked again each time; then the beginning of one alone
    asked = terminal(
        "menu", "--profile", "laptop", said="storage-quik\nretrieval\n7\n\u00b2\nSTORAGE-Q\n1MiB\n1\n2\nn\n"
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "'storage-quik': no such preset (did you mean storage-quick? " in asked.stdout
    assert "several presets begin so (one of retrieval-full, retrieval-quick)" in asked.stdout
    assert "'7': no such preset" in asked.stdout
    assert "2 cases, 4 repetitions in 1 job(s)" in asked.stdout


@pytest.mark.parametrize("name", ["storage-quick", "Storage in a minute", "storage-q", " STORAGE IN "])
def test_an_option_takes_the_name_the_title_or_its_beginning(terminal, name):
    found = terminal("menu", "--preset", name, "--set", "repetitions=2", "--profile", "laptop", "--check")
    assert found.returncode == 0, found.stderr
    assert "2 cases, 4 repetitions in 1 job(s)" in found.stdout


@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ("many\n1,2\n4\n" "1MiB,2MiB\n", "invalid_config", "config.axes.file_size"),
        ("1MiB,2MiB\n1,99\n4\n" "1,2\n", "over_limit", "clients"),
        ("1MiB,2MiB\n1,2\n2.5\n" "4\n", "invalid_config", "config.repetitions"),
    ],
)  # fmt: skip
def test_what_is_refused_is_asked_again_and_nothing_else(terminal, said, code, field):
    asked = terminal("menu", "--preset", "storage-quick", "--profile", "laptop", said=said + "n\n")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    (refused,) = asked.stdout.split("ko ")[1:]
    assert refused.startswith(f"{code} {field}")
    assert re.search(r"\b[48] cases, \d+ repetitions in 1 job", asked.stdout), asked.stdout
    assert "Launch it?" in asked.stdout


def test_several_services_by_options(terminal):
    services = ["--service", "{preset: storage-quick, clients: [1, 2]}", "--service", "{preset: retrieval-quick}"]
    found = terminal("menu", *services, "--check")
    assert found.returncode == 0, found.stderr
    assert "7 cases, 21 repetitions in 3 job(s)" in found.stdout


def test_a_wrong_option_is_not_asked_again(terminal):
    refused = terminal("menu", "--preset", "storage-quick", "--profile", "laptop", "--set", "mode=drect", said="\n\n\n")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ko invalid_config config.mode: ")


@pytest.mark.parametrize("options", [["--cancel"], ["--follow"], ["--continue"], ["x", "--again", "--cancel"]])
def test_options_of_runs_that_lack_something(terminal, options):
    found = terminal("runs", *options)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert options[-1] in found.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--preset", "storage-quik"],
            "ko unknown_preset preset: 'storage-quik': no such preset (did you mean storage-quick? ",
        ),
        (
            ["--preset", "storage"],
            "ko unknown_preset preset: 'storage': several presets begin so (one of storage-full, st",
        ),
        (["--preset", "2"], "ko unknown_preset preset: '2': no such preset (allowed: "),
        (
            ["--preset", "storage-quick", "--profile", "labtop"],
            "ko unknown_profile profile: 'labtop': no such profile (did ",
        ),
        (["--clients", "1"], "ko unknown_benchmark preset: name a preset or a benchmark (allowed: "),
        (["--preset", "storage-quick", "--set", "mode=drect"], "ko invalid_config config.mode: 'drect': "),
        (["--preset", "storage-quick", "--clients", "1,99"], "ko over_limit clients: 99: more clients than "),
        (["--preset", "storage-quick", "--profile", "meluxina"], "ko no_allocation profile: account: "),
        (["--preset", "storage-quick", "--resource", "job.cores=4"], "ko invalid_config resources.job.cores: "),
        (["--preset", "storage-quick", "--resource", "job=4"], "ko invalid_request resources.job: 4: "),
        (["--preset", "storage-quick", "--set", "pack=2026-11-26"], "ko invalid_config config.pack: '2026-11-26': "),
        (["--preset", "storage-quick", "--set", f"x={10**18}"], "ko invalid_config config.x: "),
        (["--preset", "storage-quick", "--set", "path=/etc"], "ko invalid_config config.path: "),
        (
            ["--service", "{preset: storage-quick}", "--service", "{preset: retrieval-quick, config: {top_k: 0}}"],
            "ko invalid_config services[1].config.top_k: 0: ",
        ),
        (["--service", "{preset: storage-quick}", "--clients", "2"], "ko invalid_request clients: "),
        (["--service", "storage-quick"], "ko invalid_request services[0]: 'storage-quick': of the wrong kind "),
    ],
)
def test_refusals_are_one_line_and_exit_code_1(terminal, arguments, line):
    found = terminal("menu", *arguments, "--check")
    assert found.returncode == 1
    assert found.stderr.startswith(line), found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--clients", "many"], "aifbench: --clients, --servers = 'many': a number, or several: 1,2,4"),
        (["--set", "a=1", "--set", "a.b=2"], "aifbench: --set = 'a.b': a has a value already"),
        (["--project", "config"], "aifbench: --project = '"),
        (["--set", "axes"], "aifbench: --set = 'axes': needs the form KEY=VALUE"),
    ],
)
def test_options_that_are_none(terminal, arguments, line):
    found = terminal("menu", "--preset", "storage-quick", *arguments, "--check")
    assert found.returncode == 2
    assert found.stderr.startswith(line)
    assert found.stderr.count("\n") == 1
