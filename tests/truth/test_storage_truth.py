"""Planted lies: each one must turn a storage result invalid or failed, and nothing may stay behind."""

import mmap
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from aifbench.core.benchmark import CaseFailed, Context
from aifbench.core.system import Paths, System
from aifbench.machine.filesystem import mount_of
from aifbench.storage import cache_state, worker
from aifbench.storage.metrics import READ, WRITE, evaluate
from aifbench.storage.params import MIB, PAGE, StorageParams
from aifbench.storage.preflight import check
from tests.fixtures.notes import said

SIZE = 4 * MIB
BLOCK = 256 * 1024


def params(**values):
    return StorageParams.model_validate({"file_size": SIZE, "block_size": BLOCK, "mode": "buffered-cold", **values})


def context(folder, target=None, seed=3):
    (folder / "work").mkdir(exist_ok=True)
    return Context(
        benchmark="storage",
        repetition=0,
        seed=seed,
        work_dir=folder / "work",
        cache_dir=folder,
        target_dir=target or folder / "target",
        endpoints=(),
        progress=lambda records: None,
        log=print,
        phase=lambda name: None,
    )


@pytest.fixture
def disk(tmp_path):
    if mount_of(tmp_path)["type"] in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder is memory: there is no cold or direct I/O")
    return tmp_path


def run(case, folder, target=None, seed=3):
    """One repetition through the real worker: (measurement, metrics, verdict); the target is empty afterwards."""
    runner = worker.WORKER(context(folder, target, seed))
    where = target or folder / "target"
    try:
        runner.prepare(case)
        before = sorted(where.iterdir())
        measurement = runner.measure(case)
    finally:
        runner.close()
        assert sorted(where.iterdir()) == before
    return measurement, *evaluate(case, measurement.raw, measurement.facts)


# -- the truth first: an honest run is valid -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["direct", "buffered-cold", "warm"])
@pytest.mark.parametrize(
    ("clients", "layout", "pattern"),
    [(1, "file-per-client", "sequential"), (2, "shared", "random"), (2, "file-per-client", "random")],
)
def test_an_honest_run_is_valid_and_complete(disk, mode, clients, layout, pattern):
    case = params(mode=mode, clients=clients, layout=layout, pattern=pattern)
    measurement, metrics, verdict = run(case, disk)
    # a warm read of 4 MiB takes half a millisecond, of which one short interruption is a large part
    assert [reason for reason in said(verdict.reasons) if "own work" not in reason] == []
    raw = measurement.raw
    for phase in (WRITE, READ):
        for client in range(clients):
            chosen = (raw["phase"] == phase) & (raw["client"] == client)
            first = client * SIZE // clients if layout == "shared" else 0
            own = SIZE // clients if layout == "shared" else SIZE
            assert sorted(raw["offset"][chosen]) == list(range(first, first + own, BLOCK))
            is_sorted = list(raw["offset"][chosen]) == sorted(raw["offset"][chosen])
            assert is_sorted == (pattern == "sequential")
    assert (raw["end_ns"] > raw["start_ns"]).all()
    split = metrics["write_io_s"].value + metrics["write_sync_s"].value
    assert split == pytest.approx(metrics["write_time_s"].value, rel=0.005)
    assert sum(marks["read_bytes"] for marks in measurement.facts["read"]) == (
        0 if mode == "warm" else case.total_bytes
    )


def test_the_parts_of_one_clients_write_time_are_stamped_without_a_gap(disk):
    measurement, metrics, _ = run(params(mode="direct", file_size=64 * MIB), disk)
    raw, marks = measurement.raw, measurement.facts["write"][0]
    chosen = raw["phase"] == WRITE
    starts, ends = raw["start_ns"][chosen], raw["end_ns"][chosen]
    own_s = metrics["write_time_s"].instrument - starts.size * measurement.facts["clock_pair_ns"] / 1e9
    operations_s = int((ends - starts).sum()) / 1e9
    sync_s = (marks["dirsync_end_ns"] - int(ends.max())) / 1e9
    assert operations_s + own_s + sync_s == pytest.approx(metrics["write_time_s"].value, rel=0.005)
    order = ["open_start_ns", "open_end_ns", "fsync_start_ns", "fsync_end_ns", "close_end_ns", "dirsync_end_ns"]
    assert [marks[name] for name in order] == sorted(marks[name] for name in order)
    assert marks["open_end_ns"] <= starts.min()
    assert marks["fsync_start_ns"] >= ends.max()


def test_two_runs_with_one_seed_visit_the_blocks_in_the_same_order(disk):
    first, second, other = (run(params(pattern="random"), disk, seed=seed)[0].raw["offset"] for seed in (3, 3, 4))
    assert list(first) == list(second)
    assert list(first) != list(other)


@pytest.mark.parametrize("block_size", [PAGE, 3 * PAGE, 47008])
def test_a_file_longer_than_the_ring_is_stamped_anew_and_verifies(disk, block_size):
    case = params(clients=2, pattern="random", block_size=block_size, file_size=500 * block_size)
    measurement, _, verdict = run(case, disk)
    assert [entry["bad_blocks"] for entry in measurement.facts["verify"]] == [0, 0]
    assert not [reason for reason in said(verdict.reasons) if "verif" in reason]


# -- damage between writing and reading ----------------------------------------------------------------------------


def flip(file):
    with file.open("r+b") as handle:
        handle.seek(5 * PAGE + 77)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte[0] ^ 1]))


def flip_stamp(file):
    with file.open("r+b") as handle:
        handle.seek(9 * PAGE)
        handle.write(b"\xff")


def swap(file):
    with file.open("r+b") as handle:
        first = handle.read(BLOCK)
        second = handle.read(BLOCK)
        handle.seek(0)
        handle.write(second + first)


def zero(file):
    with file.open("r+b") as handle:
        handle.seek(BLOCK)
        handle.write(bytes(PAGE))


@pytest.mark.parametrize("mode", ["direct", "buffered-cold", "warm"])
@pytest.mark.parametrize(
    ("damage", "blocks", "word"),
    [
        (flip, 1, f"byte {5 * PAGE + 77} differs"),
        (flip_stamp, 1, f"offset {9 * PAGE} holds"),
        (swap, 2, f"offset 0 holds the data of offset {BLOCK}"),
        (zero, 1, f"offset {BLOCK} holds zeros"),
    ],
)
def test_damaged_data_is_found(disk, monkeypatch, mode, damage, blocks, word):
    plant(monkeypatch, damage)
    measurement, _, verdict = run(params(mode=mode), disk)
    assert measurement.facts["verify"][0]["bad_blocks"] == blocks
    assert word in " ".join(said(verdict.reasons))


def plant(monkeypatch, damage):
    """Damage the first file after it was written and before the cache is prepared for the read."""
    honest = worker._prepare_cache

    def dishonest(mode, files):
        damage(files[0])
        return honest(mode, files)

    monkeypatch.setattr(worker, "_prepare_cache", dishonest)


def test_a_stale_file_of_an_earlier_seed_is_found(disk, monkeypatch):
    saved = []
    plant(monkeypatch, lambda file: saved.append(file.read_bytes()))
    run(params(), disk, seed=1)
    monkeypatch.undo()
    plant(monkeypatch, lambda file: file.write_bytes(saved[0]))
    measurement, _, verdict = run(params(), disk, seed=2)
    assert measurement.facts["verify"][0]["bad_blocks"] == SIZE // BLOCK
    assert "holds foreign or damaged data" in " ".join(said(verdict.reasons))


def test_a_truncated_file_fails_the_case(disk, monkeypatch):
    plant(monkeypatch, lambda file: os.truncate(file, SIZE - 1))
    with pytest.raises(CaseFailed) as error:
        run(params(), disk)
    assert error.value.kind == "short_read"
    assert f"read at offset {SIZE - BLOCK}: {BLOCK - 1} of {BLOCK} bytes" in str(error.value)


def test_a_file_truncated_after_the_read_is_found(disk, monkeypatch):
    honest = cache_state.residency
    calls = []

    def dishonest(files):
        calls.append(files)
        if len(calls) == 3:  # after the read
            os.truncate(files[0], SIZE - BLOCK - 1)
        return honest(files)

    monkeypatch.setattr(cache_state, "residency", dishonest)
    measurement, _, verdict = run(params(), disk)
    assert measurement.facts["verify"][0]["bad_blocks"] == 2
    assert "the file ends after" in " ".join(said(verdict.reasons))


# -- reads that are not what they are called -----------------------------------------------------------------------


def test_a_file_that_is_mapped_elsewhere_is_not_cold(disk, monkeypatch):
    held = []

    def hold(file):
        with file.open("rb") as handle:
            held.append(mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ))
        assert sum(held[0][8::PAGE]) > 0  # touches each page

    plant(monkeypatch, hold)
    _, _, verdict = run(params(), disk)
    held[0].close()
    assert any("not cold: 100.00% of the data was in the page cache" in reason for reason in said(verdict.reasons))


def test_a_drop_that_did_nothing_is_caught_by_the_second_witness(disk, monkeypatch):
    monkeypatch.setattr(cache_state, "drop", lambda path: None)
    monkeypatch.setattr(cache_state, "residency", lambda files: 0.0)
    _, _, verdict = run(params(), disk)
    assert "not cold: the kernel fetched 0.00% of the bytes from storage (needs 99%)" in said(verdict.reasons)


def test_a_cold_file_is_not_warm(disk, monkeypatch):
    monkeypatch.setattr(cache_state, "fill", cache_state.drop)
    _, _, verdict = run(params(mode="warm"), disk)
    assert any(reason.startswith("not warm") for reason in said(verdict.reasons))


# -- file systems that refuse --------------------------------------------------------------------------------------


@contextmanager
def mounted(folder, kind, options="size=2m"):
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder.mkdir()
    command = ["mount", "-t", kind, "-o", options, "none", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("clients", [1, 2])
def test_a_full_file_system_fails_the_case_and_is_left_empty(tmp_path, clients):
    with mounted(tmp_path / "small", "tmpfs") as small:
        with pytest.raises(CaseFailed) as error:
            run(params(mode="warm", clients=clients), tmp_path, target=small)
        assert error.value.kind == "enospc"
        assert "No space left on device" in str(error.value)
        assert list(small.iterdir()) == []


def test_a_read_only_file_system_is_told_before_and_fails_by_class(tmp_path):
    with mounted(tmp_path / "frozen", "tmpfs", "size=2m,ro") as frozen:
        (error,) = check(params(), System(name="here", paths=Paths(target=frozen)))
        assert "Read-only file system" in str(error)
        runner = worker.WORKER(context(tmp_path, frozen))
        with pytest.raises(CaseFailed) as failure:
            runner.measure(params())
        assert failure.value.kind == "erofs"


def test_direct_is_refused_where_the_file_system_has_none(tmp_path):
    with mounted(tmp_path / "memory", "ramfs", "mode=700") as memory:
        case = params(mode="direct")
        (error,) = check(case, System(name="here", paths=Paths(target=memory)))
        assert "ramfs on" in str(error)
        assert "refuses direct I/O" in str(error)
        with pytest.raises(CaseFailed) as failure:
            run(case, tmp_path, target=memory)
        assert failure.value.kind == "direct_unsupported"


def test_memory_is_neither_cold_nor_direct(tmp_path):
    with mounted(tmp_path / "memory", "tmpfs", "size=32m") as memory:
        _, _, verdict = run(params(), tmp_path, target=memory)
        assert any(reason.startswith("not cold") for reason in said(verdict.reasons))
        assert any("tmpfs is memory" in note for note in said(verdict.notes))
        try:
            _, _, verdict = run(params(mode="direct"), tmp_path, target=memory)
        except CaseFailed as failure:  # kernels before 6.6
            assert failure.kind == "direct_unsupported"  # noqa: PT017
        else:
            assert any(reason.startswith("not direct") for reason in said(verdict.reasons))


# -- what is left behind -------------------------------------------------------------------------------------------


def test_files_of_the_user_are_untouched(disk):
    target = disk / "target"
    target.mkdir()
    names = ("data-0.bin", "shared.bin", "owner.json")
    for name in names:
        (target / name).write_text(f"mine: {name}")
    before = [(path.stat().st_mtime_ns, path.read_text()) for path in sorted(target.iterdir())]
    run(params(), disk)
    assert [(path.stat().st_mtime_ns, path.read_text()) for path in sorted(target.iterdir())] == before
    assert sorted(path.name for path in target.iterdir()) == sorted(names)


WORKER_SCRIPT = """
import sys
from pathlib import Path
from aifbench.core.benchmark import Context
from aifbench.storage.params import StorageParams
from aifbench.storage.worker import WORKER
work, target = map(Path, sys.argv[1:])
show = lambda name: print(name, flush=True)
context = Context("storage", 0, 1, work, work, target, (), lambda records: None, print, show)
worker = WORKER(context)
params = StorageParams(file_size="256MiB", block_size="64KiB", mode="buffered-cold", clients=2)
worker.prepare(params)
worker.measure(params)
"""


@contextmanager
def started(folder, phase):
    """A worker process in its own group that has just begun `phase`; its whole group has ended afterwards."""
    (folder / "work").mkdir(exist_ok=True)
    (folder / "target").mkdir(exist_ok=True)
    command = [sys.executable, "-c", WORKER_SCRIPT, str(folder / "work"), str(folder / "target")]
    source = str(Path(worker.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    try:
        for line in process.stdout:
            if line.strip() == phase:
                break
        yield process
        process.wait(30)
        assert ended(process.pid)
    finally:
        if not ended(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        process.stdout.close()


def ended(group):
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("phase", ["warmup", "write", "read"])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_term_leaves_no_file_and_no_process(tmp_path, phase, whole_group):
    with started(tmp_path, phase) as process:
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "target").iterdir()) == []


def test_a_killed_worker_takes_its_clients_along_and_its_files_go_with_the_next_run(tmp_path):
    with started(tmp_path, "write") as process:
        os.kill(process.pid, signal.SIGKILL)
    target = tmp_path / "target"
    assert len(list(target.iterdir())) == 1
    other = tmp_path / "other"
    other.mkdir()
    stranger = worker.WORKER(context(other, target))
    assert stranger.prepare(params())["leftovers_removed"] == 0
    runner = worker.WORKER(context(tmp_path, target))
    assert runner.prepare(params())["leftovers_removed"] == 1
    assert list(target.iterdir()) == []


def test_a_client_that_is_killed_fails_the_case(disk, monkeypatch):
    honest = worker._prepare_cache

    def kill_a_client(mode, files):
        os.kill(psutil.Process().children()[-1].pid, signal.SIGKILL)
        return honest(mode, files)

    monkeypatch.setattr(worker, "_prepare_cache", kill_a_client)
    with pytest.raises(CaseFailed) as error:
        run(params(clients=2), disk)
    assert error.value.kind == "client_died"


def test_stripes_on_a_file_system_without_them_are_said_to_be_left_out(disk):
    measurement, _, verdict = run(params(mode="direct", stripe_count=4), disk)
    assert measurement.facts["stripes"] is None
    assert "stripe_count 4 has no meaning on" in " ".join(said(verdict.notes))
