"""The errors that end a command with one line instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from aifbench.core.errors import ConfigError, full_disk
from aifbench.files.beneath import Unreadable


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """End the process with one line: exit code 2 for what is configured or named wrongly, 1 for a full disk."""
    code = 2
    try:
        yield
        return
    except ConfigError as error:
        told = str(error)
    except Unreadable as error:
        told = f"{error.filename} {error.problem}"
    except FileNotFoundError as error:
        told = f"{error.filename}: no such file or folder"
    except OSError as error:
        full = full_disk(error)
        told, code = (
            (full, 1) if full else (f"{error.filename2 or error.filename or 'input/output'}: {error.strerror}", 2)
        )
    print(f"aifbench: {told}", file=sys.stderr, flush=True)
    sys.exit(code)
