"""One batch in one job, from its spec to its records, on every exit path.

Exit codes: 0 all repetitions are recorded (failed ones too: they are data); 1 the infrastructure broke (a retry may
help); 2 the configuration cannot work here; 143 ended by a signal. Whatever ends it, batch.json says what happened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from aifbench.campaign.spec import Spec, SpecCase
from aifbench.core.benchmark import Command, ServerNotReady
from aifbench.core.damage import Damaged
from aifbench.core.errors import ConfigError, full_disk
from aifbench.core.params import Params
from aifbench.core.records import BatchStatus, Where
from aifbench.core.units import duration
from aifbench.files.written import atomic_write
from aifbench.log.writer import INFO, WARNING
from aifbench.processes.containers import Containers
from aifbench.processes.started import Started
from aifbench.records.lock import Locked, OwnerLock
from aifbench.records.reading import Reader, fitted
from aifbench.registry import benchmark
from aifbench.runner import schedule
from aifbench.runner.console import Console
from aifbench.runner.ended import EXIT_CODES, Ended
from aifbench.runner.recorder import Recorder
from aifbench.runner.rounds import Round, WorkerProcess
from aifbench.runner.servers import Servers
from aifbench.runner.signals import Signals
from aifbench.sampling.companion import ClientNodeSamples
from aifbench.sampling.sampler import Sampler
from aifbench.slurm import job as nodes
from aifbench.slurm.ask import SlurmError

LOCK_POLL_S = 2.0
TIME_LIMIT_MARGIN_S = 30.0
"""A TERM that comes less than this before the end of a job's time is Slurm's word that the time is over."""


class BatchRun:
    """One invocation of a batch: checks the machine, starts the servers, conducts the rounds, ends what it started."""

    def __init__(self, spec: Spec, folder: Path, log_file: Path | None, console: Console) -> None:
        self._spec, self._console = spec, console
        self._benchmark = benchmark(spec.benchmark)
        self._params: dict[str, Params] = {
            entry.case: self._benchmark.params.model_validate(entry.params) for entry in spec.cases
        }
        self._setup = self._params[spec.cases[0].case]  # all cases agree in what they share
        self._expected_s = {case: params.expected_seconds(1) for case, params in self._params.items()}
        server = self._benchmark.server()
        self._servers = None if server is None else Servers(server, self._setup, spec.system, folder)
        self._work_dir = folder / "work"
        self._images = sorted({"aifbench", *(self._servers.images() if self._servers else ())})
        self._containers = _containers(spec, self._params, folder)
        self._client_node: str | None = None
        self._client_node_samples = ClientNodeSamples()
        self._workers = 0
        self._job_end = nodes.job_end()
        self.recorder = Recorder(spec, self._benchmark, self._params, folder, log_file)
        ends_at = None if self._job_end is None else datetime.fromtimestamp(self._job_end, UTC).isoformat()
        self.recorder.invocation.facts["allocation"] = {**nodes.allocation(), "ends_at": ends_at}
        self._signals = Signals()
        self._started = Started()

    def run(self) -> BatchStatus:
        """Run what is pending and return how the batch ended; records are complete on disk then."""
        with self._signals:
            return self._run()

    def _run(self) -> BatchStatus:
        recorder = self.recorder
        sampler = Sampler(
            recorder.store.resources_live,
            recorder.invocation.index,
            recorder.t0_ns,
            lambda: self._started.roles,
            lambda: recorder.workload,
            errors=lambda: recorder.errors,
            step=lambda: recorder.step,
            other_node=self._client_node_samples.rows,
            node=nodes.own_node(),
            devices=nodes.devices(),
        )
        recorder.save()
        status: BatchStatus
        reason: str | None
        try:
            sampler.start()
            self._measure_all()
            status, reason = recorder.verdict()
        except Ended as ended:
            status, reason = ended.status, ended.reason
        except Exception as error:
            reason = full_disk(error) if isinstance(error, OSError) else None
            if reason is None:
                traceback.print_exc()
            status, reason = "client_error", reason or f"{type(error).__name__}: {error}"
        # Written before processes are ended, which may take as long as they like; a full disk does not keep them.
        with _full_disk() as unwritten:
            recorder.end(status, reason)
        self._console.show("ending what was started")
        with recorder.phase("teardown"):
            self._started.end()
        sampler.stop()
        if sampler.problem:
            recorder.log.write(WARNING, f"resource sampler: {sampler.problem}")
        recorder.invocation.facts["sampler"] = {"missed_ticks": sampler.missed, "cpu_s": sampler.cpu_s}
        with _full_disk() as unfinished:
            recorder.finish(status, reason)
            if status in {"ok", "partial"}:
                shutil.rmtree(self._work_dir, ignore_errors=True)
        if unwritten or unfinished:
            status = recorder.batch.status = "client_error"
            recorder.batch.reason = (unwritten + unfinished)[0]
        return status

    def _measure_all(self) -> None:
        """Measure all that is pending. Raises `Ended` when that cannot go on."""
        recorder, rounds = self.recorder, schedule.rounds(self._spec)
        if not any(self._pending(repetition) for repetition in rounds):
            recorder.log.write(INFO, "every repetition is recorded already")
            return
        self._console.show("checking this machine")
        with recorder.phase("preflight"):
            for error in self._config_errors():
                raise Ended("config_error", str(error))
            host = self._find_place()
        self._console.begin(self._remaining()[1], lambda: self._remaining()[0])
        if self._servers is not None:
            self._console.show("starting the server, until it has answered a request")
            with recorder.phase("server_start"):
                self._start(self._servers, host)
            recorder.log.write(INFO, f"ready: {', '.join(self._servers.endpoints)}")
        for repetition in rounds:
            cases = self._pending(repetition)
            while cases:
                cases = self._round(repetition, cases)
        if self._servers is not None:
            with contextlib.suppress(Exception):
                recorder.invocation.facts["servers_after"] = self._servers.describe()

    def _pending(self, repetition: int) -> list[SpecCase]:
        return schedule.pending(self._spec, self.recorder.records, repetition)

    def _remaining(self) -> tuple[float, int]:
        return schedule.remaining(self._spec, self.recorder.records, self._expected_s)

    def _config_errors(self) -> Iterator[ConfigError]:
        """Yield what only this machine can tell: images, models, and what each case needs."""
        yield from self._containers.check(self._images)
        if self._servers is not None:
            yield from self._servers.check()
        for params in self._params.values():
            yield from self._benchmark.preflight()(params, self._spec.system)

    def _find_place(self) -> str:
        """Find nodes and images of this job, for all its records; return the address for servers."""
        paths = self._spec.system.paths
        for path in (paths.cache, paths.target, *self._setup.writes()):
            path.mkdir(parents=True, exist_ok=True)  # a container can only be given folders that exist
        host = "127.0.0.1"
        try:
            if self._setup.nodes() > 1:
                self._client_node = nodes.second_node()
                host = nodes.address(nodes.own_node() or "")
        except SlurmError as error:
            raise Ended("config_error", str(error)) from None
        images = self._containers.digests(self._images)
        self.recorder.where = Where(
            node=nodes.own_node() or socket.gethostname(),
            client_node=self._client_node,
            slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            images=images,
        )
        self.recorder.invocation.provenance["images"] = images
        return host

    def _start(self, servers: Servers, host: str) -> None:
        facts = self.recorder.invocation.facts
        try:
            ready = servers.start(host, self._containers, self._started, lambda: self._signals.received is None)
        except ServerNotReady as error:
            self._check_signals()
            raise Ended("server_not_ready", f"{error}{servers.see_log}") from None
        facts["servers_ready"], facts["servers_before"] = ready, servers.describe()

    def _round(self, repetition: int, cases: list[SpecCase]) -> list[SpecCase]:
        """Measure `cases` once in a fresh process; return those that a broken process left unmeasured."""
        self._check()
        self._work_dir.mkdir(parents=True, exist_ok=True)
        argv, environment = self._containers.wrap(Command.python("aifbench.runner.worker"), "worker")
        job = self._job(repetition, cases)
        if self._client_node is not None:
            argv = nodes.on_node(self._client_node, argv)
            self._workers += 1
            name = f"samples-{self.recorder.invocation.index}-{self._workers}.jsonl"
            samples = (self._work_dir / name).absolute()
            job["samples"] = {"path": str(samples), "node": self._client_node}
            self._client_node_samples.follow(samples, self._client_node)
        worker = WorkerProcess(argv, environment, job, self.recorder.store.folder / "worker.log")
        # On another node it is srun that runs here, and only waits.
        self._started.add(worker.group, "worker" if self._client_node is None else None)
        this_round = Round(
            repetition, cases, self._params, self._expected_s,
            worker=worker, recorder=self.recorder, console=self._console,
        )  # fmt: skip
        for event in worker.events(self._signals.fileno(), self._check):
            this_round.on_event(event, self._check)
        code = worker.end()
        self._client_node_samples.leave()
        self._started.remove(worker.group)
        self._check()
        return this_round.end(code)

    def _job(self, repetition: int, cases: list[SpecCase]) -> dict[str, Any]:
        seed, paths = self._spec.case_seed, self._spec.system.paths
        return {
            "benchmark": self._spec.benchmark,
            "repetition": repetition,
            "work_dir": str(self._work_dir.absolute()),
            "cache_dir": str(paths.cache.absolute()),
            "target_dir": str(paths.target.absolute()),
            "endpoints": self._servers.endpoints if self._servers else [],
            "samples": None,
            "cases": [{"case": e.case, "params": e.params, "seed": seed(e.case, repetition)} for e in cases],
        }

    def _check(self) -> None:
        """Raise `Ended` when a signal came or a server is gone."""
        self._check_signals()
        if self._servers is not None and not self._servers.alive():
            raise Ended("server_crashed", f"a server ended while it was measured{self._servers.see_log}")

    def _check_signals(self) -> None:
        received = self._signals.received
        if received is None:
            return
        if self._job_end is not None and time.time() > self._job_end - TIME_LIMIT_MARGIN_S:
            raise Ended("timeout", f"the job's time limit was reached ({received.name})")
        self.recorder.invocation.signal = received.name
        raise Ended("terminated", f"received {received.name}")


def _containers(spec: Spec, params: dict[str, Params], folder: Path) -> Containers:
    paths = spec.system.paths
    needed = (path for each in params.values() for path in (*each.reads(), *each.writes()))
    secrets = sorted({name for each in params.values() for name in each.secrets()})
    return Containers(spec.system, folder, dict.fromkeys([paths.cache, paths.target, *needed]), secrets)


@contextlib.contextmanager
def _full_disk() -> Iterator[list[str]]:
    """Give a list that holds, in the end, the words about a disk that was too full for what was written."""
    problems: list[str] = []
    try:
        yield problems
    except OSError as error:
        problem = full_disk(error)
        if problem is None:
            raise
        problems.append(problem)


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
            recorder = run.recorder
            try:
                status = run.run()
            finally:
                recorder.log.close()
        code = EXIT_CODES.get(status, 1)
        if code == 0 and done is not None:
            summary = {"batch": spec.batch, "status": status, "repetitions": recorder.repetitions}
            atomic_write(done, orjson.dumps(summary) + b"\n")
        elapsed = duration(recorder.invocation.elapsed_s or 0)
        reason = f": {recorder.batch.reason}" if recorder.batch.reason else ""
        line = f"{spec.batch}: {status}{reason} · {recorder.repetitions} repetitions · {elapsed}"
        print(line, file=sys.stderr, flush=True)
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
    shown = False
    while True:
        try:
            return lock.acquire()
        except Locked as error:
            if error.job is None or os.environ.get("SLURM_JOB_ID") in {None, error.job}:
                raise
            if not shown:
                console.show(f"waiting for its end: {error}")
            shown = True
            time.sleep(LOCK_POLL_S)
