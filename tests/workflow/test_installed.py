"""What `pip install` gives, outside any checkout, and what a package beside it adds (docs/adding-a-benchmark.md)."""

import ast
import re
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import orjson
import pytest
import yaml

from tests.services.live import Live
from tests.services.test_monitor_service import families, wait_for
from tests.workflow.campaign import ROOT, records
from tests.workflow.installed import TOY, Installed

SLEEP = {
    "name": "naps",
    "benchmark": "sleep",
    "axes": {"duration_s": [0.001, 0.002], "clients": [1, 2]},
    "repetitions": 2,
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def site(installed):
    """A project that the installed package has made."""
    made = installed.run("aifbench", "init", "site", cwd=installed.folder)
    assert made.returncode == 0, made.stderr
    return installed.folder / "site"


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~ \[;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {_name(requirement) for requirement in project["dependencies"]}


def test_all_that_the_sources_import_is_declared():
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"aifbench"}
    known = packages_distributions()
    assert {"fastapi", "uvicorn", "prometheus_client"} <= others
    assert {_name(known[module][0]) for module in others} <= declared()


def test_what_the_image_holds_is_declared_too_and_all_of_it_is_pinned():
    listed = {_name(line) for line in (ROOT / "requirements/image.in").read_text().splitlines() if line[:1].isalpha()}
    pinned = {_name(line) for line in (ROOT / "requirements/runtime.txt").read_text().splitlines() if "==" in line}
    assert listed <= declared() <= pinned


def test_the_wheel_brings_what_campaigns_run_with(installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    for folder in ("config", "containers", "profiles", "workflow"):
        here = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        here = {name for name in here if "__pycache__" not in name}
        assert {f"aifbench/project/{name}" for name in here} <= names
    assert {
        _name(line.split(": ")[1]) for line in metadata.splitlines() if line.startswith("Requires-Dist")
    } == declared()
    assert not [name for name in names if "__pycache__" in name]


HELP = """
from typer.main import get_command
from typer.testing import CliRunner
from aifbench.cli import app
for name in get_command(app).commands:
    answer = CliRunner().invoke(app, [name, "--help"])
    print(name, answer.exit_code, "Usage:" in answer.stdout)
"""


def test_each_command_says_what_it_does(installed, tmp_path):
    told = installed.run("aifbench", "--help", cwd=tmp_path)
    listed = re.findall(r"^│ (\w+) ", told.stdout.partition("Commands")[2], re.MULTILINE)
    assert {"init", "plan", "run", "serve", "menu", "runs", "image"} <= set(listed)
    (tmp_path / "helped.py").write_text(HELP)
    helped = installed.run("helped.py", cwd=tmp_path)
    assert helped.stdout.splitlines() == [f"{name} 0 True" for name in listed], helped.stderr


def test_without_a_project_a_command_says_in_one_line_what_it_needs(installed, tmp_path):
    plan = installed.run("aifbench", "plan", cwd=tmp_path)
    assert plan.returncode == 2
    (line,) = plan.stderr.splitlines()
    assert "aifbench init" in line
    menu = installed.run("aifbench", "menu", "--check", cwd=tmp_path)
    (line,) = menu.stderr.splitlines()
    assert (menu.returncode, "aifbench init" in line) == (2, True)


def test_a_project_is_made_once_and_nothing_is_written_over(installed, site):
    mine = site / "config" / "config.yaml"
    assert mine.read_bytes() == (ROOT / "config/config.yaml").read_bytes()
    assert (site / "meluxina" / "config.yaml").read_bytes() == (ROOT / "profiles/meluxina/config.yaml").read_bytes()
    again = installed.run("aifbench", "init", "site", cwd=installed.folder)
    (line,) = again.stderr.splitlines()
    assert (again.returncode, "holds config already" in line) == (2, True)


def test_a_plan_is_made_outside_a_checkout(installed, site):
    plan = installed.run("aifbench", "plan", cwd=site)
    assert plan.returncode == 0, plan.stderr
    here = [line for line in plan.stdout.splitlines() if line.startswith("| ")]
    assert {line.split("-")[0] for line in here[1:]} == {"| retrieval", "| inference", "| storage"}


def test_an_image_of_the_sources_is_made_in_a_checkout_only(installed, site):
    system = site / "config" / "systems" / "laptop.yaml"
    made = installed.run("aifbench", "image", "aifbench", "--set", f"system={system}", cwd=site)
    (line,) = made.stderr.splitlines()
    assert (made.returncode, "is built from the sources" in line) == (2, True)


class Server(Live):
    """`aifbench serve` of the installed package."""

    def __init__(self, installed, folder, project):
        super().__init__(folder, project=project, environment={"PYTHONPATH": ""})
        self.python = str(installed.python)
        self.results = project / "results"

    def command(self):
        return [self.python, *super().command()[1:]]


def test_the_services_serve_and_offer_the_toy(installed, site, tmp_path):
    with Server(installed, tmp_path, site) as server:
        menu = server.get("/api/v1/menu").json()
        *own, toy = menu["benchmarks"]
        assert [entry["name"] for entry in own] == ["retrieval", "inference", "storage"]
        assert (toy["name"], toy["text"], toy["axis"]) == ("sleep", "How late a sleep ends.", "duration_s")
        schema = server.get("/api/v1/menu/sleep/schema").json()
        assert "duration_s" in schema["properties"]


def test_the_toy_is_launched_from_the_terminal_and_watched_in_the_monitor(installed, site, tmp_path):
    asked = ["--benchmark", "sleep", "--set", "duration_s=0.001", "--clients", "1,2", "--yes"]
    launched = installed.run("aifbench", "menu", *asked, cwd=site)
    assert launched.returncode == 0, launched.stderr
    (name,) = re.findall(r"^ok (\S+)$", launched.stdout, re.MULTILINE)
    followed = installed.run("aifbench", "runs", name, "--follow", cwd=site)
    assert "2 valid" in followed.stdout, followed.stdout + followed.stderr
    with Server(installed, tmp_path, site) as server:
        (job,) = wait_for(lambda: server.get(f"/api/v1/jobs?state=all&run={name}").json().get("jobs"))
        assert (job["benchmark"], job["state"]) == ("sleep", "ok")
        told = families(server)["aif_jobs"].samples
        assert sum(sample.value for sample in told if sample.labels["benchmark"] == "sleep") >= 1
        assert {sample.labels["benchmark"] for sample in told} == {"retrieval", "inference", "storage", "sleep"}


@pytest.fixture(scope="module")
def naps(installed, site):
    """A campaign of the toy, run by Snakemake."""
    campaign = {"campaign": "naps", "suites": [SLEEP], "system": {"name": "test"}}
    (site / "config" / "naps.yaml").write_text(yaml.safe_dump(campaign))
    arguments = ["--profile", "profiles/laptop", "--configfile", "config/naps.yaml"]
    done = installed.run("snakemake", *arguments, cwd=site)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return site, done


def test_the_toy_has_a_schema(installed, site):
    assert installed.run("aifbench", "schema", "schemas", cwd=site).returncode == 0
    suite = orjson.loads((site / "schemas" / "suite.schema.json").read_bytes())
    assert suite["$defs"]["SleepAxes"]["properties"]["duration_s"]["description"] == "how long each sleep is to take"


def test_the_toy_is_measured_by_its_own_rule(naps, installed):
    site, done = naps
    assert "4 valid" in done.stderr
    found = records(site, "naps")
    assert len(found) == 4 * 2
    for record in found:
        assert list(record["metrics"]) == ["lateness_s", "lateness_max_s", "sleeps_per_second"]
        assert 0 < record["metrics"]["lateness_s"]["value"] <= record["metrics"]["lateness_max_s"]["value"]
    (batch,) = (site / "results" / "naps" / "batches").iterdir()
    assert batch.name.startswith("sleep-sleep-")
    (invocation,) = orjson.loads((batch / "batch.json").read_bytes())["invocations"]
    assert invocation["provenance"]["packages"]["aifbench-sleep"] == "1.0"
    rules = installed.run("snakemake", "--list-rules", "--configfile", "config/naps.yaml", cwd=site)
    assert {"sleep_batch", "collect", "report", "gate"} <= set(rules.stdout.split())


def test_the_toy_stands_in_tables_and_report(naps):
    results = naps[0] / "results" / "naps"
    head, *rows = (results / "cases.csv").read_text().splitlines()
    assert {"duration_s", "clients", "lateness_s", "lateness_s_ci_low"} <= set(head.split(","))
    assert len(rows) == 4
    page = (results / "report" / "index.html").read_text()
    assert re.search(r"Sleeps are least late, .*<a [^>]*>[^<]+</a>", page)
    assert "How late a sleep ends" in page
    figure = (results / "report" / "figures" / "sleep_lateness.svg").read_text()
    assert "asked for" in figure


def test_snakemakes_own_report_says_what_each_result_is(naps, installed):
    site, _ = naps
    arguments = ["--profile", "profiles/laptop", "--configfile", "config/naps.yaml", "--report", "report.zip"]
    made = installed.run("snakemake", *arguments, cwd=site)
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(site / "report.zip") as report:
        page = report.read("report/report.html").decode()
    for caption in (site / "workflow" / "report").iterdir():
        assert caption.read_text()[:18] in page, caption.name


def test_a_script_of_the_workflow_is_usable_by_hand(naps, installed):
    site, _ = naps
    assert {path.name for path in (site / "workflow" / "scripts").iterdir()} == {
        "plan.py",
        "collect.py",
        "report.py",
        "gate.py",
    }
    for name, argument, said in (
        ("plan", "config/naps.yaml", "4 cases in 1 batches"),
        ("collect", "results/naps", "4 valid"),
        ("report", "results/naps", "index.html"),
        ("gate", "results/naps", "4 valid"),
    ):
        done = installed.run(f"workflow/scripts/{name}.py", argument, cwd=site)
        assert (done.returncode, said in done.stdout) == (0, True), done.stderr
        logged = (site / "results" / "naps" / "logs" / f"{name}.log").read_text()
        assert said in logged
    missing = installed.run("workflow/scripts/collect.py", "results/none", cwd=site)
    (line,) = missing.stderr.splitlines()
    assert (missing.returncode, line.startswith("aifbench: ")) == (2, True)


def test_the_guide_is_the_toy():
    guide = (ROOT / "docs" / "adding-a-benchmark.md").read_text()
    shown = dict(re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", guide, re.DOTALL))
    files = {str(path.relative_to(TOY)): path.read_text() for path in TOY.rglob("*") if path.is_file()}
    files = {name: text for name, text in files.items() if "__pycache__" not in name}
    assert shown == files
