"""Batches as files, written as the runner writes them, without a measurement."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from aifbench.core.records import BatchRecord, Invocation, Phase
from aifbench.records.lock import OwnerLock
from aifbench.records.store import BatchStore
from aifbench.sampling.sampler import ROLE_UNKNOWN

GIB = 1 << 30


def worker_row(t_s, cpu=1.0, rss=100 << 20):
    """What a worker uses: its memory is half its own, four tenths of files, the rest shared."""
    return {
        "role": "worker", "processes": 2, "cpu_cores": cpu, "cpu_seconds": (cpu or 0) * t_s, "rss_bytes": rss,
        "peak_rss_bytes": 2 * rss, "anon_bytes": rss // 2, "file_bytes": rss * 4 // 10, "shmem_bytes": rss // 10,
        "read_bytes": round(1000 * t_s), "write_bytes": round(2000 * t_s),
        "vfs_read_bytes": round(3000 * t_s), "vfs_write_bytes": round(4000 * t_s), "source": "proc",
    }  # fmt: skip


def node_row(t_s, role="node"):
    """What a node uses: for each second its processes wait 0.25 s for CPU, 0.5 s for I/O."""
    return {
        "role": role, "processes": 90, "cpu_cores": 1.5, "cpu_seconds": 3 * t_s, "memory_available_bytes": 20 * GIB,
        "stalled_cpu_s": 70 + 0.25 * t_s, "stalled_memory_s": 0.0, "stalled_io_s": 0.5 * t_s, "source": "proc",
    }  # fmt: skip


class Batch:
    """One batch of a campaign below `results`."""

    def __init__(self, results, campaign="small", name="storage-target-1a2b3c4d", planned=None, benchmark="storage"):
        self.folder = Path(results) / campaign / "batches" / name
        self.campaign, self.name = campaign, name
        self.store = BatchStore(self.folder)
        self.planned = planned or {"case-a": 2, "case-b": 2}
        self.record = BatchRecord(
            campaign=campaign, batch=name, benchmark=benchmark, status="running", setup={}, planned=self.planned
        )
        self.lock = OwnerLock(self.folder)

    @property
    def live(self):
        return self.store.resources_live

    def start(self, lock=True, ago_s=0.0, **allocation):
        """Begin an invocation, as the runner does: lock, folders, batch.json."""
        if lock:
            self.lock.acquire()
        self.store.create()
        given = {"cores": 4, "cores_source": "Slurm", "memory_bytes": 8 * GIB, "memory_source": "Slurm"}
        started = datetime.now(UTC) - timedelta(seconds=ago_s)
        self.record.status, self.record.reason = "running", None
        self.record.invocations.append(
            Invocation(
                index=len(self.record.invocations),
                started_at=started.isoformat(timespec="milliseconds"),
                facts={"allocation": {**given, "ends_at": None, **allocation}},
                environment={"hostname": "node-a"},
                provenance={"git": {"commit": "abc123"}, "slurm": {"job_id": None, "partition": None}},
            )
        )
        self.save()
        return self

    def save(self):
        self.store.write_record(self.record)

    def rows(self, t_s, records=0, step=None, gpu=None, cpu=1.0, rss=100 << 20, invocation=None, errors=0, beside=()):
        """Return the lines of one sample as bytes; `beside` are rows of the clients' own node."""
        index = len(self.record.invocations) - 1 if invocation is None else invocation
        head = {"invocation": index, "t_s": t_s, "records": records, "errors": errors}
        here = {**ROLE_UNKNOWN, "node": "node-a", "clock_s": 500 + t_s}
        worker = {**here, **worker_row(t_s, cpu, rss)}
        node = {**here, **node_row(t_s), "gpu": gpu, "step": step}
        return b"".join(orjson.dumps({**head, **row}) + b"\n" for row in (worker, *beside, node))

    def sample(self, t_s, **more):
        """Append one sample in one write."""
        self.append(self.rows(t_s, **more))

    def append(self, data):
        self.live.parent.mkdir(parents=True, exist_ok=True)
        with self.live.open("ab", buffering=0) as file:
            file.write(data)

    def log(self, msg, level=0, case=None):
        line = {"t": "2026-11-26T10:00:00.000+00:00", "level": level, "benchmark": "storage", "batch": self.name}
        with self.store.log_path.open("ab", buffering=0) as file:
            file.write(orjson.dumps({**line, "case": case, "msg": msg}) + b"\n")

    def done(self, case, begin, end):
        """Record one more repetition of a case and its phase."""
        repetition = self.record.done.get(case, 0)
        self.record.done[case] = repetition + 1
        self.record.invocations[-1].phases.append(
            Phase(name="measure", t_start_s=begin, t_end_s=end, case=case, repetition=repetition)
        )
        self.save()

    def end(self, status="ok", reason=None, signal=None):
        """End as the runner does: compacted samples, the end in batch.json, no lock."""
        last = self.record.invocations[-1]
        last.ended_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        last.elapsed_s = 10.0
        last.status = self.record.status = status
        last.reason = self.record.reason = reason
        last.signal = signal
        self.store.compact()
        self.save()
        self.lock.release()

    def own(self, **owner):
        """Write an owner.lock with other content than this process's."""
        known = {"pid": os.getpid(), "started": "1", "host": socket.gethostname(), "slurm_job": None}
        (self.folder / "owner.lock").write_bytes(orjson.dumps({**known, **owner}))


def write_plan(results, campaign, batches, slurm=None, params=None):
    """Write the plan.json of a campaign: `batches` maps a batch's name to its number of cases."""
    folder = Path(results) / campaign
    folder.mkdir(parents=True, exist_ok=True)
    cases = {name: [f"{name}-{i}" for i in range(count)] for name, count in batches.items()}
    entries = [
        {"batch": name, "benchmark": "storage", "setup": {}, "cases": cases[name], "expected_s": 12.5}
        for name in batches
    ]
    least = {"min": 2, "max": 3}
    every = [
        {
            "case": case,
            "batch": name,
            "repetitions": least,
            "params": ((params or {}).get(name) or [{}] * len(names))[i],
        }
        for name, names in cases.items()
        for i, case in enumerate(names)
    ]
    content = {"campaign": campaign, "system": {"slurm": slurm}, "cases": every, "batches": entries}
    (folder / "plan.json").write_bytes(orjson.dumps(content))
