"""The private folder of one repetition: nothing outside it is touched, and nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aifbench.processes.identity import alive, identity

PREFIX = "aifbench-storage-"
MARKER = "owner.json"
_OWN_FILE = re.compile(r"(data|warmup)-\d+\.bin|shared\.bin|owner\.json")


@contextmanager
def held_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait until the block is done, so that a clean-up is never cut short.

    A signal mask would not do: the kernel would hand the signal to another thread, of a linear algebra library say,
    and Python would still run its handler in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers never run here
        return
    came: list[int] = []
    held = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) is not None]
    before = {int(number): signal.signal(number, lambda number, frame: came.append(number)) for number in held}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def workspace(target: Path, owner: str, log: Callable[[int, str], None]) -> Iterator[Path]:
    """Yield a fresh folder under `target` that carries a marker of this process; remove it on every way out."""
    folder: Path | None = None
    try:
        with held_signals():
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target))
            (folder / MARKER).write_text(json.dumps({"owner": owner, **identity(os.getpid())}))
        yield folder
    finally:
        with held_signals():
            if folder is not None and not remove(folder):
                log(2, f"{folder} holds files of others and was left")


def data_file(folder: Path, client: int, shared: bool) -> Path:
    """Return the file that a client writes and reads."""
    return folder / ("shared.bin" if shared else f"data-{client}.bin")


def warmup_file(folder: Path, client: int) -> Path:
    """Return the file of a client's warm-up."""
    return folder / f"warmup-{client}.bin"


def remove(folder: Path) -> bool:
    """Remove our own files of a workspace and the folder; False if files of others keep it alive."""
    names = sorted(os.listdir(folder), key=lambda name: name == MARKER)  # the marker last: a cut removal is resumed
    foreign = [name for name in names if not _OWN_FILE.fullmatch(name)]
    for name in names:
        if name not in foreign and not (foreign and name == MARKER):
            (folder / name).unlink(missing_ok=True)
    if foreign:
        return False
    folder.rmdir()
    with suppress(OSError):  # commits the removal now, not during the next measurement; not all file systems can
        _sync(folder.parent)
    return True


def remove_leftovers(target: Path, owner: str) -> int:
    """Remove workspaces under `target` that a dead process of the same `owner` left on this host; return how many."""
    removed = 0
    for folder in target.glob(f"{PREFIX}*"):
        try:
            marker = json.loads((folder / MARKER).read_text())
            abandoned = marker["owner"] == owner and type(marker["pid"]) is int and alive(marker) is False
            removed += abandoned and remove(folder)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not ours, being made, or being removed
    return removed


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
