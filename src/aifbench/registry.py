"""The benchmarks, by name: those of this package, and those of other packages that are installed beside it.

Another package offers one as an entry point of the group `aifbench.benchmarks`: its name is the benchmark's, its object
the `Benchmark`. One that cannot be used is left out and told in a line; it never costs the others.

The kinds of notes that can be made of numbers, by any room, are found here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from aifbench.checks import kinds as checks
from aifbench.core import notes
from aifbench.core.benchmark import Benchmark
from aifbench.core.errors import ConfigError
from aifbench.core.params import Params
from aifbench.stats import kinds as stats

GROUP = "aifbench.benchmarks"
NAME = re.compile(r"[a-z][a-z0-9]*")
"""A name begins the ids of batches and stands in paths, rules and metrics."""


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Return all benchmarks by name, those of this package first."""
    return MappingProxyType({**_own(), **_offered()[0]})


def benchmark(name: str) -> Benchmark:
    """Return the benchmark of this name. Raises `ConfigError`, which tells why one of another package is left out."""
    known = benchmarks()
    if name not in known:
        raise ConfigError(
            "benchmark", name, left_out().get(name, "no such benchmark here"), kind="unknown_name", choices=known
        )
    return known[name]


@cache
def left_out() -> Mapping[str, str]:
    """Return why a benchmark that a package offers is left out, in a line, by the benchmark's name."""
    return MappingProxyType(_offered()[1])


def kinds_by_room() -> dict[str, list[notes.Kind]]:
    """Return the kinds of notes by the room that has them; `any benchmark` are those of no single one."""
    house = [kind for module in (checks, stats, notes) for kind in notes.kinds_of(module)]
    return {"any benchmark": house, **{name: entry.kinds() for name, entry in benchmarks().items()}}


@cache
def kinds() -> Mapping[str, notes.Kind]:
    """Return the kinds of notes by their names; no other package can give a name of ours another meaning."""
    found: dict[str, notes.Kind] = {}
    for room in kinds_by_room().values():
        for kind in room:
            found.setdefault(kind.name, kind)
    return MappingProxyType(found)


def sentence(note: notes.Note) -> str:
    """Return a note as a sentence."""
    return notes.sentence(note, kinds())


def _own() -> dict[str, Benchmark]:
    """A new one adds its folder, its rule file and one line here."""
    from aifbench.inference.params import InferenceParams
    from aifbench.retrieval.params import RetrievalParams
    from aifbench.storage.params import StorageParams

    entries = (
        Benchmark("retrieval", RetrievalParams, ("execution_time_s",)),
        Benchmark("inference", InferenceParams, ("time_to_first_token_s", "tokens_generated_per_second"), True),
        Benchmark("storage", StorageParams, ("write_time_s", "read_time_s")),
    )
    return {entry.name: entry for entry in entries}


@cache
def _offered() -> tuple[dict[str, Benchmark], dict[str, str]]:
    """Return the benchmarks of other packages, and why some are left out."""
    found: dict[str, Benchmark] = {}
    problems: dict[str, str] = {}
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        by_name.setdefault(entry.name, []).append(entry)
    own = _own()
    for name, entries in sorted(by_name.items()):
        packages = " and ".join(sorted(_package(entry) for entry in entries))
        try:
            if name in own:
                raise ValueError("aifbench has a benchmark of this name")
            if len(entries) > 1:
                raise ValueError("two packages cannot give one name")
            offered = _checked(name, entries[0].load())
            found[name] = replace(offered, distribution=entries[0].dist.name if entries[0].dist else "")
        except Exception as error:  # whatever another package does: it is not ours to fall with it
            reason = next(iter(str(error).splitlines()), "")
            why = reason if type(error) is ValueError else f"{type(error).__name__}: {reason}"
            problems[name] = f"benchmark '{name}' of {packages} is left out: {why}"
    return found, problems


def _checked(name: str, offered: object) -> Benchmark:
    """Return what a package offers if it is a whole benchmark. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError("its name needs lower-case letters and digits, a letter first")
    if not isinstance(offered, Benchmark):
        raise ValueError(f"its entry point leads to {type(offered).__name__}, not to a Benchmark")
    if offered.name != name:
        raise ValueError(f"it calls itself '{offered.name}'")
    if not (isinstance(offered.params, type) and issubclass(offered.params, Params)):
        raise ValueError("its params are no subclass of Params")
    if not offered.package:
        raise ValueError("its params stand in no package")
    if offered.rules is None or not offered.rules.is_file():
        raise ValueError(f"its rule file is not there: {offered.rules}")
    offered.menu()
    offered.kinds()
    return offered


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
