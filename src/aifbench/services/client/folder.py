"""The files of one run, read and written as files that others may have touched: a results folder may be a group's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from aifbench.files.beneath import Unreadable, folder_beneath, folders_beneath, stat_beneath
from aifbench.files.bounded import end_beneath, json_beneath, read_beneath
from aifbench.files.tail import Tail
from aifbench.files.written import append_beneath, write_beneath

SMALL_BYTES = 1 << 16
REQUEST_BYTES = 4 << 20
"""Of a request or a campaign: the body of a request has 1 MiB at most."""
TAIL_BYTES = 8192
LOG_BYTES = 256 << 20
"""Of Snakemake's log that are searched for what it submitted."""
LAUNCH = "launch"
REQUEST = "request.json"
CONFIG = "config.yaml"
COMMAND = "command.json"
MOST_STARTS = 1000
_RUN_ID = re.compile(rb"SLURM run ID: ([A-Za-z0-9_-]{1,128})")
_SUBMITTED = re.compile(rb"has been submitted with (SLURM jobid)")
_LARGE = {REQUEST: REQUEST_BYTES, CONFIG: REQUEST_BYTES}


class Foreign(NamedTuple):
    """A file of a launch that somebody else may have made or changed; `ours`: it is this user's, but for its mode."""

    problem: str
    ours: bool = False


class RunFolder:
    """The files of a run below a results folder.

    What is no regular file, too large or no JSON is as good as not there; `problems` says so, one line for each.
    """

    def __init__(self, results: Path, run: str) -> None:
        self.results, self.run = results, run
        self.path = results / run
        self.problems: dict[str, str] = {}

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the mapping of a file of JSON in `launch`, None when there is none."""
        try:
            found = json_beneath(self.results, self.run, LAUNCH, name, most=_LARGE.get(name, SMALL_BYTES))
            if not isinstance(found, dict):
                raise Unreadable(f"{self.run}/{LAUNCH}/{name}", "holds no mapping")
        except OSError as error:
            self._note(error, LAUNCH, name)
            return None
        return found

    def text(self, name: str) -> str | None:
        """Return a text in `launch`, None when there is none."""
        try:
            data = read_beneath(self.results, self.run, LAUNCH, name, most=_LARGE.get(name, SMALL_BYTES))
        except OSError as error:
            self._note(error, LAUNCH, name)
            return None
        return data.decode(errors="replace")

    def changed(self, *parts: str) -> int | None:
        """Return when a file was written last, in ns; None when there is none."""
        try:
            return stat_beneath(self.results, self.run, *parts).st_mtime_ns
        except OSError as error:
            self._note(error, *parts)
            return None

    def has(self, *parts: str) -> bool:
        """Return whether there is such a file."""
        return self.changed(*parts) is not None

    def said(self) -> str:
        """Return the last lines of Snakemake's log, without terminal codes; empty when it is not there."""
        try:
            data, more = end_beneath(self.results, self.run, LAUNCH, "snakemake.log", most=TAIL_BYTES)
        except OSError as error:
            self._note(error, LAUNCH, "snakemake.log")
            return ""
        lines = data.decode(errors="replace").splitlines()[1 if more else 0 :]
        return "\n".join("".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines)

    def slurm_runs(self) -> list[str]:
        """Return the ids that Snakemake gave the run in Slurm, one for each time that it was started."""
        return sorted(set(islice(self._found_in_log(_RUN_ID), MOST_STARTS)))

    def submitted(self) -> bool:
        """Return whether Snakemake has submitted a job to Slurm."""
        return next(self._found_in_log(_SUBMITTED), None) is not None

    def _found_in_log(self, pattern: re.Pattern[bytes]) -> Iterator[str]:
        try:
            with folder_beneath(self.results, self.run, LAUNCH) as folder:
                for line in Tail("snakemake.log").read(folder, LOG_BYTES):
                    if found := pattern.search(line):
                        yield found[1].decode()
        except OSError as error:
            self._note(error, LAUNCH)

    def batches(self) -> list[str]:
        """Return the names of the batches that have a folder."""
        return folders_beneath(self.results, self.run, "batches")[0]

    def make(self) -> None:
        """Make the folder, which must be new, and its `launch`: whatever the umask, others may only read there."""
        self.path.mkdir(0o755)
        (self.path / LAUNCH).mkdir(0o755)

    def write(self, name: str, content: dict[str, Any] | str, *, new: bool = False) -> None:
        """Write a text, or a file of JSON, in `launch`: whole or not there. `new`: raises FileExistsError."""
        data = content.encode() if isinstance(content, str) else orjson.dumps(content, option=orjson.OPT_INDENT_2)
        write_beneath(self.results, self.run, LAUNCH, name, data=data, new=new)

    def append(self, name: str) -> BinaryIO:
        """Open a file in `launch` to add to."""
        return append_beneath(self.results, self.run, LAUNCH, name)

    def touch(self, name: str) -> None:
        """Make an empty file in `launch`, or give it the time of now. A disk that is full takes it too."""
        with self.append(name) as file:
            os.utime(file.fileno())

    def set_aside(self, aside: str, *names: str) -> None:
        """Move files of `launch` into a new folder there; those that are not there are left out."""
        with folder_beneath(self.results, self.run, LAUNCH) as folder:
            os.mkdir(aside, 0o755, dir_fd=folder)
            for name in names:
                try:
                    os.rename(name, f"{aside}/{name}", src_dir_fd=folder, dst_dir_fd=folder)
                except FileNotFoundError:
                    continue

    def ours(self) -> bool:
        """Return whether this user has made the folder."""
        try:
            with folder_beneath(self.results, self.run) as folder:
                return os.fstat(folder).st_uid == os.geteuid()
        except OSError:
            return False

    def foreign(self) -> Foreign | None:
        """Return what of the launch others may change or have made, None when it is all this user's own.

        A run is started as these files say.
        """
        for parts in ((self.run,), (self.run, LAUNCH)):
            with folder_beneath(self.results, *parts) as folder:
                if found := _foreign("/".join(parts), os.fstat(folder)):
                    return found
        for name in (REQUEST, CONFIG, COMMAND):
            place = f"{self.run}/{LAUNCH}/{name}"
            try:
                if found := _foreign(place, stat_beneath(self.results, self.run, LAUNCH, name)):
                    return found
            except Unreadable as error:
                return Foreign(f"{place} {error.problem}")
            except FileNotFoundError:
                continue
        return None

    def _note(self, error: OSError, *parts: str) -> None:
        """Remember what is wrong with a file; that it is not there is nothing wrong."""
        if isinstance(error, Unreadable):
            place = str(error.filename).removeprefix(f"{self.run}/")
        elif isinstance(error, FileNotFoundError):
            return
        else:
            place = "/".join(parts)
        self.problems.setdefault(place, f"{place} {error.strerror}")


def _foreign(place: str, facts: os.stat_result) -> Foreign | None:
    if facts.st_uid != os.geteuid():
        return Foreign(f"{place} belongs to somebody else")
    return Foreign(f"{place} can be written by others", ours=True) if facts.st_mode & 0o022 else None
