"""What only this machine can tell about a storage case: a writable folder, space, direct I/O."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.core.units import format_size
from aifbench.machine.filesystem import free_bytes, mount_of
from aifbench.storage.direct import direct_problem
from aifbench.storage.params import StorageParams


def check(params: StorageParams, system: System) -> Iterator[ConfigError]:
    """Yield what stops the case on this machine. Makes a temporary file without a name, and nothing else."""
    target = system.paths.target if params.path is None else Path(params.path)
    key = "paths.target" if params.path is None else "path"
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it is made, or its parent is told
    except OSError as error:  # such as a name that is too long
        yield ConfigError(
            key, str(target), f"cannot be reached: {error.strerror}", "a folder that can be made", kind="not_here"
        )
        return
    parent = nearest_folder(target)
    if not parent.is_dir():
        name = "" if parent == target else f"{parent} "
        yield ConfigError(
            key, str(target), f"{name}is a file", "a folder, which is made if it is missing", kind="not_here"
        )
        return
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        yield ConfigError(
            key, str(target), f"cannot write in {parent}: {error.strerror}", "a writable folder", kind="not_here"
        )
        return
    free, fraction = free_bytes(parent), system.limits.space_fraction
    if free is not None and params.total_bytes > fraction * free:
        problem = (
            f"the case writes {_rounded(params.total_bytes)}, more than {fraction:.0%} of the free {_rounded(free)}"
        )
        allowed = f"at most {_rounded(int(fraction * free))} over all clients, or another limits.space_fraction"
        yield ConfigError("file_size", format_size(params.file_size), problem, allowed, kind="not_here")
    if params.mode == "direct":
        problem_of_direct = direct_problem(parent)
        if problem_of_direct:
            kind = mount_of(parent)["type"]
            problem = f"{kind} on {parent} refuses direct I/O: {problem_of_direct}"
            yield ConfigError("mode", params.mode, problem, kind="not_here", choices=["buffered-cold", "warm"])


def nearest_folder(path: Path) -> Path:
    """Return `path`, or its nearest parent that exists."""
    current = path.absolute()
    while not current.exists() and current != current.parent:
        current = current.parent
    return path if current == path.absolute() else current


def _rounded(size: int) -> str:
    """Return a size with three digits, such as `1.46 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.3g} {unit}"
