"""Commands of a batch inside their containers: nothing of the host but the folders that the batch needs.

Images are `<paths.images>/<name>.sif`. Beside each may stand `<name>.sif.json` (see `provision.images`), which
holds its digest, so that a batch need not read gigabytes to name it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.benchmark import Command
from aifbench.core.errors import ConfigError
from aifbench.core.system import System

PYTHON = "/opt/aifbench/bin/python"
"""Interpreter of the image `aifbench`."""
_PASSED = "APPTAINERENV_"
"""Variables with this prefix reach the inside: never by the command line, where every user could read them."""


class Containers:
    """Wraps the commands of one batch. `folder` is the batch's; `secrets` are names of variables to hand through."""

    def __init__(self, system: System, folder: Path, binds: Iterable[Path], secrets: Iterable[str] = ()) -> None:
        self._system = system
        self._folder = folder.absolute()
        self._binds = [path.absolute() for path in binds]
        self._secrets = [name for name in secrets if name in os.environ]

    @property
    def used(self) -> bool:
        """Whether there are containers at all."""
        return self._system.container == "apptainer"

    def image(self, name: str) -> Path:
        """Return the file of an image."""
        return (self._system.paths.images / f"{name}.sif").absolute()

    def wrap(self, command: Command, role: str) -> tuple[list[str], dict[str, str]]:
        """Return the argument list and the variables to add that run `command` as `role` in its container."""
        argv = list(command.argv)
        if not self.used:
            return [sys.executable if argv[0] == "python" else argv[0], *argv[1:]], dict(command.environment)
        if argv[0] == "python":
            argv[0] = PYTHON
        scratch = self._folder / "work" / f"container-{role}"
        scratch.mkdir(parents=True, exist_ok=True)
        apptainer = self._system.apptainer
        folders = dict.fromkeys([self._folder, *self._binds, *(path.absolute() for path in command.reads)])
        options = [
            "--containall",
            "--no-eval",  # else a shell inside runs what stands in the values of variables
            "--workdir", str(scratch),  # its /tmp and home: on disk, not in 64 MiB of memory
            "--pwd", str(Path.cwd()) if Path.cwd() in folders else "/",
            *(["--nv"] if command.gpus else []),
            *apptainer.options,
            *(part for path in [*folders, *apptainer.binds] for part in ("--mount", _mount(path))),
        ]  # fmt: skip
        inside = dict(command.environment) | {name: os.environ[name] for name in self._secrets}
        environment = {f"{_PASSED}{name}": value for name, value in inside.items() if name != "HOME"}
        return [apptainer.command, "exec", *options, str(self.image(command.image)), *argv], environment

    def check(self, names: Iterable[str]) -> Iterator[ConfigError]:
        """Yield what is missing: the program, an image."""
        if not self.used:
            return
        if shutil.which(self._system.apptainer.command) is None:
            problem = "no such program: load its module (`modules` of the system)"
            yield ConfigError("apptainer.command", self._system.apptainer.command, problem, kind="not_here")
        for path in self._system.apptainer.binds:
            if not path.exists():
                yield ConfigError("apptainer.binds", str(path), "no such file or folder", kind="not_here")
        for name in names:
            if not self.image(name).is_file():
                problem = f"no such image; `aifbench image {name}` makes it, or put the file there"
                yield ConfigError("paths.images", str(self.image(name)), problem, kind="not_here")

    def digests(self, names: Iterable[str]) -> dict[str, str] | None:
        """Return the SHA-256 of each image by name, None without containers."""
        return {name: sif_sha256(self.image(name)) for name in names} if self.used else None


def _mount(path: Path) -> str:
    """Return the mount of a path at the same place. It is CSV, which takes what `--bind` cuts at: `:` and `,`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["type=bind", f"source={path}", f"destination={path}"])
    return text.getvalue()


def sif_sha256(path: Path) -> str:
    """Return the SHA-256 of an image: from the file beside it where size and time agree, else from its bytes."""
    stat = path.stat()
    try:
        known: dict[str, Any] = orjson.loads(path.with_name(f"{path.name}.json").read_bytes())
        if (known["bytes"], known["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return str(known["sif_sha256"])
    except (OSError, ValueError, KeyError):
        pass
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
