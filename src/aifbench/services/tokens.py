"""Tokens: 256 random bits in a file that only its owner can read, one file for each scope.

A program sends its token. The page never does: it signs each request with it, and the answer is signed in turn. So a
page notices when something else answers at its address, and what it has sent there is of no use to that one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aifbench.core.errors import ConfigError
from aifbench.files.written import write_beneath
from aifbench.services.settings import private_folder

GRANTS = {
    "launch": frozenset({"read", "launch", "ingest"}),
    "read": frozenset({"read"}),
    "ingest": frozenset({"ingest"}),
}
"""What the bearer of each token may do. `launch` is the user's own; the others are for Prometheus and for jobs."""
SCOPES = frozenset(GRANTS)
CODE_S = 60.0
"""Seconds for which a code that opens the page is good."""


@dataclass(frozen=True)
class Signature:
    """What stands in a request instead of a token: `nonce=…, body=…, mac=…`, in lower-case hex."""

    nonce: str
    body: str
    mac: str

    @classmethod
    def parse(cls, text: str) -> Signature | None:
        """Return the signature that a text is, or None."""
        found = _SIGNATURE.match(text)
        return cls(*found.groups()) if found else None

    def is_by(self, key: bytes, method: str, target: str) -> bool:
        """Return whether the bearer of a key has signed this request."""
        return hmac.compare_digest(self.mac, sign(key, "ask", self.nonce, method, target, self.body))


_SIGNATURE = re.compile(r"nonce=([0-9a-f]{32}), body=([0-9a-f]{64}), mac=([0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Caller:
    """Who asks: what it may do and, where it has signed, how and with which key."""

    scopes: frozenset[str] = frozenset()
    key: bytes = b""
    signature: Signature | None = None

    def has_sent(self, body: bytes) -> bool:
        """Return whether this body is the one that was signed."""
        return self.signature is None or hashlib.sha256(body).hexdigest() == self.signature.body

    @property
    def proof(self) -> str | None:
        """What tells the one who signed that its key is known here."""
        return sign(self.key, "answer", self.signature.nonce) if self.signature else None


def sign(key: bytes, *words: str) -> str:
    """Return the HMAC-SHA256 of some words, none of which has a line break."""
    return hmac.new(key, "\n".join(words).encode(), hashlib.sha256).hexdigest()


class Tokens:
    """The tokens of one user, read from `<folder>/token-<scope>` and made there when missing."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        private_folder(folder)
        self._folder, self._clock = folder, clock
        self._code, self._code_until = b"", 0.0
        self.files = {scope: folder / f"token-{scope}" for scope in GRANTS}
        self._known = {scope: _read_or_make(file) for scope, file in self.files.items()}

    @classmethod
    def fresh(cls, folder: Path) -> Tokens:
        """Return new tokens, which die with this process: those of a former one at the same place are of no use."""
        private_folder(folder)
        _remove(folder)
        return cls(folder)

    def forget(self) -> None:
        """Remove the files of fresh tokens."""
        _remove(self._folder)
        with contextlib.suppress(OSError):  # something of the user's is in it
            self._folder.rmdir()

    def __getitem__(self, scope: str) -> str:
        return self._known[scope].decode()

    def scopes(self, token: bytes) -> frozenset[str]:
        """Return what the bearer may do; nothing for an unknown token. Takes the same time for any token."""
        found: frozenset[str] = frozenset()
        for scope, known in self._known.items():
            if hmac.compare_digest(token, known):
                found |= GRANTS[scope]
        return found

    def caller(self, signature: Signature, method: str, target: str) -> Caller:
        """Return who has signed a request: the bearer of a token, or nobody."""
        for scope, known in self._known.items():
            if signature.is_by(known, method, target):
                return Caller(GRANTS[scope], known, signature)
        return Caller()

    def new_code(self) -> str:
        """Return a code that is good once, within a minute, instead of the token to launch."""
        self._code, self._code_until = secrets.token_urlsafe(32).encode(), self._clock() + CODE_S
        return self._code.decode()

    def redeem(self, signature: Signature, method: str, target: str) -> Caller:
        """Return who has signed a request with the code, which is used up by that, or nobody."""
        code = self._code
        if not code or self._clock() > self._code_until or not signature.is_by(code, method, target):
            return Caller()
        self._code = b""
        return Caller(GRANTS["launch"], code, signature)


def _remove(folder: Path) -> None:
    for file in (folder / f"token-{scope}" for scope in GRANTS):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(str(file), None, f"cannot be removed: {error.strerror}") from None


def _read_or_make(file: Path) -> bytes:
    token = secrets.token_urlsafe(32).encode()
    try:
        write_beneath(file.parent, file.name, data=token + b"\n", new=True, mode=0o600)
    except FileExistsError:
        return _read(file)
    return token


def _read(file: Path) -> bytes:
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(str(file), None, "others can read or replace this token; delete the file, a new one is made")
    token = file.read_bytes().strip()
    if len(token) < 43:  # 256 bits in base64
        raise ConfigError(str(file), None, "is too short for a token; delete the file, a new one is made")
    return token
