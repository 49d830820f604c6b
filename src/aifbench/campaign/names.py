"""Names of files that Snakemake takes for something else, and how they stay names.

A part of a name such as `{x}` is a wildcard to it, and on the command line of a job it writes names as Python does:
with `$(x)` beside a quote, a shell runs that. Both are set right here, before the first rule is read.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

LOCK = "n"
"""A wildcard of Snakemake's own, in the names of its locks."""


def keep_braces(wildcards: Sequence[str]) -> re.Pattern[str]:
    """Let `wildcards` be the only ones: other braces are parts of a name. Return the pattern of what is none."""
    import snakemake.io
    import snakemake.sourcecache

    name = "|".join((*wildcards, LOCK))
    constraint = r"([^{}]+|\{\d+(,\d+)?\})*"
    pattern = re.compile(rf"\{{\s*(?P<name>{name})(\s*,\s*(?P<constraint>{constraint}))?\s*\}}")
    snakemake.io.WILDCARD_REGEX = pattern
    snakemake.sourcecache.LocalSourceFile.format = lambda file, **_: file  # the folder of the rules and what they name
    return pattern


def quote_for_shells() -> None:
    """Quote for a shell what Snakemake writes on the command lines of jobs and scripts, its interpreter too.

    The shell in the step of a job gives its place to it: a signal reaches Snakemake, and no shell that ends of it.
    """
    from snakemake.script import PythonScript
    from snakemake_executor_plugin_slurm_jobstep import Executor as StepExecutor
    from snakemake_interface_executor_plugins import utils
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    otherwise = utils.format_cli_value
    execute = PythonScript._execute_cmd

    def format_cli_value(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
        if isinstance(value, str) and not base64_encode:
            return shlex.quote(value)
        return str(otherwise(value, quote, base64_encode))

    utils.format_cli_value = format_cli_value
    PythonScript._execute_cmd = lambda script, command, **values: execute(
        script, command.replace("{py_exec}", "{py_exec:q}"), **values
    )
    RemoteExecutor.get_python_executable = lambda _: shlex.quote(sys.executable)
    StepExecutor.get_python_executable = lambda _: f"exec {shlex.quote(sys.executable)}"
