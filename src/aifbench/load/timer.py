"""A kernel timer (timerfd) that wakes a selector at a time of CLOCK_MONOTONIC: epoll itself rounds up to whole ms."""

from __future__ import annotations

import ctypes
import os
import struct

_CLOCK_MONOTONIC = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1
_ITIMERSPEC = struct.Struct("@llll")  # interval s, ns; value s, ns


class Timer:
    """Becomes readable at the time that it is set to; `fileno` is for a selector. Raises OSError where it cannot be."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set_to = 0
        self._spec = ctypes.create_string_buffer(_ITIMERSPEC.size)

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._descriptor)

    def set(self, at_ns: int) -> None:
        """Become readable at `at_ns`, at once if that is past. Setting it again replaces the time."""
        if at_ns == self._set_to:
            return
        self._set_to = at_ns
        seconds, nanoseconds = divmod(max(1, at_ns), 1_000_000_000)
        _ITIMERSPEC.pack_into(self._spec, 0, 0, 0, seconds, nanoseconds)
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, self._spec, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Be no longer readable, until it is set again."""
        self._set_to = 0
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)
