"""The command line, by audience: what rules of the workflow call, what a site needs, what people start."""

from __future__ import annotations

from typing import Annotated

import typer

from aifbench.cli import people, site, workflow
from aifbench.files.one_line import one_line

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
    with one_line():
        app()
