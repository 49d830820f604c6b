"""The plan: cases, batches and what they will take. Pure but for what writes it.

A batch holds the cases that share a set-up. Its id hashes that set-up and not the list of its cases, so a value added
to an axis adds cases to a batch and renames nothing. The spec of a batch is all that its job needs to know.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from aifbench.campaign.config import Config, Suite
from aifbench.campaign.matrix import points, size
from aifbench.core.benchmark import Benchmark
from aifbench.core.errors import ConfigError, FieldError, full_disk, told
from aifbench.core.ids import BATCH_DIGITS, CASE_DIGITS, digest
from aifbench.core.params import MOST_CASES, Params
from aifbench.core.repetitions import Repetitions
from aifbench.core.system import Job
from aifbench.core.units import duration, format_size
from aifbench.files.bounded import LARGEST_FILE
from aifbench.files.written import atomic_write
from aifbench.records.sealed import seal
from aifbench.registry import benchmarks

SCHEMA_VERSION = 1
ROOM_BYTES = 1 << 20
SLURM_JOB_S = 6.0
"""Snakemake starts twice in a job of Slurm, once for the job and once for its step."""


@dataclass
class Case:
    """One point of the matrix with all parameters resolved."""

    id: str
    benchmark: str
    params: Params
    repetitions: Repetitions
    order: str
    suites: list[str]
    batch: str = ""


@dataclass
class Batch:
    """Cases that share one job."""

    id: str
    benchmark: str
    setup: dict[str, Any]
    cases: list[Case] = field(default_factory=list)
    job_s: float = 0.0
    """Expected time of the job before and after the batch."""
    job: Job | None = None
    """What its job asks for where that is not what the system says."""

    @property
    def nodes(self) -> int:
        """Nodes of the batch's job."""
        return self.cases[0].params.nodes()

    @property
    def gpus(self) -> int:
        """GPUs of the batch's job."""
        return self.cases[0].params.gpus()

    @property
    def expected_s(self) -> float:
        """Expected duration of the batch's job in seconds."""
        measured = sum(case.params.expected_seconds(case.repetitions.max) for case in self.cases)
        return self.job_s + self.cases[0].params.expected_setup_seconds() + measured


@dataclass(frozen=True)
class Needs:
    """What must be there before a batch: names of images, and engines whose models it serves itself."""

    images: list[str]
    models: list[Any]


@dataclass
class Plan:
    """All that a campaign will do."""

    config: Config
    cases: list[Case]
    batches: dict[str, Batch]

    def spec(self, batch_id: str) -> dict[str, Any]:
        """Return all that the job of a batch needs to know, as plain data."""
        batch = self.batches[batch_id]
        system = self.config.system.for_job(batch.job)
        return {
            "schema_version": SCHEMA_VERSION,
            "campaign": self.config.keys.campaign,
            "batch": batch.id,
            "benchmark": batch.benchmark,
            "seed": self.config.keys.seed,
            "system": system.model_dump(mode="json"),
            "setup": batch.setup,
            "cases": [
                {
                    "case": case.id,
                    "params": case.params.model_dump(mode="json"),
                    "repetitions": case.repetitions.model_dump(mode="json"),
                    "order": case.order,
                }
                for case in sorted(batch.cases, key=lambda case: case.id)
            ],
        }

    def benchmarks(self) -> list[Benchmark]:
        """Return the benchmarks that it has cases of."""
        used = {case.benchmark for case in self.cases}
        return [benchmark for name, benchmark in benchmarks().items() if name in used]

    def needs(self, batch_id: str) -> Needs:
        """Return the images and models that a batch needs before it starts."""
        params = self.batches[batch_id].cases[0].params
        images = ["aifbench", *params.images()] if self.config.system.container == "apptainer" else []
        return Needs(images, params.models())

    def spec_digest(self, batch_id: str) -> str:
        """Return a digest that changes exactly when the job of a batch has something else to do."""
        return digest(self.spec(batch_id), 16)

    def labels(self) -> dict[str, str]:
        """Return what tells each case from the others of its benchmark: fields that vary or are no default."""
        seen: dict[tuple[str, str], set[str]] = {}
        for case in self.cases:
            for name in case.params.label_fields:
                seen.setdefault((case.benchmark, name), set()).add(case.params.shown(name))
        return {
            case.id: " · ".join(
                text
                for name in case.params.label_fields
                if (len(seen[case.benchmark, name]) > 1 or not case.params.is_default(name))
                and (text := case.params.shown(name))
                and getattr(case.params, name) is not None
            )
            for case in self.cases
        }

    def digest(self) -> str:
        """Return a digest over all specs."""
        return digest([self.spec_digest(batch) for batch in sorted(self.batches)], 16)

    @property
    def size(self) -> str:
        """Return the plan in a line."""
        return f"{len(self.cases)} cases in {len(self.batches)} batches, about {duration(self.expected_s)}"

    @property
    def expected_s(self) -> float:
        """Expected duration of all jobs, one after the other, in seconds."""
        return sum(batch.expected_s for batch in self.batches.values())

    @property
    def node_hours(self) -> float:
        """Expected cost in node-hours."""
        return sum(batch.expected_s * batch.nodes for batch in self.batches.values()) / 3600

    @property
    def gpu_hours(self) -> float:
        """Expected cost in GPU-hours."""
        return sum(batch.expected_s * batch.gpus for batch in self.batches.values()) / 3600

    def expected_end(self, now: datetime) -> datetime:
        """Return when all is measured if it begins `now`: with a scheduler, if all jobs start at once."""
        if self.config.system.slurm is None:
            return now + timedelta(seconds=self.expected_s)
        return now + timedelta(seconds=max(batch.expected_s for batch in self.batches.values()))

    def summary(self) -> dict[str, Any]:
        """Return the content of plan.json."""
        config, labels = self.config, self.labels()
        return {
            "schema_version": SCHEMA_VERSION,
            "campaign": config.keys.campaign,
            "seed": config.keys.seed,
            "system": config.system.model_dump(mode="json"),
            "config_files": [str(file) for file in config.files],
            "digest": self.digest(),
            "cases": [
                {
                    "case": case.id,
                    "batch": case.batch,
                    "benchmark": case.benchmark,
                    "suites": case.suites,
                    "label": labels[case.id],
                    "params": case.params.model_dump(mode="json"),
                    "repetitions": {"min": case.repetitions.min, "max": case.repetitions.max},
                }
                for case in self.cases
            ],
            "batches": [
                {
                    "batch": batch.id,
                    "benchmark": batch.benchmark,
                    "setup": batch.setup,
                    "cases": [case.id for case in batch.cases],
                    "nodes": batch.nodes,
                    "gpus": batch.gpus,
                    "expected_s": round(batch.expected_s, 1),
                }
                for batch in self.batches.values()
            ],
            "totals": {
                "cases": len(self.cases),
                "batches": len(self.batches),
                "jobs": len(self.batches),
                "repetitions": sum(case.repetitions.max for case in self.cases),
                "expected_s": round(self.expected_s, 1),
                "node_hours": round(self.node_hours, 4),
                "gpu_hours": round(self.gpu_hours, 4),
            },
        }


def make_plan(config: Config) -> Plan:
    """Expand a campaign into cases and batches. Raises `ConfigError`."""
    system = {"name": config.system.name, "container": config.system.container}
    cases: dict[str, Case] = {}
    batches: dict[str, Batch] = {}
    for suite in config.suites:
        fresh: list[Case] = []
        for params in _resolved(suite, config):
            identity = {"benchmark": suite.benchmark.name, "system": system, "params": params.identity()}
            case_id = digest(identity, CASE_DIGITS)
            known = cases.get(case_id)
            if known is None:
                case = Case(
                    case_id, suite.benchmark.name, params, suite.keys.repetitions, suite.keys.order, [suite.keys.name]
                )
                cases[case_id] = case
                fresh.append(case)
            elif known.params != params:
                raise ConfigError(suite.keys.name, None, f"two cases have the id {case_id}; change `seed` of one")
            elif suite.keys.name not in known.suites:
                known.suites.append(suite.keys.name)
        if not fresh and not any(suite.keys.name in case.suites for case in cases.values()):
            key = f"{suite.prefix}.exclude" if suite.prefix else "exclude"
            raise ConfigError(key, None, "leaves no case in this suite", where=suite.where)
        _assign(fresh, suite, system, batches)
        for batch in batches.values():
            if batch.job != suite.keys.job and any(suite.keys.name in case.suites for case in batch.cases):
                problem = "its cases share a job with those of another suite, which asks for something else"
                key, allowed = _key(suite, "job"), "the same in both suites"
                raise ConfigError(key, None, problem, allowed, suite.where)
    if config.system.slurm is not None:
        for batch in batches.values():
            batch.job_s = SLURM_JOB_S
    return Plan(config, list(cases.values()), batches)


def _resolved(suite: Suite, config: Config) -> Iterator[Params]:
    """Yield the validated cases of a suite; errors name the key as the user wrote it."""
    limit = config.system.limits.clients
    if size(suite) > MOST_CASES:
        key = f"{suite.prefix}.axes" if suite.prefix else "axes"
        problem, allowed = f"{size(suite)} cases in one suite", f"at most {MOST_CASES}"
        raise ConfigError(key, None, problem, allowed, suite.where)
    matrix = list(points(suite))
    made = 0
    try:
        suite.benchmark.params.check_suite(matrix)
    except ConfigError as error:
        raise error.at(suite.where, suite.prefix) from None
    for point in matrix:
        try:
            resolved = suite.benchmark.params.resolve(point, config.folders)
        except ConfigError as error:
            raise error.at(suite.where, _origin(suite, error.key)) from None
        made += len(resolved)
        if made > MOST_CASES:
            key = _key(suite, "search")
            raise ConfigError(key, None, f"more than {MOST_CASES} cases in one suite", where=suite.where)
        for values in resolved:
            try:
                params = suite.benchmark.params.model_validate(values)
            except ValidationError as error:
                raise _cross_error(error, suite, values) from None
            clients = getattr(params, "clients", 1)
            if clients > limit:
                key = _key(suite, "clients")
                problem = f"more clients than system '{config.system.name}' allows"
                allowed = f"at most {limit} (limits.clients)"
                raise ConfigError(key, clients, problem, allowed, suite.where, kind="over_limit")
            yield params


def _cross_error(error: ValidationError, suite: Suite, values: Mapping[str, Any]) -> ConfigError:
    """Return the error of a combination, with the field that its validator names."""
    first = error.errors(include_url=False)[0]
    name, problem, missing = "".join(map(str, first["loc"][:1])), told(first), first["type"] == "missing"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        name, problem = cause.field, cause.problem
    key = _key(suite, name) if name else suite.prefix or suite.keys.name
    if missing:
        return ConfigError(key, None, "is required", where=suite.where, kind="required")
    return ConfigError(key, values.get(name), problem, where=suite.where)


def _origin(suite: Suite, name: str) -> str:
    """Return the prefix of a field's key: where the user gave it."""
    head = name.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]
    group = "axes" if head in suite.axes else "zip" if head in suite.zipped else ""
    return ".".join(part for part in (suite.prefix, group) if part)


def _key(suite: Suite, name: str) -> str:
    prefix = _origin(suite, name)
    return f"{prefix}.{name}" if prefix else name


def _assign(fresh: list[Case], suite: Suite, system: Mapping[str, str], batches: dict[str, Batch]) -> None:
    """Put new cases into batches by their set-up, and into parts of them when `pack` asks for it."""
    by_setup: dict[str, list[Case]] = {}
    for case in fresh:
        setup = {"benchmark": case.benchmark, "system": system, "setup": case.params.setup_identity()}
        name = "-".join(filter(None, (case.benchmark, case.params.slug(), digest(setup, BATCH_DIGITS))))
        by_setup.setdefault(name, []).append(case)
    for base, members in by_setup.items():
        for case in members:
            case.batch = base + _part(case.id, len(members), suite.keys.pack)
            if case.batch not in batches:
                shared = case.params.model_dump(mode="json", include=set(case.params.setup_names()))
                batches[case.batch] = Batch(case.batch, case.benchmark, shared, job=suite.keys.job)
            batches[case.batch].cases.append(case)


def _part(case_id: str, members: int, pack: int | None) -> str:
    """Return the suffix of a case's part: leading bits of its id. Cases move only when the number of parts doubles."""
    if pack is None or members <= 1:
        return ""
    if pack == 1:
        return f"-{case_id}"
    bits = max(0, (-(-members // pack) - 1).bit_length())
    return f"-p{int(case_id, 16) >> (4 * CASE_DIGITS - bits):x}of{1 << bits}" if bits else ""


def check(plan: Plan, *, machine: bool) -> None:
    """Check the plan against its budget and, with `machine`, against this machine. Raises the first `ConfigError`."""
    _check_system(plan)
    if machine:
        _check_size(plan)
    if machine and plan.config.system.slurm is None:  # a login node cannot tell what a node of the job will have
        _check_machine(plan)
    config, hours = plan.config, plan.node_hours
    if hours > config.keys.budget.node_hours:
        raise ConfigError(
            "budget.node_hours",
            config.keys.budget.node_hours,
            f"the plan is expected to take {hours:.2f} node-hours; raise the budget or take values out of the axes",
            where=str(config.files[0]),
            kind="over_limit",
        )


def _check_size(plan: Plan) -> None:
    """Check that the plan can be read again: the report and the services read files of a largest size."""
    size = len(orjson.dumps(plan.summary(), option=orjson.OPT_INDENT_2))
    if size > LARGEST_FILE:
        problem = f"the plan of {len(plan.cases)} cases takes {size / 2**20:.0f} MiB with their prompts"
        allowed = f"at most {LARGEST_FILE >> 20} MiB: fewer cases, or shorter prompts"
        raise ConfigError("suites", None, problem, allowed, str(plan.config.files[0]))


def _check_system(plan: Plan) -> None:
    """Check that the system can give each batch what it asks for."""
    system = plan.config.system
    where = f"system '{system.name}'"
    if system.slurm is not None and system.slurm.account is None:
        problem = "is required: the account that pays; or set it in the variable SBATCH_ACCOUNT"
        raise ConfigError("slurm.account", None, problem, where=where, kind="required")
    suites = {suite.keys.name: suite for suite in plan.config.suites}
    for suite in plan.config.suites:
        if suite.keys.job is not None and system.slurm is None:
            raise ConfigError(_key(suite, "job"), None, f"{where} has no scheduler", where=suite.where)
    for batch in plan.batches.values():
        case = batch.cases[0]
        suite, params = suites[case.suites[0]], case.params
        if params.nodes() > 1 and system.slurm is None:
            key, problem = _key(suite, "topology"), f"{where} is one machine"
            raise ConfigError(key, "two-node", problem, where=suite.where, choices=["same-node"])
        most = system.node.gpus if system.node is not None else None
        if most is not None and params.gpus() > most:
            problem = f"more GPUs in all servers than a node of {where} has"
            key, allowed = _key(suite, "engine.gpus"), f"at most {most}"
            raise ConfigError(key, params.gpus(), problem, allowed, suite.where, kind="over_limit")
        hours = system.limits.job_hours
        if hours is not None and batch.expected_s > 3600 * hours:
            problem = (
                f"a job of {len(batch.cases)} case(s) is expected to take {duration(batch.expected_s)}; "
                f"the longest of {where} takes {hours:g} h (limits.job_hours)"
            )
            key = f"{suite.prefix}.pack" if suite.prefix else "pack"
            allowed = "fewer cases or repetitions per job"
            raise ConfigError(key, suite.keys.pack, problem, allowed, suite.where, kind="over_limit")


def _check_machine(plan: Plan) -> None:
    """Check what only this machine can tell, once per distinct thing."""
    known: set[str] = set()
    registry = benchmarks()
    suites = {suite.keys.name: suite for suite in plan.config.suites}
    for case in plan.cases:
        identity = digest([case.benchmark, case.params.site_identity()])
        if identity in known:
            continue
        known.add(identity)
        suite = suites[case.suites[0]]
        for error in registry[case.benchmark].preflight()(case.params, plan.config.system):
            raise error.at(suite.where, _origin(suite, error.key))


def spec_bytes(plan: Plan, batch_id: str) -> bytes:
    """Return the content of `specs/<batch>.json`."""
    return orjson.dumps(plan.spec(batch_id), option=orjson.OPT_INDENT_2)


def write_specs(plan: Plan, folder: Path) -> None:
    """Write `specs/<batch>.json` where it has not this content yet: its time tells when the batch changed."""
    specs = folder / "specs"
    with _written(folder):
        specs.mkdir(parents=True, exist_ok=True)
        check_room(folder, "results")
        for batch in plan.batches:
            path, content = specs / f"{batch}.json", spec_bytes(plan, batch)
            if not path.exists() or path.read_bytes() != content:
                atomic_write(path, content)


def write_plan(plan: Plan, folder: Path, *, specs: bool = True) -> None:
    """Write plan.json, plan.md and, with `specs`, one spec per batch into `folder`."""
    if specs:
        write_specs(plan, folder)
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "plan.json", seal(orjson.dumps(plan.summary(), option=orjson.OPT_INDENT_2)))
        atomic_write(folder / "plan.md", markdown(plan, datetime.now().astimezone()).encode())


def check_room(folder: Path, key: str) -> None:
    """Raise `ConfigError` when the disk of a folder is full: a run writes this much before its first batch."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        if full_disk(error):
            problem = f"cannot be written: {error.strerror}"
            raise ConfigError(key, str(folder.absolute()), problem, f"{format_size(ROOM_BYTES)} free") from None


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError("results", str(folder), f"cannot be written: {error.strerror}") from None


def markdown(plan: Plan, now: datetime) -> str:
    """Return the plan for a reader: totals, the end if it begins `now`, then one row per batch."""
    totals = plan.summary()["totals"]
    config = plan.config
    lines = [
        f"# Plan of campaign {config.keys.campaign}",
        "",
        f"{totals['cases']} cases in {totals['batches']} batches (one job each), "
        f"{totals['repetitions']} repetitions at most, about {duration(totals['expected_s'])} "
        f"on system {config.system.name} ({totals['node_hours']:.2f} node-hours of {config.keys.budget.node_hours:g}"
        f"{f', {gpu_hours:.2f} GPU-hours' if (gpu_hours := totals['gpu_hours']) else ''}).",
        "",
        f"Begun {now:%a %d %b %H:%M}{', with all jobs at once' if config.system.slurm else ''}, "
        f"it is expected to end {plan.expected_end(now):%a %d %b %H:%M}.",
        "",
        "| batch | cases | repetitions | nodes | GPUs | expected |",
        "|---|---|---|---|---|---|",
    ]
    for batch in plan.batches.values():
        repetitions = sum(case.repetitions.max for case in batch.cases)
        cells = [batch.id, len(batch.cases), repetitions, batch.nodes, batch.gpus, duration(batch.expected_s)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
