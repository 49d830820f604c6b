"""Statements that others send: checked field by field, by hand, since 100 000 a second pass here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from aifbench.core.errors import nearest
from aifbench.services.problems import Refused

TEXTS = ("run", "benchmark", "batch", "case", "service", "node", "slurm_job_id", "rule")
"""Fields beside `t`, `level` and `msg`, all optional."""
MOST_TEXT = 128
KNOWN = frozenset({"t", "level", "msg", *TEXTS})
CODE = "invalid_statement"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["level", "msg"],
    "additionalProperties": False,
    "properties": {
        "t": {"type": "string", "format": "date-time", "description": "when it was said; default: now"},
        "level": {"type": "integer", "enum": [0, 1, 2], "description": "0 info, 1 warning, 2 error"},
        "msg": {"type": "string", "description": "at most 4096 bytes of UTF-8"},
        **{name: {"type": ["string", "null"], "maxLength": MOST_TEXT} for name in TEXTS},
    },
}
"""JSON Schema of one statement."""


def checked(values: list[Any], now: float, most_bytes: int, place: str = "") -> Iterator[dict[str, Any]]:
    """Yield the records of statements, in the order `t, level, run … , msg`; fields without a value are left out.

    `now` (Unix seconds) is the time of a statement that has none. `place` names the list in an error, such as
    `statements`. Raises Refused for the first statement that is wrong.
    """
    default_time = moment(now)
    for number, value in enumerate(values):
        try:
            if type(value) is not dict:
                raise _Bad(None, "must be an object")
            level, msg = value.get("level"), value.get("msg")
            if type(level) is not int or not 0 <= level <= 2:
                raise _Bad("level", "must be 0 (info), 1 (warning) or 2 (error)")
            if type(msg) is not str:
                raise _Bad("msg", "must be a text")
            if len(msg) * 4 > most_bytes and len(msg.encode()) > most_bytes:
                raise _Bad("msg", f"is longer than {most_bytes} bytes")
            said = value.get("t")
            record = {"t": default_time if said is None else _time(said), "level": level}
            found = 3 if "t" in value else 2
            for name in TEXTS:
                if name in value:
                    found += 1
                    text = value[name]
                    if text is not None:
                        if type(text) is not str or len(text) > MOST_TEXT:
                            raise _Bad(name, f"must be a text of at most {MOST_TEXT} characters")
                        record[name] = text
            if found != len(value):
                name = min(value.keys() - KNOWN)
                near = nearest(name, sorted(KNOWN))
                raise _Bad(name[:64], f"is not a field; did you mean '{near}'?" if near else "is not a field")
            record["msg"] = msg
        except _Bad as bad:
            field = ".".join(part for part in (f"{place}.{number}" if place else "", bad.field or "") if part)
            hint = f"fields: {', '.join(sorted(KNOWN))}; nothing of this request was written"
            raise Refused(422, CODE, bad.message, field=field or None, hint=hint) from None
        yield record


def moment(seconds: float) -> str:
    """Return Unix seconds as a time in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def parse_moment(text: str) -> datetime:
    """Return an aware time. Raises ValueError with what is wrong."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is no time") from None
    if found.tzinfo is None:
        raise ValueError("has no time zone")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no time") from None


class _Bad(Exception):
    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def _time(said: Any) -> str:
    if type(said) is not str:
        raise _Bad("t", "must be a text with date, time and zone")
    try:
        return parse_moment(said).isoformat(timespec="milliseconds")
    except ValueError as error:
        raise _Bad("t", str(error)) from None
