"""The client service: the menu, launches, and the life of runs, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar
from weakref import WeakValueDictionary

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Query, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.responses import Response

from aifbench.core.errors import ConfigError
from aifbench.registry import benchmarks
from aifbench.services.client.check import Checker
from aifbench.services.client.launch import Launcher, LaunchLimits, new_id
from aifbench.services.client.menu import menu, request_schema, suite_schema
from aifbench.services.client.reasons import CODES, refuse
from aifbench.services.client.runs import Runs
from aifbench.services.client.slurm import SlurmClient
from aifbench.services.guard import needs
from aifbench.services.ids import Id
from aifbench.services.problems import Problem, Refused, ko_schema
from aifbench.services.result_files import file_answer, listing, report_answer
from aifbench.services.service import Service
from aifbench.services.settings import Settings

TICKET_S = 3600.0
MOST_TICKETS = 256

_JSON = "application/json"


def _answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code].status, []).append(code)
    return {
        status: {
            "description": "ko: " + "; ".join(f"`{code}` {CODES[code].meaning}" for code in of_status),
            "content": {_JSON: {"schema": ko_schema({"enum": sorted(CODES)})}},
        }
        for status, of_status in by_status.items()
    }


_LIFE = {"not_found", "not_active"}
_AGAIN = {*_LIFE, "active", "complete"}
_HTML = {"description": "the page", "content": {"text/html": {"schema": {"type": "string"}}}}
_NOTHING = {"description": "nothing to report yet", "content": {"application/problem+json": {"schema": {}}}}
_REPORT = {200: _HTML, 409: _NOTHING, **_answers("not_found")}
_PROBLEM: dict[int | str, dict[str, Any]] = {
    409: {"description": "a file of the checkout is wrong", "content": {"application/problem+json": {}}}
}
_LAUNCH = _answers(*(code for code in CODES if code not in _AGAIN))
_BODY = {"requestBody": {"required": True, "content": {_JSON: {"schema": request_schema()}}}}
KEY = re.compile(r"^[!-~]{8,128}$")
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        json_schema_extra={"minLength": 8, "maxLength": 128, "pattern": KEY.pattern},
        description="the same key gives the same run, however often it is sent",
    ),
]


class ClientService(Service):
    """The client service."""

    name: ClassVar[str] = "client"

    def __init__(self, settings: Settings, limits: LaunchLimits | None = None) -> None:
        super().__init__(settings)
        self.limits = limits or LaunchLimits()
        self.checker = Checker(settings, SlurmClient())
        self.runs = Runs(settings)
        self.launcher = Launcher(self.checker, self.runs, self.limits)
        self._results: Counter[tuple[str, str]] = Counter()
        self._states: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._launches = anyio.CapacityLimiter(8)
        self._tickets: dict[str, tuple[str, float]] = {}
        self._warming: asyncio.Task[None]
        self._routes()

    async def start(self) -> None:
        """Make the checkout the working folder, as `snakemake` has it, and begin to load what checks need."""
        os.chdir(self.settings.project)
        self._warming = asyncio.create_task(run_sync(self._warm))

    async def stop(self) -> None:
        """Wait for what `start` began."""
        await self._warming

    def _warm(self) -> None:
        with contextlib.suppress(Refused, ConfigError):  # the menu itself says it to whom it asks
            menu(self.checker, self.limits)

    def not_ready(self) -> str | None:
        """Say when the checkout lacks what a launch needs."""
        return None if (self.settings.project / "workflow" / "Snakefile").is_file() else "no workflow/Snakefile here"

    def collect(self) -> Iterable[Metric]:
        """Yield launches by their result, and runs by state as they were last listed."""
        requests = CounterMetricFamily(
            "aif_launch_requests", "Launches by result and reason.", labels=["result", "reason"]
        )
        for (result, reason), count in self._results.items():
            requests.add_metric([result, reason], count)
        yield requests
        runs = GaugeMetricFamily("aif_runs", "Runs by state, as last listed.", labels=["state"])
        for state, count in self._states.items():
            runs.add_metric([state], count)
        yield runs

    def _routes(self) -> None:
        read, launch = [needs("read")], [needs("launch")]
        router = self.router

        @router.get("/menu", dependencies=read, responses=_PROBLEM)
        async def get_menu() -> dict[str, Any]:
            """What can be launched: benchmarks, presets with their expected time, profiles, limits, codes."""
            try:
                return await run_sync(menu, self.checker, self.limits)
            except ConfigError as error:
                raise Problem(409, str(error)) from None

        @router.get("/menu/{benchmark}/schema", dependencies=read, responses=_answers("unknown_benchmark"))
        async def get_schema(benchmark: Id) -> dict[str, Any]:
            """The JSON Schema of a suite of one benchmark: what `config` of a launch may hold."""
            if benchmark not in benchmarks():
                hint = f"allowed: {', '.join(benchmarks())}"
                raise refuse("unknown_benchmark", f"{benchmark}: no such benchmark", field="benchmark", hint=hint)
            return suite_schema(benchmark)

        @router.post("/runs:validate", dependencies=launch, responses=_LAUNCH, openapi_extra=_BODY)
        async def validate(
            request: Request,
            dry_run: Annotated[bool, Query(description="also do what takes seconds: see `checks`")] = False,
        ) -> dict[str, Any]:
            """Check a launch and tell what it would take. Starts nothing."""
            body = await request.body()
            return await run_sync(self._validate, body, dry_run, limiter=self._launches if dry_run else None)

        @router.post("/runs", dependencies=launch, status_code=202, responses=_LAUNCH, openapi_extra=_BODY)
        async def post_run(request: Request, idempotency_key: Key = None) -> dict[str, Any]:
            """Launch a run; answers once its jobs are submitted."""
            body = await request.body()
            return await self._counted(body, idempotency_key)

        @router.get("/runs", dependencies=read)
        async def get_runs() -> dict[str, Any]:
            """All runs, newest first, those that were started by hand too."""
            found = await run_sync(self.runs.all)
            self._states = Counter(run["state"] for run in found)
            return {"runs": found}

        @router.get("/runs/{id}", dependencies=read, responses=_answers("not_found"))
        async def get_run(id: Id) -> dict[str, Any]:
            """One run, with its campaign as YAML and the end of Snakemake's log."""
            return await run_sync(
                lambda: {**self.runs.show(id), "config": self.runs.config(id), "log": self.runs.log(id)}
            )

        @router.post("/runs/{id}:cancel", dependencies=launch, status_code=202, responses=_answers(*sorted(_LIFE)))
        async def cancel(id: Id) -> dict[str, Any]:
            """End a run and its jobs; what it has measured stays."""
            return {"status": "ok", "run": await run_sync(self.launcher.cancel, id)}

        @router.post(
            "/runs/{id}:continue",
            dependencies=launch,
            status_code=202,
            responses=_answers(*sorted(_AGAIN), "queue_full", "start_failed"),
        )
        async def go_on(
            id: Id,
            again: Annotated[
                bool, Query(description="set aside what is invalid or failed, and measure it too")
            ] = False,
        ) -> dict[str, Any]:
            """Measure what is left of a run that has ended."""
            return {"status": "ok", **await run_sync(self.launcher.go_on, id, again, limiter=self._launches)}

        @router.get("/runs/{id}/report", dependencies=read, responses=_REPORT, response_class=Response)
        async def report(id: Id) -> Response:
            """The report of a run, whole in itself, of whatever is recorded so far."""
            return report_answer(await run_sync(self.runs.report, id))

        @router.post("/runs/{id}:ticket", dependencies=read, responses=_answers("not_found"))
        async def ticket(id: Id) -> dict[str, str]:
            """An address of the report, and of the files it leads to, for a tab of its own; good for an hour."""
            await run_sync(self.runs.folder, id)
            return {"path": f"{router.prefix}/reports/{self._ticket(id)}/report/index.html"}

        @router.get(
            "/reports/{ticket}/{path:path}", dependencies=[Depends(_NeedsTicket(self._run_of))], include_in_schema=False
        )
        async def ticketed(ticket: str, path: str) -> Response:
            """The report that a ticket was given for, and the files that it leads to."""
            run = self._run_of(ticket)
            if path == "report/index.html":
                return report_answer(await run_sync(self.runs.report, run))
            return await run_sync(self._file, run, path)

    def _validate(self, body: bytes, dry_run: bool) -> dict[str, Any]:
        request = self.checker.parse(body)
        run = new_id(request, datetime.now())
        checked = self.checker.cheap(request, run)
        answer = {"status": "ok", "plan": checked.summary(datetime.now().astimezone()), "config": checked.text}
        if dry_run:
            answer["checks"] = self.launcher.rehearse(checked, run)
        return answer

    async def _counted(self, body: bytes, key: str | None) -> dict[str, Any]:
        try:
            if key is not None and not KEY.fullmatch(key):
                message = "8 to 128 visible characters without a space are needed"
                raise refuse("invalid_request", message, field="Idempotency-Key", hint="such as a UUID")
            request = await run_sync(self.checker.parse, body)
            if key is None:
                found = await run_sync(self.launcher.launch, request, None, limiter=self._launches)
            else:  # those that wait for the same key wait here, and take no thread
                async with self._locks.setdefault(key, asyncio.Lock()):
                    found = await run_sync(self.launcher.launch, request, key, limiter=self._launches)
        except Refused as refused:
            self._results["ko", refused.code] += 1
            raise
        self._results["ok", ""] += 1
        return {"status": "ok", **found}

    def _file(self, run: str, path: str) -> Response:
        """Return a file of a run, or the list of a folder (its path ends in a slash)."""
        *parts, last = path.split("/")
        try:
            if not last:
                return listing(path, self.runs.entries(run, parts))
            return file_answer(last, self.runs.open(run, [*parts, last]))
        except FileNotFoundError:
            raise Problem(404, "no such file of this run") from None

    def _ticket(self, run: str) -> str:
        now = time.monotonic()
        self._tickets = {ticket: known for ticket, known in self._tickets.items() if known[1] > now}
        if len(self._tickets) >= MOST_TICKETS:
            raise Problem(429, "too many reports opened; wait some minutes")
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = run, now + TICKET_S
        return ticket

    def _run_of(self, ticket: str) -> str:
        run, until = self._tickets.get(ticket, ("", 0.0))
        if time.monotonic() > until:
            raise Problem(401, "this address of a report is used up; open the report from the list of runs again")
        return run


@dataclass(frozen=True)
class _NeedsTicket:
    """A dependency of a route that a ticket opens, which only a bearer of `scope` was given."""

    run_of: Callable[[str], str]
    scope: str = "read"

    def __call__(self, ticket: str) -> None:
        self.run_of(ticket)
