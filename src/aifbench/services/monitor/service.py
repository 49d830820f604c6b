"""The monitor: which job uses how much CPU, GPU and memory, and how far its work is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal

import anyio
from fastapi import Header, Query
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.responses import Response

from aifbench.services.guard import needs
from aifbench.services.ids import PATTERN, Id, is_id
from aifbench.services.monitor.metrics import families
from aifbench.services.monitor.reader import Reader
from aifbench.services.problems import Problem
from aifbench.services.service import Service
from aifbench.services.settings import Settings
from aifbench.services.stream import Hub

POLL_S = 1.0
SHOWN_S = 5 * 60.0
"""Metrics name a run while it is active and for this long after."""
MOST_SHOWN = 200
"""Jobs that metrics name at most."""

_log = logging.getLogger("aifbench.services")


class MonitorService(Service):
    """Polls the results folder once per second, and tells what it sees."""

    name: ClassVar[str] = "monitor"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reader = Reader(settings.results)
        self.hub = Hub()
        self._tasks: list[asyncio.Task[None]] = []
        self._problem: str | None = "the results are being read"
        self._routes()

    async def start(self) -> None:
        """Begin to poll; the first poll rebuilds everything from files."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._poll()), loop.create_task(self._ask_slurm())]

    async def stop(self) -> None:
        """End the polling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def not_ready(self) -> str | None:
        """Return why the state is not that of the files."""
        return self._problem

    async def _poll(self) -> None:
        due = time.monotonic()
        while True:
            try:
                events = await anyio.to_thread.run_sync(self.reader.poll)
                self._problem = None
            except Exception as error:  # a fault of one poll must not end the monitor; the next one looks again
                if self._problem is None:
                    _log.exception("monitor: a poll failed")
                self._problem = f"the last poll failed: {type(error).__name__}: {error}"
                events = []
            for event in events:
                self.hub.publish(event.data, event.name, event.topic)
            due = max(due + POLL_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _ask_slurm(self) -> None:
        """Ask Slurm apart from the polls: it may take long, and they must not wait for it."""
        while True:
            if self.reader.wants_slurm:
                await anyio.to_thread.run_sync(self.reader.queue.ask, time.monotonic())
            await asyncio.sleep(POLL_S)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the last poll."""
        reader, now = self.reader, time.monotonic()
        shown = [
            job
            for job in list(reader.jobs.values())
            if job.row
            and ((job.row["active"] and job.status is not None) or now - (job.ended_seen or -SHOWN_S) < SHOWN_S)
        ]
        yield from families(reader.rows, shown[:MOST_SHOWN], reader.queue, self.settings.clock(), now)
        yield GaugeMetricFamily("aif_monitor_poll_seconds", "Time that the last poll took.", reader.poll_s)
        yield GaugeMetricFamily("aif_monitor_polled_timestamp_seconds", "When the last poll began.", reader.polled_at)

    def _routes(self) -> None:
        router, reader = self.router, self.reader
        read = [needs("read")]

        @router.get("/jobs", dependencies=read)
        async def jobs(
            state: Annotated[Literal["active", "ended", "all"], Query(description="which jobs")] = "active",
            most: Annotated[int, Query(ge=1, le=1000, description="of those that are not active, the newest")] = 50,
            run: Annotated[
                str | None, Query(max_length=200, description="only the jobs of this run (campaign)")
            ] = None,
        ) -> dict[str, Any]:
            """The jobs (batches of campaigns), with what they use and how far they are."""
            _check_read(reader)
            queue = reader.queue
            slurm = {"problem": queue.problem, "failures": queue.failures} if queue.calls else None
            listed, total = reader.listed(state, most, run)
            return {
                "jobs": listed,
                "total": total,
                "known": run is None or reader.knows(run),
                "slurm": slurm,
                "problem": self._problem,
                "polled_at": reader.polled_at or None,
                "passed_over": reader.passed_over,
            }

        @router.get("/jobs/{id}", dependencies=read)
        async def job(id: Id) -> dict[str, Any]:
            """One job: its row, its phases and what the sampler says about itself."""
            return await _ask(reader, reader.detail, id)

        @router.get("/jobs/{id}/samples", dependencies=read)
        async def samples(
            id: Id,
            since: Annotated[float, Query(allow_inf_nan=False, description="seconds since the job's start")] = -1.0,
            step: Annotated[
                float, Query(ge=0, le=86400, allow_inf_nan=False, description="seconds per row at least")
            ] = 0.0,
        ) -> dict[str, Any]:
            """Samples of the job's last run after `since`, as columns."""
            return await _ask(reader, reader.samples, id, since, step)

        @router.get("/jobs/{id}/log", dependencies=read)
        async def log(
            id: Id,
            since: Annotated[int | None, Query(ge=0, le=1 << 50, description="`next` of the last answer")] = None,
        ) -> dict[str, Any]:
            """Statements of the job's log from `since` on; without it, the end of the log."""
            return await _ask(reader, reader.log, id, since)

        @router.get("/stream", dependencies=read, response_class=Response)
        async def stream(
            jobs: Annotated[str, Query(max_length=2600, description="ids, with commas between")] = "",
            last_event_id: Annotated[str | None, Header()] = None,
        ) -> Response:
            """Events: `jobs` (rows that changed, of all jobs), and `sample`, `log`, `behind` of the jobs named.

            `gap`, `missed` and `behind` mean that something was left out: ask for the whole again.
            """
            wanted = {id for id in jobs.split(",") if id}
            for id in wanted:
                if not is_id(id):
                    raise Problem(422, f"jobs: not an id (allowed: {PATTERN})", field="jobs")
            topics = {"jobs", *(f"job:{id}" for id in wanted)}
            return self.hub.subscribe(topics.__contains__, last_event_id)


def _check_read(reader: Reader) -> None:
    """Raise problem 503 while the results are read for the first time."""
    if not reader.polls:
        raise Problem(503, "the results are being read; try again", {"retry-after": "1"})


async def _ask(reader: Reader, question: Callable[..., dict[str, Any] | None], *arguments: Any) -> dict[str, Any]:
    """Return the reader's answer from a thread; problem 404 when there is no such job, 503 when files do not answer."""
    _check_read(reader)
    try:
        answer = await anyio.to_thread.run_sync(question, *arguments)
    except TimeoutError:
        raise Problem(503, "the file system of the results does not answer; try again", {"retry-after": "5"}) from None
    if answer is None:
        raise Problem(404, "no such job")
    return answer
