"""What people start and look at: view, serve, menu, runs, retry, rosetta."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aifbench.cli.options import AllResults, Here, Project, Results, nested, print_damage
from aifbench.core.errors import ConfigError

commands = typer.Typer()


@commands.command()
def menu(
    *,
    preset: Annotated[str | None, typer.Option(help="Preset to start from: its name.", show_default=False)] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark, instead of a preset.", show_default=False)] = None,
    profile: Annotated[str | None, typer.Option(help="Profile on which it runs.", show_default=False)] = None,
    clients: Annotated[str | None, typer.Option(help="Clients, such as 4 or 1,2,4.", show_default=False)] = None,
    servers: Annotated[
        str | None, typer.Option("--servers", "--services", help="Servers of each batch.", show_default=False)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Key of the suite, such as axes.mode=[direct].", show_default=False
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="server.device=gpu, server.cores=4, job.partition=cpu …", show_default=False
        ),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            metavar="YAML",
            help="One of several services of a launch, as in a request: '{preset: NAME, clients: 2}'.",
            show_default=False,
        ),
    ] = None,
    node_hours: Annotated[float | None, typer.Option(help="Budget; default: 2.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing and launch.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Ask nothing, check, and launch nothing.")] = False,
    project: Project = Path(),
    results: AllResults = Path("results"),
) -> None:
    """Choose benchmarks, each with its clients, servers and hardware, and launch them. Says `ok RUN`, or `ko` and why.

    Exit code 1 for ko. Example: aifbench menu --preset storage-quick --clients 1,2 --yes
    """
    from aifbench.files.yamlfile import read_text
    from aifbench.services.client.terminal import Terminal, ko, numbers
    from aifbench.services.problems import Refused

    given: dict[str, Any] = {"preset": preset, "benchmark": benchmark, "profile": profile, "node_hours": node_hours}
    try:
        given |= {"clients": clients and numbers(clients), "servers": servers and numbers(servers)}
    except ValueError:
        raise ConfigError("--clients, --servers", clients or servers, "a number, or several: 1,2,4") from None
    given |= {"config": nested(setting or []), "resources": nested(resource or [])}
    given["services"] = [read_text(text, where="--service", key="") for text in service or []] or None
    given = {key: value for key, value in given.items() if value not in (None, {})}
    terminal = Terminal(project, results)
    try:
        given = terminal.named(given)
        if yes or check or service:
            request = terminal.request(given)
            terminal.check(request)
        elif (asked := terminal.compose(given)) is not None:
            request = asked
        else:
            return
        if check or (service and not yes and not terminal.confirm()):
            return
        run = terminal.launch(request)
        typer.echo(f"ok {run}")
        typer.echo(f"watch it:  aifbench runs {run} --follow", err=True)
    except Refused as refused:
        typer.echo(ko(refused), err=True)
        raise typer.Exit(1) from None


@commands.command()
def runs(
    run: Annotated[str | None, typer.Argument(help="Id of a run; default: all.", show_default=False)] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Tell its progress until it ends.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it and its jobs; what is measured stays.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Measure what is missing of one that has ended.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="The same, and what is invalid or failed once more; nothing is deleted.")
    ] = False,
    project: Project = Path(),
    results: AllResults = Path("results"),
) -> None:
    """List runs; show, cancel or continue one."""
    from aifbench.services.client.terminal import Terminal, ko
    from aifbench.services.problems import Refused

    asked = [name for name, given in (("--cancel", cancel), ("--continue", go_on), ("--again", again)) if given]
    if len(asked) > 1:
        raise ConfigError(" and ".join(asked), None, "only one of them at a time")
    if run is None and (asked or follow):
        raise ConfigError((asked or ["--follow"])[0], None, "needs the id of a run; `aifbench runs` lists them")
    terminal = Terminal(project, results)
    try:
        if run is None:
            terminal.show_runs()
            return
        if cancel:
            terminal.launcher.cancel(run)
        elif go_on or again:
            terminal.launcher.go_on(run, again)
        terminal.show_run(run, follow or cancel)
    except Refused as refused:
        typer.echo(ko(refused), err=True)
        raise typer.Exit(1) from None


@commands.command()
def serve(
    *,
    services: Annotated[
        list[str] | None, typer.Argument(help="Any of client, monitor, log; default: all three.", show_default=False)
    ] = None,
    project: Project = Path(),
    results: AllResults = Path("results"),
    socket: Annotated[
        Path | None, typer.Option(help="Unix socket to make; default: in a folder that is yours alone.")
    ] = None,
    tcp: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve 127.0.0.1:PORT instead (0: a free port); others here reach a port."),
    ] = None,
    here: Here = None,
) -> None:
    """Serve the menu, the monitor and the log to your browser, here or through SSH; only you can use them.

    Example: aifbench serve
    """
    from aifbench.services.app import SERVICES
    from aifbench.services.serve import serve as start
    from aifbench.services.settings import Settings

    for name in services or ():
        if name not in SERVICES:
            raise ConfigError("service", name, "no such service", kind="unknown_name", choices=SERVICES)
    start(
        Settings.find(project, results),
        list(dict.fromkeys(services or SERVICES)),
        lambda text: print(text, flush=True),
        path=socket and socket.expanduser().absolute(),
        port=tcp,
        here=here,
        show_token=sys.stdout.isatty(),
    )


@commands.command()
def view(
    results: Results,
    socket_folder: Annotated[Path, typer.Option(help="Folder for the socket; made for you alone.")] = Path(
        "~/.aifbench"
    ),
    here: Here = None,
) -> None:
    """Show the report in your browser, here or through SSH: a Unix socket that only you can open serves the folder."""
    from aifbench.services.view import serve

    if not results.is_dir():
        raise ConfigError("results", str(results), "no such folder")
    serve(results, socket_folder.expanduser(), lambda text: print(text, flush=True), here)


@commands.command()
def retry(
    results: Results,
    case: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of cases; default: all that are invalid or failed.", show_default=False),
    ] = None,
) -> None:
    """Set cases aside, so that the next run of the campaign measures them again, and damaged files. Nothing is deleted.

    Example: aifbench retry results/laptop
    """
    from aifbench.tables.collect import collect as gather
    from aifbench.tables.retry import set_aside

    done = set_aside(results, gather(results), case or ())
    typer.echo(f"set aside: {done}; run the campaign again to measure them")
    print_damage(done.damaged)


@commands.command()
def rosetta(
    results: Results,
    case: Annotated[str, typer.Argument(help="Id of an inference case.", show_default=False)],
    repetition: Annotated[int, typer.Option(help="Repetition, from 0.")] = 0,
) -> None:
    """Print what other load generators would have printed for the raw events of one repetition."""
    from aifbench.core.damage import Damaged
    from aifbench.inference.rosetta import BENCHMARK, table, translate
    from aifbench.records.planned import read_plan
    from aifbench.records.reading import Reader
    from aifbench.records.store import RAW_FILE, BatchStore

    planned = read_plan(Reader(results)).cases
    batch = next((row.batch for row in planned if row.case == case and row.benchmark == BENCHMARK), None)
    if batch is None:
        raise ConfigError("case", case, f"is no {BENCHMARK} case of {results}")
    store = BatchStore.of(results, batch)
    done = [record.repetition for record in store.read_cases() if record.case == case and record.raw is not None]
    if repetition not in done:
        raise ConfigError("--repetition", repetition, f"is not recorded; recorded: {sorted(done)}")
    try:
        typer.echo(table(translate(store.read_raw(case, repetition))))
    except Damaged as error:
        raise ConfigError(store.files.path(RAW_FILE), None, str(error)) from None
