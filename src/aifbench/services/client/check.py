"""Whether a request can be launched: cheap checks first, slow ones only when those have passed.

Cheap: everything that `aifbench plan` checks, images and models, the partition. Slow: this machine (free space,
packages), `snakemake -n` and, on Slurm, `sbatch --test-only` for each kind of job.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aifbench.campaign.config import Suite, check_config
from aifbench.campaign.matrix import size
from aifbench.campaign.plan import Plan, check, make_plan
from aifbench.campaign.presets import FOLDER, Preset, read_presets
from aifbench.campaign.resources import JobResources, job_resources
from aifbench.core.errors import ConfigError
from aifbench.core.paths import operand
from aifbench.core.system import System
from aifbench.engines.settings import variables
from aifbench.files.yamlfile import dump, read_mapping
from aifbench.machine.filesystem import mount_of
from aifbench.provision.models import record_file
from aifbench.registry import benchmarks
from aifbench.services.client.reasons import from_config, refuse
from aifbench.services.client.request import Composed, LaunchRequest, Service, compose, parse_request, within
from aifbench.services.client.slurm import SlurmClient
from aifbench.services.settings import Settings

MOST_CASES = 1000
"""Points of a matrix that a request may have; a larger one is a campaign file's."""
MOST_REPETITIONS = 1000
DRY_RUN_S = 120.0
KEPT = frozenset({
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SCRATCH", "PROJECT", "SLURM_CONF",
    "LD_LIBRARY_PATH", "MANPATH", "MODULEPATH", "MODULESHOME", "LOADEDMODULES", "BASH_ENV", "LMOD_CMD", "LMOD_DIR",
    "LMOD_PKG", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
})  # fmt: skip
"""Variables that a run keeps of the service's own environment."""
KEPT_PREFIXES = ("LC_", "SBATCH_", "APPTAINER_", "OLLAMA_")


@dataclass(frozen=True)
class Checked:
    """A request that passed the cheap checks."""

    request: LaunchRequest
    composed: Composed
    plan: Plan

    @property
    def text(self) -> str:
        """Return the campaign as YAML: what runs, and what may be run by hand."""
        return dump(self.composed.campaign)

    def summary(self, now: datetime) -> dict[str, Any]:
        """Return what the launch will take."""
        totals = self.plan.summary()["totals"]
        return {
            **{
                key: totals[key] for key in ("cases", "batches", "repetitions", "expected_s", "node_hours", "gpu_hours")
            },
            "budget_node_hours": self.plan.config.keys.budget.node_hours,
            "expected_end": self.plan.expected_end(now).isoformat(timespec="seconds"),
            "varied": [found for suite in self.plan.config.suites for found in varied(suite)],
            "targets": self._targets(),
            "jobs": [
                {
                    "batch": batch.id,
                    "cases": len(batch.cases),
                    "nodes": batch.nodes,
                    "gpus": batch.gpus,
                    "expected_s": round(batch.expected_s, 1),
                }
                for batch in self.plan.batches.values()
            ],
        }

    def place_of(self, batch: str) -> str:
        """Return the place in the request of the service that a batch belongs to; see `Part.place`."""
        names = [suite.keys.name for suite in self.plan.config.suites]
        return self.composed.parts[names.index(self.plan.batches[batch].cases[0].suites[0])].place

    def requests(self) -> list[tuple[str, JobResources]]:
        """Return the distinct requests of the jobs, each with the place of the first service that makes it."""
        system = self.plan.config.system
        found: dict[JobResources, str] = {}
        for batch in self.plan.batches.values():
            found.setdefault(job_resources(batch, system), self.place_of(batch.id))
        return [(place, resources) for resources, place in found.items()]

    def _targets(self) -> list[dict[str, Any]]:
        """Return `[{path, type, free_bytes}]` of the folders under test, as they are seen from here."""
        paths: dict[Path, None] = {}
        for case in self.plan.cases:
            paths |= dict.fromkeys(case.params.under_test(self.plan.config.system.paths.target))
        return [_target(path) for path in paths]


def _target(path: Path) -> dict[str, Any]:
    there = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    facts = os.statvfs(there)
    return {"path": str(path), "type": mount_of(there)["type"], "free_bytes": facts.f_bavail * facts.f_frsize}


class Checker:
    """Checks requests against the files of a checkout. The working folder is that checkout."""

    def __init__(self, settings: Settings, slurm: SlurmClient) -> None:
        self.settings, self.slurm = settings, slurm
        self._presets: tuple[Any, tuple[dict[str, Preset], dict[str, ConfigError]]] | None = None

    def presets(self) -> tuple[dict[str, Preset], dict[str, ConfigError]]:
        """Return the presets, and the errors of files that are none; read again when a file of them changed."""
        folder = self.settings.project / FOLDER
        signature = sorted((path.name, path.lstat().st_mtime_ns) for path in folder.glob("*.yaml"))
        if self._presets is None or self._presets[0] != signature:
            self._presets = signature, read_presets(folder)
        return self._presets[1]

    def profiles(self) -> dict[str, System]:
        """Return the system of each profile (`profiles/<name>` with `config/systems/<name>.yaml`)."""
        found = {}
        for folder in sorted((self.settings.project / "profiles").glob("*")):
            path = self.settings.project / "config" / "systems" / f"{folder.name}.yaml"
            if (folder / "config.yaml").is_file() and path.is_file():
                try:
                    found[folder.name] = System.model_validate(read_mapping(path))
                except (ConfigError, ValueError):
                    continue  # `aifbench plan` says what is wrong with it
        return found

    def parse(self, body: bytes) -> LaunchRequest:
        """Return the request of a body of JSON. Raises `Refused`."""
        return parse_request(body, self._most_clients)

    def _most_clients(self, body: Mapping[str, Any], service: Mapping[str, Any]) -> int | None:
        """Return the most clients of the system that a body names, and of its service's benchmark; None: no system."""
        profile, named = body.get("profile", "laptop"), service.get("preset")
        system = next((system for name, system in self.profiles().items() if name == profile), None)
        preset = next((preset for name, preset in self.presets()[0].items() if name == named), None)
        benchmark = benchmarks().get(preset.benchmark if preset else str(service.get("benchmark")))
        if system is None:
            return None
        limit = system.limits.clients
        return benchmark.params.most_clients(limit) if benchmark else limit

    def compose(self, request: LaunchRequest, run_id: str) -> Composed:
        """Return the campaign of a request. Raises `Refused`."""
        presets, broken = self.presets()
        for place, part in request.parts.items():
            if part.preset in broken:
                problem = str(broken[part.preset])
                raise refuse("invalid_config", problem, field=f"{place}preset", hint="mend the file")
        return compose(request, presets, self.profiles(), run_id, self._results())

    def cheap(self, request: LaunchRequest, run_id: str) -> Checked:
        """Check all that needs no other process. Raises `Refused` with the first problem."""
        composed = self.compose(request, run_id)
        try:
            config = check_config(composed.campaign, [self.settings.project / "config" / "launch.yaml"])
            counts = {part.place: points(suite) for part, suite in zip(composed.parts, config.suites, strict=True)}
            if sum(counts.values()) > MOST_CASES:
                raise refuse(
                    "over_limit", f"{sum(counts.values())} cases; at most {MOST_CASES} from here",
                    field=f"{max(counts, key=counts.__getitem__)}config.axes",
                    hint="take values out of the axes, or run a campaign file with snakemake",
                )  # fmt: skip
            for part, suite in zip(composed.parts, config.suites, strict=True):
                if (most := suite.keys.repetitions.max) > MOST_REPETITIONS:
                    hint, field = f"at most {MOST_REPETITIONS}", f"{part.place}config.repetitions"
                    raise refuse("over_limit", f"{most} repetitions; {hint} from here", field=field, hint=hint)
            plan = make_plan(config)
            check(plan, machine=False)
        except ConfigError as error:
            raise from_config(error, composed.field_of(error.key)) from None
        if config.system.slurm is None:
            for place, service in request.parts.items():
                with within(place):
                    _check_cores(service)
        checked = Checked(request, composed, plan)
        self._ready(checked)
        if config.system.slurm is not None:
            for place, resources in checked.requests():
                with within(place):
                    self.slurm.check_partition(str(resources.partition), resources)
        return checked

    def slow(self, checked: Checked, config: Path) -> dict[str, float]:
        """Check what takes seconds; `config` is the campaign's file. Returns the seconds of each. Raises `Refused`."""
        took: dict[str, float] = {}
        system = checked.plan.config.system
        if system.slurm is None:
            begin = time.monotonic()
            try:
                check(checked.plan, machine=True)
            except ConfigError as error:
                raise from_config(error, checked.composed.field_of(error.key)) from None
            took["machine_s"] = time.monotonic() - begin
        else:
            begin = time.monotonic()
            for place, resources in checked.requests():
                with within(place):
                    self.slurm.test(resources)
            took["sbatch_test_s"] = time.monotonic() - begin
        begin = time.monotonic()
        self._dry_run(checked.request.profile, config)
        took["dry_run_s"] = time.monotonic() - begin
        return {name: round(seconds, 3) for name, seconds in took.items()}

    def command(self, profile: str, config: Path) -> list[str]:
        """Return the command that runs a campaign.

        Runs go on at the same time in one working folder: each has its own results and so its own outputs. Snakemake's
        lock would refuse a second one all the same, because both name the images; these are made before (see `_ready`).
        """
        files = ["--profile", f"profiles/{profile}", "--configfile", operand(config)]
        return [sys.executable, "-m", "snakemake", "--nolock", *files]

    def environment(self) -> dict[str, str]:
        """Return the variables of a run: few of our own, and those that the presets name for keys of servers."""
        import aifbench

        keys = {name for preset in self.presets()[0].values() for name in _variables(preset.suite)}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or name.startswith(KEPT_PREFIXES) or name in keys
        }
        source = str(Path(aifbench.__file__).parents[1])
        return {**kept, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}

    def _results(self) -> Path:
        """Return the results folder as the campaign names it: relative to the checkout where it lies in it."""
        root, results = self.settings.project, self.settings.results
        return results.relative_to(root) if results.is_relative_to(root) else results

    def _ready(self, checked: Checked) -> None:
        """Refuse a campaign whose images or models are not there yet. Raises `Refused`."""
        plan, system = checked.plan, checked.plan.config.system
        file = Path("config", f"{checked.request.profile}.yaml")
        there = (self.settings.project / file).is_file()
        where = f"--config {file}" if there else f"--config FILE, a campaign with `system: {checked.request.profile}`"
        for batch in plan.batches:
            needs = plan.needs(batch)
            for image in needs.images:
                if not (self.settings.project / system.paths.images / f"{image}.sif").is_file():
                    hint = f"make it once: aifbench image {image} {where}"
                    raise refuse("image_missing", f"the image {image}.sif is not there", field="profile", hint=hint)
            for engine in needs.models:
                if not record_file(self.settings.project / system.paths.models, engine.model).is_file():
                    hint = f"make it once: aifbench model {engine.model} {where}"
                    message, place = f"the model {engine.model} is not there", checked.place_of(batch)
                    raise refuse("image_missing", message, field=f"{place}config.engine.model", hint=hint)

    def _dry_run(self, profile: str, config: Path) -> None:
        try:
            done = subprocess.run(
                [*self.command(profile, config), "--dry-run", "--quiet", "all"],
                cwd=self.settings.project,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DRY_RUN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise refuse("dry_run_failed", f"snakemake -n took more than {DRY_RUN_S:g} s") from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise refuse("dry_run_failed", f"snakemake -n: {lines[-1] if lines else 'no reason given'}"[:500])


def _check_cores(service: Service) -> None:
    """Refuse more threads than this machine has cores for us. Raises `Refused`."""
    usable = len(os.sched_getaffinity(0))
    for part, cores in (("server", service.resources.server.cores), ("clients", service.resources.clients.cores)):
        if cores is not None and cores > usable:
            message = f"{cores} threads; this machine has {usable} cores for them"
            raise refuse("over_limit", message, field=f"resources.{part}.cores", hint=f"at most {usable}")


def varied(suite: Suite) -> list[dict[str, Any]]:
    """Return `[{suite, key, values}]`: what makes more than one case of a suite, and how many values each has.

    Keys that are zipped count as one; those of a search vary with its own index alone.
    """
    counts = {name: len(values) for name, values in suite.axes.items()}
    if suite.zipped:
        counts[" + ".join(suite.zipped)] = max(len(values) for values in suite.zipped.values())
    for index, grid in (suite.fixed.get("search") or {}).items():
        for name, values in grid.items():
            counts[f"search.{index}.{name}"] = len(values) if isinstance(values, list) else 1
    counts = {name: count for name, count in counts.items() if count > 1}
    counts |= {name: len(rows) for name, rows in (("include", suite.include), ("exclude", suite.exclude)) if rows}
    return [{"suite": suite.keys.name, "key": name, "values": count} for name, count in counts.items()]


def points(suite: Suite) -> int:
    """Return how many points a suite has at most, without making them."""
    search = suite.fixed.get("search")
    grids = search.values() if isinstance(search, Mapping) else ()
    most = max(
        (
            math.prod(len(v) if isinstance(v, list) else 1 for v in grid.values())
            for grid in grids
            if isinstance(grid, Mapping)
        ),
        default=1,
    )
    return (size(suite) - len(suite.include)) * max(most, 1) + len(suite.include)


def _variables(suite: Mapping[str, Any]) -> set[str]:
    """Return the variables that the engines of a suite, as its file has them, take values from."""
    parts = [suite, *(part for name in ("axes", "zip") if isinstance(part := suite.get(name), Mapping))]
    given = [part.get("engine") for part in parts]
    engines = [engine for each in given for engine in (each if isinstance(each, list) else [each])]
    return {name for engine in engines if isinstance(engine, Mapping) for name in variables(engine).values()}
