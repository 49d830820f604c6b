"""Log configurations: which statements are written, from which level on, and until when.

They come by REST or from the file `config/logging.yaml`; all of them are kept in one file below the results, from
which a restart and the jobs read them. An expiry is final: a clock that is set back revives nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from aifbench.core.errors import ConfigError, told
from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import json_beneath
from aifbench.files.written import write_beneath
from aifbench.files.yamlfile import read_mapping
from aifbench.load.urls import Address, UrlError, parse, shown
from aifbench.log.levels import LARGEST_FILE, MATCHED, Fields, Rule, Threshold, threshold
from aifbench.services.ids import PATTERN
from aifbench.services.problems import Refused

MOST_CONFIGS = 100
MOST_FILE_BYTES = 64 * 1024
CODE = "invalid_config"
DATE_HINT = "give date, time and zone, such as 2026-11-27T18:00:00+01:00"
LEVEL_HINT = "0: info and above, 1: warnings and errors, 2: errors"
LOKI_PATH = "/loki/api/v1/push"


def _text(value: Any) -> Any:
    if isinstance(value, str | datetime):
        return value
    raise ValueError("must be a text with date, time and zone")


Pattern = Annotated[str, Field(min_length=1, max_length=128)]
Level = Annotated[int, Field(strict=True, ge=0, le=2, description="0 info, 1 warning, 2 error")]
Expiry = Annotated[AwareDatetime, BeforeValidator(_text), Field(description="date, time and zone (ISO 8601)")]


class Match(BaseModel):
    """Which statements a configuration is about: patterns such as `ollama-*`; what is left out takes anything."""

    model_config = ConfigDict(extra="forbid")

    run: Pattern | None = None
    benchmark: Pattern | None = None
    batch: Pattern | None = None
    service: Pattern | None = None


class LogSettings(BaseModel):
    """What a configuration says, without its name."""

    model_config = ConfigDict(extra="forbid")

    logLevel: Level  # noqa: N815 (the brief's name)
    expires_at: Expiry
    match: Match = Field(default_factory=Match)


class LogConfig(LogSettings):
    """One configuration, and what became of it."""

    name: Annotated[str, Field(pattern=PATTERN)]
    source: Literal["rest", "file"] = "rest"
    ended: bool = False

    def rule(self) -> Rule:
        """Return the rule that statements are compared with."""
        expires = 0.0 if self.ended else self.expires_at.timestamp()
        return Rule(self.name, self.logLevel, expires, self.match.model_dump(exclude_none=True))


def push_address(url: str) -> tuple[Address, str]:
    """Return where the server of a push is, and what it is asked for there. Raises `UrlError`.

    A server without a path takes pushes where Grafana Loki does.
    """
    base, asked, query = url.partition("?")
    address = parse(base)
    if asked and not address.path:
        raise UrlError("what follows a `?` goes with the whole address: the path of the push is missing before it", url)
    if not re.fullmatch("[!-~]*", query) or "#" in query:
        raise UrlError("what follows the `?` is percent-encoded, without `#`", url)
    return address, (address.path or LOKI_PATH) + (f"?{query}" if query else "")


def _push_url(url: str) -> str:
    push_address(url)
    return url


class Loki(BaseModel):
    """Where statements are pushed to, by Grafana Loki's protocol: Loki, VictoriaLogs, or a gateway before one."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, AfterValidator(_push_url), Field(description="of the server, or whole: where it takes pushes")]
    credentials: Path | None = Field(None, description="file with mode 0600: `user:password`, or a bearer token")
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "local"

    def secret(self) -> SecretStr | None:
        """Return the content of the credentials file. Raises ValueError when others can read it, or it is missing."""
        if self.credentials is None:
            return None
        file = self.credentials.expanduser()
        try:
            found = file.stat()
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"loki.credentials = {file}: {getattr(error, 'strerror', None) or error}") from None
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(f"loki.credentials = {file}: others can read it; chmod 600 it")
        if not text or not text.isprintable():
            raise ValueError(f"loki.credentials = {file}: must hold one line, user:password or a token")
        return SecretStr(text)


class LoggingFile(BaseModel):
    """The file `config/logging.yaml`."""

    model_config = ConfigDict(extra="forbid")

    configs: Annotated[list[_FileConfig], Field(max_length=MOST_CONFIGS)] = Field(default_factory=list)
    loki: Loki | None = None


class _FileConfig(LogSettings):
    name: Annotated[str, Field(pattern=PATTERN)]


LoggingFile.model_rebuild()


def read_logging_file(file: Path) -> LoggingFile:
    """Return the content of `config/logging.yaml`; an empty one when it is missing.

    Raises ValueError with one line: file, key, what is wrong, what is allowed.
    """
    try:
        content = read_mapping(file, MOST_FILE_BYTES, empty=True) if os.path.exists(file) else {}
        found = LoggingFile.model_validate(content)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(f"{file.name}: {_one_line(error)}") from None
    names = [config.name for config in found.configs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{file.name}: configs: the name '{name}' is there twice")
    return found


def settings_of(body: Any) -> LogSettings:
    """Return the settings that a client sent. Raises Refused with the field, and what to do."""
    try:
        return LogSettings.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        hint = _hint(field) or f"allowed: {', '.join(LogSettings.model_fields)}"
        raise Refused(422, CODE, _message(first), field=field, hint=hint) from None


class Configs:
    """The configurations of one server: kept in `file`, decided by the wall clock `clock` (Unix seconds).

    A change holds at once; what `save` returns keeps it.
    """

    def __init__(self, file: Path, clock: Callable[[], float]) -> None:
        self.file, self._clock = file, clock
        self.all: dict[str, LogConfig] = {}
        self.problem: str | None = None
        self._rules: list[Rule] = []
        self._nearest = float("inf")
        self._known: dict[tuple[str | None, ...], Threshold] = {}

    def load(self) -> None:
        """Read what an earlier server kept. A broken file is set aside, and `problem` says so."""
        try:
            entries = json_beneath(self.file.parents[1], *self.file.parts[-2:], most=LARGEST_FILE)["configs"]
            found = [LogConfig.model_validate(entry) for entry in entries]
        except (KeyError, TypeError, ValueError, RecursionError, Unreadable) as error:
            aside = self.file.with_suffix(".broken")
            self.file.replace(aside)
            self.problem = f"{self.file.name} could not be read ({_one_line(error)}); it is kept as {aside.name}"
            found = []
        except FileNotFoundError:
            found = []
        self.replace({config.name: config for config in found})

    def put(self, name: str, settings: LogSettings) -> LogConfig:
        """Set a configuration by REST. Raises Refused: past time, a name of the file, or too many."""
        known = self.all.get(name)
        if settings.expires_at.timestamp() <= self._clock():
            message = f"{settings.expires_at.isoformat()} is in the past"
            raise Refused(422, CODE, message, field="expires_at", hint=DATE_HINT)
        if known is not None and known.source == "file":
            raise Refused(409, "set_by_file", f"'{name}' stands in the file", field="name", hint="edit logging.yaml")
        if known is None and len(self.all) >= MOST_CONFIGS:
            raise Refused(409, "over_limit", f"there are {MOST_CONFIGS} configurations", hint="delete one first")
        config = LogConfig(name=name, **settings.model_dump())
        self.replace({**self.all, name: config})
        return config

    def delete(self, name: str) -> None:
        """Remove a configuration that was set by REST. Raises Refused."""
        known = self.all.get(name)
        if known is None:
            raise Refused(404, "unknown_config", f"no configuration '{name}'", field="name", hint="list them first")
        if known.source == "file":
            raise Refused(409, "set_by_file", f"'{name}' stands in the file", field="name", hint="edit logging.yaml")
        self.replace({key: config for key, config in self.all.items() if key != name})

    def clear(self) -> list[str]:
        """Remove those that were set by REST and are over; return their names."""
        gone = sorted(name for name, config in self.all.items() if config.source == "rest" and config.ended)
        self.replace({name: config for name, config in self.all.items() if name not in gone})
        return gone

    def take_file(self, found: LoggingFile) -> list[str]:
        """Let the file's configurations replace those that came from it before; return what changed, in words.

        The file wins over a name that was set by REST. A time that is past already makes a configuration that is over.
        """
        now = self._clock()
        kept = {name: config for name, config in self.all.items() if config.source == "rest"}
        said = []
        for entry in found.configs:
            before = self.all.get(entry.name)
            ended = entry.expires_at.timestamp() <= now
            if before is not None and before.source == "file" and before.expires_at == entry.expires_at:
                ended = ended or before.ended
            config = LogConfig(**entry.model_dump(), source="file", ended=ended)
            kept[entry.name] = config
            if before is None or before.model_dump() != config.model_dump():
                said.append(
                    f"configuration '{entry.name}' read from the file: {describe(config)}{' (over)' if ended else ''}"
                )
        gone = [name for name, config in self.all.items() if config.source == "file" and name not in kept]
        said += [f"configuration '{name}' is no longer in the file" for name in gone]
        if said:
            self.replace(kept)
        return said

    def expire(self) -> list[LogConfig]:
        """End what is over by now, for good; return what ended with this call."""
        now = self._clock()
        if now < self._nearest:
            return []
        over = [config for config in self.all.values() if not config.ended and config.expires_at.timestamp() <= now]
        ended = {config.name: config.model_copy(update={"ended": True}) for config in over}
        self.replace({**self.all, **ended})
        return list(ended.values())

    def seconds_left(self) -> float:
        """Return the time until the nearest expiry; infinite when nothing is valid."""
        return self._nearest - self._clock()

    def threshold(self, fields: Fields) -> Threshold:
        """Return from which level on statements with these fields are written. Call `expire` before a series of it."""
        key = tuple(fields.get(name) for name in MATCHED)
        found = self._known.get(key)
        if found is None:
            if len(self._known) > 10_000:
                self._known.clear()
            found = self._known[key] = threshold(self._rules, fields, 1.0)  # what is over has an expiry of 0
        return found

    def shown(self) -> list[dict[str, Any]]:
        """Return all configurations as the interface shows them, by name."""
        return [self.show(config) for _, config in sorted(self.all.items())]

    def show(self, config: LogConfig) -> dict[str, Any]:
        """Return one configuration with its state and the seconds that it has left."""
        left = config.expires_at.timestamp() - self._clock()
        return {
            **_plain(config),
            "state": "expired" if config.ended else "valid",
            "remaining_s": 0.0 if config.ended else max(0.0, round(left, 3)),
        }

    def save(self) -> Callable[[], None]:
        """Return what writes this moment's configurations to the file. It waits for the disk: call it in a thread."""
        content = {"configs": [_plain(config) for config in self.all.values()]}
        data = orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"

        def write() -> None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_beneath(self.file.parents[1], *self.file.parts[-2:], data=data)

        return write

    def replace(self, configs: Mapping[str, LogConfig]) -> None:
        """Let these configurations hold from now on."""
        self.all = dict(configs)
        self._rules = [config.rule() for config in self.all.values()]
        self._known.clear()
        self._nearest = min((rule.expires for rule in self._rules if rule.expires > 0), default=float("inf"))


def _plain(config: LogConfig) -> dict[str, Any]:
    match = config.match.model_dump(exclude_none=True)
    expires = config.expires_at.isoformat()
    return {**config.model_dump(mode="json"), "expires_at": expires, "match": match}


def describe(config: LogConfig) -> str:
    """Return what a configuration does, in words."""
    about = ", ".join(f"{key} {value}" for key, value in config.match.model_dump(exclude_none=True).items())
    end = config.expires_at.isoformat(timespec="seconds")  # as it was given: not every moment has a date in UTC
    return f"level {config.logLevel} until {end}, {about or 'everything'}"


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "timezone_aware":
        return "has no time zone"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "extra_forbidden":
        return "is not a key"
    if error["loc"] and error["loc"][-1] == "logLevel":
        return f"{json.dumps(error['input'], default=str)[:60]} is no level"
    return told(error)


def _hint(field: str | None) -> str:
    """Return what is allowed in a field; empty where its message says it."""
    last = (field or "").rpartition(".")[2]
    return {"logLevel": LEVEL_HINT, "expires_at": DATE_HINT}.get(last, "")


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        value = first.get("input")
        value = shown(value) if field.endswith("url") and isinstance(value, str) else value
        said = f" = {value!r}"[:80] if isinstance(value, str | int | float) and not field.endswith("logLevel") else ""
        hint = f" ({_hint(field)})" if _hint(field) else ""
        return f"{field}{said}: {_message(first)}{hint}" if field else _message(first)
    return " ".join(str(error).split())
