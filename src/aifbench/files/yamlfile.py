"""YAML as users write it: read strictly, written so that every reader takes it as it was meant.

Plain values are those of YAML 1.2's core schema: decimal numbers, `true` and `false`, `null`; everything else is text.
What readers of YAML 1.1 take for something else (`010`, `1:30`, `1_000`, `yes`) is refused, because the user may mean
either; in quotes it is text. So are numbers that are not finite or beyond 64 bits, keys that are no text, keys that
stand twice, tags, and what could fill the memory. Keys at the top that begin with `x-` are left out: they hold anchors.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml import events

from aifbench.core.errors import ConfigError, Written
from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import read_regular

MOST_BYTES = 1 << 20
"""Bytes of one file."""
MOST_DEPTH = 50
"""Mappings and lists within each other."""
MOST_VALUES = 100_000
"""Values of one file, those of an alias counted again at each place."""
LARGEST = (1 << 63) - 1
UNREAD = "x-"
"""Beginning of the keys that nothing reads, at the top of a file."""

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF")
_TWO_WAYS = {
    "a number with a leading zero": re.compile(r"[-+]?0[0-9_]+"),
    "a number in another base": re.compile(r"[-+]?0b[01_]+|0o[0-7]+|[-+]0x[0-9a-fA-F_]+"),
    "a number with underscores": re.compile(
        r"(?=.*_)[-+]?(0x[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*)"
    ),
    "a number with colons": re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
}
_FOLDED = re.compile("[\r\x85\u2028\u2029\ufeff]")
_STR = "tag:yaml.org,2002:str"
_PLAIN_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def read_mapping(path: Path, most: int = MOST_BYTES, *, empty: bool = False) -> dict[str, Any]:
    """Return the mapping at the top of a YAML file, without its `x-` keys. Raises `ConfigError`.

    It may have `most` bytes. A file in which nothing stands is a mapping where it may be `empty`.
    """
    content = _read_file(path, most)
    if content is None and empty:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("the file", None, "needs a mapping at its top", where=str(path))
    return {key: value for key, value in content.items() if not key.startswith(UNREAD)}


def _read_file(path: Path, most: int) -> Any:
    """Return what stands in a YAML file, None when nothing does. Raises `ConfigError`."""
    try:
        text = read_regular(path, most).decode("utf-8")
    except Unreadable as error:
        raise ConfigError(str(path), None, error.problem) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), None, "cannot be read: not UTF-8") from None
    return read_text(text, where=str(path))


def read_text(text: str, *, where: str, key: str = "") -> Any:
    """Return the value that a text of YAML holds; errors name `where` and keys below `key`. Raises `ConfigError`."""
    return _Reader(text, where, key).document()


def dump(content: Any) -> str:
    """Return plain data as YAML that this module, and readers of YAML 1.1, take as it is."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def below(key: str, name: str) -> str:
    """Return the key of what stands under `name` in the mapping `key`."""
    return f"{key}.{name}" if key else name


@dataclass(frozen=True)
class _Node:
    """A value that was read, how many values it holds with itself, and how deep it is."""

    value: Any
    size: int
    height: int


class _Reader:
    """Makes plain data of one document, one event of the parser after the other."""

    def __init__(self, text: str, where: str, key: str) -> None:
        self._text, self._where, self._key = text, where, key
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, _Node | None] = {}
        self._size = 0

    def document(self) -> Any:
        """Return the document's value, None when there is none."""
        try:
            self._events = yaml.parse(self._text, Loader=yaml.SafeLoader)
            next(self._events)
            if isinstance(next(self._events), events.StreamEndEvent):
                return None
            value = self._node(next(self._events), self._key, 0).value
            next(self._events)
            after = next(self._events)
            if not isinstance(after, events.StreamEndEvent):
                self._fail(_line(after), "a second document begins here; one file holds one")
        except yaml.reader.ReaderError as error:
            problem = f"the character U+{error.character:04X} cannot stand here"
            self._fail(self._text.count("\n", 0, error.position) + 1, problem)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._fail(mark.line + 1 if mark else 1, str(error.problem))
        except ValueError:  # the parser's own: it has no error for it
            self._fail(1, "an escape beyond \\U0010FFFF stands in the file")
        return value

    def _fail(self, line: int, problem: str) -> NoReturn:
        """Raise the error of a text that is no YAML of ours."""
        raise ConfigError(self._key or f"line {line}", None, f"not valid YAML: {problem}", where=self._where)

    def _refuse(self, key: str, value: Any, problem: str, allowed: str = "") -> NoReturn:
        raise ConfigError(key or "the file", value, problem, allowed, self._where)

    def _node(self, event: Any, key: str, depth: int) -> _Node:
        """Return the value that begins with an event."""
        if depth > MOST_DEPTH:
            self._fail(_line(event), f"more than {MOST_DEPTH} levels deep")
        if isinstance(event, events.AliasEvent):
            return self._alias(event, key, depth)
        self._grow(1, key)
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, events.ScalarEvent):
            node = _Node(self._scalar(event, key), 1, 0)
        elif event.tag not in _PLAIN_TAGS:
            self._refuse(key, _tag(event), "a tag that is not read here", "values without a tag")
        elif isinstance(event, events.SequenceStartEvent):
            node = self._sequence(key, depth)
        else:
            node = self._mapping(key, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _grow(self, size: int, key: str) -> None:
        self._size += size
        if self._size > MOST_VALUES:
            self._refuse(key, None, f"more than {MOST_VALUES} values in the file, those of aliases included")

    def _alias(self, event: Any, key: str, depth: int) -> _Node:
        name = event.anchor
        if name not in self._anchors:
            self._refuse(key, Written(f"*{name}"), "no anchor of this name stands before it")
        node = self._anchors[name]
        if node is None:
            self._refuse(key, Written(f"*{name}"), "an alias within what it stands for")
        self._grow(node.size, key)
        if depth + node.height > MOST_DEPTH:
            self._refuse(key, Written(f"*{name}"), f"more than {MOST_DEPTH} levels deep")
        return _Node(copy.deepcopy(node.value), node.size, node.height)

    def _sequence(self, key: str, depth: int) -> _Node:
        nodes: list[_Node] = []
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            nodes.append(self._node(event, f"{key}[{len(nodes)}]", depth + 1))
        return _Node([node.value for node in nodes], *_extent(nodes))

    def _mapping(self, key: str, depth: int) -> _Node:
        nodes: list[_Node] = []
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: set[str] = set()
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            is_merge = isinstance(event, events.ScalarEvent) and event.value == "<<" and event.implicit[0]
            name = "<<" if is_merge else self._name(event, key, depth)
            mark = "<< (merge)" if is_merge else name
            if mark in seen:
                self._fail(_line(event), f"the key '{name}' stands twice")
            seen.add(mark)
            node = self._node(next(self._events), below(key, name), depth + 1)
            nodes.append(node)
            if is_merge:
                merged = self._merged(node.value, below(key, name))
            else:
                found[name] = node.value
        return _Node({**merged, **found}, *_extent(nodes))

    def _name(self, event: Any, key: str, depth: int) -> str:
        """Return the text of a key."""
        if isinstance(event, events.CollectionStartEvent):
            kind = "list" if isinstance(event, events.SequenceStartEvent) else "mapping"
            self._fail(_line(event), f"a {kind} cannot be a key")
        name = self._node(event, below(key, f"the key in line {_line(event)}"), depth).value
        if not isinstance(name, str):
            shown = Written(getattr(event, "value", "") or "null")
            self._refuse(below(key, str(shown)), None, "a key must be text", f'in quotes it is: "{shown}"')
        return name

    def _merged(self, value: Any, key: str) -> dict[str, Any]:
        """Return what `<<` brings in: of two mappings of its list the earlier one wins."""
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            self._refuse(key, value, "needs a mapping, or a list of mappings")
        return {name: inner for part in reversed(parts) for name, inner in part.items()}

    def _scalar(self, event: Any, key: str) -> Any:
        text: str = event.value
        if event.tag not in {None, "!", _STR}:
            self._refuse(key, _tag(event), "a tag that is not read here", "!!str, or no tag")
        if not event.implicit[0] or event.tag is not None:
            return self._checked(text, key)
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _WHOLE.fullmatch(text) or _HEX.fullmatch(text):
            return self._whole(text, key)
        for what, pattern in _TWO_WAYS.items():
            if pattern.fullmatch(text):
                allowed = 'plain digits, or "quotes" for text'
                problem = f"{what}, which readers of YAML take for different values"
                self._refuse(key, Written(text), problem, allowed)
        if _WORDS.fullmatch(text):
            allowed = 'true, false, or "quotes" for text'
            self._refuse(key, Written(text), "true or false to some readers of YAML, text to others", allowed)
        if _NOT_FINITE.fullmatch(text) or (_REAL.fullmatch(text) and not math.isfinite(float(text))):
            self._refuse(key, Written(text), "no finite number")
        return float(text) if _REAL.fullmatch(text) else self._checked(text, key)

    def _whole(self, text: str, key: str) -> int:
        number = int(text, 0) if len(text) <= 20 else LARGEST + 1
        if abs(number) > LARGEST:
            self._refuse(key, Written(text), "a number beyond 64 bits")
        return number

    def _checked(self, text: str, key: str) -> str:
        """Return a text with escaped pairs as the signs that they mean, as in JSON."""
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(key, text, "half of a sign: an escape \\ud800 to \\udfff without the other one")


def _line(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _tag(event: Any) -> Written:
    return Written(event.tag.replace("tag:yaml.org,2002:", "!!"))


def _extent(nodes: list[_Node]) -> tuple[int, int]:
    """Return size and height of what holds these nodes."""
    return 1 + sum(node.size for node in nodes), 1 + max((node.height for node in nodes), default=0)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what any reader of YAML takes for something else than text."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Write a text; escapes stand for the ends of lines that PyYAML would fold into a space."""
    style = '"' if _FOLDED.search(text) else None
    return dumper.represent_scalar(_STR, text, style)


_Dumper.add_representer(str, _represent_text)
for _pattern in (_WHOLE, _HEX, _REAL, _NOT_FINITE, _WORDS, *_TWO_WAYS.values()):
    _Dumper.add_implicit_resolver("!in-quotes", re.compile(f"(?:{_pattern.pattern})$"), None)
