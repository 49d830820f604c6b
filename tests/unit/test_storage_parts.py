"""Data, buffers, cache state, file system, workspace, preflight: each part by itself, on real files."""

import json
import mmap
import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from aifbench.core.system import Limits, Paths, System
from aifbench.machine.filesystem import describe, direct_alignment, mount_of
from aifbench.storage import cache_state
from aifbench.storage.buffers import HUGE_PAGE, AlignedBuffer
from aifbench.storage.data import RING_BYTES, BlockSource, ring_bytes
from aifbench.storage.params import MIB, PAGE, StorageParams
from aifbench.storage.preflight import check
from aifbench.storage.workspace import MARKER, held_signals, remove, remove_leftovers, workspace

BLOCK = 8 * PAGE


def source(seed=1, client=0, slots=4, block=BLOCK):
    return BlockSource(np.zeros(ring_bytes(block, slots), dtype=np.uint8), block, seed, client)


# -- data ---------------------------------------------------------------------------------------------------------


def test_ring_is_as_long_as_the_file_up_to_its_limit_and_at_least_one_block():
    assert ring_bytes(PAGE, 3) == 3 * PAGE
    assert ring_bytes(PAGE, 1000) == RING_BYTES
    assert ring_bytes(2 * RING_BYTES, 3) == 2 * RING_BYTES
    assert ring_bytes(47008, 2) == 2 * 12 * PAGE


def test_each_page_carries_its_offset_and_pages_never_repeat():
    blocks = source()
    seen = set()
    for index in range(8):  # twice round the ring
        blocks.stamp(index, index * BLOCK)
        content = blocks.block(index)
        pages = [content[start : start + PAGE].tobytes() for start in range(0, BLOCK, PAGE)]
        assert [int.from_bytes(page[:6], "little") for page in pages] == list(
            range(index * BLOCK, (index + 1) * BLOCK, PAGE)
        )
        seen.update(pages)
    assert len(seen) == 8 * 8


def test_other_seed_and_other_client_give_other_bytes():
    contents = {source(seed, client).block(0).tobytes() for seed, client in [(1, 0), (2, 0), (1, 1), (1, 0)]}
    assert len(contents) == 3


def test_an_undamaged_block_has_no_problem():
    blocks = source()
    blocks.stamp(5, 5 * BLOCK)
    found = blocks.block(5).copy()
    blocks.stamp(1, BLOCK)  # the ring's slot has been used again since
    assert blocks.problem(5, 5 * BLOCK, found) is None


@pytest.mark.parametrize("byte", [0, 7, 8, PAGE - 1, BLOCK - 1])
def test_any_flipped_bit_is_found(byte):
    blocks = source()
    blocks.stamp(0, 0)
    found = blocks.block(0).copy()
    found[byte] ^= 1
    assert blocks.problem(0, 0, found) is not None


def test_problems_are_told_apart():
    blocks = source()
    blocks.stamp(1, BLOCK)
    elsewhere = blocks.block(1).copy()
    assert blocks.problem(2, 2 * BLOCK, elsewhere) == f"offset {2 * BLOCK} holds the data of offset {BLOCK}"
    assert blocks.problem(0, 0, np.zeros(BLOCK, dtype=np.uint8)) == "offset 0 holds zeros"
    stale = source(seed=99)
    stale.stamp(0, 0)
    assert blocks.problem(0, 0, stale.block(0)) == "offset 0 holds foreign or damaged data"
    blocks.stamp(0, 0)
    flipped = blocks.block(0).copy()
    flipped[100] ^= 255
    assert blocks.problem(0, 0, flipped) == "byte 100 differs"


def test_odd_block_sizes_are_compared_to_the_last_byte():
    blocks = source(block=47008)
    blocks.stamp(0, 0)
    found = blocks.block(0).copy()
    assert found.size == 47008
    assert blocks.problem(0, 0, found) is None
    found[-1] ^= 1
    assert blocks.problem(0, 0, found) == "byte 47007 differs"


# -- buffers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["huge", "page"])
def test_buffers_are_aligned_and_say_what_backs_them(kind):
    buffer = AlignedBuffer(MIB, kind)
    buffer.array[:] = 1
    told = buffer.describe()
    assert told["bytes"] == MIB
    assert told["address_mod_2mib"] == 0
    assert buffer.address % HUGE_PAGE == 0
    if kind == "page":
        assert told["anon_huge_bytes"] in (0, None)


# -- cache state --------------------------------------------------------------------------------------------------


@pytest.fixture
def disk_file(tmp_path):
    if mount_of(tmp_path)["type"] in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder is memory: nothing can be dropped from it")
    path = tmp_path / "file"
    path.write_bytes(os.urandom(64 * PAGE + 17))
    return path


def test_residency_before_and_after_a_drop(disk_file):
    assert cache_state.residency([disk_file]) == 1.0
    cache_state.drop(disk_file)
    assert cache_state.residency([disk_file]) == 0.0
    cache_state.fill(disk_file)
    assert cache_state.resident_bytes(disk_file) == 64 * PAGE + 17


def test_a_half_cached_file_counts_half(tmp_path, disk_file):
    cache_state.drop(disk_file)
    other = tmp_path / "other"
    other.write_bytes(bytes(disk_file.stat().st_size))
    assert cache_state.residency([disk_file, other]) == pytest.approx(0.5)


def test_pages_that_someone_has_mapped_are_not_dropped_and_that_shows(disk_file):
    with disk_file.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[::PAGE]) >= 0  # touches each page
        cache_state.drop(disk_file)
        assert cache_state.residency([disk_file]) == 1.0


def test_an_empty_file_has_nothing_resident(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert cache_state.residency([path]) == 0.0


# -- file system --------------------------------------------------------------------------------------------------


def test_mount_facts():
    assert mount_of(Path("/proc/self"))["type"] == "proc"


def test_describe_has_space_and_a_type(tmp_path):
    told = describe(tmp_path)
    assert 0 < told["free_bytes"] <= told["total_bytes"]
    assert told["type"] != "unknown"
    assert json.loads(json.dumps(told)) == told


def test_direct_alignment_is_a_divisor_of_our_own_or_unknown(disk_file):
    told = direct_alignment(disk_file)
    assert told is None or (told["offset"] > 0 and PAGE % told["offset"] == 0)


# -- workspace ----------------------------------------------------------------------------------------------------


def log_to(lines):
    return lambda level, message: lines.append((level, message))


def test_a_workspace_leaves_nothing_on_any_way_out(tmp_path):
    lines = []
    with workspace(tmp_path, "batch", log_to(lines)) as folder:
        (folder / "data-0.bin").write_bytes(b"x")
    with suppress(RuntimeError), workspace(tmp_path, "batch", log_to(lines)) as folder:
        (folder / "shared.bin").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    assert lines == []


def test_a_file_of_somebody_else_keeps_the_folder_alive_and_is_told(tmp_path):
    lines = []
    with workspace(tmp_path, "batch", log_to(lines)) as folder:
        (folder / "data-0.bin").write_bytes(b"x")
        (folder / "thesis.txt").write_text("years of work")
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert not (folder / "data-0.bin").exists()
    assert [level for level, _ in lines] == [2]


@pytest.fixture
def dead_marker(tmp_path):
    """A workspace whose owner ended: the marker of this process, with a start time that no process has."""
    with workspace(tmp_path, "batch", log_to([])) as folder:
        marker = json.loads((folder / MARKER).read_text())
    folder.mkdir()
    (folder / "data-0.bin").write_bytes(b"x")
    (folder / MARKER).write_text(json.dumps({**marker, "started": "-1"}))
    return folder


def test_leftovers_of_a_dead_process_of_the_same_batch_are_removed(tmp_path, dead_marker):
    assert remove_leftovers(tmp_path, "other batch") == 0
    assert dead_marker.exists()
    assert remove_leftovers(tmp_path, "batch") == 1
    assert not dead_marker.exists()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"owner": "x"}, {"pid": "nonsense"}])
def test_leftovers_that_may_be_alive_stay(tmp_path, dead_marker, change):
    marker = json.loads((dead_marker / MARKER).read_text())
    (dead_marker / MARKER).write_text(json.dumps({**marker, **change}))
    assert remove_leftovers(tmp_path, "batch") == 0
    assert dead_marker.exists()


def test_leftovers_of_a_live_process_stay(tmp_path):
    with workspace(tmp_path, "batch", log_to([])) as folder:
        assert remove_leftovers(tmp_path, "batch") == 0
        assert folder.exists()


def test_a_folder_without_a_marker_is_not_ours(tmp_path):
    folder = tmp_path / "aifbench-storage-mine"
    folder.mkdir()
    assert remove_leftovers(tmp_path, "batch") == 0
    assert folder.exists()
    assert remove(folder)


def test_signals_wait_until_the_block_is_done():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with held_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


# -- preflight ----------------------------------------------------------------------------------------------------


def errors(target, fraction=0.5, **values):
    system = System(name="here", paths=Paths(target=target), limits=Limits(space_fraction=fraction))
    params = StorageParams.model_validate({"file_size": "1MiB", "mode": "warm", **values})
    return list(check(params, system))


def test_a_missing_folder_below_a_writable_one_is_fine_and_not_made(tmp_path):
    assert errors(tmp_path / "a" / "b") == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (error,) = errors(tmp_path / "file" / "below")
    assert error.key == "paths.target"
    assert "is a file" in str(error)
    (error,) = errors(tmp_path, path=str(tmp_path / "file"))
    assert error.key == "path"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named():
    (error,) = errors("/proc/self/fdinfo/below")
    assert "cannot write in /proc/self/fdinfo" in str(error)


def test_a_case_that_fills_too_much_is_refused(tmp_path):
    free = describe(tmp_path)["free_bytes"]
    size = free // MIB * MIB
    (error,) = errors(tmp_path, file_size=size)
    assert error.key == "file_size"
    assert "more than 50% of the free" in str(error)
    (error,) = errors(tmp_path, file_size="1MiB", clients=1024, fraction=512 * MIB / free)
    assert error.key == "file_size"
