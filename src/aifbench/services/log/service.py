"""The log service: configurations, statements, their files, a live tail, and the push to Loki."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import orjson
from fastapi import Header, Query, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BeforeValidator
from starlette.responses import Response

from aifbench.core.errors import ConfigError
from aifbench.files import LONGEST_LINE, Root, Unreadable, folder_beneath, json_beneath, open_beneath, write_beneath
from aifbench.log.levels import FILE
from aifbench.log.writer import ERROR, INFO, LEVELS, WARNING, encode_line
from aifbench.services.guard import needs
from aifbench.services.ids import Id, is_id
from aifbench.services.log.configs import (
    LEVEL_HINT,
    Configs,
    LogConfig,
    LoggingFile,
    LogSettings,
    describe,
    read_logging_file,
    settings_of,
)
from aifbench.services.log.files import LogFiles, backwards, own_record, search
from aifbench.services.log.loki import LokiPush
from aifbench.services.log.statements import SCHEMA, checked, moment, parse_moment
from aifbench.services.log.tail import Tail, job_record
from aifbench.services.problems import Problem, Refused
from aifbench.services.service import Service
from aifbench.services.settings import Settings
from aifbench.services.stream import Hub

LOGGING_FILE = Path("config") / "logging.yaml"
OFFSETS_FILE = "log-offsets.json"
QUOTA_BYTES = 256 << 20
MOST_SEARCHED_BYTES = 64 << 20
ANSWER_BYTES = 4 << 20
EXPIRY_STEP_S = 0.05
"""Longest sleep while a configuration is valid, so that a step of the wall clock is noticed."""
FILE_STEP_S = 1.0
OFFSETS_STEP_S = 10.0
END_S = 0.7
"""Seconds that Loki gets at the end of the server."""
MOST_RECENT = 5000
DECISIONS = ("written", "filtered", "expired", "dropped")

_log = logging.getLogger("aifbench.services.log")


class LogService(Service):
    """Writes statements while a configuration that is about them is valid and their level suffices."""

    name: ClassVar[str] = "log"

    def __init__(self, settings: Settings, quota: int = QUOTA_BYTES) -> None:
        super().__init__(settings)
        self._configs = Configs(settings.results / FILE, settings.clock)
        self._quota = quota
        self._logging_file = settings.project / LOGGING_FILE
        self._logging_state: object = None
        self._from_file = LoggingFile()
        self._file_problem: str | None = None
        self._file_read_at: float | None = None
        self._files: LogFiles | None = None
        self._files_lock, self._configs_lock, self._reload_lock = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._hub = Hub()
        self._tail = Tail(settings.results)
        self._recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        self._loki: LokiPush | None = None
        self._loki_before: Counter[str] = Counter()
        self._counts: Counter[tuple[int, str]] = Counter()
        self._problem: str | None = "starting"
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._routes()

    # -- life

    async def start(self) -> None:
        """Read what was kept, then watch the clock, the file and the jobs."""
        try:
            await anyio.to_thread.run_sync(self._open)
        except OSError as error:
            where = str(self.settings.results / FILE.parent)
            raise ConfigError(where, None, f"the log cannot be written there: {error.strerror}") from None
        if self._configs.problem:
            await self._audit(ERROR, self._configs.problem)
            _log.error("%s", self._configs.problem)
        await self.reload()
        await self._expire()
        self._tasks = [
            asyncio.create_task(_keep_going(work)) for work in (self._watch_clock, self._watch_file, self._follow_jobs)
        ]

    def _open(self) -> None:
        folder = self.settings.results / FILE.parent
        folder.mkdir(parents=True, exist_ok=True)
        with folder_beneath(self.settings.results, FILE.parent.name):
            pass  # no link, which would lead what is written here elsewhere
        self._files = LogFiles(folder / "log", self._quota)
        self._configs.load()
        self._problem = None
        try:
            self._tail.resume(json_beneath(self.settings.results, FILE.parent.name, OFFSETS_FILE))
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
        if self._loki is not None:
            self._loki.stop(END_S)
            if self._loki.dropped:
                _log.warning("%d statement(s) did not reach Loki; the files have them", self._loki.dropped)
        if self._files is not None:
            self._files.close()

    def not_ready(self) -> str | None:
        """Return what keeps statements from being written."""
        return self._problem

    async def reload(self) -> None:
        """Read `config/logging.yaml` again; a broken one changes nothing and is told in one line."""
        async with self._reload_lock:
            self._logging_state = await anyio.to_thread.run_sync(_state, self._logging_file)
            try:
                found = await anyio.to_thread.run_sync(read_logging_file, self._logging_file)
                if found.loki != self._from_file.loki or (found.loki is not None and self._loki is None):
                    await self._change_loki(found)
            except ValueError as error:
                if str(error) != self._file_problem:
                    _log.error("%s; the last good one stays", error)
                self._file_problem = str(error)
                return
            self._file_problem, self._from_file, self._file_read_at = None, found, self.settings.clock()
            said = self._configs.take_file(found)
            if said:
                await self._keep_what_holds()
                for text in said:
                    await self._audit(INFO, text)

    async def _change_loki(self, found: LoggingFile) -> None:
        new = await anyio.to_thread.run_sync(LokiPush, found.loki) if found.loki is not None else None
        old, self._loki = self._loki, new
        if old is not None:
            await anyio.to_thread.run_sync(old.stop, END_S)
            for name in ("offered", "sent", "refused", "dropped"):
                self._loki_before[name] += getattr(old, name)

    async def _watch_clock(self) -> None:
        while True:
            left = self._configs.seconds_left()
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, min(left, EXPIRY_STEP_S)) if left != float("inf") else None):
                    await self._wake.wait()
            except TimeoutError:
                await self._expire()

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(FILE_STEP_S)
            if await anyio.to_thread.run_sync(_state, self._logging_file) != self._logging_state:
                await self.reload()

    async def _follow_jobs(self) -> None:
        kept = asyncio.get_running_loop().time()
        while True:
            records = await anyio.to_thread.run_sync(self._tail.poll)
            if records:
                self._recent.extend(records)
                self._tell(records, [encode_line(record) for record in records])
            now = asyncio.get_running_loop().time()
            if now >= kept + OFFSETS_STEP_S:
                kept = now
                await anyio.to_thread.run_sync(self._keep_offsets)
            await asyncio.sleep(FILE_STEP_S)

    def _keep_offsets(self) -> None:
        try:
            data = orjson.dumps(self._tail.offsets)
            write_beneath(self.settings.results, FILE.parent.name, OFFSETS_FILE, data=data)
        except OSError as error:
            _log.warning("%s: %s", OFFSETS_FILE, error.strerror)

    # -- configurations

    async def _expire(self) -> None:
        ended = self._configs.expire()
        if not ended:
            return
        for config in ended:
            await self._audit(WARNING, f"configuration '{config.name}' is over: {describe(config)}")
        await self._keep_what_holds()

    async def _keep_what_holds(self) -> None:
        """Keep a change that holds whether or not it can be kept: the file or the clock has made it."""
        try:
            await self._keep_configs()
        except OSError as error:
            _log.error("%s: %s", self._configs.file.name, error.strerror)

    async def _keep_configs(self) -> None:
        async with self._configs_lock:
            await anyio.to_thread.run_sync(self._configs.save())
        self._wake.set()
        self._hub.publish(b"{}", "configs", "configs")

    async def _try(self, change: Callable[[], Any], words: str) -> Any:
        """Make a change by REST that holds only if it can be kept on disk."""
        await self._expire()
        before = dict(self._configs.all)
        result = change()
        try:
            await self._keep_configs()
        except OSError as error:
            self._configs.replace(before)
            message = f"the configurations cannot be written: {error.strerror}"
            raise Refused(507, "not_kept", message, hint="free some space") from None
        await self._audit(INFO, words)
        return result

    # -- statements

    async def write(self, records: list[dict[str, Any]]) -> dict[str, int]:
        """Write the records whose level is on now; return how many were written, filtered, expired, dropped."""
        if self._configs.seconds_left() <= 0:
            await self._expire()
        counts = dict.fromkeys(DECISIONS, 0)
        kept: list[dict[str, Any]] = []
        last: tuple[str | None, ...] | None = None
        found = None
        for record in records:
            get = record.get
            key = (get("run"), get("benchmark"), get("batch"), get("service"))
            if found is None or key != last:
                found, last = self._configs.threshold(record), key
            level = record["level"]
            if found.level is None:
                decision = "expired" if found.known else "filtered"
            elif level < found.level:
                decision = "filtered"
            else:
                kept.append(record)
                continue
            counts[decision] += 1
            self._counts[level, decision] += 1
        if kept:
            decision = "written" if await self._append(kept) else "dropped"
            counts[decision] = len(kept)
            for record in kept:
                self._counts[record["level"], decision] += 1
        return counts

    async def _append(self, records: list[dict[str, Any]]) -> bool:
        lines = [encode_line(record) for record in records]
        assert self._files is not None
        try:
            async with self._files_lock:
                await anyio.to_thread.run_sync(self._files.append, b"".join(lines))
        except OSError as error:
            self._say_problem(f"statements cannot be written: {error.strerror or error}")
            return False
        self._say_problem(None)
        self._tell(records, lines)
        return True

    def _say_problem(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            _log.error("%s", problem)
        self._problem = problem

    def _tell(self, records: list[dict[str, Any]], lines: list[bytes]) -> None:
        """Give written statements to the live tail and to Loki."""
        pairs = zip(records, lines, strict=True)
        for (level, run), group in itertools.groupby(pairs, lambda pair: (pair[0]["level"], pair[0].get("run") or "")):
            self._hub.publish(b"[" + b",".join(line[:-1] for _, line in group) + b"]", "statements", f"{level} {run}")
        if self._loki is not None:
            self._loki.offer(records)

    async def _audit(self, level: int, text: str) -> None:
        """Write a statement of our own, whatever the configurations say; it is not counted among those of others."""
        await self._append([{"t": moment(self.settings.clock()), "level": level, "service": "log", "msg": text}])

    # -- what others see

    def collect(self) -> Iterable[Metric]:
        """Return the counters of statements and of the push, and when each configuration ends."""
        statements = CounterMetricFamily(
            "aif_log_statements", "Statements by what became of them.", labels=["level", "decision"]
        )
        for level in range(3):
            for decision in DECISIONS:
                statements.add_metric([LEVELS[level], decision], self._counts[level, decision])
        expiry = GaugeMetricFamily(
            "aif_log_config_expiry_timestamp_seconds", "When a log configuration ends.", labels=["config"]
        )
        for config in self._configs.all.values():
            expiry.add_metric([config.name], config.expires_at.timestamp())
        pushed = CounterMetricFamily(
            "aif_log_loki_statements", "Statements for Loki by what became of them.", labels=["result"]
        )
        loki = self._loki_counts()
        for result in ("sent", "refused", "dropped"):
            pushed.add_metric([result], loki[result])
        aged = self._files.aged_out if self._files is not None else 0
        return (
            statements,
            expiry,
            pushed,
            GaugeMetricFamily("aif_log_loki_waiting", "Statements that wait for Loki.", loki["waiting"]),
            CounterMetricFamily("aif_log_aged_out_statements", "Statements that the quota has removed.", aged),
        )

    def _loki_counts(self) -> dict[str, int]:
        found = {name: self._loki_before[name] for name in ("offered", "sent", "refused", "dropped")}
        found["waiting"] = 0
        if self._loki is not None:
            for name in found:
                found[name] += getattr(self._loki, name)
        return found

    def _status(self) -> dict[str, Any]:
        assert self._files is not None
        return {
            "statements": {name: sum(self._counts[level, name] for level in range(3)) for name in DECISIONS},
            "file": {"bytes": self._files.size, "quota_bytes": self._quota, "aged_out": self._files.aged_out},
            "loki": {**self._loki_counts(), "problem": self._loki.problem} if self._loki is not None else None,
            "problem": self._problem,
        }

    def _find(self, run: str | None, level: int, since: str | None, most: int) -> tuple[list[dict[str, Any]], bool]:
        assert self._files is not None

        def wanted(record: dict[str, Any]) -> bool:
            said = record.get("level")
            return (
                isinstance(said, int)
                and said >= level
                and (run is None or record.get("run") == run)
                and (since is None or str(record.get("t")) >= since)
            )

        newest, more = search(self._files.newest_first(), own_record, wanted, most, MOST_SEARCHED_BYTES)
        newest.sort(key=_t, reverse=True)
        if run is None:
            newest = _newest(newest, [record for record in self._recent if wanted(record)])
        else:
            batches = [batch for batch in Root(self.settings.results).folders(run, "batches")[0] if is_id(batch)]
            share = max(LONGEST_LINE, MOST_SEARCHED_BYTES // max(1, len(batches)))
            for batch in batches:
                parse = partial(job_record, run=run, batch=batch)
                lines = _job_lines(self.settings.results, run, batch)
                found, left = search(lines, parse, wanted, most, share)
                more |= left or len(newest) + len(found) > most
                newest = _newest(newest[:most], found)
        return newest[:most][::-1], more or len(newest) > most

    def _routes(self) -> None:
        router = self.router
        read, launch, ingest = [needs("read")], [needs("launch")], [needs("ingest")]

        @router.get("/log/configs", dependencies=read)
        async def list_configs() -> dict[str, Any]:
            """All configurations with their state and the seconds that are left, and what the file says."""
            await self._expire()
            file = {"path": str(LOGGING_FILE), "problem": self._file_problem, "read_at": self._file_read_at}
            return {"configs": self._configs.shown(), "file": file, "now": moment(self.settings.clock())}

        @router.get("/log/configs/{name}", dependencies=read)
        async def get_config(name: Id) -> dict[str, Any]:
            """One configuration."""
            await self._expire()
            if name not in self._configs.all:
                raise Problem(404, f"no configuration '{name}'")
            return self._configs.show(self._configs.all[name])

        @router.put(
            "/log/configs/{name}",
            dependencies=launch,
            openapi_extra=_body(_settings_schema()),
        )
        async def put_config(name: Id, request: Request) -> dict[str, Any]:
            """Set a configuration. `ko` with a reason: past time, no time zone, unknown key or level."""
            settings = settings_of(_without_name(_json(await request.body()), name))
            config: LogConfig = await self._try(
                lambda: self._configs.put(name, settings),
                f"configuration '{name}' set: {describe(LogConfig(name=name, **settings.model_dump()))}",
            )
            return {"status": "ok", "config": self._configs.show(config)}

        @router.delete("/log/configs/{name}", dependencies=launch)
        async def delete_config(name: Id) -> dict[str, str]:
            """Remove a configuration that was set by REST."""
            await self._try(lambda: self._configs.delete(name), f"configuration '{name}' deleted")
            return {"status": "ok"}

        @router.post("/log/configs:clear", dependencies=launch)
        async def clear_configs() -> dict[str, Any]:
            """Remove the configurations that were set by REST and are over: what they were about is free again."""
            gone = await self._try(self._configs.clear, "configurations that are over are deleted")
            return {"status": "ok", "deleted": gone}

        @router.post("/log", dependencies=ingest, openapi_extra=_body(SCHEMA))
        async def post_statement(request: Request) -> Response:
            """Send one statement."""
            return await self._take([_json(await request.body())], "")

        @router.post("/log:batch", dependencies=ingest, openapi_extra=_body(self._batch_schema()))
        async def post_statements(request: Request) -> Response:
            """Send up to 1000 statements; they are taken all or none."""
            body = _json(await request.body())
            statements = body.get("statements") if isinstance(body, dict) and len(body) == 1 else None
            if not isinstance(statements, list):
                raise Refused(422, "invalid_statement", 'must be {"statements": [...]}', field="statements")
            if len(statements) > self.settings.limits.batch:
                message = f"{len(statements)} statements are more than {self.settings.limits.batch}"
                raise Refused(413, "over_limit", message, field="statements", hint="send several batches")
            return await self._take(statements, "statements")

        @router.get("/log", dependencies=read)
        async def get_statements(
            run: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,64}$")] = None,
            level: Annotated[int, Query(ge=0, le=2), BeforeValidator(_level)] = 0,
            since: Annotated[str | None, Query(max_length=64, description="date, time and zone (ISO 8601)")] = None,
            limit: Annotated[int, Query(ge=1, le=5000)] = 500,
        ) -> Response:
            """The newest statements, oldest first: those sent here, and those of jobs (without `run`: recent ones).

            At most 4 MiB of them, and of a job's message the first 4096 characters.
            """
            try:
                start = None if since is None else parse_moment(since).isoformat(timespec="milliseconds")
            except ValueError as error:
                hint = "a + in an address is written %2B"
                raise Problem(422, f"since: {error} ({hint})", field="since") from None
            found, more = await anyio.to_thread.run_sync(self._find, run, level, start, limit)
            told, cut = _fitting(found)
            return _raw({"statements": told, "truncated": more or cut})

        @router.get("/log/status", dependencies=read)
        async def get_status() -> dict[str, Any]:
            """What became of all statements since the start, the size of the files, and how Loki is."""
            return await anyio.to_thread.run_sync(self._status)

        @router.get("/log/stream", dependencies=read, response_class=Response)
        async def stream(
            run: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,64}$")] = None,
            level: Annotated[int, Query(ge=0, le=2), BeforeValidator(_level)] = 0,
            last_event_id: Annotated[str | None, Header(max_length=64)] = None,
        ) -> Response:
            """Statements as they are written (events `statements`, lists), and `configs` when those change."""

            def wants(topic: str) -> bool:
                said, _, of = topic.partition(" ")
                return topic == "configs" or (int(said) >= level and (run is None or of == run))

            return self._hub.subscribe(wants, last_event_id)

    def _batch_schema(self) -> dict[str, Any]:
        items = {"type": "array", "items": SCHEMA, "maxItems": self.settings.limits.batch}
        return {
            "type": "object",
            "required": ["statements"],
            "additionalProperties": False,
            "properties": {"statements": items},
        }

    async def _take(self, values: list[Any], place: str) -> Response:
        limits = self.settings.limits
        records = list(checked(values, self.settings.clock(), limits.message_bytes, place))
        return _raw({"status": "ok", **await self.write(records)})


async def _keep_going(work: Callable[[], Awaitable[None]]) -> None:
    """Do something for ever; an error that nobody has thought of is told and does not end it."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("unexpected error; going on")
            await asyncio.sleep(1.0)


def _settings_schema() -> dict[str, Any]:
    schema = LogSettings.model_json_schema()
    schema["properties"]["match"] = schema.pop("$defs")["Match"]
    return schema


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is no JSON: {error}", hint="send UTF-8 JSON") from None


def _without_name(body: Any, name: str) -> Any:
    if isinstance(body, dict) and "name" in body:
        if body["name"] != name:
            raise Refused(422, "invalid_config", "is not the name of the address", field="name", hint="leave it out")
        return {key: value for key, value in body.items() if key != "name"}
    return body


def _raw(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _level(text: Any) -> Any:
    if text not in {"0", "1", "2"}:
        raise ValueError(f"{text!r} is no level: {LEVEL_HINT}")
    return text


def _t(record: dict[str, Any]) -> str:
    return str(record.get("t"))


def _newest(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of both, the newest first; `one` is in that order already."""
    return list(heapq.merge(one, sorted(other, key=_t, reverse=True), key=_t, reverse=True))


def _fitting(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest of some records, oldest first, that an answer has room for, and whether any are left out."""
    size = 0
    for number, record in enumerate(reversed(records)):
        size += len(orjson.dumps(record)) + 1
        if size > ANSWER_BYTES:
            return records[len(records) - number :], True
    return records, False


def _job_lines(results: Path, run: str, batch: str) -> Iterable[bytes]:
    try:
        with open_beneath(results, run, "batches", batch, "log.jsonl") as file:
            yield from backwards(file)
    except OSError:
        return
