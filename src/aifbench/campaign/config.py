"""What a user writes: models of a campaign and of a suite, and how files become them.

A campaign is one YAML file, or several laid over each other (mappings merge, lists replace, as Snakemake does it).
`suites` lists mappings or names of suite files. Every error is one line: file, key, value, what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    create_model,
)

from aifbench.core.benchmark import Benchmark
from aifbench.core.errors import ConfigError, given, nearest, told, unknown_key
from aifbench.core.paths import WRITTEN, FilePath, name_problem
from aifbench.core.repetitions import Repetitions
from aifbench.core.strict import Strict
from aifbench.core.system import Job, Slurm, System
from aifbench.core.units import format_size
from aifbench.files.yamlfile import below, read_mapping
from aifbench.registry import benchmarks, left_out

NAME = r"^[a-z0-9][a-z0-9-]*$"
MOST_NODE_HOURS = 1_000_000
DEFAULT_CONFIG = Path("config/config.yaml")

M = TypeVar("M", bound=BaseModel)


class SuiteKeys(Strict):
    """Keys of a suite that do not depend on its benchmark."""

    name: str = Field(pattern=NAME, description="name of the suite in the report")
    repetitions: Repetitions = Field(
        default_factory=Repetitions, description="a number, or {min, max, until: {metric, half_width}}"
    )
    order: Literal["shuffled", "given"] = Field(
        "shuffled", description="order of the cases within a round; `shuffled` is seeded and keeps drift out of trends"
    )
    pack: int | None = Field(
        None, ge=1, description="most cases per job; absent: all cases that share a set-up; 1: a job per case"
    )
    job: Job | None = Field(None, description="what each Slurm job asks for; absent: what the system says")


class Budget(Strict):
    """What a campaign may cost."""

    node_hours: float = Field(2.0, gt=0, le=MOST_NODE_HOURS, description="the plan is refused above it")


class CampaignKeys(Strict):
    """Top-level keys of a campaign, but for `suites` and `system`."""

    campaign: str = Field(pattern=NAME, description="name of the campaign: its results are in <results>/<campaign>")
    results: FilePath = Field(Path("results"), description="folder of all campaigns' results")
    seed: int = Field(1, ge=0, description="seed of orders, data and prompts; recorded in every record")
    budget: Budget = Field(default_factory=Budget, description="what the campaign may cost")


@dataclass(frozen=True)
class Suite:
    """One matrix of one benchmark, checked key by key but not yet expanded."""

    keys: SuiteKeys
    benchmark: Benchmark
    fixed: Mapping[str, Any]
    axes: Mapping[str, list[Any]]
    zipped: Mapping[str, list[Any]]
    exclude: Sequence[Mapping[str, Any]]
    include: Sequence[Mapping[str, Any]]
    where: str
    prefix: str


@dataclass(frozen=True)
class Config:
    """A campaign as the user wrote it, every key checked."""

    keys: CampaignKeys
    system: System
    suites: Sequence[Suite]
    files: Sequence[Path]
    folders: Sequence[Path]
    """Folders in which values may name files: next to the config file, then `config/`."""

    @property
    def results(self) -> Path:
        """Folder of this campaign's results."""
        return self.keys.results / self.keys.campaign


def read_config(files: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and check a campaign. Later files, then `overrides`, win. Raises `ConfigError`."""
    if not files:
        raise ConfigError("config", None, "no configuration file is given")
    merged: dict[str, Any] = {}
    for file in files:
        if problem := name_problem(file):
            raise ConfigError("config", str(file), problem)
        merge(merged, read_mapping(file))
    merge(merged, dict(overrides or {}))
    return check_config(merged, files)


def check_config(merged: Mapping[str, Any], files: Sequence[Path]) -> Config:
    """Check a campaign that is read already; `files` are where it comes from. Raises `ConfigError`."""
    main = files[-1]
    where = str(main)
    folders = list(dict.fromkeys([*(file.parent for file in reversed(files)), DEFAULT_CONFIG.parent]))
    known = [*CampaignKeys.model_fields, "suites", "system"]
    for key in merged:
        if key not in known:
            raise unknown_key(key, key, known, where)
    keys = _validate(CampaignKeys, {k: v for k, v in merged.items() if k in CampaignKeys.model_fields}, "", where)
    system = _read_system(merged.get("system", "laptop"), folders, where)
    raw_suites = merged.get("suites")
    if not isinstance(raw_suites, list) or not raw_suites:
        value = given(raw_suites) if "suites" in merged else None
        raise ConfigError("suites", value, "needs a list of at least one suite", where=where)
    suites: list[Suite] = []
    used = list(files)
    for index, raw in enumerate(raw_suites):
        suite_where, prefix = where, f"suites[{index}]"
        if isinstance(raw, str):
            path = _find(raw, folders, f"suites[{index}]", where)
            content = read_mapping(path)
            if "suites" in content:
                raise ConfigError(
                    prefix, raw, f"{path} is a campaign; a suite is needed", "a file with `benchmark`", where
                )
            used.append(path)
            raw, suite_where, prefix = content, str(path), ""  # noqa: PLW2901
        suites.append(_read_suite(raw, prefix, suite_where, system))
    names = [suite.keys.name for suite in suites]
    for suite in suites:
        if names.count(suite.keys.name) > 1:
            raise ConfigError(
                below(suite.prefix, "name"), suite.keys.name, "two suites have this name", where=suite.where
            )
    return Config(keys, system, suites, used, folders)


def _read_system(raw: Any, folders: Sequence[Path], where: str) -> System:
    if isinstance(raw, str):
        name = raw if raw.endswith((".yaml", ".yml")) else f"systems/{raw}.yaml"
        path = _find(name, folders, "system", where, shown=raw)
        return _with_account(_validate(System, read_mapping(path), "", str(path)))
    if isinstance(raw, Mapping):
        return _with_account(_validate(System, dict(raw), "system", where))
    raise ConfigError("system", given(raw), "needs the name of a file in config/systems or a mapping", where=where)


def _with_account(system: System) -> System:
    """Take the account from Slurm's own variable where the file names none: it need not stand in a shared file."""
    account = os.environ.get("SBATCH_ACCOUNT")
    if system.slurm is None or system.slurm.account is not None or not account:
        return system
    slurm = _validate(Slurm, {**system.slurm.model_dump(), "account": account}, "SBATCH_ACCOUNT", "the environment")
    return system.model_copy(update={"slurm": slurm})


SUITE_KEYS = ("benchmark", "axes", "zip", "exclude", "include")


def _read_suite(raw: Any, prefix: str, where: str, system: System) -> Suite:
    if not isinstance(raw, Mapping):
        raise ConfigError(prefix, given(raw), "a suite is a mapping or the name of a file", where=where)
    known_benchmarks = benchmarks()
    name = raw.get("benchmark")
    if not isinstance(name, str) or name not in known_benchmarks:
        value = given(name) if "benchmark" in raw else None
        problem = left_out().get(str(name), "no such benchmark")
        key = below(prefix, "benchmark")
        raise ConfigError(key, value, problem, where=where, kind="unknown_name", choices=known_benchmarks)
    benchmark = known_benchmarks[name]
    fields = _Fields(benchmark, where, system)
    common, fixed = {}, {}
    known = [*SuiteKeys.model_fields, *SUITE_KEYS, *fields.names]
    for key, value in raw.items():
        if key in SuiteKeys.model_fields:
            common[key] = value
        elif key in SUITE_KEYS:
            continue
        elif key in fields.names:
            fixed[key] = fields.check_suite_value(key, value, below(prefix, key))
        else:
            raise unknown_key(below(prefix, str(key)), str(key), known, where)
    axes = fields.check_lists(raw.get("axes", {}), below(prefix, "axes"))
    zipped = fields.check_lists(raw.get("zip", {}), below(prefix, "zip"))
    lengths = {key: len(values) for key, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(below(prefix, "zip"), lengths, "lists that are zipped need the same length", where=where)
    for key in axes:
        if key in zipped or key in fixed:
            other = "zip" if key in zipped else "the suite"
            raise ConfigError(below(prefix, f"axes.{key}"), None, f"given twice: in axes and in {other}", where=where)
    keys = _validate(SuiteKeys, common, prefix, where)
    until = keys.repetitions.until
    if until is not None and until.metric not in benchmark.params.metrics:
        near = nearest(until.metric, benchmark.params.metrics)
        problem = f"{benchmark.name} has no such metric" + (f", did you mean '{near}'?" if near else "")
        choices = () if near else benchmark.params.metrics
        key = below(prefix, "repetitions.until.metric")
        raise ConfigError(key, until.metric, problem, where=where, kind="unknown_name", choices=choices)
    return Suite(
        keys=keys,
        benchmark=benchmark,
        fixed=fixed,
        axes=axes,
        zipped=zipped,
        exclude=fields.check_clauses(raw.get("exclude", []), below(prefix, "exclude"), lists=True),
        include=fields.check_clauses(raw.get("include", []), below(prefix, "include"), lists=False),
        where=where,
        prefix=prefix,
    )


class _Fields:
    """Checks values of a benchmark's fields one by one, so that an error names exactly the key that is wrong."""

    def __init__(self, benchmark: Benchmark, where: str, system: System) -> None:
        self.where, self.system = where, system
        self.params = benchmark.params
        self.names = [name for name, field in benchmark.params.model_fields.items() if not field.exclude]
        self._models = {
            name: create_model(name, __base__=Strict, **{name: (field.annotation, field)})  # type: ignore[call-overload]
            for name, field in benchmark.params.model_fields.items()
        }

    def check_value(self, name: str, value: Any, key: str) -> Any:
        """Return the validated value of field `name`."""
        if name not in self.names:
            raise unknown_key(key, name, self.names, self.where)
        if isinstance(value, bool):  # no parameter is true or false
            raise ConfigError(key, value, "true and false are no values of this key", where=self.where)
        try:
            return getattr(self._models[name].model_validate({name: value}, context=WRITTEN), name)
        except ValidationError as error:
            wrong = invalid(error, key, self.where, strip=1, known=[], size=value)
            raise (self._of_clients(wrong) if name == "clients" else wrong) from None

    def _of_clients(self, wrong: ConfigError) -> ConfigError:
        """Return the error of a number of clients with what benchmark and system allow together."""
        limit = self.system.limits.clients
        most = self.params.most_clients(limit)
        many = isinstance(wrong.value, int) and wrong.value > limit
        problem = f"more clients than system '{self.system.name}' allows" if many else wrong.problem
        allowed = f"{'at most' if many else '1 to'} {most}" + (" (limits.clients)" if most == limit else "")
        return ConfigError(
            wrong.key, wrong.value, problem, allowed, self.where, kind="over_limit" if many else wrong.kind
        )

    def check_suite_value(self, name: str, value: Any, key: str) -> Any:
        """Return a suite-level value: as the field's own type, or as the benchmark's suite form of it."""
        form = self.params.suite_field(name)
        if form is None:
            return self.check_value(name, value, key)
        model = create_model(name, __base__=Strict, **{name: form})  # type: ignore[call-overload]
        try:
            return getattr(model.model_validate({name: value}, context=WRITTEN), name)
        except ValidationError as error:
            raise invalid(error, key, self.where, strip=1, known=[]) from None

    def check_lists(self, raw: Any, key: str) -> dict[str, list[Any]]:
        """Return axes with validated values; a scalar is a list of one."""
        if not isinstance(raw, Mapping):
            raise ConfigError(key, given(raw), "needs a mapping of parameter to values", where=self.where)
        axes: dict[str, list[Any]] = {}
        for name, values in raw.items():
            if isinstance(values, list) and not values:
                raise ConfigError(f"{key}.{name}", values, "an axis needs at least one value", where=self.where)
            if isinstance(values, list):
                axes[name] = [self.check_value(name, v, f"{key}.{name}[{i}]") for i, v in enumerate(values)]
            else:
                axes[name] = [self.check_value(name, values, f"{key}.{name}")]
        return axes

    def check_clauses(self, raw: Any, key: str, *, lists: bool) -> list[dict[str, Any]]:
        """Return where-clauses (`lists`: a list means any of its values) or extra points."""
        if not isinstance(raw, list):
            raise ConfigError(key, given(raw), "needs a list of mappings", where=self.where)
        clauses = []
        for index, clause in enumerate(raw):
            place = f"{key}[{index}]"
            if not isinstance(clause, Mapping) or not clause:
                raise ConfigError(place, given(clause), "needs a mapping of parameter to value", where=self.where)
            checked: dict[str, Any] = {}
            for name, value in clause.items():
                if lists:
                    values = value if isinstance(value, list) else [value]
                    checked[name] = [self.check_value(name, v, f"{place}.{name}") for v in values]
                else:
                    checked[name] = self.check_value(name, value, f"{place}.{name}")
            clauses.append(checked)
        return clauses


def _find(name: str, folders: Sequence[Path], key: str, where: str, shown: str | None = None) -> Path:
    candidates = list(dict.fromkeys(folder / name for folder in folders))
    for path in candidates:
        if os.path.isfile(path):
            return path
    there = next((path for path in candidates if os.path.lexists(path)), None)
    if there is not None:
        problem = f"{there} is {'a folder' if os.path.isdir(there) else 'no regular file'}"
        raise ConfigError(key, shown or name, problem, "the name of a file", where)
    raise ConfigError(
        key, shown or name, "no such file", "one of " + ", ".join(map(str, candidates)), where, kind="unknown_name"
    )


def merge(base: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    """Lay `overlay` over `base`: mappings merge, everything else replaces."""
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def _validate(model: type[M], data: Mapping[str, Any], prefix: str, where: str) -> M:
    try:
        return model.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        raise invalid(error, prefix, where, known=list(model.model_fields)) from None


def invalid(
    error: ValidationError, prefix: str, where: str, *, known: list[str], strip: int = 0, size: Any = None
) -> ConfigError:
    """Return pydantic's first error as the one line of the house; a `size` that was given keeps its unit.

    `known` are the keys of the model, `strip` the parts of a place that stand in `prefix` already.
    """
    first = error.errors(include_url=False)[0]
    path = [part for part in first["loc"][strip:] if not (isinstance(part, str) and "[" in part)]
    key = prefix
    for part in path:
        key = f"{key}[{part}]" if isinstance(part, int) else below(key, str(part))
    if first["type"] == "extra_forbidden":
        return unknown_key(key, str(path[-1]), known if len(path) == 1 else [], where)
    if first["type"] == "missing":
        return ConfigError(key, None, "is required", where=where, kind="required")
    context = first.get("ctx", {})
    allowed = str(context.get("expected", "")) if first["type"] == "literal_error" else ""
    choices = _LITERAL.findall(allowed)
    problem = told(first)
    value = context["shown"] if "shown" in context else given(first["input"])  # what it may not show is a secret
    if context.get("at"):
        key = below(key, context["at"])
    if first["type"] == "string_pattern_mismatch":
        is_name = context["pattern"] == NAME
        problem, allowed = _NAME_FORM if is_name else ("not of the form that it needs", context["pattern"])
    problem = _NEEDED.get(first["type"], problem)
    for name, words in _BOUNDS.items():
        if name in context:
            bound = context[name]
            if not path and isinstance(size, str) and isinstance(value, int):
                value, bound = size, format_size(bound)
                problem = "too large" if name in {"le", "lt"} else "too small"
            allowed = f"{words} {bound}"
    problem = problem[:1].lower() + problem[1:]
    return ConfigError(key or "the value", value, problem, allowed, where, choices=choices)


_LITERAL = re.compile(r"'([^']*)'")
"""A choice in pydantic's list of them, which it gives as a text alone."""
_NAME_FORM = "not a valid name", "lower-case letters, digits and hyphens"
_NEEDED = {
    "int_type": "needs a whole number",
    "float_type": "needs a finite number",
    "string_type": 'needs text; a number, true or null that is meant as text stands in "quotes"',
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
