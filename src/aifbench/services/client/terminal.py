"""The menu in the terminal: the same questions, checks and launches as the page, without a running service."""

from __future__ import annotations

import copy
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm, Prompt
from rich.table import Table

from aifbench.core.errors import ConfigError
from aifbench.core.units import duration
from aifbench.services.client.check import Checked, Checker
from aifbench.services.client.launch import Launcher, new_id
from aifbench.services.client.menu import menu
from aifbench.services.client.reasons import one_of, refuse, shown
from aifbench.services.client.request import SHARED, LaunchRequest
from aifbench.services.client.runs import ACTIVE, Runs
from aifbench.services.client.slurm import SlurmClient
from aifbench.services.problems import Refused
from aifbench.services.settings import Settings

MARKS = {
    "ended": "[green]✓[/]",
    "complete": "[green]✓[/]",
    "failed": "[red]✕[/]",
    "incomplete": "[yellow]![/]",
    "cancelled": "–",
}


class Terminal:
    """Asks, checks and launches in a terminal."""

    def __init__(self, project: Path, results: Path, console: Console | None = None) -> None:
        settings = Settings.find(project, results)
        if not (settings.project / "workflow" / "Snakefile").is_file():
            problem = "holds no workflow/Snakefile: go to a checkout, or make a folder with `aifbench init`"
            raise ConfigError("--project", str(settings.project), problem)
        os.chdir(settings.project)
        self.console = console or Console()
        self.checker = Checker(settings, SlurmClient())
        self.runs = Runs(settings)
        self.launcher = Launcher(self.checker, self.runs)

    def named(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return what is given with the id of the preset that it names. Raises `Refused`."""
        if "preset" not in given:
            return given
        presets, broken = self.checker.presets()
        known = {id: preset.title for id, preset in presets.items()}
        return given if given["preset"] in broken else {**given, "preset": choose(given["preset"], known)}

    def ask(self, given: dict[str, Any]) -> dict[str, Any]:
        """Ask for what `given` leaves open and return the request of one service."""
        offered = menu(self.checker, self.launcher.limits)
        asked = dict(given)
        if len(offered["profiles"]) > 1 and "profile" not in asked:
            names = [profile["name"] for profile in offered["profiles"]]
            asked["profile"] = Prompt.ask("Where does it run?", choices=names, default="laptop", console=self.console)
        profile = asked.get("profile", "laptop")
        if not asked.keys() & {"preset", "benchmark"}:
            asked["preset"] = self._ask_preset(offered, profile)
        preset = next((one for one in offered["presets"] if one["id"] == asked.get("preset")), None)
        suite = preset["suite"] if preset else {}
        name = preset["benchmark"] if preset else asked.get("benchmark")
        benchmark = next((one for one in offered["benchmarks"] if one["name"] == name), None)
        if benchmark is not None:
            self._ask_axis(asked, benchmark["axis"], benchmark["question"], suite)
        system = next((one for one in offered["profiles"] if one["name"] == profile), None)
        most = f"1 to {system['clients'][name]}: " if system and name in system["clients"] else ""
        self._ask_number(asked, "clients", f"Clients ({most}a number, or several: 1,2,4)", _first(suite, "clients"))
        if benchmark is not None and benchmark["has_server"]:
            self._ask_number(asked, "servers", "Servers of each batch", _first(suite, "servers"))
        if benchmark is not None and "server.device" in benchmark["hardware"]:
            resources = asked.setdefault("resources", {})
            if "server" not in resources:
                device = Prompt.ask(
                    "Each server on", choices=["as-is", "cpu", "gpu"], default="as-is", console=self.console
                )
                resources["server"] = {} if device == "as-is" else {"device": device}
        config = asked.setdefault("config", {})
        if "repetitions" not in config:
            answer = Prompt.ask("Repetitions", default=str(suite.get("repetitions", 5)), console=self.console)
            if answer != str(suite.get("repetitions", 5)):
                config["repetitions"] = int(answer) if answer.isdecimal() else answer
        return asked

    def compose(self, given: dict[str, Any]) -> LaunchRequest | None:
        """Ask for one service after the other; return the request, or None when it is not to be launched.

        Raises `Refused` for what was `given`.
        """
        asked: list[dict[str, Any]] = []
        shared = {key: value for key, value in given.items() if key in SHARED}
        while True:
            request = self._ask_until_it_works(given, asked)
            answer = Prompt.ask(
                "Launch it? [b](y, n, or add: another benchmark to the same launch)[/]",
                choices=["y", "n", "add"], default="y", show_choices=False, console=self.console,
            )  # fmt: skip
            if answer != "add":
                return request if answer == "y" else None
            given = {**shared, "profile": request.profile}

    def _ask_until_it_works(self, given: dict[str, Any], asked: list[dict[str, Any]]) -> LaunchRequest:
        """Ask, check, and ask again what was refused; add the service to those `asked` before and return the request.

        Raises `Refused` for what was `given`.
        """
        known, place = given, f"services[{len(asked)}]." if asked else ""
        while True:
            one = self.ask(copy.deepcopy(known))
            try:
                request = self.request(together([*asked, one]))
                self.check(request)
            except Refused as refused:
                field = (refused.field or "").removeprefix(place)
                known = without(one, field)
                if not field or known == one or without(given, field) != given:
                    raise
                self.console.print(f"[red]{escape(ko(refused))}[/]", highlight=False, soft_wrap=True)
            else:
                asked.append(one)
                return request

    def request(self, content: Mapping[str, Any]) -> LaunchRequest:
        """Return the request that a mapping is, checked as one that came over the network. Raises `Refused`."""
        return self.checker.parse(json.dumps(content, default=str).encode())  # YAML knows dates, JSON does not

    def check(self, request: LaunchRequest) -> Checked:
        """Check a request and show what it would take. Raises `Refused`."""
        checked = self.checker.cheap(request, new_id(request, datetime.now()))
        plan = checked.summary(datetime.now().astimezone())
        self.console.print(
            f"{plan['cases']} cases, {plan['repetitions']} repetitions in {plan['batches']} job(s): "
            f"about {duration(plan['expected_s'])} of measuring, "
            f"{plan['node_hours']:.2g} of {plan['budget_node_hours']:g} node-hours",
            highlight=False,
            soft_wrap=True,
        )
        return checked

    def confirm(self) -> bool:
        """Ask whether to launch."""
        return Confirm.ask("Launch it?", default=True, console=self.console)

    def launch(self, request: LaunchRequest) -> str:
        """Launch and return the id of the run. Raises `Refused`."""
        with self.console.status("checking with Snakemake, then starting …"):
            run: str = self.launcher.launch(request, uuid.uuid4().hex)["run_id"]
        return run

    def show_runs(self) -> None:
        """Print all runs, the newest first: two lines for each, so that nothing is cut in a narrow terminal."""
        runs = self.runs.all()
        if not runs:
            self.console.print(
                f"No run is in {self.runs.settings.results}: `aifbench menu` launches one.", soft_wrap=True
            )
        for run in runs:
            begun = "" if run["created_at"] is None else moment(run["created_at"])
            more = [part for part in (begun, *_parts(run), _not_read(run)) if part] + (
                [] if run["launched"] else ["started by hand"]
            )
            mark = MARKS.get(run["state"], "[blue]●[/]")
            self.console.print(f"{mark} {run['state']:<10} {run['id']}", highlight=False, soft_wrap=True)
            self.console.print(f"  {'':<10} [dim]{escape(' · '.join(more))}[/]", highlight=False, soft_wrap=True)

    def show_run(self, run: str, follow: bool) -> dict[str, Any]:
        """Print one run; with `follow`, its progress until it ends."""
        found = self.runs.show(run)
        while follow and found["state"] in {"queued", "running", "cancelling"}:
            self.console.print(_line(found), highlight=False, soft_wrap=True)
            time.sleep(5)
            found = self.runs.show(run)
        self.console.print(_line(found), highlight=False, soft_wrap=True)
        has_report = self.runs.folder(run).has("report", "index.html")
        hints = {
            "follow it": f"aifbench runs {run} --follow" if found["state"] in ACTIVE else None,
            "report": str(self.runs.settings.results / run / "report" / "index.html") if has_report else None,
            "continue": f"aifbench runs {run} --continue" if "continue" in found["can"] else None,
            "measure again": f"aifbench runs {run} --again" if "again" in found["can"] else None,
        }
        for name, text in hints.items():
            if text is not None:
                self.console.print(f"{name + ':':<15} {text}", highlight=False, soft_wrap=True)
        return found

    def _ask_preset(self, offered: Mapping[str, Any], profile: str) -> str:
        table = Table("", "preset", "what it measures", "about")
        usable = [preset for preset in offered["presets"] if profile in preset["profiles"]]
        for number, preset in enumerate(usable, 1):
            takes = preset["profiles"][profile]
            about = duration(takes["expected_s"]) if takes["status"] == "ok" else escape(takes["reason"]["code"])
            table.add_row(str(number), preset["id"], preset["text"], about)
        self.console.print(table)
        while True:
            answer = Prompt.ask("Which one? (number or name)", default=str(len(usable)), console=self.console)
            if answer.strip().isdecimal() and 1 <= int(answer) <= len(usable):
                return str(usable[int(answer) - 1]["id"])
            try:
                return choose(answer, {preset["id"]: preset["title"] for preset in usable})
            except Refused as refused:
                self.console.print(f"[red]{escape(ko(refused))}[/]", highlight=False, soft_wrap=True)

    def _ask_axis(self, asked: dict[str, Any], key: str, text: str, suite: Mapping[str, Any]) -> None:
        """Ask for what a benchmark is mostly varied by; the number of clients has a question of its own."""
        config = asked.setdefault("config", {})
        if key == "clients" or key in config or key in config.get("axes", {}):
            return
        default = _first(suite, key)
        answer = Prompt.ask(text, default=default, console=self.console)
        if answer != default:
            values = [int(part) if part.strip().isdecimal() else part.strip() for part in answer.split(",")]
            if key in suite and len(values) == 1:
                config[key] = values[0]
            else:
                config.setdefault("axes", {})[key] = values

    def _ask_number(self, asked: dict[str, Any], key: str, text: str, default: str) -> None:
        while key not in asked:
            answer = Prompt.ask(text, default=default, console=self.console)
            if answer == default:
                return
            try:
                asked[key] = numbers(answer)
            except ValueError:
                self.console.print("[red]numbers, separated by commas[/]")


def together(asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the request of services that were asked for one by one; each holds what they share."""
    if len(asked) == 1:
        return asked[0]
    shared = {key: value for one in asked for key, value in one.items() if key in SHARED}
    services = [{key: value for key, value in one.items() if key not in SHARED} for one in asked]
    return {**shared, "services": services}


def choose(answer: str, presets: Mapping[str, str]) -> str:
    """Return the id of the preset that an answer means: its id, its title, or the beginning of one alone.

    `presets` maps ids to titles. Raises `Refused`.
    """
    wanted = answer.strip().casefold()
    names = {id: (id.casefold(), title.casefold()) for id, title in presets.items()}
    found = [id for id, known in names.items() if wanted in known]
    found = found or [id for id, known in names.items() if wanted and any(name.startswith(wanted) for name in known)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{shown(answer)}: several presets begin so"
        raise refuse("unknown_preset", message, field="preset", hint=f"one of {', '.join(found)}")
    raise refuse("unknown_preset", f"{shown(answer)}: no such preset", field="preset", hint=one_of(presets, answer))


def numbers(text: str) -> int | list[int]:
    """Return `4` as a number and `1,2,4` as a list. Raises ValueError."""
    found = [int(part) for part in text.split(",")]
    return found[0] if len(found) == 1 else found


def without(request: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return a request without the value that a refusal names by its dotted path, or what it is a part of."""
    key, _, rest = field.partition("[")[0].partition(".")
    inner = request.get(key)
    if not rest or not isinstance(inner, Mapping):
        return {name: value for name, value in request.items() if name != key}
    return {**request, key: without(inner, rest)}


def moment(stamp: str) -> str:
    """Return a time as this machine's clock shows it, to the minute."""
    return f"{datetime.fromisoformat(stamp).astimezone():%d %b %H:%M}"


def ko(refused: Refused) -> str:
    """Return a refusal as one line."""
    place = f" {refused.field}" if refused.field else ""
    hint = f" ({refused.hint})" if refused.hint else ""
    return " ".join(f"ko {refused.code}{place}: {refused.message}{hint}".split())


def _first(suite: Mapping[str, Any], key: str) -> str:
    value = suite.get("axes", {}).get(key, suite.get(key, 1))
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(run: Mapping[str, Any]) -> str:
    parts = [f"{run['id']}: {run['state']}", *_parts(run), escape(run["message"]), escape(_not_read(run))]
    return " · ".join(part for part in parts if part)


def _not_read(run: Mapping[str, Any]) -> str:
    """Return what of a run's files is not read, and why; empty where all is."""
    return f"not read: {run['problem']}" if run["problem"] else ""


def _parts(run: Mapping[str, Any]) -> list[str]:
    """Return how far a run is, and what its cases came to; missing ones of a run that goes on are to go."""
    progress, counts = run["repetitions"], run["counts"] or {}
    words = {"missing": "to go"} if run["state"] in ACTIVE else {}
    cases = ", ".join(f"{count} {words.get(state, state)}" for state, count in counts.items() if count)
    return [f"{progress['done']}/{progress['planned'] or '–'} repetitions", cases]
