"""Put a model into Ollama's folder before any batch needs it: pulled from the hub, or imported from a local file.

A short-lived server of our own does it, in the same container that will serve the model. A batch never downloads.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.benchmark import Place
from aifbench.core.errors import ConfigError
from aifbench.core.system import System
from aifbench.engines.llamacpp import model_path
from aifbench.engines.ollama import command, manifest
from aifbench.engines.settings import Ollama
from aifbench.files.written import atomic_write
from aifbench.load.fetch import ask_json
from aifbench.load.http import Target
from aifbench.processes.containers import Containers
from aifbench.processes.process import Group, free_port

HOST = "127.0.0.1"
READY_S = 120.0


class ModelError(Exception):
    """The model could not be put there; the message is one line."""


def record_file(models: Path, model: str) -> Path:
    """Return the file that says what a model is and where it came from; it stands beside Ollama's own folders."""
    return models / f"{re.sub(r'[^A-Za-z0-9._-]', '-', model)}.json"


def put_model(settings: Ollama, system: System, say: Callable[[str], None]) -> dict[str, Any]:
    """Pull `settings.model`, or import `settings.gguf` under that name; return the record that is written."""
    models = system.paths.models.absolute()
    models.mkdir(parents=True, exist_ok=True)
    file = _local_file(settings)
    with tempfile.TemporaryDirectory(prefix=".server-", dir=models) as name:
        folder = Path(name)
        place = Place(HOST, free_port(HOST), system, folder)
        containers = Containers(system, folder, [models])
        for error in containers.check(["ollama"]):
            raise error
        started = command(settings.model_copy(update={"gpus": 0}), place)
        argv, environment = containers.wrap(started, "server")
        server = Group(argv, stderr=folder / "server.log", environment=environment)
        try:
            endpoint = f"http://{place.host}:{place.port}"
            _wait(server, endpoint, folder / "server.log")
            digest, size = _put(endpoint, settings.model, file, say)
        finally:
            server.stop()
    record = {
        "model": settings.model,
        "digest": digest,
        "bytes": size,
        "source": f"imported from {file.name}" if file else "pulled",
        "manifest": str(manifest(system.paths.models, settings.model).relative_to(system.paths.models)),
    }
    atomic_write(record_file(models, settings.model), orjson.dumps(record, option=orjson.OPT_INDENT_2))
    return record


def _local_file(settings: Ollama) -> Path | None:
    if settings.gguf is None:
        return None
    file = model_path(settings.gguf)
    if file is None:
        raise ConfigError(
            "engine.gguf", settings.gguf, "no such file, and no package of that name is installed", kind="not_here"
        )
    return file


def _put(endpoint: str, model: str, file: Path | None, say: Callable[[str], None]) -> tuple[str, int | None]:
    import httpx
    import ollama

    client = ollama.Client(host=endpoint, trust_env=False)
    try:
        if file is None:
            last = ""
            for step in client.pull(model, stream=True):
                share = f" {step.completed / step.total:.0%}" if step.total and step.completed else ""
                text = f"{step.status}{share}"
                if text != last:
                    say(text)
                last = text
        else:
            say(f"importing {file.name} as {model}")
            client.create(model, files={file.name: client.create_blob(file)})
        names = {model, f"{model}:latest"}
        found = next((entry for entry in client.list().models if entry.model in names), None)
    except (ollama.ResponseError, ConnectionError, OSError, httpx.HTTPError) as error:
        raise ModelError(f"model {model}: {' '.join(str(error).split())}") from None
    if found is None or found.digest is None:
        raise ModelError(f"model {model}: the server does not list it afterwards")
    return found.digest, int(found.size) if found.size else None


def _wait(server: Group, endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if not server.alive():
            lines = log.read_text(errors="replace").strip().splitlines()
            raise ModelError(f"the server ended at its start: {lines[-1] if lines else 'it said nothing'}")
        if ask_json(Target.of(endpoint), "/api/version") is not None:
            return
        time.sleep(0.1)
    raise ModelError(f"the server did not answer within {READY_S:g} s")
