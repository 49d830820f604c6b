"""What the log service costs: a statement that is off, a batch of statements, an expiry, and Loki being away."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from aifbench.log.levels import FILE
from aifbench.log.writer import INFO, BatchLog
from aifbench.services.log.configs import Loki, settings_of
from aifbench.services.log.loki import LokiPush
from aifbench.services.log.service import LogService
from aifbench.services.log.statements import checked
from aifbench.services.settings import Settings

GOAL_OFF_US = 0.2
GOAL_PER_S = 100_000
GOAL_EXPIRY_MS = 100.0
GOAL_BLOCKED_US = 100.0
BATCH = 1000
STATEMENT = {
    "level": 1,
    "run": "inference-quick-20261126-120000-1a2b",
    "benchmark": "inference",
    "batch": "chat-llamacpp-1a2b3c4d",
    "case": "0123456789ab",
    "msg": "repetition 3: valid, 84.3 tokens/s, time to first token 0.212 s",
}


def measure() -> list[dict[str, Any]]:
    """Return the four figures; each is CPU or wall time of this process alone, medians or the worst as named."""
    off = statement_off()
    rate = asyncio.run(batch_ingest())
    late = asyncio.run(expiry())
    blocked = loki_away()
    return [
        row("log_statement_off", off, "us", f"<= {GOAL_OFF_US}", off <= GOAL_OFF_US),
        row("log_batch_ingest_per_core", rate, "1/s", f">= {GOAL_PER_S}", rate >= GOAL_PER_S),
        row("log_expiry_late_worst_of_20", late, "ms", f"<= {GOAL_EXPIRY_MS:g}", late <= GOAL_EXPIRY_MS),
        row("log_loki_away_call_p99", blocked, "us", f"<= {GOAL_BLOCKED_US:g}", blocked <= GOAL_BLOCKED_US),
    ]


def row(name: str, value: float, unit: str, goal: str, met: bool) -> dict[str, Any]:
    """Return one row of the table of bars."""
    return {"id": name, "value": value, "unit": unit, "goal": goal, "met": met}


def statement_off() -> float:
    """Return the microseconds of a job's statement whose level is off: the median of 400 times 1000."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        batch = results / "run" / "batches" / "batch"
        batch.mkdir(parents=True)
        (results / FILE).parent.mkdir()
        expiry = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        config = {"name": "errors", "logLevel": 2, "expires_at": expiry, "match": {}, "ended": False}
        (results / FILE).write_bytes(orjson.dumps({"configs": [config]}))
        log = BatchLog(batch / "log.jsonl", "inference", "batch")
        seconds = []
        for _ in range(400):
            start = time.thread_time()
            for _ in range(1000):
                log.write(INFO, "a statement that is off")
            seconds.append(time.thread_time() - start)
        log.close()
    return statistics.median(seconds) / 1000 * 1e6


async def batch_ingest() -> float:
    """Return statements per second of CPU, all threads: parsed, checked, decided, written to disk, told to the tail."""
    body = orjson.dumps({"statements": [STATEMENT] * BATCH})
    async with service(INFO) as log:
        rates = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(20):
                records = list(checked(orjson.loads(body)["statements"], time.time(), 4096))
                counts = await log.write(records)
                assert counts["written"] == BATCH
            rates.append(20 * BATCH / (time.process_time() - start))
    return statistics.median(rates)


async def expiry() -> float:
    """Return the longest time, of 20, from the end of a configuration until the service has noticed it by itself."""
    async with service(INFO) as log:
        configs = log.configs
        late = []
        for number in range(20):
            end = datetime.now(UTC) + timedelta(seconds=0.12 + number * 0.007)
            configs.put("brief", settings_of({"logLevel": 0, "expires_at": end.isoformat()}))
            log._wake.set()
            while not configs.all["brief"].ended:
                await asyncio.sleep(0.001)
            late.append(time.time() - end.timestamp())
    return max(late) * 1e3


def loki_away() -> float:
    """Return the 99th percentile of a call that hands one statement to the push while its queue is full."""
    push = LokiPush(Loki(url="http://127.0.0.1:9"), capacity=1000)
    record = {**STATEMENT, "t": datetime.now(UTC).isoformat()}
    taken = []
    for _ in range(20_000):
        start = time.perf_counter()
        push.offer([record])
        taken.append(time.perf_counter() - start)
    assert push.offered == push.dropped + push.waiting
    push.stop(0.1)
    return statistics.quantiles(taken, n=100)[98] * 1e6


@asynccontextmanager
async def service(level: int) -> AsyncIterator[LogService]:
    """Run the log service in this process with one configuration about everything."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root = Path(folder)
        log = LogService(Settings(project=root, results=root / "results", state=root / "state", runtime=root))
        await log.start()
        expiry = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        log.configs.put("all", settings_of({"logLevel": level, "expires_at": expiry}))
        yield log
        await log.stop()
