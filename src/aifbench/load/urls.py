"""Base URLs: the one parser. It refuses what would be dropped in silence or be understood in two ways. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote

PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRETS = re.compile(r"^([A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
"""A user and a password, also where they hold what ends a host."""
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_USER = "a user or a key does not belong into a file: name a variable in api_key_env or headers"
_KEPT = "/%:@!$&'()*+,;=~-._"
"""Of a path; all else is percent-encoded, as curl does it."""


class UrlError(ValueError):
    """A text is no base URL; `shown` is that text for a message, without what may be a secret."""

    def __init__(self, problem: str, url: str) -> None:
        super().__init__(problem)
        self.shown = shown(url)


@dataclass(frozen=True)
class Address:
    """The parts of a base URL; the path is percent-encoded and has no slash at its end."""

    tls: bool
    host: str
    port: int
    path: str


def shown(url: str) -> str:
    """Return a URL for a message: a user, a query and a fragment may hold secrets."""
    rest = _SECRETS.sub(r"\1***@", url)
    end = min((place for mark in "?#" if (place := rest.find(mark)) >= 0), default=None)
    return rest if end is None else f"{rest[: end + 1]}***"


def parse(url: str) -> Address:
    """Return the parts of a base URL such as `http://host:8000/v1`. Raises `UrlError`."""
    if any(character.isspace() or not character.isprintable() for character in url):
        raise UrlError("a URL has no white space and no control characters in it", url)
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise UrlError("needs http:// or https:// at its front", url)
    kind, rest = scheme[1].lower(), url[scheme.end() :]
    if kind not in PORTS:
        raise UrlError(f"needs http:// or https:// at its front, not {kind}://", url)
    for mark, problem in (("\\", "a URL has no backslash in it"), ("#", "a server is never sent what follows a `#`")):
        if mark in rest:
            raise UrlError(problem, url)
    rest, asked, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in authority:
        raise UrlError(_USER, url)
    if asked:
        names = ", ".join(f"{name[:40]}: …" for name, given, _ in _pairs(query) if given) or "name: value"
        raise UrlError(f"what follows the `?` goes into the engine's `query: {{{names}}}`", url)
    try:
        host, given = _host_and_port(authority, url)
        port = _number(given, kind, url)
    except UrlError:
        if "@" in rest:  # what looks like a port may be a part of a password
            raise UrlError(_USER, url) from None
        raise
    return Address(kind == "https", host, port, quote(f"/{path}".rstrip("/"), safe=_KEPT))


def _pairs(query: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in query.split("&")[:4]]


def _host_and_port(authority: str, url: str) -> tuple[str, str]:
    if authority.startswith("["):
        inside = _IN_BRACKETS.fullmatch(authority)
        try:
            host = str(IPv6Address(inside[1].replace("%25", "%", 1))) if inside else ""
        except ValueError:
            host = ""
        if inside is None or not host:
            raise UrlError("what stands in brackets is no IPv6 address", url)
        return host, inside[2] or ""
    host, _, port = authority.partition(":")
    if ":" in port:
        raise UrlError("an IPv6 address stands in brackets, such as http://[::1]:8000", url)
    if not host:
        raise UrlError("names no host", url)
    if not host.isascii():
        raise UrlError("the name of a host is ASCII: give the form of it that begins with xn--", url)
    if not _HOST.fullmatch(host):
        raise UrlError(f"{host[:60]!r} is no name of a host", url)
    return host.lower(), port


def _number(port: str, kind: str, url: str) -> int:
    if not port:
        return PORTS[kind]
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise UrlError(f"port {port[:20]!r} is no number from 1 to 65535", url)
    return int(port)
