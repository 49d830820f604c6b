"""The command line, by audience: what rules of the workflow call, what a site needs, what people start."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aifbench.cli import people, site, workflow
from aifbench.core.errors import ConfigError, full_disk
from aifbench.files import Unreadable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmarks of AI factories: retrieval, inference and storage, from one YAML file to a report.\n\n"
    "A whole campaign is run by Snakemake: `snakemake --profile profiles/laptop --configfile FILE`.",
)
for audience in (workflow, people, site):
    app.add_typer(audience.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aifbench {version('aifbench')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of all commands."""


def main() -> None:
    """Run the command line; a configuration error is one line and exit code 2, a full disk one line and 1."""
    try:
        app()
    except ConfigError as error:
        print(f"aifbench: {error}", file=sys.stderr)
        sys.exit(2)
    except Unreadable as error:
        print(f"aifbench: {error.filename} {error.problem}", file=sys.stderr)
        sys.exit(2)
    except FileNotFoundError as error:
        print(f"aifbench: {error.filename}: no such file or folder", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if full := full_disk(error):
            sys.exit(f"aifbench: {full}")
        print(f"aifbench: {error.filename2 or error.filename or 'input/output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
