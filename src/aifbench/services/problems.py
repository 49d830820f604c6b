"""Errors as RFC 9457 problems, and the answer of a launch that was refused."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aifbench.core.errors import told


class Problem(Exception):
    """A request that is refused: becomes `application/problem+json` with one clear line of detail.

    `extra` members stand beside the standard ones, such as `field`.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extra = status, detail, headers or {}, extra

    def response(self) -> Response:
        """Return the answer to send."""
        title = HTTPStatus(self.status).phrase
        content = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.extra}
        return Response(orjson.dumps(content), self.status, self.headers, media_type="application/problem+json")


class Refused(Exception):
    """The `ko` of the brief: `{"status": "ko", "reason": {code, field, message, hint}}`.

    `status` is the HTTP status; `field` a dotted path of the request or None; `hint` says what to do.
    """

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.hint = status, code, message, field, hint

    def response(self) -> Response:
        """Return the answer to send."""
        reason = {"code": self.code, "field": self.field, "message": self.message, "hint": self.hint}
        return Response(orjson.dumps({"status": "ko", "reason": reason}), self.status, media_type="application/json")


_TEXT = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
}


def ko_schema(code: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a refusal; `code` is that of its codes."""
    field = {"type": ["string", "null"], "description": "dotted path of the request"}
    return {
        "type": "object",
        "required": ["status", "reason"],
        "properties": {
            "status": {"const": "ko"},
            "reason": {
                "type": "object",
                "required": ["code", "field", "message", "hint"],
                "properties": {"code": code, "field": field, "message": _TEXT, "hint": _TEXT},
            },
        },
    }


_CONTENT = {"application/problem+json": {"schema": _PROBLEM}, "application/json": {"schema": ko_schema(_TEXT)}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused, and why.", "content": _CONTENT},
    "5XX": {"description": "It cannot be done now, and why.", "content": _CONTENT},
}
"""What every route may answer besides its own, for the OpenAPI document."""


def answer_problems(app: FastAPI) -> None:
    """Let an application answer with the problem that a request has."""
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(Refused, _answer)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem | Refused)
    return error.response()


async def _plain(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Problem(error.status_code, str(error.detail), dict(error.headers or {})).response()


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return Problem(422, f"{field}: {told(first)}", field=field).response()
