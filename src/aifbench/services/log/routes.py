"""What the log service answers over HTTP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import orjson
from fastapi import Header, Query, Request
from pydantic import BeforeValidator
from starlette.responses import Response

from aifbench.services.guard import needs
from aifbench.services.ids import Id
from aifbench.services.log.configs import LEVEL_HINT, LogConfig, LogSettings, describe, settings_of
from aifbench.services.log.query import find, fitting
from aifbench.services.log.statements import SCHEMA, checked, moment, parse_moment
from aifbench.services.problems import Problem, Refused

if TYPE_CHECKING:
    from aifbench.services.log.service import LogService


def _level(text: Any) -> Any:
    if text not in {"0", "1", "2"}:
        raise ValueError(f"{text!r} is no level: {LEVEL_HINT}")
    return text


Run = Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,64}$")]
Level = Annotated[int, Query(ge=0, le=2), BeforeValidator(_level)]


def add_routes(service: LogService) -> None:
    """Fill the router of the log service."""
    _add_configs(service)
    _add_statements(service)


def _add_configs(service: LogService) -> None:
    router, configs, clock = service.router, service.configs, service.settings.clock
    read, launch = [needs("read")], [needs("launch")]

    @router.get("/log/configs", dependencies=read)
    async def list_configs() -> dict[str, Any]:
        """All configurations with their state and the seconds that are left, and what the file says."""
        await service.expire()
        return {"configs": configs.shown(), "file": service.file_status(), "now": moment(clock())}

    @router.get("/log/configs/{name}", dependencies=read)
    async def get_config(name: Id) -> dict[str, Any]:
        """One configuration."""
        await service.expire()
        if name not in configs.all:
            raise Problem(404, f"no configuration '{name}'")
        return configs.show(configs.all[name])

    @router.put("/log/configs/{name}", dependencies=launch, openapi_extra=_body(_settings_schema()))
    async def put_config(name: Id, request: Request) -> dict[str, Any]:
        """Set a configuration. `ko` with a reason: past time, no time zone, unknown key or level."""
        settings = settings_of(_without_name(_json(await request.body()), name))
        config: LogConfig = await service.change(
            lambda: configs.put(name, settings),
            f"configuration '{name}' set: {describe(LogConfig(name=name, **settings.model_dump()))}",
        )
        return {"status": "ok", "config": configs.show(config)}

    @router.delete("/log/configs/{name}", dependencies=launch)
    async def delete_config(name: Id) -> dict[str, str]:
        """Remove a configuration that was set by REST."""
        await service.change(lambda: configs.delete(name), f"configuration '{name}' deleted")
        return {"status": "ok"}

    @router.post("/log/configs:clear", dependencies=launch)
    async def clear_configs() -> dict[str, Any]:
        """Remove the configurations that were set by REST and are over: what they were about is free again."""
        gone = await service.change(configs.clear, "configurations that are over are deleted")
        return {"status": "ok", "deleted": gone}


def _add_statements(service: LogService) -> None:
    router, intake, limits = service.router, service.intake, service.settings.limits
    read, ingest = [needs("read")], [needs("ingest")]

    async def take(values: list[Any], place: str) -> Response:
        records = list(checked(values, service.settings.clock(), limits.message_bytes, place))
        return _raw({"status": "ok", **await service.write(records)})

    @router.post("/log", dependencies=ingest, openapi_extra=_body(SCHEMA))
    async def post_statement(request: Request) -> Response:
        """Send one statement."""
        return await take([_json(await request.body())], "")

    @router.post("/log:batch", dependencies=ingest, openapi_extra=_body(_batch_schema(limits.batch)))
    async def post_statements(request: Request) -> Response:
        """Send up to 1000 statements; they are taken all or none."""
        body = _json(await request.body())
        statements = body.get("statements") if isinstance(body, dict) and len(body) == 1 else None
        if not isinstance(statements, list):
            raise Refused(422, "invalid_statement", 'must be {"statements": [...]}', field="statements")
        if len(statements) > limits.batch:
            message = f"{len(statements)} statements are more than {limits.batch}"
            raise Refused(413, "over_limit", message, field="statements", hint="send several batches")
        return await take(statements, "statements")

    @router.get("/log", dependencies=read)
    async def get_statements(
        run: Run = None,
        level: Level = 0,
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
        asked = partial(find, run=run, level=level, since=start, most=limit)
        newest, more = await anyio.to_thread.run_sync(
            lambda: asked(intake.newest_first(), intake.recent, service.settings.results)
        )
        told, cut = fitting(newest)
        return _raw({"statements": told, "truncated": more or cut})

    @router.get("/log/status", dependencies=read)
    async def get_status() -> dict[str, Any]:
        """What became of all statements since the start, the size of the files, and how Loki is."""
        return await anyio.to_thread.run_sync(intake.status)

    @router.get("/log/stream", dependencies=read, response_class=Response)
    async def stream(
        run: Run = None, level: Level = 0, last_event_id: Annotated[str | None, Header(max_length=64)] = None
    ) -> Response:
        """Statements as they are written (events `statements`, lists), and `configs` when those change."""

        def wants(topic: str) -> bool:
            of_level, _, of_run = topic.partition(" ")
            return topic == "configs" or (int(of_level) >= level and (run is None or of_run == run))

        return intake.hub.subscribe(wants, last_event_id)


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


def _settings_schema() -> dict[str, Any]:
    schema = LogSettings.model_json_schema()
    schema["properties"]["match"] = schema.pop("$defs")["Match"]
    return schema


def _batch_schema(most: int) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["statements"],
        "additionalProperties": False,
        "properties": {"statements": {"type": "array", "items": SCHEMA, "maxItems": most}},
    }
