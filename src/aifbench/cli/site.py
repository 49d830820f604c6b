"""What a site is asked and told: init, doctor, calibrate, where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aifbench.cli.options import Config, Setting, campaign_of
from aifbench.core.errors import ConfigError

commands = typer.Typer()


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make, or to add to.", show_default=False)],
) -> None:
    """Make a folder to run campaigns in: config, profiles, workflow and container definitions. A checkout is one.

    Example: aifbench init my-site
    """
    from aifbench.provision.project import make_project

    make_project(folder)
    typer.echo(f"{folder}: run `snakemake --profile profiles/laptop` there")


@commands.command()
def doctor(
    config: Config = None,
    setting: Setting = None,
    job: Annotated[
        bool, typer.Option("--job", help="Also look from inside a short job of each partition (submits them).")
    ] = False,
) -> None:
    """Check whether a site has what a campaign needs, and say what to do about each thing it lacks.

    Exit code 1 when something fails. Example: aifbench doctor --config config/meluxina.yaml --job
    """
    from rich.console import Console
    from rich.table import Table

    from aifbench.machine.doctor import examine

    table = Table("check", "", "seen", "what to do")
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    campaign = campaign_of(config, setting)
    rows = list(examine(campaign.system, campaign.keys.results, job=job))
    for row in rows:
        table.add_row(row.what, f"[{colours[row.state]}]{row.state}[/]", row.seen, row.todo)
    Console().print(table)
    if any(row.state == "fail" for row in rows):
        raise typer.Exit(1)


@commands.command()
def calibrate(
    streams: Annotated[
        list[int] | None,
        typer.Option(
            "--streams",
            "-n",
            min=1,
            max=1024,
            help="Concurrent streams; may be repeated.",
            show_default="1, 16, 64, 256",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the start offsets.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.", show_default=False)] = None,
) -> None:
    """Measure the error of the streaming client here, at rising loads, against a server that tells its truth.

    Server and client share the machine, so give it nothing else to do. Example: aifbench calibrate --streams 64
    """
    import orjson
    from rich.console import Console
    from rich.table import Table

    from aifbench.load.calibrate import ladder

    table = Table(
        "streams",
        "token events/s",
        "TTFT error p50",
        "TTFT error bound",
        "gap error bound",
        "CPU per request",
        "carried",
    )
    rungs = []
    for count in streams or [1, 16, 64, 256]:
        for figures in ladder(count, seed):
            rungs.append(figures)
            ttft, gap = figures["ttft_error_s"], figures["gap_error_s"]
            table.add_row(
                str(count),
                f"{figures['tokens_per_s']:.0f}",
                f"{ttft.get('p50', ttft['bound']) * 1e3:.3f} ms",
                f"{ttft['bound'] * 1e3:.3f} ms ({ttft['bound_quantile']})",
                f"{gap['bound'] * 1e3:.3f} ms ({gap['bound_quantile']})",
                f"{figures['client_cpu_s'] / figures['requests'] * 1e3:.2f} ms",
                "yes" if figures["carried"] else "no",
            )
    Console().print(table)
    if out:
        out.write_bytes(orjson.dumps(rungs, option=orjson.OPT_INDENT_2))


@commands.command()
def where(
    what: Annotated[str, typer.Argument(help="socket, token-launch, token-read or token-ingest.", show_default=False)],
    tcp: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The tokens of `aifbench serve --tcp PORT`, which end with it.")
    ] = None,
) -> None:
    """Print the path of the socket that `aifbench serve` makes, or of the file of a token, for scripts.

    Example: curl --unix-socket "$(aifbench where socket)" http://localhost/healthz
    """
    from aifbench.services.settings import Settings
    from aifbench.services.tokens import GRANTS

    settings = Settings.find()
    files = {
        f"token-{scope}": (settings.port_state(tcp) if tcp else settings.state) / f"token-{scope}" for scope in GRANTS
    }
    known = files if tcp else {"socket": settings.socket, **files}
    if what not in known:
        raise ConfigError("what", what, "no such file", kind="unknown_name", choices=known)
    typer.echo(known[what])
