"""The committed dashboards: what the script makes, and only what the services, the rules and Loki's lines have."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from aifbench.services.log.loki import METADATA, payload
from tests.services.deployed import DASHBOARDS, GRAFANA, METRICS, ROOT, RULES, expressions, filled, in_logsql, names_in

PARTS = ("fleet", "run", "job", "services")


def build():
    spec = importlib.util.spec_from_file_location("grafana_build", GRAFANA / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_dashboards_are_what_the_script_makes(tmp_path: Path) -> None:
    build().main(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(made) == sorted(f"{part}.json" for part in PARTS)
    for name, text in made.items():
        assert (DASHBOARDS / name).read_text() == text, f"{name} is old: run deploy/grafana/build.py"


@pytest.mark.parametrize("part", PARTS)
def test_every_panel_has_a_title_a_place_and_a_chosen_data_source(part: str) -> None:
    found = json.loads((DASHBOARDS / f"{part}.json").read_text())
    assert found["uid"] == f"aifbench-{part}"
    assert [variable["name"] for variable in found["templating"]["list"]][:2] == ["DS_PROM", "DS_LOKI"]
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        assert panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in {"${DS_PROM}", "${DS_LOKI}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])


@pytest.mark.parametrize("part", PARTS)
def test_links_lead_to_dashboards_and_variables_that_exist(part: str) -> None:
    text = (DASHBOARDS / f"{part}.json").read_text()
    for target, query in re.findall(r"/d/(aifbench-[a-z]+)\?([^\"]*)", text):
        other = json.loads((DASHBOARDS / f"{target.removeprefix('aifbench-')}.json").read_text())
        known = {variable["name"] for variable in other["templating"]["list"]}
        asked = set(re.findall(r"var-(\w+)=", query))
        assert asked <= known
        assert asked


def test_every_expression_parses_and_asks_for_known_metrics() -> None:
    seen = set()
    for part in PARTS:
        for title, kind, expression in expressions(part):
            if kind == "prometheus":
                names = names_in(promql_parser.parse(filled(expression)))
                assert names, f"{part}: {title}: no metric in {expression}"
                assert names <= METRICS | RULES, f"{part}: {title}: nobody has {names - METRICS - RULES}"
                seen |= names
    assert len(seen) > 30


def of_the_log() -> dict[str, str]:
    return {
        f"{part}: {title}": filled(expression)
        for part in PARTS
        for title, kind, expression in expressions(part)
        if kind == "loki"
    }


LOGQL = ROOT / "node_modules" / "@grafana" / "lezer-logql"


def errors_in(expressions: list[str]) -> list[list[int]]:
    """Return for each expression of LogQL where Grafana's own parser of it finds an error."""
    if shutil.which("node") is None or not LOGQL.is_dir():
        pytest.skip("the parser of LogQL is not here: make dev installs it where Node is")
    command = ["node", str(ROOT / "tests" / "tools" / "logql.mjs")]
    done = subprocess.run(
        command, input=json.dumps(expressions), capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_every_expression_of_the_log_is_logql() -> None:
    asked = of_the_log()
    wrong = ["{app=aifbench}", '{app="aifbench"} || run_id=`x`', 'sum by level (count_over_time({app="a"}[1m])', "{"]
    found = errors_in([*asked.values(), *wrong])
    assert dict(zip(asked, found, strict=False)) == {title: [] for title in asked}
    assert all(found[len(asked) :])


def test_expressions_of_the_log_ask_for_labels_and_fields_of_our_lines() -> None:
    record = {
        "t": "2026-11-26T12:00:00+00:00",
        "level": 0,
        "msg": "x",
        **dict.fromkeys(METADATA, "x"),
        "service": "job",
    }
    (stream,) = payload([record], "here")["streams"]
    labels, fields = set(stream["stream"]), set(stream["values"][0][2])
    assert len(of_the_log()) == 6
    for title, expression in of_the_log().items():
        selector, _, filters = in_logsql(expression).partition("}")
        assert set(re.findall(r"(\w+)=", selector)) <= labels, title
        assert set(re.findall(r"(\w+):=", filters)) <= fields, title
        assert set(re.findall(r"by \((\w+)\)", filters)) <= labels, title


def test_rules_ask_for_known_metrics() -> None:
    for file in sorted((GRAFANA.parent / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                names = names_in(promql_parser.parse(rule["expr"]))
                assert names <= METRICS | RULES, f"{file.name}: nobody has {names - METRICS - RULES}"


def test_grafana_finds_its_data_sources_and_dashboards() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/aifbench.yml").read_text())["datasources"]
    assert {source["type"] for source in sources} == {"prometheus", "loki"}
    assert all("127.0.0.1" in source["url"] for source in sources)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/aifbench.yml").read_text())["providers"]
    assert provider["options"]["path"] == "${DASHBOARDS}"
