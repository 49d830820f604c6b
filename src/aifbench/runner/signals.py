"""TERM and INT as something that a batch looks at between its steps, and that wakes it while it waits."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Self


class Signals:
    """Notes TERM and INT instead of dying of them, from `with` on; `received` is the last one."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to those who had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when a signal comes, for `select`."""
        return self._read

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")
