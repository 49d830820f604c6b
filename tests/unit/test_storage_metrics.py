"""Hand-computable repetitions: the stamps are chosen, so every figure is known."""

import numpy as np
import pytest

from aifbench.registry import sentence
from aifbench.storage.metrics import READ, WRITE, evaluate
from aifbench.storage.params import MIB, StorageParams
from tests.fixtures.notes import said

MS = 1_000_000


def params(**values):
    return StorageParams.model_validate({"file_size": 2 * MIB, "block_size": MIB, **values})


def raw(rows):
    """Columns from rows (client, phase, start_ms, end_ms)."""
    client, phase, start, end = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "client": client.astype(np.int16),
        "phase": phase.astype(np.int8),
        "offset": np.zeros(len(rows), dtype=np.int64),
        "start_ns": (start * MS).astype(np.int64),
        "end_ns": (end * MS).astype(np.int64),
    }


def facts(*, durable_ms=(40,), **values):
    clients = len(durable_ms)
    return {
        "filesystem": {"type": "ext4", "device": {"name": "sda", "virtual": False}},
        "clients": [{"buffer": {"anon_huge_bytes": 2 * MIB}}] * clients,
        "write": [{"dirsync_end_ns": t * MS, "directory_synced": True} for t in durable_ms],
        "read": [{"read_bytes": 2 * MIB}] * clients,
        "cache": {"residency": 0.0},
        "verify": [{"blocks": 2, "bad_blocks": 0, "first_problem": None}] * clients,
        "clock_pair_ns": 100.0,
        "stripes": None,
        **values,
    }


ONE = [(0, WRITE, 10, 14), (0, WRITE, 14, 20), (0, READ, 100, 101), (0, READ, 101, 105)]
TWO = [
    *[(0, WRITE, 10, 15), (0, WRITE, 15, 20), (1, WRITE, 12, 20), (1, WRITE, 20, 50)],
    *[(0, READ, 100, 105), (0, READ, 105, 110), (1, READ, 100, 110), (1, READ, 110, 140)],
]


def value(metrics, name):
    return metrics[name].value


def test_times_and_bandwidths_of_one_client():
    metrics, verdict = evaluate(params(), raw(ONE), facts())
    assert verdict.valid, said(verdict.reasons)
    assert said(verdict.notes) == []
    assert value(metrics, "write_time_s") == pytest.approx(0.030)
    assert value(metrics, "write_io_s") == pytest.approx(0.010)
    assert value(metrics, "write_sync_s") == pytest.approx(0.020)
    assert value(metrics, "read_time_s") == pytest.approx(0.005)
    assert value(metrics, "write_bandwidth_mib_s") == pytest.approx(2 / 0.030)
    assert value(metrics, "write_io_bandwidth_mib_s") == pytest.approx(2 / 0.010)
    assert value(metrics, "read_bandwidth_mib_s") == pytest.approx(2 / 0.005)
    assert value(metrics, "write_iops") == pytest.approx(200)
    assert value(metrics, "read_iops") == pytest.approx(400)
    assert value(metrics, "write_latency_mean_ms") == pytest.approx(5)
    assert value(metrics, "read_latency_max_ms") == pytest.approx(4)
    assert metrics["read_latency_max_ms"].instrument == pytest.approx(1e-4)
    assert metrics["write_time_s"].n == 2


def test_split_of_the_write_time_adds_up_with_several_clients():
    metrics, _ = evaluate(params(clients=2), raw(TWO), facts(durable_ms=(25, 70), read=[{"read_bytes": 2 * MIB}] * 2))
    assert value(metrics, "write_time_s") == pytest.approx(0.060)
    assert value(metrics, "write_io_s") == pytest.approx(0.040)
    total = value(metrics, "write_io_s") + value(metrics, "write_sync_s")
    assert total == pytest.approx(value(metrics, "write_time_s"), rel=0.005)


def test_first_done_stops_with_the_fastest_client():
    metrics, verdict = evaluate(params(clients=2), raw(TWO), facts(durable_ms=(25, 70)))
    # client 0 ends at 110 ms: three of four MiB are read in 10 ms
    assert value(metrics, "read_bandwidth_first_done_mib_s") == pytest.approx(300)
    assert value(metrics, "read_bandwidth_mib_s") == pytest.approx(100)
    assert said(verdict.notes) == ["clients started to write 2.0 ms apart"]


def test_quantiles_need_enough_operations():
    metrics, _ = evaluate(params(), raw(ONE), facts())
    assert value(metrics, "write_latency_p99_ms") is None
    assert "does not support p99" in sentence(metrics["write_latency_p99_ms"].reason)


def test_own_work_is_the_instrument_and_too_much_of_it_voids_the_result():
    rows = [(0, WRITE, 10, 14.2), (0, WRITE, 15, 20), *ONE[2:]]
    metrics, verdict = evaluate(params(), raw(rows), facts())
    assert metrics["write_time_s"].instrument == pytest.approx(0.0008 + 2 * 100e-9)
    assert metrics["write_io_bandwidth_mib_s"].instrument == pytest.approx(200 * 0.08, rel=1e-3)
    assert verdict.valid
    assert said(verdict.notes) == ["the client's own work took 8.0% of the write time"]
    rows = [(0, WRITE, 10, 11), (0, WRITE, 12, 14), *ONE[2:]]
    _, verdict = evaluate(params(), raw(rows), facts())
    assert said(verdict.reasons) == ["the client's own work took 25% of the write time (limit 20%)"]


def test_time_off_the_processor_is_told_and_is_part_of_the_instrument():
    rows = [(0, WRITE, 10, 12), (0, WRITE, 16, 20), *ONE[2:]]
    metrics, verdict = evaluate(params(), raw(rows), facts())
    assert metrics["write_time_s"].instrument == pytest.approx(0.004 + 2 * 100e-9)
    assert verdict.valid
    assert said(verdict.notes) == ["a client was off the processor for 40.0% of the write time: the node is busy"]


@pytest.mark.parametrize(
    ("change", "mode", "word"),
    [
        ({"read": [{"read_bytes": 0}]}, "direct", "not direct"),
        ({"read": [{"read_bytes": MIB}]}, "buffered-cold", "not cold: the kernel fetched 50.00%"),
        ({"cache": {"residency": 0.5}}, "buffered-cold", "not cold: 50.00%"),
        ({"cache": {"residency": 0.5}}, "warm", "not warm: 50.00%"),
        ({"verify": [{"blocks": 2, "bad_blocks": 1, "first_problem": "byte 7 differs"}]}, "direct", "byte 7 differs"),
        ({"verify": [{"blocks": 1, "bad_blocks": 0, "first_problem": None}]}, "direct", "compared 1 of 2"),
    ],
)
def test_reasons(change, mode, word):
    _, verdict = evaluate(params(mode=mode), raw(ONE), facts(**change))
    assert not verdict.valid
    assert word in " ".join(said(verdict.reasons))


def test_lost_operations_are_a_reason():
    _, verdict = evaluate(params(), raw(ONE[:1] + ONE[2:]), facts())
    assert said(verdict.reasons) == ["1 of 2 write operations were recorded"]
    metrics, verdict = evaluate(params(), raw(ONE[:2]), facts())
    assert metrics == {}
    assert said(verdict.reasons) == ["no read operations were recorded"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"filesystem": {"type": "tmpfs", "device": None}}, "tmpfs is memory"),
        ({"filesystem": {"type": "overlay", "device": None}}, "overlay"),
        ({"filesystem": {"type": "ext4", "device": {"name": "vda", "virtual": True}}}, "virtual disk vda"),
        ({"clients": [{"buffer": {"anon_huge_bytes": 0}}]}, "no huge pages"),
    ],
)
def test_cautions_are_notes(change, word):
    _, verdict = evaluate(params(), raw(ONE), facts(**change))
    assert verdict.valid
    assert word in " ".join(said(verdict.notes))


def test_a_network_file_system_without_accounting_is_a_note_not_a_reason():
    change = {
        "filesystem": {"type": "lustre", "device": None},
        "read": [{"read_bytes": 0}],
    }
    _, verdict = evaluate(params(mode="buffered-cold"), raw(ONE), facts(**change))
    assert verdict.valid
    assert "residency is the only witness" in said(verdict.notes)[0]


LUSTRE = {"filesystem": {"type": "lustre", "device": None}}


@pytest.mark.parametrize(
    ("asked", "found", "reason"),
    [
        ({"stripe_count": 4}, {"count": 4, "size": MIB}, None),
        ({"stripe_count": -1, "stripe_size": 4 * MIB}, {"count": 12, "size": 4 * MIB}, None),
        ({}, {"count": 1, "size": MIB}, None),
        ({"stripe_count": 4}, {"count": 1, "size": MIB}, "asked for 4 stripes of 1MiB, the files have 1 of 1MiB"),
        ({"stripe_count": 4, "stripe_size": 4 * MIB}, {"count": 4, "size": MIB}, "the files have 4 of 1MiB"),
        ({"stripe_count": 4}, None, "cannot be read"),
        ({"stripe_count": 4}, {"layout": "other"}, "cannot be read"),
    ],
)
def test_files_that_lie_otherwise_than_asked_are_invalid(asked, found, reason):
    _, verdict = evaluate(params(**asked), raw(ONE), facts(**LUSTRE, stripes=found))
    assert verdict.valid == (reason is None)
    if reason:
        assert reason in said(verdict.reasons)[0]


def test_stripes_elsewhere_are_a_note():
    _, verdict = evaluate(params(stripe_count=4), raw(ONE), facts())
    assert verdict.valid
    assert "stripe_count 4 has no meaning on ext4" in said(verdict.notes)[0]
