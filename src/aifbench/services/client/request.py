"""What a launch asks for, and how it becomes a campaign. Pure.

A request never names a file, a folder, an address or a variable: such values come from presets, which are files of
the user's own checkout. Everything else is checked by the code that checks every campaign.
"""

from __future__ import annotations

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
from aifbench.core.errors import nearest
from aifbench.core.system import Name, System
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
    """Hardware of each server that a batch starts (inference)."""

    device: Literal["cpu", "gpu"] | None = Field(None, description="what the server computes on")
    gpus: int | None = Field(None, ge=1, le=16, description="GPUs of each server; with device gpu")
    cores: int | None = Field(None, ge=1, le=1024, description="compute threads of each server")


class ClientResources(_Strict):
    """Hardware of the clients."""

    place: Literal["same-node", "own-node"] | None = Field(
        None, description="beside the server, or on a node of their own (Slurm, inference)"
    )
    processes: int | None = Field(
        None, ge=1, le=64, description="processes that the clients are spread over (inference)"
    )
    cores: int | None = Field(None, ge=1, le=1024, description="threads of each client's search (retrieval)")


class JobResources(_Strict):
    """What each Slurm job asks for; absent values are those of the system's file."""

    cores: int | None = Field(None, ge=1, le=4096, description="cores of each node")
    memory_mib: int | None = Field(None, ge=512, le=1 << 26, description="memory of each node in MiB")
    partition: Name | None = Field(None, max_length=64, description="partition; it must fit the device")


class Resources(_Strict):
    """CPU, GPU, cores, memory and partition for each part."""

    server: ServerResources = Field(default_factory=ServerResources, description="each server")
    clients: ClientResources = Field(default_factory=ClientResources, description="the clients")
    job: JobResources = Field(default_factory=JobResources, description="each Slurm job")


class LaunchRequest(_Strict):
    """A launch: a preset, or a benchmark with its configuration, and what is to be different."""

    preset: str | None = Field(None, pattern=PATTERN, description="preset to start from; see the menu")
    benchmark: str | None = Field(None, pattern=PATTERN, description="benchmark, where no preset is named")
    profile: str = Field("laptop", pattern=PATTERN, description="profile and system on which it runs; see the menu")
    clients: Count | Annotated[list[Count], Field(min_length=1, max_length=32)] | None = Field(
        None, description="number of concurrent clients, or a list of numbers to compare"
    )
    services: Count | Annotated[list[Count], Field(min_length=1, max_length=16)] | None = Field(
        None, description="number of servers that each batch starts (inference), or a list"
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="keys of the suite, as in YAML; they are laid over the preset's: mappings merge, lists replace",
    )
    resources: Resources = Field(default_factory=Resources, description="hardware of servers, clients and jobs")
    seed: int | None = Field(None, ge=0, lt=LARGEST, description="seed of orders, data and prompts")
    node_hours: float | None = Field(
        None,
        gt=0,
        le=100_000,
        allow_inf_nan=False,
        description="budget; a plan that is expected to take more is refused",
    )


def parse_request(body: bytes, most_clients: Callable[[Any], int | None]) -> LaunchRequest:
    """Return the request of a body of JSON, its values of a kind that a configuration can have. Raises `Refused`.

    `most_clients` tells of a body how many clients its system and benchmark allow; None: it does not say.
    """
    try:
        request = LaunchRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error.errors(include_url=False), lambda: most_clients(json.loads(body))) from None
    check_values(request.config)
    return request


def _refused(errors: list[ErrorDetails], most_clients: Callable[[], int | None]) -> Refused:
    """Return the refusal of a body: of the first value that is wrong, what is wrong with it and what is allowed."""
    of_first = [one for one in errors if _path(one)[:1] == _path(errors[0])[:1]]
    # A value that may be of several kinds has an error of each; the one that looked furthest knows most.
    first = max(of_first, key=lambda one: (len(_path(one)), not one["type"].endswith("_type")))
    path = _path(first)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")[:MOST_KEY]
    if first["type"] == "json_invalid":
        message = f"not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        hint = 'a JSON object, such as {"preset": "storage-quick"}'
    elif first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = list(_schema_at(path[:-1] if key.isidentifier() else path)["properties"])
        near = nearest(key, known)
        message, hint = f"unknown key {shown(key)}", f"did you mean {near}?" if near else f"keys: {', '.join(known)}"
    else:
        message = f"{shown(first['input'])}: {WRONG.get(first['type'], 'of the wrong kind')}"
        most = most_clients() if path[:1] == ["clients"] else None
        hint = f"allowed: {_allowed(_schema_at(path), most)}"
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


def _schema_at(path: Sequence[str | int]) -> dict[str, Any]:
    """Return the JSON Schema of a place of a request."""
    whole = LaunchRequest.model_json_schema()
    found = whole
    for part in path:
        if isinstance(part, int):
            found = next(kind for kind in found["anyOf"] if kind["type"] == "array")["items"]
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
class Composed:
    """A campaign as plain data, and which field of the request each of its keys came from."""

    campaign: dict[str, Any]
    benchmark: str
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def suite(self) -> dict[str, Any]:
        """Its only suite."""
        suite: dict[str, Any] = self.campaign["suites"][0]
        return suite

    def field_of(self, key: str) -> str:
        """Return the field of the request that a key of the campaign belongs to."""
        for origin, place in TOP.items():
            if key == origin or key.startswith(f"{origin}."):
                return place
        rest = key.removeprefix("suites[0].")
        for origin in sorted(self.origins, key=len, reverse=True):
            if rest == origin or rest.startswith((f"{origin}.", f"{origin}[")):
                return self.origins[origin] + rest[len(origin) :]
        return f"config.{rest}" if rest != key else key


TOP = {"budget": "node_hours", "seed": "seed", "slurm": "profile", "paths": "profile", "results": "profile"}
"""Fields of a request for what stands beside the suite."""
JOB = {
    "system.node.cores": "resources.job.cores",
    "system.node.memory_mib": "resources.job.memory_mib",
    "system.slurm.partition": "resources.job.partition",
    "system.slurm.gpu_partition": "resources.job.partition",
}


def compose(
    request: LaunchRequest,
    presets: Mapping[str, Preset],
    profiles: Mapping[str, tuple[dict[str, Any], System]],
    run_id: str,
    results: Path,
) -> Composed:
    """Return the campaign that a request means. `profiles`: the system of each, as its file has it and checked.

    Raises `Refused` for what only the request can have wrong; the campaign itself is checked afterwards.
    """
    suite = _base(request, presets)
    name = str(suite["benchmark"])
    if request.profile not in profiles:
        raise refuse(
            "unknown_profile",
            f"{shown(request.profile)}: no such profile",
            field="profile",
            hint=one_of(profiles, request.profile),
        )
    raw, system = profiles[request.profile]
    if request.preset and presets[request.preset].scheduler and system.slurm is None:
        usable = {name for name, (_, other) in profiles.items() if other.slurm is not None}
        raise refuse(
            "unknown_preset",
            f"{request.preset} needs a system with Slurm",
            field="profile",
            hint=one_of(usable, request.profile),
        )
    composed = Composed({}, name, dict(JOB))
    overlay = deepcopy(request.config)
    _lay_over(suite, overlay)
    _put(composed, suite, "clients", request.clients, place="clients")
    _put(composed, suite, "servers", request.services, place="services", only="inference")
    _resources(composed, suite, request.resources)
    suite.setdefault("name", request.preset or name)
    composed.campaign = {
        "campaign": run_id,
        "results": str(results),
        "system": _system(request, raw, system, suite),
        **({"seed": request.seed} if request.seed is not None else {}),
        **({"budget": {"node_hours": request.node_hours}} if request.node_hours is not None else {}),
        "suites": [suite],
    }
    return composed


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values that no configuration needs, and keys that only presets may say. Raises `Refused`."""
    for number, (where, key, value) in enumerate(_walk(config, "config")):
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


def _base(request: LaunchRequest, presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Return the suite to start from."""
    if request.preset is not None:
        if request.preset not in presets:
            message = f"{shown(request.preset)}: no such preset"
            raise refuse("unknown_preset", message, field="preset", hint=one_of(presets, request.preset))
        preset = presets[request.preset]
        for place, other in (("benchmark", request.benchmark), ("config.benchmark", request.config.get("benchmark"))):
            if other not in (None, preset.benchmark):  # not a set: it may be a list
                message = f"{shown(other)}: the preset {preset.id} is of the benchmark {preset.benchmark}"
                raise refuse("invalid_request", message, field=place, hint="leave one of the two out")
        return deepcopy(preset.suite)
    if request.benchmark is None:
        raise refuse("unknown_benchmark", "name a preset or a benchmark", field="preset", hint=one_of(presets, ""))
    if request.config.get("benchmark") not in (None, request.benchmark):
        raise refuse("invalid_request", "differs from `benchmark`", field="config.benchmark", hint="leave it out")
    return {"benchmark": request.benchmark}


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


def _put(
    composed: Composed, suite: dict[str, Any], key: str, value: Any, *, place: str, only: str | None = None
) -> None:
    """Set a parameter from a field of the request: a list becomes an axis, a number a fixed value."""
    if value is None:
        return
    if only not in {None, composed.benchmark}:
        raise refuse("invalid_config", f"the benchmark {composed.benchmark} has none", field=place, hint="leave it out")
    for part in ("axes", "zip"):
        if isinstance(suite.get(part), dict):
            suite[part] = {name: values for name, values in suite[part].items() if name != key}
    suite.pop(key, None)
    if isinstance(value, list):
        axes = suite.setdefault("axes", {})
        if not isinstance(axes, dict):
            raise refuse("invalid_config", "needs a mapping of parameter to values", field="config.axes")
        axes[key] = value
        composed.origins[f"axes.{key}"] = place
    else:
        suite[key] = value
    composed.origins[key] = place


def _resources(composed: Composed, suite: dict[str, Any], resources: Resources) -> None:
    """Write hardware into the suite's own keys."""
    clients, server = resources.clients, resources.server
    topology = {"same-node": "same-node", "own-node": "two-node", None: None}[clients.place]
    _put(composed, suite, "topology", topology, place="resources.clients.place", only="inference")
    _put(composed, suite, "client_processes", clients.processes, place="resources.clients.processes", only="inference")
    _put(composed, suite, "threads", clients.cores, place="resources.clients.cores", only="retrieval")
    gpus = server.gpus if server.gpus is not None else {"gpu": 1, "cpu": 0, None: None}[server.device]
    if server.device == "cpu" and server.gpus:
        raise refuse("invalid_config", "a server on the cores has no GPUs", field="resources.server.gpus")
    for key, value, place in (
        ("gpus", gpus, "resources.server.gpus" if server.gpus is not None else "resources.server.device"),
        ("threads", server.cores, "resources.server.cores"),
    ):
        if value is None:
            continue
        if composed.benchmark != "inference":
            raise refuse("invalid_config", f"the benchmark {composed.benchmark} has no server", field=place)
        engine = suite.get("engine", {"kind": "llamacpp"})
        if not isinstance(engine, dict):
            raise refuse("invalid_config", "needs `engine` as one mapping, not as an axis", field=place)
        if engine.get("kind") == "llamacpp" and key == "gpus":
            if value:
                hint = "engine {kind: ollama} computes on GPUs; this one is embedded and uses the cores"
                raise refuse("invalid_config", "llamacpp has no GPU here", field=place, hint=hint)
            continue
        suite["engine"] = {**engine, key: value}
        composed.origins[f"engine.{key}"] = place


def _system(request: LaunchRequest, raw: dict[str, Any], system: System, suite: Mapping[str, Any]) -> Any:
    """Return the system of the campaign: the name of its file, or its content with what the jobs ask for."""
    job = request.resources.job
    wanted = {key: value for key, value in job.model_dump().items() if value is not None}
    if not wanted:
        return request.profile
    if system.slurm is None:
        place = f"resources.job.{next(iter(wanted))}"
        raise refuse("invalid_config", f"system '{system.name}' has no scheduler", field=place, hint="leave it out")
    changed = deepcopy(raw)
    node = {key: value for key, value in wanted.items() if key != "partition"}
    changed["node"] = {**changed.get("node", {}), **node}
    if job.partition is not None:
        engine = suite.get("engine")
        on_gpu = isinstance(engine, Mapping) and bool(engine.get("gpus"))
        changed["slurm"] = {**changed["slurm"], "gpu_partition" if on_gpu else "partition": job.partition}
    return changed
