"""The application: the services that were asked for behind one guard, with health, metrics and the page."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from aifbench.services.guard import SESSION, Guard, needs
from aifbench.services.peers import peer_of
from aifbench.services.problems import RESPONSES, Problem, answer_problems
from aifbench.services.service import PREFIX, Service
from aifbench.services.settings import Settings
from aifbench.services.tokens import Tokens

SERVICES = {
    "client": "aifbench.services.client.service:ClientService",
    "monitor": "aifbench.services.monitor.service:MonitorService",
    "log": "aifbench.services.log.service:LogService",
}
OPEN = frozenset({"/healthz", "/", "/{file}"})
"""Paths without a token: the pulse, and the page, which holds nothing of the user's."""
WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


def make_services(settings: Settings, names: Iterable[str]) -> list[Service]:
    """Return the services of these names."""
    found = []
    for name in names:
        module, _, attribute = SERVICES[name].partition(":")
        found.append(getattr(import_module(module), attribute)(settings))
    return found


@asynccontextmanager
async def running(services: Sequence[Service]) -> AsyncIterator[None]:
    """Start the services, and stop in the opposite order those that have started."""
    async with AsyncExitStack() as stack:
        for service in services:
            await service.start()
            stack.push_async_callback(service.stop)
        yield


def create_app(
    settings: Settings, services: Sequence[Service], tokens: Tokens | None = None, port_tokens: Tokens | None = None
) -> FastAPI:
    """Return the application. Raises ValueError when a route does not say which scope it needs.

    `tokens` are those of the Unix socket, `port_tokens` those of a port: neither opens the other.
    The services live as long as its lifespan; a server that runs them itself (`running`) leaves the lifespan out.
    """
    app = FastAPI(
        title="aifbench",
        version=version("aifbench"),
        summary="Launch, watch and log benchmarks of one user.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lambda _app: running(services),
        redirect_slashes=False,
        responses=RESPONSES,
    )
    app.state.settings = settings
    app.state.services = services
    app.state.streams = set()
    tokens = tokens or Tokens(settings.state)
    app.add_middleware(Guard, tokens=tokens, port_tokens=port_tokens, limits=settings.limits)
    answer_problems(app)
    for service in services:
        app.include_router(service.router)
    _own_routes(app, services)
    _session_route(app, tokens, port_tokens)
    for route in routes_of(app):
        if route.path not in OPEN and scope_of(route.dependant) is None:
            raise ValueError(f"{route.path} says no scope; add dependencies=[needs(...)]")
    return app


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Return all routes, those of the services included. Raises ValueError for one that cannot be looked into."""
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    for service in app.state.services:
        for route in service.router.routes:
            if not isinstance(route, APIRoute):
                raise ValueError(f"{service.name}: {route!r} is no plain route, so its scope is not known")
            found.append(route)
    return found


def scope_of(dependant: Dependant) -> str | None:
    """Return the scope that a route needs, or None when it says none."""
    for dependency in dependant.dependencies:
        found: str | None = getattr(dependency.call, "scope", None) or scope_of(dependency)
        if found:
            return found
    return None


def _own_routes(app: FastAPI, services: Sequence[Service]) -> None:
    read = [needs("read")]

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """The process answers; says nothing else, so it needs no token."""
        return {"status": "ok"}

    @app.get("/readyz", dependencies=read, tags=["server"])
    async def readyz() -> dict[str, Any]:
        """All services have started and can do their work; 503 with the reasons otherwise."""
        reasons = {service.name: reason for service in services if (reason := service.not_ready())}
        if reasons:
            raise Problem(503, "; ".join(f"{name}: {reason}" for name, reason in reasons.items()), services=reasons)
        return {"status": "ok"}

    @app.get("/metrics", dependencies=read, tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """All metrics in the text format of Prometheus."""
        families = [*_own_metrics(app), *(family for service in services for family in service.collect())]
        text = await anyio.to_thread.run_sync(_render, families)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", dependencies=read, include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        """The description of this interface, OpenAPI 3.1."""
        return app.openapi()

    @app.get(f"{PREFIX}/services", dependencies=read, tags=["server"])
    async def names() -> dict[str, list[str]]:
        """The services that run here."""
        return {"services": [service.name for service in services]}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """The page."""
        return await _static("index.html")

    @app.get("/{file}", include_in_schema=False)
    async def static(file: str) -> Response:
        """A file of the page."""
        return await _static(file)


def _session_route(app: FastAPI, tokens: Tokens, port_tokens: Tokens | None) -> None:
    @app.post(SESSION, dependencies=[needs("launch")], tags=["server"])
    async def session(request: Request) -> dict[str, str]:
        """The token to launch, for a page that was opened by a code."""
        door = port_tokens if port_tokens and peer_of(request.scope).port else tokens
        return {"token": door["launch"]}


_PAGES = {path.name: path for path in WEB.iterdir() if path.suffix in TYPES}


async def _static(name: str) -> Response:
    if name not in _PAGES:
        raise Problem(404, "no such page")
    content = await anyio.to_thread.run_sync(_PAGES[name].read_bytes)
    return Response(content, headers={"content-type": TYPES[_PAGES[name].suffix]})


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _render(families: list[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


def _own_metrics(app: FastAPI) -> Iterable[Metric]:
    yield InfoMetricFamily(
        "aif_build", "Version of the running package.", {"version": app.version, "python": platform.python_version()}
    )
    yield GaugeMetricFamily("aif_sse_subscribers", "Open event streams.", len(app.state.streams))
