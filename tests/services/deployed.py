"""What is in deploy/, and how the expressions of its dashboards are found and filled in."""

import json
import re
from pathlib import Path

import promql_parser
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GRAFANA = DEPLOY / "grafana"
DASHBOARDS = GRAFANA / "dashboards"
METRICS = frozenset(
    [
        "up",
        "ALERTS",
        "aif_build_info",
        "aif_sse_subscribers",
        "aif_launch_requests_total",
        "aif_runs",
        "aif_jobs",
        "aif_run_info",
        "aif_slurm_queries_total",
        "aif_slurm_failures",
        "aif_monitor_poll_seconds",
        "aif_monitor_polled_timestamp_seconds",
        "aif_task_cpu_allocated_cores",
        "aif_task_cpu_seconds_total",
        "aif_task_elapsed_seconds",
        "aif_task_eta_seconds",
        "aif_task_io_bytes_total",
        "aif_task_memory_bytes",
        "aif_task_memory_limit_bytes",
        "aif_task_memory_peak_bytes",
        "aif_task_repetitions",
        "aif_task_sample_age_seconds",
        "aif_task_stalled",
        "aif_task_time_limit_seconds",
        "aif_workload_records_total",
        "aif_workload_errors_total",
        "aif_workload_last_progress_timestamp_seconds",
        "aif_node_cpu_busy_cores",
        "aif_node_memory_available_bytes",
        "aif_node_pressure_stalled_seconds_total",
        "aif_gpu_utilization_ratio",
        "aif_gpu_memory_used_bytes",
        "aif_gpu_memory_total_bytes",
        "aif_gpu_power_watts",
        "aif_gpu_energy_joules_total",
        "aif_log_statements_total",
        "aif_log_config_expiry_timestamp_seconds",
        "aif_log_loki_statements_total",
        "aif_log_loki_waiting",
    ]
)
"""What may be asked for; `test_deploy_live.py` checks that a real server has each of them."""


def _rules() -> frozenset[str]:
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return frozenset(rule["record"] for group in groups for rule in group["rules"] if "record" in rule)


RULES = _rules()


def expressions(part: str) -> list[tuple[str, str, str]]:
    """Return (title, kind of data source, expression) of all panels and variables of a dashboard."""
    found = json.loads((DASHBOARDS / f"{part}.json").read_text())
    targets = [
        (panel["title"], target["datasource"]["type"], target["expr"])
        for panel in found["panels"]
        for target in panel["targets"]
    ]
    variables = [
        (variable["name"], "prometheus", re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])[1])
        for variable in found["templating"]["list"]
        if variable["type"] == "query"
    ]
    return targets + variables


def filled(expression: str, **values: str) -> str:
    """Return an expression with its variables replaced, as Grafana does before it asks."""
    known = {"__rate_interval": "1m", "__range": "5m", "__interval": "1m", "run_id": "run", "task": "task", **values}
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known[match[1]], expression)


LINES = re.compile(r"(\{[^{}]*\})((?: \| \w+=`[^`]*`)*)")
RATE = re.compile(rf"sum by \((\w+)\) \(count_over_time\({LINES.pattern} \[1m\]\)\)")


def in_logsql(expression: str) -> str:
    """Return a LogQL expression of the dashboards in the language of VictoriaLogs: the same lines, the same groups.

    All of them are lines of a selector and filters by equality, or their number by one field. Fails for another one.
    """
    found = LINES.fullmatch(expression)
    if found:
        selector, filters, by = found[1], found[2], ""
    else:
        found = RATE.fullmatch(expression)
        assert found, f"neither lines nor their number: {expression}"
        selector, filters, by = found[2], found[3], f" | stats by ({found[1]}) count() as lines"
    wanted = [f'{name}:="{value}"' for name, value in re.findall(r"(\w+)=`([^`]*)`", filters)]
    return " ".join([selector, *wanted]) + by


def names_in(expression: promql_parser.Expr) -> set[str]:
    """Return the names of all metrics that an expression asks for."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name or "")
        if isinstance(node, promql_parser.MatrixSelector):
            found.add(node.vector_selector.name or "")
        return True

    promql_parser.walk(expression, visit)
    return found
