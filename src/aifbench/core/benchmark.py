"""The interface between the house and a benchmark.

A benchmark is a folder with these modules, here or in another package (docs/adding-a-benchmark.md):

`params.py`   one `Params` subclass (pure): YAML keys, schema, ids, labels, expected time.
`worker.py`   one `Worker` subclass (does things): runs in a fresh process per round and stores raw events only.
`metrics.py`  `evaluate(...)` (pure): raw events and facts of one repetition -> metrics and verdict.
`kinds.py`    one `Kind` for each thing that a verdict can say (pure).
`preflight.py` `check(...)`: what only this machine can tell (a file, free space, a reachable URL).
`menu.py`     `MENU` (pure): what people are told and asked where they launch it.
`server.py`   only where a batch needs a server: one `Server` subclass that the runner starts and stops.
`report.py`   `REPORT` (pure), where the report says more of it than its tables: charts, findings, names for readers.

A round is one fresh process that measures each pending case once, in seeded random order. So repetitions of a case
come from different processes and are spread over the batch's life: a randomised complete block design.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from aifbench.core.errors import ConfigError
from aifbench.core.menu import Menu
from aifbench.core.notes import Kind, kinds_of
from aifbench.core.params import Params
from aifbench.core.records import Metric, Validity
from aifbench.core.system import System

P = TypeVar("P", bound=Params)
"""The parameters of a benchmark's cases."""
Column = np.ndarray[Any, Any] | list[Any]
Raw = Mapping[str, Column]
"""Operations of one repetition as equally long columns: one row per operation (list columns hold per-token stamps)."""


@dataclass
class Measurement:
    """What a worker hands over for one repetition: raw columns, facts (JSON scalars and small dicts), no metrics."""

    raw: Raw
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Context:
    """What a worker is given for its round.

    `work_dir` belongs to the batch and outlives a round (a built index), removed when the batch is complete;
    `cache_dir` outlives the campaign (ground truth of a dataset); `target_dir` is where storage may write;
    `endpoints` are the base URLs of the batch's servers; `progress(records)` reports work done so far
    in the current case, for the live page (call it outside timed regions); `log(level, message)` writes a statement.
    """

    benchmark: str
    repetition: int
    seed: int
    work_dir: Path
    cache_dir: Path
    target_dir: Path
    endpoints: tuple[str, ...]
    progress: Callable[[int], None]
    log: Callable[[int, str], None]
    phase: Callable[[str], None]


class CaseFailed(Exception):
    """A case could not be measured, the batch goes on. `kind` is the class of the error, such as `enospc`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Worker(ABC, Generic[P]):
    """Measures cases in one process. Nothing but the operation stands inside a timed region."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    def prepare(self, params: P) -> dict[str, Any]:
        """Set up what the batch shares, from the setup fields of `params`; return facts about it (once per round)."""

    @abstractmethod
    def measure(self, params: P) -> Measurement:
        """Warm up, then run one repetition of one case. Raises `CaseFailed` when this case cannot be measured."""

    def close(self) -> None:
        """Release what `prepare` took. Called on every exit path of the process that Python can see."""


@dataclass(frozen=True)
class Command:
    """A command of a batch and what it needs around it. `python` as its first word is the interpreter of `image`."""

    argv: tuple[str, ...]
    image: str = "aifbench"
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables to add; no secrets."""
    reads: tuple[Path, ...] = ()
    """Files and folders that it reads, besides those of the batch."""
    gpus: int = 0

    @classmethod
    def python(cls, module: str, *arguments: str, reads: tuple[Path, ...] = ()) -> Command:
        """Return the command that runs a module of this package."""
        return cls(("python", "-m", module, *arguments), reads=reads)


@dataclass(frozen=True)
class Place:
    """Where a server is to listen (an address of its node, a free port), its system, and a folder of its own.

    `devices` are the GPUs that are its own, as CUDA_VISIBLE_DEVICES names them.
    """

    host: str
    port: int
    system: System
    home: Path
    devices: tuple[str, ...] = ()


class ServerNotReady(Exception):
    """The server did not answer one real request before its deadline; the message says what was seen last."""


class Server(ABC, Generic[P]):
    """How the runner starts, awaits and describes the servers of a batch. It owns no process itself."""

    def count(self, params: P) -> int:
        """Return how many servers the batch has, all alike."""
        return 1

    @abstractmethod
    def command(self, params: P, place: Place) -> Command | None:
        """Return the command that serves at `place`, or None for a server that is already there."""

    def check(self, params: P, system: System) -> Iterator[ConfigError]:
        """Yield what the workflow should have made before the batch, such as a model, and what is not there."""
        yield from ()

    @abstractmethod
    def endpoint(self, params: P, place: Place) -> str:
        """Return the base URL that workers use."""

    @abstractmethod
    def wait_ready(self, endpoint: str, params: P, timeout_s: float, alive: Callable[[], bool]) -> dict[str, Any]:
        """Block until the model is loaded and one request was answered; return facts about that.

        `alive()` turns false when a started server has exited: then fail at once. Raises `ServerNotReady`.
        """

    @abstractmethod
    def describe(self, endpoint: str, params: P) -> dict[str, Any]:
        """Return versions, model digest and settings as the server tells them (called before and after the rounds)."""


class Preflight(Protocol):
    """Signature of `preflight.check`."""

    def __call__(self, params: Any, system: System) -> Iterator[ConfigError]:
        """Yield one `ConfigError` per thing of `params` that cannot work on this machine."""
        ...


class Evaluate(Protocol):
    """Signature of `metrics.evaluate`."""

    def __call__(self, params: Any, raw: Raw, facts: Mapping[str, Any]) -> tuple[dict[str, Metric], Validity]:
        """Return the metrics (by contract name) and the verdict of one repetition."""
        ...


@dataclass(frozen=True)
class Benchmark:
    """One entry of the registry. `params` is pure; worker and metrics are imported when they are needed."""

    name: str
    params: type[Params]
    headline: tuple[str, ...]
    """Contract outputs, first in tables and charts."""
    has_server: bool = False
    rules: Path | None = None
    """Snakemake's rule for its batches; None: `workflow/rules/<name>.smk`."""
    distribution: str = "aifbench"
    """The installed package that it is part of; the registry knows it."""

    @property
    def package(self) -> str:
        """The package that holds its modules."""
        return self.params.__module__.rpartition(".")[0]

    def worker(self) -> type[Worker[Any]]:
        """Import the worker class (heavy libraries come with it)."""
        return self._module("worker").WORKER  # type: ignore[no-any-return]

    def server(self) -> Server[Any] | None:
        """Import and make the server's handler, if batches of this benchmark have one."""
        return self._module("server").SERVER() if self.has_server else None

    def preflight(self) -> Preflight:
        """Import the check of what only this machine can tell."""
        return self._module("preflight").check  # type: ignore[no-any-return]

    def evaluate(self) -> Evaluate:
        """Import the pure function from raw events to metrics."""
        return self._module("metrics").evaluate  # type: ignore[no-any-return]

    def kinds(self) -> list[Kind]:
        """Import what its verdicts can say; a benchmark without such a module says nothing of its own."""
        return kinds_of(self._module("kinds")) if find_spec(f"{self.package}.kinds") is not None else []

    def menu(self) -> Menu:
        """Import what people are told and asked about it."""
        menu: Menu = self._module("menu").MENU
        menu.check(self.params)
        return menu

    def report(self) -> object | None:
        """Import what the report says of it (an `analysis.report.BenchmarkReport`); None where that is nothing."""
        return self._module("report").REPORT if find_spec(f"{self.package}.report") else None

    def _module(self, name: str) -> ModuleType:
        return import_module(f"{self.package}.{name}")
