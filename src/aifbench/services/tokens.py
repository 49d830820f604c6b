"""Tokens: 256 random bits in a file that only its owner can read, one file for each scope."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from aifbench.campaign.errors import ConfigError
from aifbench.services.settings import private_folder

GRANTS = {
    "launch": frozenset({"read", "launch", "ingest"}),
    "read": frozenset({"read"}),
    "ingest": frozenset({"ingest"}),
}
"""What the bearer of each token may do. `launch` is the user's own; the others are for Prometheus and for jobs."""
SCOPES = frozenset(GRANTS)


class Tokens:
    """The tokens of one user, read from `<state>/token-<scope>` and made there when missing."""

    def __init__(self, state: Path) -> None:
        private_folder(state)
        self.files = {scope: state / f"token-{scope}" for scope in GRANTS}
        self._known = {scope: _read_or_make(file) for scope, file in self.files.items()}

    def __getitem__(self, scope: str) -> str:
        return self._known[scope].decode()

    def scopes(self, token: bytes) -> frozenset[str]:
        """Return what the bearer may do; nothing for an unknown token. Takes the same time for any token."""
        found: frozenset[str] = frozenset()
        for scope, known in self._known.items():
            if hmac.compare_digest(token, known):
                found |= GRANTS[scope]
        return found


def _read_or_make(file: Path) -> bytes:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(file)
    token = secrets.token_urlsafe(32).encode()
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(token + b"\n")
        os.fsync(descriptor)
    return token


def _read(file: Path) -> bytes:
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(str(file), None, "others can read or replace this token; delete the file, a new one is made")
    token = file.read_bytes().strip()
    if len(token) < 43:  # 256 bits in base64
        raise ConfigError(str(file), None, "is too short for a token; delete the file, a new one is made")
    return token
