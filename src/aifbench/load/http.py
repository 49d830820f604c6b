"""HTTP/1.1 by hand: bytes of a request, and framing of a response that survives any split (RFC 9112). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from aifbench.load.urls import parse

MAX_HEAD = 64 * 1024
"""Longest head or chunk-size line in bytes; a longer one is an error, not a reason to buffer without end."""
_VERSION = b"HTTP/1."
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
_LENGTH = re.compile(r"[0-9]{1,18}")


class FramingError(ValueError):
    """The bytes are no HTTP/1.1 response."""

    body = b""
    """What the bytes held of the body before that showed."""


@dataclass(frozen=True)
class Target:
    """Where requests go: one host, one port, one path in front of the engine's own paths, and what each has with it."""

    host: str
    port: int
    tls: bool
    path: str
    query: str = field(default="", repr=False)
    """Percent-encoded; added to every path."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: Path | None = None
    """Certificates of the authorities that vouch for the server; None: those of the system."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values of query and headers that no message may repeat."""

    @classmethod
    def of(cls, url: str) -> Target:
        """Return the target of a base URL. Raises `urls.UrlError`."""
        address = parse(url)
        return cls(address.host, address.port, address.tls, address.path)

    @property
    def root(self) -> Target:
        """The same server without the path."""
        return replace(self, path="")

    @property
    def name(self) -> str:
        """The host as the server knows it: a zone of an IPv6 address is this machine's own."""
        return self.host.partition("%")[0]

    def full(self, path: str) -> str:
        """Return a path of the engine as it is asked for."""
        return f"{self.path}{path}?{self.query}" if self.query else self.path + path

    def fields(self, body: bytes | None) -> list[tuple[str, str]]:
        """Return the header fields of a request; the target's own stand instead of ours."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        ours = {
            "Host": name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}",
            "User-Agent": "aifbench",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if body is not None:
            ours |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given = {key.lower() for key, _ in self.headers}
        return [*((key, value) for key, value in ours.items() if key.lower() not in given), *self.headers]

    def request(self, path: str, body: bytes | None = None) -> bytes:
        """Return a whole request. `path` is added to the target's own; a body makes it a POST of JSON."""
        lines = [f"{'GET' if body is None else 'POST'} {self.full(path)} HTTP/1.1"]
        for key, value in self.fields(body):
            if "\r" in value or "\n" in value:
                raise ValueError(f"header {key} contains a line end")
            lines.append(f"{key}: {value}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class Response:
    """Incremental framing of one response: status, headers, body and its end.

    Give it bytes as they come; where they are split changes nothing. Interim (1xx) responses are passed over.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reusable = False
        """Whether the connection may carry another request once the response is complete."""
        self.broken: str | None = None
        """Why the bytes are no response, once `feed` has said so."""
        self._buffer = bytearray()
        self._state = self._head
        self._left = 0
        self._head_bytes = 0
        self._keep_alive = True

    @property
    def coding(self) -> str | None:
        """The header that says how the body is packed, such as `Content-Encoding: gzip`; None: it comes as it is."""
        for name in ("Content-Encoding", "Transfer-Encoding"):
            coding = self.headers.get(name.lower(), "")
            if any(part.strip().lower() not in {"", "identity", "chunked"} for part in coding.split(",")):
                return f"{name}: {coding}"
        return None

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return those of the body among them, decoded. Raises `FramingError`."""
        if self._state == self._chunk_size and not self._buffer:
            # One whole chunk per read is what servers send while they stream.
            end = data.find(b"\r\n", 0, 10)
            if end > 0 and data.endswith(b"\r\n") and _HEX.fullmatch(data, 0, end):
                size = int(data[:end], 16)
                if size and size == len(data) - end - 4:
                    return data[end + 2 : -2]
        self._buffer += data
        body: list[bytes] = []
        try:
            while not self.complete and self._state(body):
                pass
        except FramingError as error:
            self.broken, error.body = str(error), b"".join(body)
            raise
        if self.complete and self._buffer:
            self.reusable = False
        return body[0] if len(body) == 1 else b"".join(body)

    def end(self) -> None:
        """Say that the peer closed: that completes a body which has no other end, and only that."""
        self.complete = self.complete or self._state == self._until_close
        self.reusable = False

    def _finish(self) -> bool:
        self.complete, self.reusable = True, self._keep_alive
        return False

    def _take_line(self, what: str) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise FramingError(f"{what} without an end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r")

    def _head(self, body: list[bytes]) -> bool:
        start = bytes(self._buffer[: len(_VERSION)]).lstrip(b"\r\n")
        if not _VERSION.startswith(start):
            raise FramingError(f"not an HTTP/1.1 status line: {bytes(self._buffer[:60])!r}")
        line = self._take_line("a status line")
        if line is None:
            return False
        if not line:
            return True
        parts = line.split(b" ", 2)
        if not parts[0].startswith(_VERSION) or len(parts) < 2 or not parts[1].isdigit() or len(parts[1]) != 3:
            raise FramingError(f"not an HTTP/1.1 status line: {line[:60]!r}")
        self.status, self.headers = int(parts[1]), {}
        self._keep_alive = parts[0] != b"HTTP/1.0"
        self._state = self._header
        return True

    def _header(self, body: list[bytes]) -> bool:
        line = self._take_line("a header")
        if line is None:
            return False
        self._head_bytes += len(line)
        if self._head_bytes > MAX_HEAD:
            raise FramingError("a head without an end")
        if line:
            name, colon, value = line.partition(b":")
            if not colon:
                raise FramingError(f"not a header: {line[:60]!r}")
            key, text = name.decode("latin-1").lower(), value.strip().decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
            return True
        return self._choose_framing()

    def _choose_framing(self) -> bool:
        assert self.status is not None
        if 100 <= self.status < 200:
            self._state = self._head
            return True
        connection = self.headers.get("connection", "").lower()
        self._keep_alive = "close" not in connection and (self._keep_alive or "keep-alive" in connection)
        if self.status in {204, 304}:
            return self._finish()
        if self.headers.get("transfer-encoding", "").lower().endswith("chunked"):
            self._state = self._chunk_size
            return True
        length = self.headers.get("content-length")
        if length is None:
            self._state = self._until_close
            return True
        lengths = {part.strip() for part in length.split(",")}  # equal ones are one (RFC 9110, 8.6)
        if len(lengths) > 1 or not _LENGTH.fullmatch(min(lengths)):
            raise FramingError(f"not a length: {length[:60]!r}")
        self._left = int(min(lengths))
        self._state = self._body
        return self._finish() if self._left == 0 else True

    def _body(self, body: list[bytes]) -> bool:
        return self._finish() if self._take(body) else False

    def _take(self, body: list[bytes]) -> bool:
        """Move up to `_left` bytes to the body; return whether nothing is left to come."""
        part = bytes(self._buffer[: self._left])
        if part:
            body.append(part)
            del self._buffer[: len(part)]
            self._left -= len(part)
        return self._left == 0

    def _until_close(self, body: list[bytes]) -> bool:
        if self._buffer:
            body.append(bytes(self._buffer))
            self._buffer.clear()
        return False

    def _chunk_size(self, body: list[bytes]) -> bool:
        line = self._take_line("a chunk's size")
        if line is None:
            return False
        digits = line.partition(b";")[0].strip()
        if not _HEX.fullmatch(digits):
            raise FramingError(f"not the size of a chunk: {line[:60]!r}")
        self._left = int(digits, 16)
        self._state = self._chunk_data if self._left else self._trailer
        return True

    def _chunk_data(self, body: list[bytes]) -> bool:
        if not self._take(body):
            return False
        self._state = self._chunk_end
        return True

    def _chunk_end(self, body: list[bytes]) -> bool:
        line = self._take_line("the end of a chunk")
        if line is None:
            return False
        if line:
            raise FramingError(f"a chunk is longer than its size: {line[:60]!r}")
        self._state = self._chunk_size
        return True

    def _trailer(self, body: list[bytes]) -> bool:
        line = self._take_line("a trailer")
        if line is None:
            return False
        return True if line else self._finish()


def body_pieces(pieces: Iterable[tuple[int, bytes]]) -> tuple[Response, list[tuple[int, bytes]]]:
    """Return the response and its body as (stamp, bytes), from the (stamp, bytes) of the wire.

    Bytes of the body keep the stamp of the read that they came in. Where the bytes stop being a response the body ends,
    and `Response.broken` says why.
    """
    response = Response()
    body = []
    for stamp, data in pieces:
        try:
            part = response.feed(data)
        except FramingError as error:
            part = error.body
        if part:
            body.append((stamp, part))
        if response.broken is not None:
            break
    return response, body
