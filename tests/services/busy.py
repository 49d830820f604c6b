"""A batch that runs: the runner's own record, lock and sampler on this process, with two planted GPUs."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_plan
from aifbench.core.records import BatchRecord, Invocation, Phase
from aifbench.records.lock import OwnerLock
from aifbench.sampling import sampler as sampling
from tests.workflow.campaign import write

GIB = 2**30


class PlantedGpus:
    """Two GPUs as NVML would tell them: one works, one is idle."""

    def __init__(self, devices=None):
        self.started = time.monotonic()

    def sample(self):
        energy = 300 * (time.monotonic() - self.started)
        row = {"memory_total_bytes": 40 * GIB, "energy_j": energy}
        return [
            {"index": 0, "utilization": 0.9, "memory_bytes": 30 * GIB, "power_w": 250.0, **row},
            {"index": 1, "utilization": 0.0, "memory_bytes": 0, "power_w": 50.0, **row},
        ]

    def close(self):
        pass


@contextlib.contextmanager
def busy_batch(results: Path, run: str, monkeypatch) -> Iterator[str]:
    """Let a batch of a run be at work in a results folder, half of its repetitions done; give its name."""
    suite = {"name": "disk", "benchmark": "storage", "file_size": "1MiB", "repetitions": 2}
    (results / run).mkdir(parents=True)
    plan = make_plan(read_config([write(results / run, suite, campaign=run)]))
    write_plan(plan, results / run)
    (batch,), (case,) = plan.batches.values(), plan.cases
    folder = results / run / "batches" / batch.id
    (folder / "live").mkdir(parents=True)
    now = datetime.now(UTC)
    allocation = {
        "cores": 2,
        "cores_source": "planted",
        "memory_bytes": 8 * GIB,
        "memory_source": "planted",
        "ends_at": (now + timedelta(hours=1)).isoformat(),
    }
    invocation = Invocation(
        index=0,
        started_at=now.isoformat(),
        phases=[Phase(name="measure", t_start_s=0.0, t_end_s=1.0, case=case.id, repetition=0)],
        facts={"allocation": allocation},
        environment={"hostname": "planted-node"},
        provenance={"git": {"commit": "0" * 40}},
    )
    record = BatchRecord(
        campaign=run,
        batch=batch.id,
        benchmark="storage",
        status="running",
        setup={},
        planned={case.id: 2},
        done={case.id: 1},
        invocations=[invocation],
    )
    lock = OwnerLock(folder)
    lock.acquire()
    (folder / "batch.json").write_bytes(orjson.dumps(record.model_dump()))
    monkeypatch.setattr(sampling, "Gpus", PlantedGpus)
    blocks = itertools.count(100, 50)
    sampler = sampling.Sampler(
        folder / "live" / "resources.jsonl",
        0,
        time.monotonic_ns(),
        lambda: {"runner": os.getpid()},
        lambda: next(blocks),
        errors=lambda: 1,
        step=lambda: {"phase": "measure", "case": case.id, "repetition": 1, "since_s": 1.0, "expected_s": 60.0},
        interval_s=0.5,
    )
    sampler.start()
    try:
        yield batch.id
    finally:
        sampler.stop()
        lock.release()
