"""The command line: `aifbench plan · run · collect · report · gate · schema`. Rules of the workflow are these."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aifbench.core.errors import ConfigError
from aifbench.files.one_line import one_line

if TYPE_CHECKING:
    from aifbench.campaign.config import Config as LoadedConfig
    from aifbench.core.damage import Damage

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmarks of AI factories: retrieval, inference and storage, from one YAML file to a report.\n\n"
    "A whole campaign is run by Snakemake: `snakemake --profile profiles/laptop --configfile FILE`.",
)

Results = Annotated[
    Path, typer.Argument(help="Results folder of a campaign, such as results/laptop.", show_default=False)
]
Config = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", help="Campaign file; repeat it to lay one over another.", show_default="config/config.yaml"
    ),
]
Here = Annotated[
    bool | None,
    typer.Option(
        "--open/--no-open",
        help="The browser is on this machine, and is opened, or at the other end of SSH. Default: found out.",
        show_default=False,
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one top-level key.", show_default=False),
]


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


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make, or to add to.", show_default=False)],
) -> None:
    """Make a folder to run campaigns in: config, profiles, workflow and container definitions. A checkout is one.

    Example: aifbench init my-site
    """
    from aifbench.provision.project import make_project

    make_project(folder)
    typer.echo(f"{folder}: run `snakemake --profile profiles/laptop` there")


@app.command()
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
    made = make_plan(_config(config, setting))
    check(made, machine=check_machine)
    if write:
        write_plan(made, made.config.results, specs=specs)
    typer.echo(markdown(made, datetime.now().astimezone()), nl=False)


@app.command()
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


@app.command()
def collect(results: Results) -> None:
    """Gather the records of all batches into tables/*.parquet and cases.csv. Works on partial results."""
    from aifbench.tables.collect import make_tables

    counts, *damaged = make_tables(results).told()
    typer.echo(counts)
    for line in damaged:
        typer.echo(line, err=True)


@app.command()
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
    _name_damage(tables.damage)


@app.command()
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


@app.command()
def serve(
    *,
    services: Annotated[
        list[str] | None, typer.Argument(help="Any of client, monitor, log; default: all three.", show_default=False)
    ] = None,
    project: Annotated[Path, typer.Option(help="Checkout with workflow, profiles and config.")] = Path(),
    results: Annotated[Path, typer.Option(help="Folder of all campaigns' results.")] = Path("results"),
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
            raise ConfigError("service", name, "no such service", ", ".join(SERVICES))
    start(
        Settings.find(project, results),
        list(dict.fromkeys(services or SERVICES)),
        lambda text: print(text, flush=True),
        path=socket and socket.expanduser().absolute(),
        port=tcp,
        here=here,
        show_token=sys.stdout.isatty(),
    )


@app.command()
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
        raise ConfigError("what", what, "no such file", ", ".join(known))
    typer.echo(known[what])


@app.command()
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
    project: Annotated[Path, typer.Option(help="Checkout with workflow, profiles and config.")] = Path(),
    results: Annotated[Path, typer.Option(help="Folder of all campaigns' results.")] = Path("results"),
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


@app.command()
def runs(
    run: Annotated[str | None, typer.Argument(help="Id of a run; default: all.", show_default=False)] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Tell its progress until it ends.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it and its jobs; what is measured stays.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Measure what is missing of one that has ended.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="The same, and what is invalid or failed once more; nothing is deleted.")
    ] = False,
    project: Annotated[Path, typer.Option(help="Checkout with workflow, profiles and config.")] = Path(),
    results: Annotated[Path, typer.Option(help="Folder of all campaigns' results.")] = Path("results"),
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


@app.command()
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
        out.write_text(line + "\n", encoding="utf-8")


@app.command()
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
    _name_damage(done.damaged)


@app.command()
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

    system = _config(config, setting).system
    try:
        record = make_image(name, system, out or system.paths.images / f"{name}.sif")
    except ImageError as error:
        raise ConfigError("image", name, str(error)) from None
    typer.echo(f"{name}: {record['origin']}, sha256 {record['sif_sha256']}, {record['bytes'] / 2**20:.0f} MiB")


@app.command()
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

    system = _config(config, setting).system
    try:
        record = put_model(
            Ollama(kind="ollama", model=name, gguf=gguf), system, lambda text: typer.echo(text, err=True)
        )
    except ModelError as error:
        raise ConfigError("model", name, str(error)) from None
    typer.echo(f"{record['model']}: {record['source']}, digest {record['digest']}")


@app.command()
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
    loaded = _config(config, setting)
    found = list(examine(loaded.system, loaded.keys.results, job=job))
    for row in found:
        table.add_row(row.what, f"[{colours[row.state]}]{row.state}[/]", row.seen, row.todo)
    Console().print(table)
    if any(row.state == "fail" for row in found):
        raise typer.Exit(1)


@app.command()
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
    found = []
    for count in streams or [1, 16, 64, 256]:
        for figures in ladder(count, seed):
            found.append(figures)
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
        out.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


@app.command()
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


@app.command()
def schema(
    folder: Annotated[Path, typer.Argument(help="Folder for the JSON Schemas.")] = Path("workflow/schemas"),
) -> None:
    """Write the JSON Schemas of campaign, suite and system files, from the same models that check them."""
    from aifbench.campaign.schema import write_schemas

    for path in write_schemas(folder):
        typer.echo(path)


def _name_damage(damage: Iterable[Damage]) -> None:
    for found in damage:
        typer.echo(f"damaged: {found}", err=True)


def _config(files: list[Path] | None, settings: list[str] | None) -> LoadedConfig:
    from aifbench.campaign.config import DEFAULT_CONFIG, load_config

    if not files and not DEFAULT_CONFIG.exists():
        problem = "no such file: name one, or run this in a checkout or in what `aifbench init` makes"
        raise ConfigError("--config", str(DEFAULT_CONFIG), problem)
    return load_config(files or [DEFAULT_CONFIG], overrides(settings or []))


def overrides(settings: list[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as a mapping; values are YAML."""
    from aifbench.files.yamlfile import read_text

    found: dict[str, Any] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise ConfigError("--set", setting, "needs the form KEY=VALUE")
        found[key] = read_text(value, where="--set", key=key)
    return found


def nested(settings: list[str]) -> dict[str, Any]:
    """Return `a.b=VALUE` texts as nested mappings; values are YAML."""
    found: dict[str, Any] = {}
    for key, value in overrides(settings).items():
        *parts, last = key.split(".")
        place = found
        for part in parts:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError("--set", key, f"{part} has a value already")
            place = inner
        place[last] = value
    return found


def main() -> None:
    """Run the command line; a configuration error is one line and exit code 2, a full disk one line and 1."""
    with one_line():
        app()


if __name__ == "__main__":
    main()
