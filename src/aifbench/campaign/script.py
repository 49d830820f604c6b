"""What surrounds a script of the workflow: its options come from its rule, or by hand from the command line."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aifbench.files.one_line import one_line


@contextmanager
def options(parser: ArgumentParser, job: Any) -> Iterator[Any]:
    """Give the parameters of the rule, whose log then takes all output, or what `parser` finds where `job` is None.

    `job` is the object that Snakemake calls `snakemake`. The rule's parameters have the names of the parser's. An error
    that can be told in one line is.
    """
    if job is not None:
        log = os.open(job.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
    with one_line():
        yield parser.parse_args() if job is None else job.params
