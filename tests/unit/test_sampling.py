import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

from aifbench.machine import provenance as provenance_module
from aifbench.machine.environment import environment
from aifbench.machine.provenance import provenance
from aifbench.sampling import sampler as sampler_module
from aifbench.sampling.sampler import Gpus, Process, Sampler, Trees, parse_stat, scan_processes, with_details

COLUMNS = {
    "invocation",
    "t_s",
    "node",
    "clock_s",
    "role",
    "processes",
    "cpu_cores",
    "cpu_seconds",
    "rss_bytes",
    "peak_rss_bytes",
    "anon_bytes",
    "file_bytes",
    "shmem_bytes",
    "read_bytes",
    "write_bytes",
    "vfs_read_bytes",
    "vfs_write_bytes",
    "memory_available_bytes",
    "stalled_cpu_s",
    "stalled_memory_s",
    "stalled_io_s",
    "gpu",
    "records",
    "errors",
    "source",
}
S = 1_000_000_000


# -- trees, by hand -----------------------------------------------------------------------------------------------


def process(pid, parent, cpu_s, *, start=1, rss=10, peak=20, io=0):
    return Process((pid, start), parent, cpu_s, rss, peak, read_bytes=io, write_bytes=io)


def sample(trees, processes, roots, at_s):
    scan = {one.identity[0]: one for one in processes}
    rows = trees.update(trees.assign(scan, roots), scan, at_s * S)
    return {row["role"]: row for row in rows}


ROOTS = {"runner": 10, "worker": 20}


def test_a_tree_ends_where_another_role_begins():
    processes = [process(1, 0, 99), process(10, 1, 2), process(20, 10, 3), process(21, 20, 4), process(11, 10, 1)]
    rows = sample(Trees(), processes, ROOTS, 0)
    assert (rows["runner"]["processes"], rows["runner"]["cpu_seconds"]) == (2, 3.0)
    assert (rows["worker"]["processes"], rows["worker"]["cpu_seconds"]) == (2, 7.0)
    assert rows["worker"]["rss_bytes"] == 20
    assert rows["worker"]["cpu_cores"] is None


def test_cores_in_use_are_the_growth_over_the_window():
    trees = Trees()
    sample(trees, [process(10, 1, 2), process(20, 10, 3)], ROOTS, 0)
    rows = sample(trees, [process(10, 1, 2), process(20, 10, 6)], ROOTS, 2)
    assert rows["worker"]["cpu_cores"] == pytest.approx(1.5)
    assert rows["runner"]["cpu_cores"] == 0.0


def test_a_window_of_a_few_clock_ticks_gives_no_rate():
    trees = Trees()
    sample(trees, [process(20, 10, 3)], {"worker": 20}, 0)
    scan = {20: process(20, 10, 4)}
    (row,) = trees.update(trees.assign(scan, {"worker": 20}), scan, S // 1000)
    assert row["cpu_cores"] is None


def test_a_reaped_child_is_counted_once():
    trees = Trees()
    sample(trees, [process(20, 10, 1), process(21, 20, 5)], {"worker": 20}, 0)
    rows = sample(trees, [process(20, 10, 6)], {"worker": 20}, 1)  # wait(2) gave the child's 5 s to its parent
    assert rows["worker"]["cpu_seconds"] == 6.0


def test_a_new_round_goes_on_from_the_ended_one_and_the_runner_does_not_inherit_it():
    trees = Trees()
    sample(trees, [process(10, 1, 1), process(20, 10, 5, io=100), process(21, 20, 2, io=10)], ROOTS, 0)
    rows = sample(trees, [process(10, 1, 8, io=110)], {"runner": 10}, 1)  # 1 s of its own and 7 s inherited
    assert rows["worker"]["processes"] == 0
    assert rows["worker"]["cpu_seconds"] == 7.0
    assert rows["runner"]["cpu_seconds"] == 1.0
    assert (rows["worker"]["read_bytes"], rows["runner"]["read_bytes"]) == (110, 0)
    rows = sample(trees, [process(10, 1, 8, io=110), process(30, 10, 1)], {"runner": 10, "worker": 30}, 2)
    assert rows["worker"]["cpu_seconds"] == 8.0
    assert rows["worker"]["peak_rss_bytes"] == 40


def test_an_orphan_stays_in_its_role():
    trees = Trees()
    sample(trees, [process(20, 10, 1), process(21, 20, 2)], {"worker": 20}, 0)
    rows = sample(trees, [process(21, 1, 3)], {"worker": 20}, 1)
    assert rows["worker"]["processes"] == 1
    assert rows["worker"]["cpu_seconds"] == 4.0


def test_a_pid_that_is_used_again_is_another_process():
    trees = Trees()
    sample(trees, [process(20, 10, 1), process(21, 20, 2)], {"worker": 20}, 0)
    rows = sample(trees, [process(20, 10, 3), process(21, 1, 50, start=2)], {"worker": 20}, 1)
    assert rows["worker"]["processes"] == 1
    assert rows["worker"]["cpu_seconds"] == 3.0


def test_totals_never_fall():
    trees = Trees()
    sample(trees, [process(20, 10, 1), process(21, 20, 5)], {"worker": 20}, 0)
    rows = sample(trees, [process(20, 10, 1)], {"worker": 20}, 1)  # the parent has not inherited yet
    assert rows["worker"]["cpu_seconds"] == 6.0
    assert rows["worker"]["cpu_cores"] == 0.0
    rows = sample(trees, [process(20, 10, 7)], {"worker": 20}, 2)
    assert rows["worker"]["cpu_seconds"] == 7.0


def test_counters_that_one_process_hides_are_not_a_partial_sum():
    hidden = Process((21, 1), 20, 1.0, 10)
    rows = sample(Trees(), [process(20, 10, 1, io=5), hidden], {"worker": 20}, 0)
    assert rows["worker"]["read_bytes"] is None
    assert rows["worker"]["cpu_seconds"] == 2.0


# -- /proc --------------------------------------------------------------------------------------------------------


def test_stat_with_a_nasty_name():
    tail = "S 7 " + " ".join(["0"] * 9) + " 100 50 30 20 " + "0 0 0 0 4242 0 3 0"
    parsed = parse_stat(f"123 (a) b (c) {tail}")
    ticks = os.sysconf("SC_CLK_TCK")
    assert parsed == Process((123, 4242), 7, 200 / ticks, 3 * os.sysconf("SC_PAGE_SIZE"))


def test_the_scan_agrees_with_psutil_about_this_process():
    own = with_details(scan_processes()[os.getpid()])
    witness = psutil.Process()
    assert own.parent == witness.ppid()
    assert own.peak_rss_bytes >= own.rss_bytes * 0.9
    assert own.write_bytes <= witness.io_counters().write_bytes
    assert own.vfs_write_bytes <= witness.io_counters().write_chars
    assert own.anon_bytes + own.file_bytes + own.shmem_bytes == pytest.approx(own.rss_bytes, rel=0.1)


def test_memory_is_told_by_kind(tmp_path):
    """100 MiB of its own, 50 of a file and 20 shared: the kernel keeps them apart."""
    (tmp_path / "data").write_bytes(b"x" * (50 << 20))
    code = (
        "import mmap, sys\n"
        "own = bytearray(b'x' * (100 << 20))\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(mapped[::4096])\n"
        "shared = mmap.mmap(-1, 20 << 20); shared.write(b'x' * (20 << 20))\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        found = with_details(scan_processes()[child.pid])
        child.stdin.close()
    assert 100 << 20 <= found.anon_bytes < 120 << 20
    assert 50 << 20 <= found.file_bytes < 75 << 20
    assert found.shmem_bytes == 20 << 20


def test_a_process_that_has_ended_and_is_not_waited_for_has_no_memory():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        child.stdout.read()
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        found = with_details(scan_processes()[child.pid])
    assert (found.rss_bytes, found.anon_bytes, found.file_bytes, found.shmem_bytes) == (0, 0, 0, 0)


def test_what_one_process_does_not_tell_is_not_known_of_the_role():
    told = Process((20, 1), 10, 1.0, 10, anon_bytes=6, file_bytes=3, shmem_bytes=1)
    silent = Process((21, 1), 20, 1.0, 10)
    rows = sample(Trees(), [told], {"worker": 20}, 0)
    assert [rows["worker"][name] for name in ("anon_bytes", "file_bytes", "shmem_bytes")] == [6, 3, 1]
    assert sample(Trees(), [told, silent], {"worker": 20}, 0)["worker"]["anon_bytes"] is None


def test_pressure_is_the_total_of_the_line_some(monkeypatch):
    text = "some avg10=0.07 avg60=0.73 avg300=2.77 total=3601690283\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
    monkeypatch.setattr(sampler_module, "_text", {"/proc/pressure/io": text}.get)
    assert sampler_module.stalled_s("io") == pytest.approx(3601.690283)
    assert sampler_module.stalled_s("cpu") is None


def test_a_process_that_has_ended_since_the_scan_is_no_error():
    gone = Process((2**22 + 1, 1), 1, 0.0, 0)
    assert with_details(gone) == gone


# -- the thread ---------------------------------------------------------------------------------------------------


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sampled(tmp_path, roles, seconds, records=lambda: 7, interval_s=0.1):
    out = tmp_path / "live" / "resources.jsonl"
    sampler = Sampler(out, 2, time.monotonic_ns(), roles, records, interval_s=interval_s)
    sampler.start()
    time.sleep(seconds)
    sampler.stop()
    return sampler, rows_of(out) if out.exists() else []


def test_each_tick_has_a_line_per_role_and_one_for_the_node(tmp_path):
    sampler, rows = sampled(tmp_path, lambda: {"runner": os.getpid()}, 0.35)
    assert sampler.problem is None
    assert sampler.cpu_s > 0
    assert all(set(row) == (COLUMNS | {"step"} if row["role"] == "node" else COLUMNS) for row in rows)
    assert [row["role"] for row in rows[:4]] == ["runner", "node", "runner", "node"]
    assert {(row["invocation"], row["records"], row["errors"]) for row in rows} == {(2, 7, None)}
    times = [row["t_s"] for row in rows if row["role"] == "node"]
    assert times == sorted(times)
    first, node = rows[0], rows[1]
    assert (first["cpu_cores"], node["cpu_cores"]) == (None, None)
    assert first["rss_bytes"] > 1e6
    assert first["memory_available_bytes"] is None
    assert node["rss_bytes"] is None
    assert 0 < node["memory_available_bytes"] <= psutil.virtual_memory().total
    assert node["processes"] >= first["processes"] == 1 + len(psutil.Process().children(recursive=True))


def test_short_children_are_counted_with_their_parent(tmp_path):
    child = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys\nfor _ in range(4): subprocess.run([sys.executable, '-c', {child!r}])\n"
    command = [sys.executable, "-c", parent + "print('done', flush=True)\nsys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"done\n"
        times = psutil.Process(worker.pid).cpu_times()
        sampler, rows = sampled(tmp_path, lambda: {"worker": worker.pid}, 0.01)
        worker.stdin.close()
    truth = times.user + times.system + times.children_user + times.children_system
    assert sampler.problem is None
    assert rows[0]["cpu_seconds"] == pytest.approx(truth, abs=0.03)
    assert rows[0]["cpu_seconds"] >= 4 * 0.05 - 0.04


def test_late_samples_are_counted_and_not_made_up(tmp_path):
    def slow():
        time.sleep(0.25)
        return {}

    sampler, rows = sampled(tmp_path, slow, 0.6)
    assert sampler.missed >= 2
    assert len(rows) <= 4


def test_nothing_is_raised_into_the_runner(tmp_path):
    def broken():
        raise KeyError("no roles")

    sampler, rows = sampled(tmp_path, broken, 0.25)
    assert sampler.errors >= 2
    assert sampler.problem == "KeyError: 'no roles'"
    assert rows == []
    (tmp_path / "file").write_text("")
    sampler = Sampler(tmp_path / "file" / "x", 0, 0, dict, lambda: None)
    sampler.start()
    sampler.stop()
    assert "NotADirectoryError" in sampler.problem or "FileExistsError" in sampler.problem


def test_stop_without_start_and_twice(tmp_path):
    sampler = Sampler(tmp_path / "x", 0, 0, dict, lambda: None)
    sampler.stop()
    sampler.stop()


def test_a_process_that_is_already_gone_gives_an_empty_role(tmp_path):
    _, rows = sampled(tmp_path, lambda: {"server": 2**22 + 1}, 0.01)
    assert (rows[0]["role"], rows[0]["processes"], rows[0]["cpu_seconds"]) == ("server", 0, 0.0)


# -- GPUs ---------------------------------------------------------------------------------------------------------


class FakeNvmlError(Exception):
    pass


def fake_nvml(power):
    def refuse(handle):
        raise FakeNvmlError

    return types.SimpleNamespace(
        NVMLError=FakeNvmlError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid if uuid == "GPU-a" else refuse(uuid),
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 2500,
        nvmlDeviceGetUtilizationRates=lambda handle: types.SimpleNamespace(gpu=40),
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used=1024, total=4096),
        nvmlDeviceGetPowerUsage=(lambda handle: power) if power else refuse,
    )


@pytest.mark.parametrize(("milliwatts", "watts"), [(250_000, 250.0), (None, None)])
def test_gpu_values_have_units_and_a_refused_one_is_null(monkeypatch, milliwatts, watts):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(milliwatts))
    gpus = Gpus()
    row = {"index": 0, "utilization": 0.4, "memory_bytes": 1024, "memory_total_bytes": 4096, "energy_j": 2.5}
    assert gpus.sample() == [{**row, "power_w": watts}]
    gpus.close()


@pytest.mark.parametrize(("devices", "indices"), [(None, [0]), (("0",), [0]), (("GPU-b", "GPU-a"), [1])])
def test_only_the_gpus_of_the_job_are_sampled(monkeypatch, devices, indices):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0))
    assert [row["index"] for row in Gpus(devices).sample()] == indices


def test_a_job_without_gpus_has_none_on_a_node_that_has_some(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0))
    assert Gpus(()).sample() is None


def test_the_node_s_line_tells_the_step(tmp_path):
    sampler = Sampler(tmp_path / "x", 0, 0, dict, lambda: None, step=lambda: {"phase": "write"}, interval_s=0.1)
    sampler.start()
    sampler.stop()
    assert next(row["step"] for row in rows_of(tmp_path / "x")) == {"phase": "write"}


def test_without_nvml_gpus_are_null_not_empty(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus = Gpus()
    assert gpus.sample() is None
    gpus.close()


# -- environment and provenance -----------------------------------------------------------------------------------


def test_environment_is_plain_json_and_agrees_with_psutil():
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["cpu"]["threads_usable"] == len(psutil.Process().cpu_affinity())
    assert facts["kernel"] == os.uname().release
    assert facts["filesystem"]["type"]


def test_provenance_names_job_and_versions_and_no_user(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "mel[1-2]", "LOADEDMODULES": "a/1:b/2"}.items():
        monkeypatch.setenv(name, value)
    facts = provenance()
    assert facts["slurm"]["job_id"] == "17"
    assert facts["modules"] == ["a/1", "b/2"]
    assert facts["packages"]["numpy"]
    assert "user" not in json.dumps(list(facts))
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("LOADEDMODULES")
    assert provenance()["slurm"]["job_id"] is None
    assert provenance()["modules"] is None


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_the_commit_is_that_of_the_checkout_which_holds_the_package(tmp_path):
    package = tmp_path / "src" / "aifbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert provenance_module._git(package) == {"commit": None, "dirty": None}
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert provenance_module._git(package) == {"commit": commit, "dirty": False}
    (package / "new.py").write_text("")
    assert provenance_module._git(package)["dirty"] is True
    installed = tmp_path / "venv" / "site-packages" / "aifbench"
    installed.mkdir(parents=True)
    assert provenance_module._git(installed) == {"commit": None, "dirty": None}


def test_the_cost_of_one_sample_is_measured(tmp_path):
    sampler, rows = sampled(tmp_path, lambda: {"runner": os.getpid()}, 0.3)
    assert len(rows) >= 2
    assert 0 < sampler.cpu_s < psutil.Process().cpu_times().user + psutil.Process().cpu_times().system


def test_cpu_of_the_node_is_what_proc_says():
    text = Path("/proc/stat").read_text().splitlines()[0].split()
    idle = int(text[4]) + int(text[5])
    total = sum(int(field) for field in text[1:9])
    assert sampler_module.node_busy_s() == pytest.approx((total - idle) / os.sysconf("SC_CLK_TCK"), abs=5)
