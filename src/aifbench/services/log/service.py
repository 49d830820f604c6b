"""The log service: it watches the clock, the file of configurations and the logs of jobs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import anyio
import orjson
from prometheus_client.core import GaugeMetricFamily, Metric

from aifbench.core.errors import ConfigError
from aifbench.files.beneath import Unreadable, folder_beneath
from aifbench.files.bounded import json_beneath
from aifbench.files.written import write_beneath
from aifbench.log.levels import FILE
from aifbench.log.writer import ERROR, INFO, WARNING
from aifbench.services.log.configs import Configs, LoggingFile, describe, read_logging_file
from aifbench.services.log.intake import Intake
from aifbench.services.log.job_logs import JobLogs
from aifbench.services.log.routes import add_routes
from aifbench.services.problems import Refused
from aifbench.services.service import Service
from aifbench.services.settings import Settings

LOGGING_FILE = Path("config") / "logging.yaml"
OFFSETS_FILE = "log-offsets.json"
QUOTA_BYTES = 256 << 20
EXPIRY_STEP_S = 0.05
"""Longest sleep while a configuration is valid, so that a step of the wall clock is noticed."""
FILE_STEP_S = 1.0
OFFSETS_STEP_S = 10.0

_log = logging.getLogger("aifbench.services.log")


class LogService(Service):
    """Writes statements while a configuration that is about them is valid and their level suffices."""

    name: ClassVar[str] = "log"

    def __init__(self, settings: Settings, quota: int = QUOTA_BYTES) -> None:
        super().__init__(settings)
        self.configs = Configs(settings.results / FILE, settings.clock)
        self.intake = Intake(self.configs, quota, settings.clock)
        self._logging_file = settings.project / LOGGING_FILE
        self._logging_state: object = None
        self._from_file = LoggingFile()
        self._file_problem: str | None = None
        self._file_read_at: float | None = None
        self._configs_lock, self._reload_lock = asyncio.Lock(), asyncio.Lock()
        self._job_logs = JobLogs(settings.results)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        add_routes(self)

    # -- life

    async def start(self) -> None:
        """Read what was kept, then watch the clock, the file and the jobs."""
        try:
            await anyio.to_thread.run_sync(self._open)
        except OSError as error:
            where = str(self.settings.results / FILE.parent)
            raise ConfigError(where, None, f"the log cannot be written there: {error.strerror}") from None
        if self.configs.problem:
            await self.intake.audit(ERROR, self.configs.problem)
            _log.error("%s", self.configs.problem)
        await self.reload()
        await self.expire()
        self._tasks = [
            asyncio.create_task(_keep_going(work)) for work in (self._watch_clock, self._watch_file, self._follow_jobs)
        ]

    def _open(self) -> None:
        folder = self.settings.results / FILE.parent
        folder.mkdir(parents=True, exist_ok=True)
        with folder_beneath(self.settings.results, FILE.parent.name):
            pass  # no link, which would lead what is written here elsewhere
        self.intake.open(folder / "log")
        self.configs.load()
        try:
            self._job_logs.resume(json_beneath(self.settings.results, FILE.parent.name, OFFSETS_FILE))
        except Unreadable as error:
            self._say_not_followed(error.problem)
        except FileNotFoundError:
            pass
        except (OSError, AttributeError) as error:
            self._say_not_followed(error)

    def _say_not_followed(self, problem: object) -> None:
        _log.warning("%s cannot be read (%s): what jobs wrote meanwhile is not followed", OFFSETS_FILE, problem)

    async def stop(self) -> None:
        """Write down where we are, and give Loki a last moment."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self._keep_offsets()
        self.intake.close()

    def not_ready(self) -> str | None:
        """Return what keeps statements from being written."""
        return self.intake.problem

    async def reload(self) -> None:
        """Read `config/logging.yaml` again; a broken one changes nothing and is told in one line."""
        async with self._reload_lock:
            self._logging_state = await anyio.to_thread.run_sync(_state, self._logging_file)
            try:
                found = await anyio.to_thread.run_sync(read_logging_file, self._logging_file)
                if found.loki != self._from_file.loki or (found.loki is not None and not self.intake.pushes):
                    await self.intake.push_to(found.loki)
            except ValueError as error:
                if str(error) != self._file_problem:
                    _log.error("%s; the last good one stays", error)
                self._file_problem = str(error)
                return
            self._file_problem, self._from_file, self._file_read_at = None, found, self.settings.clock()
            said = self.configs.take_file(found)
            if said:
                await self._keep_what_holds()
                for text in said:
                    await self.intake.audit(INFO, text)

    async def _watch_clock(self) -> None:
        while True:
            left = self.configs.seconds_left()
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, min(left, EXPIRY_STEP_S)) if left != float("inf") else None):
                    await self._wake.wait()
            except TimeoutError:
                await self.expire()

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(FILE_STEP_S)
            if await anyio.to_thread.run_sync(_state, self._logging_file) != self._logging_state:
                await self.reload()

    async def _follow_jobs(self) -> None:
        kept = asyncio.get_running_loop().time()
        while True:
            if records := await anyio.to_thread.run_sync(self._job_logs.poll):
                self.intake.follow(records)
            now = asyncio.get_running_loop().time()
            if now >= kept + OFFSETS_STEP_S:
                kept = now
                await anyio.to_thread.run_sync(self._keep_offsets)
            await asyncio.sleep(FILE_STEP_S)

    def _keep_offsets(self) -> None:
        try:
            data = orjson.dumps(self._job_logs.offsets)
            write_beneath(self.settings.results, FILE.parent.name, OFFSETS_FILE, data=data)
        except OSError as error:
            _log.warning("%s: %s", OFFSETS_FILE, error.strerror)

    # -- configurations

    async def expire(self) -> None:
        """End what is over by now."""
        ended = self.configs.expire()
        if not ended:
            return
        for config in ended:
            await self.intake.audit(WARNING, f"configuration '{config.name}' is over: {describe(config)}")
        await self._keep_what_holds()

    async def _keep_what_holds(self) -> None:
        """Keep a change that holds whether or not it can be kept: the file or the clock has made it."""
        try:
            await self._keep_configs()
        except OSError as error:
            _log.error("%s: %s", self.configs.file.name, error.strerror)

    async def _keep_configs(self) -> None:
        async with self._configs_lock:
            await anyio.to_thread.run_sync(self.configs.save())
        self._wake.set()
        self.intake.hub.publish(b"{}", "configs", "configs")

    async def change(self, change: Callable[[], Any], words: str) -> Any:
        """Make a change by REST that holds only if it can be kept on disk."""
        await self.expire()
        before = dict(self.configs.all)
        result = change()
        try:
            await self._keep_configs()
        except OSError as error:
            self.configs.replace(before)
            message = f"the configurations cannot be written: {error.strerror}"
            raise Refused(507, "not_kept", message, hint="free some space") from None
        await self.intake.audit(INFO, words)
        return result

    # -- what others see

    async def write(self, records: list[dict[str, Any]]) -> dict[str, int]:
        """Write the records whose level is on now; return how many were written, filtered, expired, dropped."""
        if self.configs.seconds_left() <= 0:
            await self.expire()
        return await self.intake.write(records)

    def file_status(self) -> dict[str, Any]:
        """Return how `config/logging.yaml` is: its path, what is wrong with it, when it was read (Unix seconds)."""
        return {"path": str(LOGGING_FILE), "problem": self._file_problem, "read_at": self._file_read_at}

    def collect(self) -> Iterable[Metric]:
        """Yield when each configuration ends, and the counters of statements and of the push."""
        expiry = GaugeMetricFamily(
            "aif_log_config_expiry_timestamp_seconds", "When a log configuration ends.", labels=["config"]
        )
        for config in self.configs.all.values():
            expiry.add_metric([config.name], config.expires_at.timestamp())
        yield expiry
        yield from self.intake.collect()


async def _keep_going(work: Callable[[], Awaitable[None]]) -> None:
    """Do something for ever; an error that nobody has thought of is told and does not end it."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("unexpected error; going on")
            await asyncio.sleep(1.0)


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
