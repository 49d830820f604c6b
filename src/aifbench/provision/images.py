"""Container images: one file each, made once, with a record of where it came from beside it.

Order: the file is there already (a site's own, or an earlier run's) -> pulled by digest -> built from its definition.
`containers/images.lock.yaml` holds source and digest of each image; `<name>.sif.json` beside an image what it is.
Both are those of the working folder, where it has them, else those that the package brings.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import yaml

import aifbench
from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.files.written import atomic_write
from aifbench.processes.containers import sif_sha256
from aifbench.provision.project import BROUGHT

SOURCES = Path(aifbench.__file__).resolve().parents[2]
"""The checkout, where the package is used from one."""
_DEFINITIONS = "containers"
_LOCK = "images.lock.yaml"


class ImageError(Exception):
    """An image could not be made; the message is one line."""


def known_images() -> dict[str, dict[str, Any]]:
    """Return source and digest of each image that the project knows, by name."""
    return dict(yaml.safe_load((_definitions() / _LOCK).read_text(encoding="utf-8")))


def _definitions() -> Path:
    own = Path(_DEFINITIONS).absolute()
    return own if (own / _LOCK).is_file() else BROUGHT / _DEFINITIONS


def make_image(name: str, system: System, out: Path) -> dict[str, Any]:
    """Make `out` unless it is there; return its record. Of two makers one waits. Raises `ImageError`, `ConfigError`."""
    images = known_images()
    if name not in images:
        raise ConfigError("image", name, "no such image", kind="unknown_name", choices=images)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(out):
        origin = "given"
        if not out.exists():
            origin = _make(name, images[name], system, out)
        return _record(out, name, images[name], origin)


def _make(name: str, entry: dict[str, Any], system: System, out: Path) -> str:
    """Pull or build into a file aside and move it into place; return which of the two it was."""
    apptainer = system.apptainer.command
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out.parent.absolute()) as folder:
        aside = Path(folder) / out.name
        if entry.get("digest"):
            source = f"{str(entry['source']).rpartition(':')[0]}@{entry['digest']}"
            _run([apptainer, "pull", str(aside), source])
            origin = "pulled"
        else:
            definition = _definitions() / f"{name}.def"
            if "%files" in definition.read_text(encoding="utf-8") and not (SOURCES / "pyproject.toml").is_file():
                raise ImageError(
                    "is built from the sources: make it in a checkout, or give it a source and a digest "
                    f"in {_DEFINITIONS}/{_LOCK}"
                )
            _run([apptainer, "build", str(aside), str(definition)])
            origin = "built"
        aside.replace(out)
    return origin


def _run(argv: list[str]) -> None:
    """Run a command in the root of the sources, which definitions copy from; its output goes to standard error."""
    try:
        code = subprocess.run(argv, cwd=SOURCES, stdout=sys.stderr, check=False).returncode
    except FileNotFoundError:
        raise ImageError(f"{argv[0]}: no such program: load its module (`modules` of the system)") from None
    if code:
        raise ImageError(f"`{' '.join(argv[:2])}` ended with exit code {code}; what it said stands above")


def _record(out: Path, name: str, entry: dict[str, Any], origin: str) -> dict[str, Any]:
    beside = out.with_name(f"{out.name}.json")
    stat = out.stat()
    try:
        known: dict[str, Any] = orjson.loads(beside.read_bytes())
        if (known["bytes"], known["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return known
    except (OSError, ValueError, KeyError):
        pass
    record = {
        "image": name,
        "origin": origin,
        "source": entry.get("source") if origin == "pulled" else None,
        "digest": entry.get("digest") if origin == "pulled" else None,
        "sif_sha256": sif_sha256(out),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "aifbench": aifbench.__version__,
    }
    atomic_write(beside, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    return record


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Hold the lock beside `out`: who comes second waits and finds the image."""
    descriptor = os.open(out.with_name(f".{out.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
