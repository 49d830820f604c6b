"""What rules of the workflow call, also by hand: plan, run, collect, report, gate, image, model, schema."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from aifbench.cli.options import Config, Results, Setting, campaign_of, print_damage
from aifbench.core.errors import ConfigError

commands = typer.Typer()


@commands.command()
def plan(
    config: Config = None,
    setting: Setting = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write plan.json, plan.md and the specs into the results folder.")
    ] = False,
    specs: Annotated[bool, typer.Option(help="With --write, also write the specs, which batches read.")] = True,
    check_machine: Annotated[
        bool, typer.Option(help="Also check what only this machine can tell: files, free space, reachable URLs.")
    ] = True,
) -> None:
    """Show what a campaign will do: cases, batches, expected time. Starts nothing.

    Example: aifbench plan --config config/config.yaml
    """
    from aifbench.campaign.plan import check, make_plan, markdown, write_plan
    from aifbench.registry import left_out

    for problem in left_out().values():
        typer.echo(f"aifbench: {problem}", err=True)
    made = make_plan(campaign_of(config, setting))
    check(made, machine=check_machine)
    if write:
        write_plan(made, made.config.results, specs=specs)
    typer.echo(markdown(made, datetime.now().astimezone()), nl=False)


@commands.command()
def run(
    spec: Annotated[
        Path, typer.Option(help="Spec of the batch, as `aifbench plan --write` makes it.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the batch; what it holds already is not measured again.", show_default=False)
    ],
    done: Annotated[
        Path | None, typer.Option(help="File to write when all repetitions are recorded.", show_default=False)
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Readable copy of the batch's log.", show_default=False)] = None,
) -> None:
    """Run one batch, or what is left of it.

    Exit code: 0 all is recorded (a failed case is data), 1 the infrastructure broke, 2 the configuration cannot work
    here, 143 ended by a signal.
    """
    print(f"{spec.stem}: begins", file=sys.stderr, flush=True)  # importing the rest takes a second
    from aifbench.runner.batch import run_batch

    raise typer.Exit(run_batch(spec, out, done, log))


@commands.command()
def collect(results: Results) -> None:
    """Gather the records of all batches into tables/*.parquet and cases.csv. Works on partial results."""
    from aifbench.tables.collect import make_tables

    counts, *damaged = make_tables(results).told()
    typer.echo(counts)
    for line in damaged:
        typer.echo(line, err=True)


@commands.command()
def report(
    results: Results,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into, made when it is not there; default: RESULTS.", show_default=False),
    ] = None,
) -> None:
    """Write report/index.html and report/figures from whatever is recorded so far.

    With --out nothing is written into RESULTS, so that it can be somebody else's, or a run that goes on.
    """
    from aifbench.report import build
    from aifbench.tables.collect import make_tables

    tables = make_tables(results, out)
    typer.echo(build(results, out).path)
    print_damage(tables.damage)


@commands.command()
def gate(
    results: Results,
    out: Annotated[
        Path | None, typer.Option(help="File to write when every planned case is valid.", show_default=False)
    ] = None,
) -> None:
    """Print the line to remember; exit code 1 unless every planned case is valid and no file is damaged."""
    from aifbench.tables.collect import collect as gather
    from aifbench.tables.gate import passed, summary_line

    tables = gather(results)
    line = summary_line(tables, results)
    typer.echo(line, err=True)
    if not passed(tables):
        raise typer.Exit(1)
    if out:
        out.write_text(f"{line}\n", encoding="utf-8")  # may be a device, such as /dev/stdout, which is not replaced


@commands.command()
def image(
    name: Annotated[str, typer.Argument(help="Image: aifbench or ollama.", show_default=False)],
    config: Config = None,
    setting: Setting = None,
    out: Annotated[
        Path | None, typer.Option(help="File to make; default: <name>.sif in paths.images of the system.")
    ] = None,
) -> None:
    """Make a container image unless it is there: pulled by digest, or built from containers/<name>.def.

    Example: aifbench image ollama --config config/meluxina.yaml
    """
    from aifbench.provision.images import ImageError, make_image

    system = campaign_of(config, setting).system
    try:
        record = make_image(name, system, out or system.paths.images / f"{name}.sif")
    except ImageError as error:
        raise ConfigError("image", name, str(error)) from None
    typer.echo(f"{name}: {record['origin']}, sha256 {record['sif_sha256']}, {record['bytes'] / 2**20:.0f} MiB")


@commands.command()
def model(
    name: Annotated[str, typer.Argument(help="Model as Ollama names it, such as mistral.", show_default=False)],
    config: Config = None,
    setting: Setting = None,
    gguf: Annotated[
        str | None, typer.Option(help="Import this local .gguf file instead of pulling.", show_default=False)
    ] = None,
) -> None:
    """Put a model into paths.models of the system, where batches find it: pulled, or imported from a local file.

    Example: aifbench model mistral --config config/meluxina.yaml
    """
    from aifbench.engines.settings import Ollama
    from aifbench.provision.models import ModelError, put_model

    system = campaign_of(config, setting).system
    try:
        record = put_model(
            Ollama(kind="ollama", model=name, gguf=gguf), system, lambda text: typer.echo(text, err=True)
        )
    except ModelError as error:
        raise ConfigError("model", name, str(error)) from None
    typer.echo(f"{record['model']}: {record['source']}, digest {record['digest']}")


@commands.command()
def schema(
    folder: Annotated[Path, typer.Argument(help="Folder for the JSON Schemas.")] = Path("workflow/schemas"),
) -> None:
    """Write the JSON Schemas of campaign, suite and system files, from the same models that check them."""
    from aifbench.campaign.schema import write_schemas

    for path in write_schemas(folder):
        typer.echo(path)


@commands.command()
def reasons() -> None:
    """Print all reasons and cautions that records can hold, as the page docs/reasons.md."""
    from aifbench.tables.reasons import page

    typer.echo(page(), nl=False)
