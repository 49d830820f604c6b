"""One batch in one job, from its spec to its records, on every exit path.

Exit codes: 0 all repetitions are recorded (failed ones too: they are data); 1 the infrastructure broke (a retry may
help); 2 the configuration cannot work here; 143 ended by a signal. Whatever ends it, batch.json says what happened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from aifbench.campaign.spec import Spec, SpecCase
from aifbench.core.benchmark import Benchmark, Command, Place, Server, ServerNotReady
from aifbench.core.damage import Damaged
from aifbench.core.errors import ConfigError, full_disk
from aifbench.core.ids import derived_seed
from aifbench.core.params import Params
from aifbench.core.records import (
    BatchRecord,
    BatchStatus,
    CaseError,
    CaseRecord,
    Invocation,
    Phase,
    Validity,
    Where,
)
from aifbench.core.states import state_of
from aifbench.core.units import duration
from aifbench.files.written import atomic_write
from aifbench.log.writer import ERROR, INFO, WARNING, BatchLog
from aifbench.machine.environment import environment
from aifbench.machine.provenance import provenance
from aifbench.processes.containers import Containers
from aifbench.processes.process import Group, free_port
from aifbench.processes.watchdog import Watchdog
from aifbench.records.lock import Locked, OwnerLock
from aifbench.records.reading import Reader, fitted
from aifbench.records.store import BatchStore, typed_columns
from aifbench.registry import benchmark
from aifbench.runner.console import Console
from aifbench.runner.rounds import WorkerProcess
from aifbench.sampling.companion import ClientNodeSamples
from aifbench.sampling.sampler import Sampler
from aifbench.slurm import job as nodes
from aifbench.slurm.ask import SlurmError
from aifbench.stats.intervals import mean_interval

LOCK_POLL_S = 2.0
TIME_LIMIT_MARGIN_S = 30.0
"""A TERM that comes less than this before the end of a job's time is Slurm's word that the time is over."""
CASE_TIMEOUT_FACTOR = 20.0
CASE_TIMEOUT_FLOOR_S = 180.0
EXIT_CODES: dict[BatchStatus, int] = {"ok": 0, "partial": 0, "config_error": 2, "terminated": 143}


class _Ended(Exception):
    """The batch ends early with this status."""

    def __init__(self, status: BatchStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class _Current:
    """The case that a worker is measuring."""

    case: str
    begin_ns: int
    phases: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class _Round:
    """What is known of a running round."""

    repetition: int
    left: dict[str, SpecCase]
    current: _Current | None = None
    broken: tuple[str, str] | None = None


class BatchRun:
    """State of one invocation of a batch."""

    def __init__(self, spec: Spec, folder: Path, log_file: Path | None, console: Console) -> None:
        self.spec = spec
        self.console = console
        self.benchmark: Benchmark = benchmark(spec.benchmark)
        self.params: dict[str, Params] = {
            entry.case: self.benchmark.params.model_validate(entry.params) for entry in spec.cases
        }
        self.store = BatchStore(folder)
        damaged = self.store.create()
        self.log = BatchLog(self.store.log_path, spec.benchmark, spec.batch, log_file)
        for damage in damaged:
            self.log.write(WARNING, f"{damage}; what can be read stays, and the file as it was is in set-aside")
        self.work_dir = folder / "work"
        self.images = sorted({"aifbench", *self._server_image()})
        self.containers = self._containers(folder)
        self.server_log = folder / "server.log"
        self.servers: list[Group] = []
        self.server_host = "127.0.0.1"
        self.client_node: str | None = None
        self.where: Where | None = None
        self.job_end = nodes.job_end()
        self.t0_ns = time.monotonic_ns()
        self.records: list[CaseRecord] = self.store.read_cases()
        self.done: set[tuple[str, int]] = {(record.case, record.repetition) for record in self.records}
        known = self.store.read_record()
        self.record = BatchRecord(
            campaign=spec.campaign,
            batch=spec.batch,
            benchmark=spec.benchmark,
            status="running",
            setup=spec.setup,
            planned={entry.case: entry.repetitions.min for entry in spec.cases},
            invocations=[_with_end(invocation) for invocation in known.invocations] if known else [],
        )
        ends_at = None if self.job_end is None else datetime.fromtimestamp(self.job_end, UTC).isoformat()
        earlier = [*(one.index for one in self.record.invocations), *(record.invocation for record in self.records)]
        self.invocation = Invocation(
            index=max(earlier, default=-1) + 1,
            started_at=_now(),
            facts={"allocation": {**nodes.allocation(), "ends_at": ends_at}},
            environment=environment(),
            provenance=provenance(),
        )
        self.record.invocations.append(self.invocation)
        self.roles: dict[str, int] = {"runner": os.getpid()}
        self.groups: list[Group] = []
        self.watchdog = Watchdog()
        self.client_node_samples = ClientNodeSamples()
        self.rounds = 0
        self.workload = 0
        self.measured = 0
        self.errors = 0
        self.step: dict[str, Any] | None = None
        self.signalled: int | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    # -- what is left to do ---------------------------------------------------------------------------------------

    def pending(self, repetition: int) -> list[SpecCase]:
        """Return the cases that round `repetition` measures, in the round's order."""
        cases = [entry for entry in self.spec.cases if self._wants(entry, repetition)]
        shuffled = [entry for entry in cases if entry.order == "shuffled"]
        given = [entry for entry in cases if entry.order != "shuffled"]
        return given + sorted(shuffled, key=lambda e: derived_seed(self.spec.seed, "order", repetition, e.case))

    def _wants(self, entry: SpecCase, repetition: int) -> bool:
        rule = entry.repetitions
        if (entry.case, repetition) in self.done or repetition >= rule.max + rule.spare:
            return False
        mine = [record for record in self.records if record.case == entry.case]
        valid = [record for record in mine if record.validity.valid]
        if repetition >= rule.max:
            # A failure is not replaced: it makes the case a failed one.
            replaceable = len(mine) - len(valid) <= rule.spare and all(record.status == "ok" for record in mine)
            return len(valid) < rule.min and replaceable
        if repetition < rule.min or rule.until is None:
            return True
        values = [
            metric.value
            for record in valid
            if (metric := record.metrics.get(rule.until.metric)) is not None and metric.value is not None
        ]
        if len(values) < rule.min:
            return True
        interval = mean_interval(values)
        return interval.half_width is None or interval.half_width > rule.until.half_width * abs(interval.mean)

    def remaining(self) -> tuple[float, int]:
        """Return the expected seconds and the number of repetitions that are left."""
        left = [
            (entry.case, repetition)
            for entry in self.spec.cases
            for repetition in range(entry.repetitions.max)
            if (entry.case, repetition) not in self.done
        ]
        return sum(self.params[case].expected_seconds(1) for case, _ in left), len(left)

    # -- the life of a batch --------------------------------------------------------------------------------------

    def run(self) -> BatchStatus:
        """Run what is pending and return how the batch ended; records are complete on disk then."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        sampler = Sampler(
            self.store.resources_live,
            self.invocation.index,
            self.t0_ns,
            lambda: self.roles,
            lambda: self.workload,
            errors=lambda: self.errors,
            step=lambda: self.step,
            beside=self.client_node_samples.rows,
            node=nodes.own_node(),
            devices=nodes.devices(),
        )
        self._save()
        status: BatchStatus
        reason: str | None
        try:
            sampler.start()
            status, reason = self._measure_all()
        except _Ended as ended:
            status, reason = ended.status, ended.reason
        except Exception as error:
            reason = full_disk(error) if isinstance(error, OSError) else None
            if reason is None:
                traceback.print_exc()
            status, reason = "client_error", reason or f"{type(error).__name__}: {error}"
        # Said before processes are ended, which may take as long as they like; a full disk does not keep them.
        with self._room() as untold:
            self._say(status, reason)
        self.console.show("ending what was started")
        with self._phase("teardown"), self.watchdog:
            for group in reversed(self.groups):
                group.stop()
                self.watchdog.forget(group.pid)
        sampler.stop()
        if sampler.problem:
            self.log.write(WARNING, f"resource sampler: {sampler.problem}")
        self.invocation.facts["sampler"] = {"missed_ticks": sampler.missed, "cpu_s": sampler.cpu_s}
        with self._room() as unfinished:
            self._finish(status, reason)
        if untold or unfinished:
            status = self.record.status = "client_error"
            self.record.reason = (untold + unfinished)[0]
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return status

    def _server_image(self) -> set[str]:
        """Return the image of the server that this batch starts, if it starts one."""
        server = self.benchmark.server()
        place = Place("127.0.0.1", 0, self.spec.system, self.work_dir)
        command = server.command(self._setup, place) if server is not None else None
        return {command.image} if command is not None else set()

    def _containers(self, folder: Path) -> Containers:
        paths = self.spec.system.paths
        named = (path for params in self.params.values() for path in (*params.reads(), *params.writes()))
        binds = [paths.cache, paths.target, *named]
        secrets = sorted({name for params in self.params.values() for name in params.secrets()})
        return Containers(self.spec.system, folder, dict.fromkeys(binds), secrets)

    @property
    def _setup(self) -> Params:
        """Parameters of any case: all agree in what they share."""
        return self.params[self.spec.cases[0].case]

    def _measure_all(self) -> tuple[BatchStatus, str | None]:
        if not any(self.pending(repetition) for repetition in self._rounds()):
            self.log.write(INFO, "every repetition is recorded already")
            return self._verdict()
        self.console.show("checking this machine")
        with self._phase("preflight"):
            server = self.benchmark.server()
            for error in (
                *self.containers.check(self.images),
                *(server.check(self._setup, self.spec.system) if server else ()),
            ):
                raise _Ended("config_error", str(error))
            for entry in self.spec.cases:
                for error in self.benchmark.preflight()(self.params[entry.case], self.spec.system):
                    raise _Ended("config_error", str(error))
            self._find_place()
        self.console.begin(self.remaining()[1], lambda: self.remaining()[0])
        endpoints: list[str] = []
        setup = self._setup
        if server is not None:
            endpoints = self._start_servers(server, setup)
        for repetition in self._rounds():
            cases = self.pending(repetition)
            while cases:
                cases = self._round(repetition, cases, endpoints)
        if server is not None:
            with contextlib.suppress(Exception):
                self.invocation.facts["servers_after"] = [server.describe(endpoint, setup) for endpoint in endpoints]
        return self._verdict()

    def _find_place(self) -> None:
        """Find nodes and images of this job, for all its records."""
        paths = self.spec.system.paths
        for path in (paths.cache, paths.target, *self._setup.writes()):
            path.mkdir(parents=True, exist_ok=True)  # a container can only be given folders that exist
        try:
            if self._setup.nodes() > 1:
                self.client_node = nodes.second_node()
                self.server_host = nodes.address(nodes.own_node() or "")
        except SlurmError as error:
            raise _Ended("config_error", str(error)) from None
        self.where = Where(
            node=nodes.own_node() or socket.gethostname(),
            client_node=self.client_node,
            slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            images=self.containers.digests(self.images),
        )
        self.invocation.provenance["images"] = self.where.images

    def _rounds(self) -> range:
        return range(max(entry.repetitions.max + entry.repetitions.spare for entry in self.spec.cases))

    def _verdict(self) -> tuple[BatchStatus, str | None]:
        failed = sum(record.status == "failed" for record in self.records)
        return ("partial", f"{failed} repetitions failed") if failed else ("ok", None)

    def _start_servers(self, server: Server, setup: Params) -> list[str]:
        """Start what the batch serves itself, wait until each server has answered a request, return their URLs."""
        self.console.show("starting the server, until it has answered a request")
        with self._phase("server_start"):
            began = time.monotonic()
            places = self._places(server.count(setup))
            endpoints = [server.endpoint(setup, place) for place in places]
            started = [group for place in places if (group := self._start_server(server, setup, place)) is not None]

            def alive() -> bool:
                return self.signalled is None and all(group.alive() for group in started)

            ready = []
            try:
                for endpoint in endpoints:
                    left = self.spec.system.limits.server_ready_s - (time.monotonic() - began)
                    answered = server.wait_ready(endpoint, setup, left, alive)
                    ready.append({"ready_s": time.monotonic() - began, **answered})
            except ServerNotReady as error:
                self._check()
                where = f"; see {self.server_log}" if started else ""
                raise _Ended("server_not_ready", f"{error}{where}") from None
            self.servers = started
            self.invocation.facts["servers_ready"] = ready
            self.invocation.facts["servers_before"] = [server.describe(endpoint, setup) for endpoint in endpoints]
        self.log.write(INFO, f"ready: {', '.join(endpoints)}")
        return endpoints

    def _places(self, count: int) -> list[Place]:
        """Return a place for each server: a folder, a port, and its share of the job's GPUs."""
        wanted = self._setup.gpus()
        given = nodes.devices()
        devices = tuple(map(str, range(wanted))) if given is None else given
        if len(devices) < wanted:
            raise _Ended("config_error", f"the servers are to have {wanted} GPUs; the job was given {len(devices)}")
        share = wanted // count
        places = []
        for number in range(count):
            home = (self.work_dir / f"server-{number + 1}").absolute()
            home.mkdir(parents=True, exist_ok=True)
            own = devices[number * share : (number + 1) * share]
            places.append(Place(self.server_host, free_port(self.server_host), self.spec.system, home, own))
        return places

    def _start_server(self, server: Server, setup: Params, place: Place) -> Group | None:
        command = server.command(setup, place)
        if command is None:
            return None
        argv, environment = self.containers.wrap(command, place.home.name)
        group = Group(argv, stderr=self.server_log, environment=environment)
        self._own(group)
        role = "server" if server.count(setup) == 1 else place.home.name
        self.roles = {**self.roles, role: group.pid}
        return group

    # -- one round --------------------------------------------------------------------------------------------------

    def _round(self, repetition: int, cases: list[SpecCase], endpoints: list[str]) -> list[SpecCase]:
        """Measure `cases` once in a fresh process; return those that a broken process left unmeasured."""
        self._check()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        argv, environment = self.containers.wrap(Command.python("aifbench.runner.worker"), "worker")
        job = self._job(repetition, cases, endpoints)
        if self.client_node is not None:
            argv = nodes.on_node(self.client_node, argv)
            self.rounds += 1
            samples = (self.work_dir / f"samples-{self.invocation.index}-{self.rounds}.jsonl").absolute()
            job["samples"] = {"path": str(samples), "node": self.client_node}
            self.client_node_samples.follow(samples, self.client_node)
        log = self.store.folder / "worker.log"
        worker = WorkerProcess(argv, environment, job, log)
        setup_s = self.params[cases[0].case].expected_setup_seconds()
        worker.allow(_timeout(setup_s))
        self._begin("prepare", None, repetition, setup_s)
        self._own(worker.group)
        if self.client_node is None:  # else that is srun, which only waits
            self.roles = {**self.roles, "worker": worker.group.pid}
        self.console.show(f"round {repetition + 1}: preparing")
        state = _Round(repetition, {entry.case: entry for entry in cases})
        for event in worker.events(self._wake_read, self._check):
            self._on_event(event, worker, state)
        code = worker.end()
        self.client_node_samples.leave()
        self.groups.remove(worker.group)
        self.watchdog.forget(worker.group.pid)
        self.roles = {role: pid for role, pid in self.roles.items() if role != "worker"}
        self._check()
        if code == 0 and not state.left:
            return []
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        kind, reason = state.broken or ("worker_crashed", f"the worker process ended {how}")
        if state.current is None:
            raise _Ended("client_error", f"{kind}: {reason}; see {self.store.folder / 'worker.log'}")
        times = {"t_start_ns": state.current.begin_ns, "t_end_ns": time.monotonic_ns()}
        self._store("failed", {"kind": kind, "message": reason, **times}, state.current, repetition)
        state.left.pop(state.current.case)
        return list(state.left.values())

    def _own(self, group: Group) -> None:
        self.groups.append(group)
        self.watchdog.watch(group.pid)

    def _job(self, repetition: int, cases: list[SpecCase], endpoints: list[str]) -> dict[str, Any]:
        seed = self.spec.case_seed
        paths = self.spec.system.paths
        return {
            "benchmark": self.spec.benchmark,
            "repetition": repetition,
            "work_dir": str(self.work_dir.absolute()),
            "cache_dir": str(paths.cache.absolute()),
            "target_dir": str(paths.target.absolute()),
            "endpoints": endpoints,
            "samples": None,
            "cases": [{"case": e.case, "params": e.params, "seed": seed(e.case, repetition)} for e in cases],
        }

    def _on_event(self, event: dict[str, Any], worker: WorkerProcess, state: _Round) -> None:
        kind, repetition, current = event["event"], state.repetition, state.current
        if kind == "prepared":
            now = time.monotonic_ns()
            self.invocation.phases.append(self._stretch("prepare", worker.started_ns, now, None, repetition))
            self.invocation.facts["prepared"] = event["facts"]
            self.invocation.provenance["packages"] = event["packages"]
            self._save()
            worker.go_on(CASE_TIMEOUT_FLOOR_S)
        elif kind == "begin":
            state.current = _Current(event["case"], time.monotonic_ns())
            expected_s = self.params[event["case"]].expected_seconds(1)
            worker.allow(_timeout(expected_s))
            self._begin("measure", event["case"], repetition, expected_s)
            self.console.show(f"round {repetition + 1}: {self._label(event['case'])}")
        elif kind == "phase" and current:
            current.phases.append((event["name"], event["t_ns"]))
            self.console.show(f"round {repetition + 1}: {self._label(current.case)}: {event['name'].replace('_', ' ')}")
            self._begin(event["name"], current.case, repetition, self.params[current.case].expected_seconds(1))
        elif kind == "progress":
            self.workload = self.measured + event["records"]
        elif kind == "log":
            self.log.write(event["level"], event["msg"], current.case if current else None)
            if current is None:
                self.console.show(f"round {repetition + 1}: {event['msg']}")
        elif kind in {"measured", "failed"} and current:
            self._check()
            self._store(kind, event, current, repetition)
            state.left.pop(current.case)
            state.current = None
            worker.go_on(CASE_TIMEOUT_FLOOR_S)
        elif kind == "broken":
            state.broken = (event["kind"], event["message"])

    def _store(self, kind: str, event: dict[str, Any], current: _Current, repetition: int) -> None:
        """Turn a worker's event into a record on disk."""
        case, params = current.case, self.params[current.case]
        start_ns, end_ns = event["t_start_ns"], event["t_end_ns"]
        record = CaseRecord(
            benchmark=self.spec.benchmark,
            batch=self.spec.batch,
            case=case,
            repetition=repetition,
            invocation=self.invocation.index,
            status="ok" if kind == "measured" else "failed",
            input=params.model_dump(mode="json"),
            seed=self.spec.case_seed(case, repetition),
            where=self.where,
            started_at=self._wall(start_ns),
            t_start_s=self._since(start_ns),
            t_end_s=self._since(end_ns),
            validity=Validity(),
        )
        raw: dict[str, list[Any]] | None = None
        if kind == "measured":
            raw = event["raw"]
            record.facts = event["facts"]
            record.metrics, record.validity = self.benchmark.evaluate()(
                params, typed_columns(event["raw"]), event["facts"]
            )
            self.measured += len(next(iter(event["raw"].values()), []))
            self.workload = self.measured
            self.errors += sum(error is not None for error in event["raw"].get("error", []))
        else:
            self.errors += 1
            record.error = CaseError(kind=event["kind"], message=event["message"])
            record.validity = Validity.of([f"failed: {event['kind']}: {event['message']}"])
            self.log.write(WARNING, f"{event['kind']}: {event['message']}", case)
        record = self.store.append_case(record, raw)
        self.records.append(record)
        self.done.add((case, repetition))
        marks = [*current.phases, ("", end_ns)]
        names = [(name, begin, marks[i + 1][1]) for i, (name, begin) in enumerate(current.phases)]
        for name, begin, end in names or [("measure", start_ns, end_ns)]:
            self.invocation.phases.append(self._stretch(name, begin, end, case, repetition))
        self.invocation.measured_s += (end_ns - start_ns) / 1e9
        level = WARNING if kind == "measured" and not record.validity.valid else INFO  # a failed one was told above
        self.log.write(level, f"repetition {repetition + 1}: {self._outcome(record)}", case)
        self.console.advance(f"{self._label(case)}  repetition {repetition + 1}  {self._outcome(record)}")
        self._save()

    # -- small things -------------------------------------------------------------------------------------------------

    def _outcome(self, record: CaseRecord) -> str:
        if record.status == "failed":
            return record.validity.reasons[0]
        if not record.validity.valid:
            return "invalid: " + "; ".join(record.validity.reasons)
        shown = []
        for name in self.benchmark.headline:
            metric = record.metrics.get(name)
            if metric is not None and metric.value is not None:
                shown.append(f"{name} {metric.value:.4g}")
        return ", ".join(shown)

    def _label(self, case: str) -> str:
        params = self.params[case]
        varying = [name for name in params.label_fields if name not in params.setup_names()]
        telling = [name for name in varying if not params.is_default(name)]
        return " ".join(text for name in telling or varying if (text := params.shown(name)))

    def _on_signal(self, number: int, _frame: Any) -> None:
        self.signalled = number
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _check(self) -> None:
        """Raise when a signal came or the server is gone."""
        if self.signalled is not None:
            name = signal.Signals(self.signalled).name
            if self.job_end is not None and time.time() > self.job_end - TIME_LIMIT_MARGIN_S:
                raise _Ended("timeout", f"the job's time limit was reached ({name})")
            raise _Ended("terminated", f"received {name}")
        if not all(group.alive() for group in self.servers):
            raise _Ended("server_crashed", f"a server ended while it was measured; see {self.server_log}")

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic_ns()
        self._begin(name, None, None, None)
        try:
            yield
        finally:
            self.invocation.phases.append(self._stretch(name, begin, time.monotonic_ns(), None, None))

    def _begin(self, phase: str, case: str | None, repetition: int | None, expected_s: float | None) -> None:
        """Tell the samples what the batch does from now on; `expected_s` is for the whole case, or the whole set-up."""
        since_s = self._since(time.monotonic_ns())
        self.step = {
            "phase": phase, "case": case, "repetition": repetition, "since_s": since_s, "expected_s": expected_s
        }  # fmt: skip

    def _stretch(self, name: str, begin: int, end: int, case: str | None, repetition: int | None) -> Phase:
        return Phase(
            name=name, t_start_s=self._since(begin), t_end_s=self._since(end), case=case, repetition=repetition
        )

    def _since(self, t_ns: int) -> float:
        return (t_ns - self.t0_ns) / 1e9

    def _wall(self, t_ns: int) -> str:
        start = datetime.fromisoformat(self.invocation.started_at).timestamp()
        return datetime.fromtimestamp(start + self._since(t_ns), UTC).isoformat(timespec="milliseconds")

    def _save(self) -> None:
        done: dict[str, list[CaseRecord]] = {}
        for record in self.records:
            done.setdefault(record.case, []).append(record)
        self.record.done = {case: len(mine) for case, mine in done.items()}
        self.record.invalid = [
            entry.case
            for entry in self.spec.cases
            if state_of(done.get(entry.case, []), entry.repetitions) == "invalid"
        ]
        self.store.write_record(self.record)

    def _say(self, status: BatchStatus, reason: str | None) -> None:
        """Write how the batch ends into batch.json."""
        self.invocation.status = self.record.status = status
        self.invocation.reason = self.record.reason = reason
        self._save()

    @contextlib.contextmanager
    def _room(self) -> Iterator[list[str]]:
        """Give a list that holds, in the end, the words about a disk that was too full for what was written."""
        found: list[str] = []
        try:
            yield found
        except OSError as error:
            full = full_disk(error)
            if full is None:
                raise
            found.append(full)

    def _finish(self, status: BatchStatus, reason: str | None) -> None:
        self.invocation.ended_at = _now()
        self.invocation.elapsed_s = self._since(time.monotonic_ns())
        self.store.compact()
        if status in {"ok", "partial"}:
            shutil.rmtree(self.work_dir, ignore_errors=True)
        self._say(status, reason)
        level = INFO if EXIT_CODES.get(status) == 0 else ERROR
        self.log.write(level, f"ended: {status}" + (f" ({reason})" if reason else ""))


def run_batch(spec_path: Path, folder: Path, done: Path | None = None, log_file: Path | None = None) -> int:
    """Run the batch of a spec into `folder` and return the exit code; `done` is written when it is complete."""
    try:
        spec = fitted(Spec, Reader(spec_path.parent).json(spec_path.name))
    except Damaged as error:
        print(f"{spec_path} {error}; the workflow writes it anew when it is started", file=sys.stderr)
        return 2
    lock = OwnerLock(folder)
    try:
        with Console(spec.batch) as console:
            _acquire(lock, console)
            run = BatchRun(spec, folder, log_file, console)
            try:
                status = run.run()
            finally:
                run.log.close()
        code = EXIT_CODES.get(status, 1)
        if code == 0 and done is not None:
            summary = {"batch": spec.batch, "status": status, "repetitions": len(run.records)}
            atomic_write(done, orjson.dumps(summary) + b"\n")
        elapsed = duration(run.invocation.elapsed_s or 0)
        reason = f": {run.record.reason}" if run.record.reason else ""
        print(
            f"{spec.batch}: {status}{reason} · {len(run.records)} repetitions · {elapsed}", file=sys.stderr, flush=True
        )
        return code
    except Locked as error:
        print(f"{spec.batch}: {error}", file=sys.stderr)
        return 1
    except ConfigError as error:
        print(f"{spec.batch}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        full = full_disk(error)
        if full is None:
            raise
        print(f"{spec.batch}: {full}", file=sys.stderr)
        return 1
    finally:
        lock.release()


def _acquire(lock: OwnerLock, console: Console) -> None:
    """Take the lock. A job waits for another live job of the same batch: that one measures, this one finds it done.

    Two jobs of one batch come of a main process that was killed and started again. Raises `Locked`.
    """
    said = False
    while True:
        try:
            return lock.acquire()
        except Locked as error:
            if error.job is None or os.environ.get("SLURM_JOB_ID") in {None, error.job}:
                raise
            if not said:
                console.show(f"waiting for its end: {error}")
            said = True
            time.sleep(LOCK_POLL_S)


def _with_end(invocation: Invocation) -> Invocation:
    """Return an earlier invocation with a status: one that never said how it ended was killed or lost its node."""
    if invocation.status != "running":
        return invocation
    return invocation.model_copy(
        update={"status": "terminated", "reason": "ended without a word: killed, or node lost"}
    )


def _timeout(expected_s: float) -> float:
    return max(CASE_TIMEOUT_FLOOR_S, CASE_TIMEOUT_FACTOR * expected_s)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
