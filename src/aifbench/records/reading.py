"""The files of a results folder as they are found: bounded, never through a link, damaged or not.

What cannot be read is named in `damage` and is then as if it were not there: one file never costs the rest.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from aifbench.core.damage import Damage, Damaged
from aifbench.core.records import SCHEMA_VERSION
from aifbench.files.beneath import Unreadable, list_beneath, open_beneath
from aifbench.files.bounded import read_beneath
from aifbench.records.arrow import open_parquet, pa
from aifbench.records.sealed import unseal

LARGEST_JSON = 64 << 20
"""Bytes of a whole JSON file: a plan of 60 000 cases."""
LARGEST_TABLE = 8 << 30
MOST_ROWS = 200_000_000
LONGEST_LINE = 16 << 20
_SHOWN = 200
"""Characters of a problem."""

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")


class Reader:
    """Reads below `root`, where `parts` are the folders that all names begin with."""

    def __init__(self, root: Path, *parts: str) -> None:
        self.root = root
        self.parts = parts
        self.damage: list[Damage] = []

    def tell(self, name: str, problem: str, lost: str) -> None:
        """Name a damaged file, once for each problem."""
        shown = "".join(char if char.isprintable() else "\ufffd" for char in problem[:_SHOWN])
        damage = Damage(self.path(name), shown, lost)
        if damage not in self.damage:
            self.damage.append(damage)

    def path(self, name: str) -> str:
        """Return the path of a file from the root on."""
        return "/".join((*self.parts, name))

    @contextlib.contextmanager
    def naming(self, name: str, lost: str) -> Iterator[None]:
        """Name the file where the block finds it damaged; nothing is said where there is none."""
        try:
            yield
        except Unreadable as error:
            self.tell(name, error.problem, lost)
        except FileNotFoundError:
            pass
        except Damaged as error:
            self.tell(name, str(error), lost)
        except OSError as error:
            self.tell(name, f"cannot be read: {error.strerror}", lost)

    def open(self, name: str) -> BinaryIO:
        """Open a file, such as `raw/operations.parquet`. Raises FileNotFoundError, or `Unreadable`."""
        return open_beneath(self.root, *self.parts, *name.split("/"))

    def is_there(self, name: str) -> bool:
        """Return whether something stands there, readable or not."""
        try:
            self.open(name).close()
        except Unreadable:
            return True
        except FileNotFoundError:
            return False
        return True

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON object. Raises FileNotFoundError and `Damaged`."""
        return unseal(read_beneath(self.root, *self.parts, *name.split("/"), most=LARGEST_JSON))

    def folders(self, name: str) -> list[str]:
        """Return the names of what stands in a folder but is no file, sorted; none where there is no such folder."""
        with self.naming(name, "all that stands in it"):
            entries = list_beneath(self.root, *self.parts, name)
            return sorted(entry for entry, facts in entries if not _is_file(facts.st_mode))
        return []

    def lines(
        self, name: str, parse: Callable[[bytes], Parsed], lost: str, *, growing: bool, longest: int = LONGEST_LINE
    ) -> Iterator[tuple[bytes, Parsed]]:
        """Yield the lines that `parse` takes, as they stand there and parsed. It raises `Damaged` for the others.

        A last line without its end is what a writer has not finished, where the file is `growing`; else it is cut.
        """
        broken: list[tuple[int, str]] = []
        with self.naming(name, lost), self.open(name) as file:
            for number, line in _lines(file, longest):
                try:
                    if not line.endswith(b"\n"):
                        if growing and line.startswith(b"{") and len(line) <= longest:
                            break
                        raise Damaged("is cut" if len(line) <= longest else f"is longer than {longest >> 20} MiB")
                    yield line, parse(line)
                except Damaged as error:
                    broken.append((number, str(error)))
        if broken:
            more = f", and {len(broken) - 1} more lines are damaged" if len(broken) > 1 else ""
            self.tell(name, f"line {broken[0][0]} {broken[0][1]}{more}", lost)

    def table(self, name: str, schema: Mapping[str, Any], needed: frozenset[str], lost: str) -> Any:
        """Return the columns of `schema` of a Parquet file with these types; None where it cannot be read.

        A column that is not there is null, unless it is `needed`: then a row without it is left out.
        """
        with self.naming(name, lost), self.open(name) as file, open_parquet(file) as (parquet, _):
            return as_table(within_bounds(parquet).read(), schema, needed)
        return None


def within_bounds(parquet: Any) -> Any:
    """Return an open Parquet file. Raises `Damaged` where it is larger than any of ours."""
    facts = parquet.metadata
    size = sum(facts.row_group(place).total_byte_size for place in range(facts.num_row_groups))
    if facts.num_rows > MOST_ROWS or size > LARGEST_TABLE:
        raise Damaged(f"is too large: {facts.num_rows} rows, {size} bytes")
    return parquet


def as_table(table: Any, schema: Mapping[str, Any], needed: frozenset[str]) -> Any:
    """Return a table with the columns of `schema` and rows that have all that is `needed`. Raises `Damaged`."""
    lacking = sorted(needed - set(table.column_names))
    if lacking:
        raise Damaged(f"has no column {lacking[0]}")
    columns = {}
    for name, kind in schema.items():
        there = name in table.column_names
        columns[name] = table.column(name).cast(kind) if there else pa.nulls(table.num_rows, kind)
    made = pa.table(columns)
    made.validate(full=True)
    whole = None
    for name in sorted(needed):
        here = pa.compute.is_valid(made.column(name))
        if pa.types.is_floating(schema[name]):
            here = pa.compute.and_kleene(here, pa.compute.is_finite(made.column(name)))
        whole = here if whole is None else pa.compute.and_kleene(whole, here)
    return made if whole is None else made.filter(whole)


def fitted(model: type[Model], value: Mapping[str, Any]) -> Model:
    """Return an object as a model. Raises `Damaged`."""
    check_version(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        count = error.error_count()
        raise Damaged(f"is no record: {count} field{'' if count == 1 else 's'} do not fit") from None
    except RecursionError:
        raise Damaged("is no record: nested too deeply") from None


def check_version(value: Mapping[str, Any]) -> None:
    """Raise `Damaged` for what a newer version has written."""
    version = value.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise Damaged(f"was written by a newer version of aifbench (schema_version {version})")


def _is_file(mode: int) -> bool:
    return stat.S_ISREG(mode)


def _lines(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line; of one that is longer than `longest` only its beginning."""
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        yield number, line
        while len(line) > longest and not line.endswith(b"\n"):
            line = file.readline(longest + 1)
