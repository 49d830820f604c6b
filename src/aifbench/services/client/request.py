"""What a launch asks for, and how it becomes a campaign. Pure.

A request never names a file, a folder, an address or a variable: such values come from presets, which are files of
the user's own checkout. Everything else is checked by the code that checks every campaign.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from aifbench.campaign.config import merge
from aifbench.campaign.presets import Preset
from aifbench.core.benchmark import Benchmark
from aifbench.core.errors import nearest
from aifbench.core.system import Name, System
from aifbench.registry import benchmarks
from aifbench.services.client.reasons import PLACES, one_of, refuse, shown
from aifbench.services.ids import PATTERN
from aifbench.services.problems import Refused

MOST_VALUES = 256
"""Values of one list."""
MOST_NODES = 5_000
"""Values of the whole configuration, lists and mappings among them."""
MOST_TEXT = 65_536
MOST_KEY = 200
LARGEST = 1 << 53
"""Beyond it JSON's numbers are not whole any more."""
MODEL_FILE, DATA_FILES = ".gguf", (".hdf5", ".h5")

Count = Annotated[int, Field(ge=1, le=1024)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ServerResources(_Strict):
    """Hardware of each server that a batch starts."""

    device: Literal["cpu", "gpu"] | None = Field(None, description="what the server computes on")
    gpus: int | None = Field(None, ge=1, le=16, description="GPUs of each server; with device gpu")
    cores: int | None = Field(None, ge=1, le=1024, description="compute threads of each server")


class ClientResources(_Strict):
    """Hardware of the clients."""

    place: Literal["same-node", "own-node"] | None = Field(
        None, description="beside the server, or on a node of their own (Slurm)"
    )
    processes: int | None = Field(None, ge=1, le=64, description="processes that the clients are spread over")
    cores: int | None = Field(None, ge=1, le=1024, description="threads of each client")


class JobResources(_Strict):
    """What each Slurm job asks for; absent values are those of the system's file."""

    cores: int | None = Field(None, ge=1, le=4096, description="cores of each node")
    memory_mib: int | None = Field(None, ge=512, le=1 << 26, description="memory of each node in MiB")
    partition: Name | None = Field(None, max_length=64, description="partition; it must fit the device")


class Resources(_Strict):
    """CPU, GPU, cores, memory and partition for each part; the menu says which a benchmark takes."""

    server: ServerResources = Field(default_factory=ServerResources, description="each server")
    clients: ClientResources = Field(default_factory=ClientResources, description="the clients")
    job: JobResources = Field(default_factory=JobResources, description="each Slurm job")


class Service(_Strict):
    """One service to execute: a preset, or a benchmark with its configuration, and what is to be different."""

    preset: str | None = Field(None, pattern=PATTERN, description="preset to start from; see the menu")
    benchmark: str | None = Field(None, pattern=PATTERN, description="benchmark, where no preset is named")
    clients: Count | Annotated[list[Count], Field(min_length=1, max_length=32)] | None = Field(
        None, description="number of concurrent clients, or a list of numbers to compare"
    )
    servers: Count | Annotated[list[Count], Field(min_length=1, max_length=16)] | None = Field(
        None, description="number of servers that each batch starts, or a list"
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="keys of the suite, as in YAML; they are laid over the preset's: mappings merge, lists replace",
    )
    resources: Resources = Field(default_factory=Resources, description="hardware of servers, clients and jobs")


class LaunchRequest(Service):
    """A launch: one service to execute, or several in `services`; where they run and what they may take together."""

    services: (
        Count
        | Annotated[list[Count], Field(min_length=1, max_length=16)]
        | Annotated[list[Service], Field(min_length=1, max_length=16)]
        | None
    ) = Field(
        None, description="services to execute, instead of one; a number, or a list of numbers, is that of `servers`"
    )
    profile: str = Field("laptop", pattern=PATTERN, description="profile and system on which it runs; see the menu")
    seed: int | None = Field(None, ge=0, lt=LARGEST, description="seed of orders, data and prompts")
    node_hours: float | None = Field(
        None,
        gt=0,
        le=100_000,
        allow_inf_nan=False,
        description="budget; a plan that is expected to take more is refused",
    )

    @property
    def parts(self) -> dict[str, Service]:
        """The services to execute, by their place in the request: `services[1].`; the only one has none."""
        listed = self.services if isinstance(self.services, list) else []
        parts = {f"services[{index}].": part for index, part in enumerate(listed) if isinstance(part, Service)}
        return parts or {"": self}


def parse_request(
    body: bytes, most_clients: Callable[[Mapping[str, Any], Mapping[str, Any]], int | None]
) -> LaunchRequest:
    """Return the request of a body of JSON, its values of a kind that a configuration can have. Raises `Refused`.

    `most_clients` tells of a body and a service of it how many clients its system and benchmark allow; None: it does
    not say.
    """
    try:
        request = LaunchRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error.errors(include_url=False), body, most_clients) from None
    if "" in request.parts:
        twice = request.services is not None and request.servers is not None
        names = ["servers"] if twice else []
    else:
        names = [name for name in Service.model_fields if name in request.model_fields_set]
    if names:
        raise refuse("invalid_request", f"{names[0]} and services: one of them", field=names[0], hint="leave one out")
    for place, part in request.parts.items():
        check_values(part.config, f"{place}config")
    return request


def _refused(
    errors: list[ErrorDetails], body: bytes, most_clients: Callable[[Mapping[str, Any], Mapping[str, Any]], int | None]
) -> Refused:
    """Return the refusal of a body: of the first value that is wrong, what is wrong with it and what is allowed."""
    if errors[0]["type"] == "json_invalid":
        message = f"not JSON: {errors[0]['ctx']['error']}"
        return refuse("invalid_request", message, hint='a JSON object, such as {"preset": "storage-quick"}')
    whole = json.loads(body)
    listed = whole.get("services") if isinstance(whole, dict) else None
    several = isinstance(listed, list) and any(isinstance(service, dict) for service in listed)
    if several:  # what a list of numbers would lack is no matter
        errors = [error for error in errors if error["loc"][0] != "services" or "list[Service]" in error["loc"]]
    start = _path(errors[0])[: 3 if several else 1]
    of_first = [one for one in errors if _path(one)[: len(start)] == start]
    # A value that may be of several kinds has an error of each; the one that looked furthest knows most.
    first = max(of_first, key=lambda one: (len(_path(one)), not one["type"].endswith("_type")))
    path = _path(first)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")[:MOST_KEY]
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = list(_schema_at(path[:-1] if key.isidentifier() else path, several)["properties"])
        near = nearest(key, known)
        message, hint = f"unknown key {shown(key)}", f"did you mean {near}?" if near else f"keys: {', '.join(known)}"
    else:
        message = f"{shown(first['input'])}: {WRONG.get(first['type'], 'of the wrong kind')}"
        service = listed[path[1]] if listed and several and len(path) > 2 else whole
        most = most_clients(whole, service) if "clients" in start[-1:] else None
        hint = f"allowed: {_allowed(_schema_at(path, several), most)}"
    return refuse("invalid_request", message, field=where or None, hint=hint)


WRONG = {
    **dict.fromkeys(("greater_than", "greater_than_equal"), "too small"),
    **dict.fromkeys(("less_than", "less_than_equal"), "too large"),
    "too_short": "too few values",
    "too_long": "too many values",
    "string_pattern_mismatch": "not a valid name",
    "string_too_long": "too long",
    "literal_error": "no such choice",
    "finite_number": "not a number",
}
"""What is wrong with a value, by pydantic's types of errors; of the others the kind is wrong."""


def _path(error: ErrorDetails) -> list[str | int]:
    """Return where an error is, without pydantic's names of the kinds that a value may be of."""
    return [part for part in error["loc"] if not isinstance(part, str) or part.isidentifier()]


def _schema_at(path: Sequence[str | int], several: bool) -> dict[str, Any]:
    """Return the JSON Schema of a place of a request; `several`: its services are a list of them."""
    whole = LaunchRequest.model_json_schema()
    found = whole
    for part in path:
        if isinstance(part, int):
            kinds = [kind["items"] for kind in found["anyOf"] if kind["type"] == "array"]
            found = kinds[-1 if several else 0]
        else:
            found = found["properties"][part]
        if "$ref" in found:
            found = whole["$defs"][found["$ref"].rpartition("/")[2]]
    return found


def _allowed(schema: Mapping[str, Any], limit: int | None = None) -> str:
    """Return in words what a JSON Schema allows; a `limit` of numbers holds before its own."""
    match schema:
        case {"anyOf": kinds}:
            words = ", or ".join(_allowed(kind, limit) for kind in kinds if kind["type"] != "null")
        case {"enum": choices}:
            words = ", ".join(choices)
        case {"type": "array", "items": {"$ref": _}, "minItems": least, "maxItems": most}:
            words = f"a list of {least} to {most} mappings, one for each service"
        case {"type": "array", "minItems": least, "maxItems": most}:
            words = f"a list of {least} to {most} of these"
        case {"type": "integer", "minimum": least}:
            most = schema["maximum"] if "maximum" in schema else schema["exclusiveMaximum"] - 1
            words = f"a whole number, {least} to {min(most, limit or most)}"
        case {"type": "number", "exclusiveMinimum": least, "maximum": most}:
            words = f"a number above {least}, at most {most}"
        case {"type": "string", "pattern": pattern}:
            words = f"{'lower-case ' if pattern == PATTERN else ''}letters, digits and dashes, at most 64"
        case _:
            words = "a mapping of keys to values"
    return words


@dataclass
class Part:
    """One suite of a campaign, and which field of its service each of its keys came from."""

    place: str
    """Of the service in the request, such as `services[1].`; that of the only one is empty."""
    suite: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def benchmark(self) -> str:
        """Name of its benchmark, which need not be one."""
        return str(self.suite["benchmark"])

    def field_of(self, key: str) -> str:
        """Return the field of the request that a key of the suite belongs to."""
        for origin in sorted(self.origins, key=len, reverse=True):
            if key == origin or key.startswith((f"{origin}.", f"{origin}[")):
                return self.place + self.origins[origin] + key[len(origin) :]
        return f"{self.place}config.{key}"

    def put(self, key: str, value: Any, origin: str) -> None:
        """Set a parameter from a field of its service: a list becomes an axis, a number a fixed value."""
        suite = self.suite
        for name in ("axes", "zip"):
            if isinstance(suite.get(name), dict):
                suite[name] = {other: values for other, values in suite[name].items() if other != key}
        suite.pop(key, None)
        if isinstance(value, list):
            axes = suite.setdefault("axes", {})
            if not isinstance(axes, dict):
                raise refuse("invalid_config", "needs a mapping of parameter to values", field="config.axes")
            axes[key] = value
            self.origins[f"axes.{key}"] = origin
        else:
            suite[key] = value
        self.origins[key] = origin

    def put_below(self, key: str, value: Any, origin: str, default: Any) -> None:
        """Set `name` of the mapping `head` of the suite, by the key `head.name`; `default` is its absent mapping."""
        head, _, name = key.partition(".")
        inner = self.suite.get(head, default)
        if not isinstance(inner, dict):
            raise refuse("invalid_config", f"needs `{head}` as one mapping, not as an axis", field=origin)
        self.suite[head] = {**inner, name: value}
        self.origins[key] = origin


@dataclass
class Composed:
    """A campaign as plain data, and the parts of the request that its suites are, in their order."""

    campaign: dict[str, Any]
    parts: list[Part]

    def field_of(self, key: str) -> str:
        """Return the field of the request that a key of the campaign belongs to."""
        for origin, place in TOP.items():
            if key == origin or key.startswith(f"{origin}."):
                return place
        for index, part in enumerate(self.parts):
            if (rest := key.removeprefix(f"suites[{index}].")) != key:
                return part.field_of(rest)
        return key


TOP = {"budget": "node_hours", "seed": "seed", "slurm": "profile", "paths": "profile", "results": "profile"}
"""Fields of a request for what stands beside the suites."""


def compose(
    request: LaunchRequest, presets: Mapping[str, Preset], profiles: Mapping[str, System], run_id: str, results: Path
) -> Composed:
    """Return the campaign that a request means. `profiles`: the system of each.

    Raises `Refused` for what only the request can have wrong; the campaign itself is checked afterwards.
    """
    parts = []
    for place, service in request.parts.items():
        with within(place):
            parts.append(_part(service, place, presets, request.profile, profiles))
    _name_apart(parts, list(request.parts.values()))
    campaign = {
        "campaign": run_id,
        "results": str(results),
        "system": request.profile,
        **({"seed": request.seed} if request.seed is not None else {}),
        **({"budget": {"node_hours": request.node_hours}} if request.node_hours is not None else {}),
        "suites": [part.suite for part in parts],
    }
    return Composed(campaign, parts)


@contextlib.contextmanager
def within(place: str) -> Iterator[None]:
    """Say the refusals of a service at its place in the request; what all services share has none."""
    try:
        yield
    except Refused as refused:
        own = refused.field is not None and refused.field not in SHARED
        field = f"{place}{refused.field}" if own else refused.field
        raise refuse(refused.code, refused.message, field=field, hint=refused.hint) from None


SHARED = LaunchRequest.model_fields.keys() - Service.model_fields.keys() - {"services"}
"""Fields of a request that belong to no service."""


def _part(
    service: Service, place: str, presets: Mapping[str, Preset], profile: str, profiles: Mapping[str, System]
) -> Part:
    """Return the suite that a service means. Raises `Refused`."""
    part = Part(place, _base(service, presets))
    if profile not in profiles:
        message = f"{shown(profile)}: no such profile"
        raise refuse("unknown_profile", message, field="profile", hint=one_of(profiles, profile))
    system = profiles[profile]
    if service.preset and presets[service.preset].scheduler and system.slurm is None:
        usable = {name for name, other in profiles.items() if other.slurm is not None}
        message = f"{service.preset} needs a system with Slurm"
        raise refuse("unknown_preset", message, field="preset" if place else "profile", hint=one_of(usable, profile))
    _lay_over(part.suite, deepcopy(service.config))
    if service.benchmark is not None:
        part.origins["benchmark"] = "benchmark"
    if service.clients is not None:
        part.put("clients", service.clients, "clients")
    known = benchmarks().get(part.benchmark)
    # The only service may say its servers in `services`.
    for name, value in (("servers", service.servers), ("services", getattr(service, "services", None))):
        if value is not None:
            if known is None or "servers" not in known.params.model_fields:
                raise _without(part, name)
            part.put("servers", value, name)
    _hardware(part, known, service.resources)
    _job(part, service.resources.job, system)
    part.suite.setdefault("name", service.preset or part.benchmark)
    return part


def _name_apart(parts: Sequence[Part], services: Sequence[Service]) -> None:
    """Number the names of suites that stand for the same preset; names that the request itself gives stay."""
    taken = [part.suite["name"] for part, service in zip(parts, services, strict=True) if "name" in service.config]
    for part, service in zip(parts, services, strict=True):
        if "name" not in service.config:
            name = part.suite["name"]
            names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            part.suite["name"] = next(free for free in names if free not in taken)
            taken.append(part.suite["name"])


def check_values(config: Mapping[str, Any], place: str = "config") -> None:
    """Refuse values that no configuration needs, and keys that only presets may say. Raises `Refused`."""
    for number, (where, key, value) in enumerate(_walk(config, place)):
        problem, code = _problem(key, value), "invalid_config"
        if number >= MOST_NODES:
            problem, code = f"more than {MOST_NODES} values", "over_limit"
        elif isinstance(value, list) and len(value) > MOST_VALUES:
            problem, code = f"a list of {len(value)} values; at most {MOST_VALUES}", "over_limit"
        if problem:
            raise refuse(code, problem, field=where[:MOST_KEY])


def _walk(value: Any, where: str, key: str = "") -> Iterator[tuple[str, str, Any]]:
    yield where, key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if len(name) > MOST_KEY or not name.isprintable():
                raise refuse("invalid_config", f"{shown(name)} is no key", field=where)
            yield from _walk(inner, f"{where}.{name}", name)
    elif isinstance(value, list):
        for index, inner in enumerate(value[: MOST_VALUES + 1]):
            yield from _walk(inner, f"{where}[{index}]", key)


def _problem(key: str, value: Any) -> str | None:
    if key in PLACES:
        return f"{key} names a place outside this form; write it into a preset (config/presets) or a campaign file"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f"{shown(value)}: a number beyond 2^53"
    if isinstance(value, str):
        if len(value) > MOST_TEXT or any(not c.isprintable() and c not in "\n\t" for c in value):
            return f"a text of at most {MOST_TEXT} printable characters is needed"
        is_file = (key == "model" and (value.endswith(MODEL_FILE) or value.startswith(("/", ".", "~")))) or (
            key == "dataset" and (value.endswith(DATA_FILES) or "/" in value)
        )
        if is_file:
            return f"{shown(value)} is a file; write it into a preset (config/presets) or a campaign file"
    return None


def _base(service: Service, presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Return the suite to start from."""
    if service.preset is not None:
        if service.preset not in presets:
            message = f"{shown(service.preset)}: no such preset"
            raise refuse("unknown_preset", message, field="preset", hint=one_of(presets, service.preset))
        preset = presets[service.preset]
        for place, other in (("benchmark", service.benchmark), ("config.benchmark", service.config.get("benchmark"))):
            if other not in (None, preset.benchmark):  # not a set: it may be a list
                message = f"{shown(other)}: the preset {preset.id} is of the benchmark {preset.benchmark}"
                raise refuse("invalid_request", message, field=place, hint="leave one of the two out")
        return deepcopy(preset.suite)
    if service.benchmark is None:
        raise refuse("unknown_benchmark", "name a preset or a benchmark", field="preset", hint=one_of(presets, ""))
    if service.config.get("benchmark") not in (None, service.benchmark):
        raise refuse("invalid_request", "differs from `benchmark`", field="config.benchmark", hint="leave it out")
    return {"benchmark": service.benchmark}


def _lay_over(suite: dict[str, Any], overlay: dict[str, Any]) -> None:
    """Lay a request's keys over a preset's; what it gives in one place (an axis, a fixed value) leaves the other."""
    axes = overlay.get("axes")
    given = {*overlay, *(axes if isinstance(axes, Mapping) else ())}
    for part in ("axes", "zip"):
        if isinstance(suite.get(part), dict):
            suite[part] = {key: value for key, value in suite[part].items() if key not in overlay}
    for key in [key for key in suite if isinstance(axes, Mapping) and key in axes]:
        del suite[key]
    if isinstance(suite.get("zip"), dict) and isinstance(axes, Mapping):
        suite["zip"] = {key: value for key, value in suite["zip"].items() if key not in axes}
    for key in ("engine", "schedule", "slo"):  # of another kind, or another set of bounds: nothing of the old one holds
        old, new = suite.get(key), overlay.get(key)
        if (
            isinstance(old, dict)
            and isinstance(new, dict)
            and (key == "slo" or new.get("kind", old.get("kind")) != old.get("kind"))
        ):
            suite[key] = {}
    merge(suite, overlay)
    if "search" not in overlay and "index" in given and isinstance(suite.get("search"), dict):
        varied = suite.get("axes")
        index = varied.get("index", suite.get("index")) if isinstance(varied, dict) else suite.get("index")
        kept = index if isinstance(index, list) else [index]
        suite["search"] = {key: value for key, value in suite["search"].items() if key in kept}


def _without(part: Part, place: str) -> Refused:
    """Return the refusal of what a benchmark does not have."""
    return refuse("invalid_config", f"the benchmark {part.benchmark} has none", field=place, hint="leave it out")


def _hardware(part: Part, known: Benchmark | None, resources: Resources) -> None:
    """Write hardware into the suite's own keys, as the menu of its benchmark says."""
    given = {"server": resources.server, "clients": resources.clients}
    asked = {
        f"{name}.{key}": value for name, of in given.items() for key, value in of.model_dump(exclude_none=True).items()
    }
    if asked.get("server.device") == "cpu" and "server.gpus" in asked:
        raise refuse("invalid_config", "a server on the cores has no GPUs", field="resources.server.gpus")
    if "server.gpus" in asked:
        asked.pop("server.device", None)  # the number says more
    for path, value in asked.items():
        place = f"resources.{path}"
        if known is None or path not in (menu := known.menu()).hardware:
            raise _without(part, place)
        hardware = menu.hardware[path]
        value = hardware.words.get(value, value)  # noqa: PLW2901
        head, _, below = hardware.key.partition(".")
        if not below:
            part.put(head, value, place)
            continue
        default = known.params.model_fields[head].get_default().model_dump(exclude_unset=True)
        engine = part.suite.get(head, default)
        kind = str(engine.get("kind")) if isinstance(engine, dict) else ""
        if path in {"server.device", "server.gpus"} and kind in menu.without_gpus:
            if value:
                hint = menu.without_gpus[kind]
                raise refuse("invalid_config", f"{kind} has no GPU here", field=place, hint=hint)
            continue
        part.put_below(hardware.key, value, place, default)


def _job(part: Part, job: JobResources, system: System) -> None:
    """Write what each job asks for into the suite."""
    for key, value in job.model_dump(exclude_none=True).items():
        place = f"resources.job.{key}"
        if system.slurm is None:
            raise refuse("invalid_config", f"system '{system.name}' has no scheduler", field=place, hint="leave it out")
        part.put_below(f"job.{key}", value, place, {})
