"""Write the four dashboards: `python deploy/grafana/build.py [FOLDER]`. A test keeps the committed files in step.

Each asks for its data sources by the variables DS_PROM and DS_LOKI. What was not measured says so; it is never 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, logs, loki, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Query = Builder[Dataquery]
FOLDER = Path(__file__).parent / "dashboards"
PROM = model.DataSourceRef("prometheus", "${DS_PROM}")
LOKI = model.DataSourceRef("loki", "${DS_LOKI}")
NONE = "not measured"
BY_TASK = "run_id, task, node"
ACTIVE = 'state=~"pending|running|lost"'


def prom(expr: str, legend: str = "", *, instant: bool = False, rows: bool = False) -> prometheus.Dataquery:
    """Return a query of Prometheus. `rows`: as rows of a table."""
    query = prometheus.Dataquery().expr(expr).legend_format(legend).datasource(PROM)
    query = query.instant() if instant or rows else query.range()
    return query.format(PromQueryFormat.TABLE) if rows else query


def number(
    title: str, expr: str, unit: str = "none", *, text: str = "", steps: list[model.Threshold] | None = None
) -> stat.Panel:
    """Return one big number: the value of now."""
    panel = (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(PROM)
        .unit(unit)
        .no_value(NONE)
        .height(4)
        .span(3)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .with_target(prom(expr, instant=True))
    )
    colors = steps or [model.Threshold(None, "text")]
    return panel.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(colors))


def bad_above(limit: float) -> list[model.Threshold]:
    """Return colours that turn at `limit`; the number says it as well."""
    return [model.Threshold(None, "green"), model.Threshold(limit, "orange")]


def chart(title: str, unit: str, *queries: Query, text: str = "", span: int = 8) -> timeseries.Panel:
    """Return a chart over time that begins at 0."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(PROM)
        .unit(unit)
        .min(0)
        .no_value(NONE)
        .height(8)
        .span(span)
        .legend(
            VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )
    for query in queries:
        panel = panel.with_target(query)
    return panel


def lines(title: str, expr: str, *, span: int = 24) -> logs.Panel:
    """Return a panel of log lines, newest first."""
    return (
        logs.Panel()
        .title(title)
        .datasource(LOKI)
        .height(10)
        .span(span)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .with_target(loki.Dataquery().expr(expr).datasource(LOKI).max_lines(500))
    )


def log_rate(title: str, selector: str, by: str, *, span: int = 8) -> timeseries.Panel:
    """Return statements per interval as a chart."""
    expr = f"sum by ({by}) (count_over_time({selector} [$__interval]))"
    query = loki.Dataquery().expr(expr).legend_format(f"{{{{{by}}}}}").datasource(LOKI)
    return chart(title, "short", query, span=span).datasource(LOKI)


def merged(title: str, columns: dict[str, str], hidden: tuple[str, ...] = (), *, text: str = "") -> table.Panel:
    """Return one table out of several queries: column title to expression; their labels are columns too.

    `hidden`: columns that are not shown, a value that is always 1 or a label that is the same in all rows.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(text)
        .datasource(PROM)
        .height(8)
        .span(24)
        .no_value(NONE)
        .show_header(True)
    )
    values = {column: f"Value #{_ref(place)}" if len(columns) > 1 else "Value" for place, column in enumerate(columns)}
    for expr in columns.values():
        panel = panel.with_target(prom(expr, rows=True))
    organize = {
        "excludeByName": {"Time": True, **{values.get(name, name): True for name in hidden}},
        "renameByName": {value: column for column, value in values.items()},
        "indexByName": {},
    }
    return panel.transformations(
        [model.DataTransformerConfig("merge", options={}), model.DataTransformerConfig("organize", options=organize)]
    )


def unit_of(panel: table.Panel, units: dict[str, str]) -> table.Panel:
    """Give columns of a table their units."""
    for column, unit in units.items():
        panel = panel.override_by_name(column, [model.DynamicConfigValue("unit", unit)])
    return panel


def linked(panel: table.Panel, column: str, uid: str, variables: tuple[str, ...]) -> table.Panel:
    """Make a column lead to another dashboard, with the values of the row's labels."""
    values = "&".join(f"var-{name}=${{__data.fields.{name}}}" for name in variables)
    link = {"title": f"open {uid}", "url": f"/d/{uid}?{values}&${{__url_time_range}}"}
    return panel.override_by_name(column, [model.DynamicConfigValue("links", [link])])


def source(name: str, kind: str, label: str) -> dashboard.DatasourceVariable:
    """Return the variable that chooses a data source."""
    return dashboard.DatasourceVariable(name).label(label).type(kind)


def choice(name: str, query: str) -> dashboard.QueryVariable:
    """Return a variable whose values are those of a label."""
    return (
        dashboard.QueryVariable(name)
        .query(query)
        .datasource(PROM)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def page(uid: str, title: str, text: str, *variables: dashboard.QueryVariable) -> dashboard.Dashboard:
    """Return an empty dashboard with what all of them share."""
    found = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["aifbench"])
        .readonly()
        .refresh("15s")
        .time("now-1h", "now")
        .timezone(common.TimeZoneBrowser)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(source("DS_PROM", "prometheus", "Prometheus"))
        .with_variable(source("DS_LOKI", "loki", "Loki"))
        .link(
            dashboard.DashboardLink("aifbench")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["aifbench"])
            .keep_time(True)
        )
    )
    for variable in variables:
        found = found.with_variable(variable)
    return found


def fleet() -> dashboard.Dashboard:
    """Return the dashboard of everything that is active."""
    now = merged(
        "Active tasks",
        {
            "info": f"max by ({BY_TASK}, benchmark, state, partition) (aif_run_info{{{ACTIVE}}})",
            "elapsed": f"max by ({BY_TASK}) (aif_task_elapsed_seconds)",
            "left": f"max by ({BY_TASK}) (aif_task_eta_seconds)",
            "records/s": f"sum by ({BY_TASK}) (task:aif_workload_records:rate1m)",
            "CPU": f"max by ({BY_TASK}) (task:aif_task_cpu_used:ratio)",
            "memory": f"max by ({BY_TASK}) (task:aif_task_memory_used:ratio)",
            "GPU": f"avg by ({BY_TASK}) (aif_gpu_utilization_ratio)",
            "stalled": f"max by ({BY_TASK}) (aif_task_stalled)",
        },
        hidden=("info",),
        text="CPU and memory: used over allocated. GPU: part of the time in which a kernel ran.",
    )
    units = {"elapsed": "s", "left": "s", "CPU": "percentunit", "memory": "percentunit", "GPU": "percentunit"}
    now = linked(unit_of(now, units), "run_id", "aifbench-run", ("run_id",))
    now = linked(now, "task", "aifbench-job", ("run_id", "task"))
    alerts = merged(
        "Firing alerts",
        {"firing": 'max by (alertname, severity, run_id, task, node, gpu, instance) (ALERTS{alertstate="firing"})'},
        hidden=("firing",),
        text="Rules: deploy/prometheus/rules/alerts.yml",
    ).no_value("none")
    return (
        page("aifbench-fleet", "aifbench / fleet", "All runs that this server sees, now.")
        .with_panel(number("Running", 'sum(aif_jobs{state="running"})'))
        .with_panel(number("Waiting", 'sum(aif_jobs{state="pending"})'))
        .with_panel(number("Stalled", "sum(aif_task_stalled)", steps=bad_above(1)))
        .with_panel(number("Cores in use", "sum(task:aif_task_cpu_used:cores)"))
        .with_panel(number("Cores allocated", "sum(aif_task_cpu_allocated_cores)"))
        .with_panel(number("GPUs held", "count(aif_gpu_utilization_ratio)"))
        .with_panel(
            number("GPUs idle", "sum(aif_gpu_utilization_ratio < bool 0.05)", text="Below 5 %.", steps=bad_above(1))
        )
        .with_panel(number("GPU power", "sum(aif_gpu_power_watts)", "watt"))
        .with_panel(now)
        .with_panel(chart("Tasks", "none", prom(f"sum by (state) (aif_jobs{{{ACTIVE}}})", "{{state}}")))
        .with_panel(
            chart(
                "Records per second",
                "cps",
                prom("sum by (run_id, kind) (task:aif_workload_records:rate1m)", "{{run_id}} {{kind}}"),
            )
        )
        .with_panel(
            chart(
                "Cores",
                "none",
                prom("sum(task:aif_task_cpu_used:cores)", "in use"),
                prom("sum(aif_task_cpu_allocated_cores)", "allocated"),
            )
        )
        .with_panel(
            chart(
                "Memory",
                "bytes",
                prom("sum(task:aif_task_memory_used:bytes)", "in use (resident)"),
                prom("sum(aif_task_memory_limit_bytes)", "allocated"),
            )
        )
        .with_panel(
            chart("GPU use", "percentunit", prom("avg by (node, gpu) (aif_gpu_utilization_ratio)", "{{node}} {{gpu}}"))
        )
        .with_panel(chart("GPU power", "watt", prom("sum by (node) (aif_gpu_power_watts)", "{{node}}")))
        .with_panel(alerts)
    )


def run() -> dashboard.Dashboard:
    """Return the dashboard of one run (campaign), a line per task."""
    this = 'run_id="$run_id"'
    blocks = f'aif_task_io_bytes_total{{{this},layer="block"}}[$__rate_interval]'
    state = merged(
        "Tasks",
        {
            "info": f"max by ({BY_TASK}, benchmark, state, commit) (aif_run_info{{{this}}})",
            "done": f'max by ({BY_TASK}) (aif_task_repetitions{{{this},state="done"}})',
            "planned": f'max by ({BY_TASK}) (aif_task_repetitions{{{this},state="planned"}})',
            "elapsed": f"max by ({BY_TASK}) (aif_task_elapsed_seconds{{{this}}})",
            "left": f"max by ({BY_TASK}) (aif_task_eta_seconds{{{this}}})",
            "stalled": f"max by ({BY_TASK}) (aif_task_stalled{{{this}}})",
        },
        hidden=("info", "run_id"),
        text="Repetitions of its cases: done and planned.",
    )
    state = linked(unit_of(state, {"elapsed": "s", "left": "s"}), "task", "aifbench-job", ("run_id", "task"))
    done, planned = (f'sum(aif_task_repetitions{{{this},state="{name}"}})' for name in ("done", "planned"))
    of_log = '{app="aifbench"} | run_id=`$run_id`'
    return (
        page(
            "aifbench-run",
            "aifbench / run",
            "One run: its tasks, what they use, what they say.",
            choice("run_id", "label_values(aif_run_info, run_id)"),
        )
        .with_panel(number("Repetitions done", done))
        .with_panel(number("Progress", f"{done} / {planned}", "percentunit", text="Repetitions done over planned."))
        .with_panel(number("Left, at least", f"max(aif_task_eta_seconds{{{this}}})", "s", text="Longest of its tasks."))
        .with_panel(number("Stalled", f"sum(aif_task_stalled{{{this}}})", steps=bad_above(1)))
        .with_panel(number("Cores in use", f"sum(task:aif_task_cpu_used:cores{{{this}}})"))
        .with_panel(number("Memory in use", f"sum(task:aif_task_memory_used:bytes{{{this}}})", "bytes"))
        .with_panel(number("GPU use", f"avg(aif_gpu_utilization_ratio{{{this}}})", "percentunit"))
        .with_panel(
            number(
                "GPU energy",
                f"sum(increase(aif_gpu_energy_joules_total{{{this}}}[$__range]))",
                "joule",
                text="Within the time shown.",
            )
        )
        .with_panel(state)
        .with_panel(
            chart("Records per second", "cps", prom(f"task:aif_workload_records:rate1m{{{this}}}", "{{task}} {{kind}}"))
        )
        .with_panel(
            chart(
                "Repetitions done over planned",
                "percentunit",
                prom(
                    f'max by ({BY_TASK}) (aif_task_repetitions{{{this},state="done"}}) / '
                    f'max by ({BY_TASK}) (aif_task_repetitions{{{this},state="planned"}})',
                    "{{task}}",
                ),
            )
        )
        .with_panel(
            chart("CPU used over allocated", "percentunit", prom(f"task:aif_task_cpu_used:ratio{{{this}}}", "{{task}}"))
        )
        .with_panel(chart("Memory", "bytes", prom(f"task:aif_task_memory_used:bytes{{{this}}}", "{{task}}")))
        .with_panel(
            chart(
                "GPU use",
                "percentunit",
                prom(f"avg by (task, node, gpu) (aif_gpu_utilization_ratio{{{this}}})", "{{task}} {{node}} {{gpu}}"),
            )
        )
        .with_panel(
            chart(
                "Storage devices",
                "Bps",
                prom(
                    f"sum by (task, direction) (rate({blocks}))",
                    "{{task}} {{direction}}",
                ),
                text="What the page cache takes or gives does not count.",
            )
        )
        .with_panel(log_rate("Statements", of_log, "level", span=24))
        .with_panel(lines("Log", of_log))
    )


def job() -> dashboard.Dashboard:
    """Return the dashboard of one task (batch): each role, its limits, each GPU."""
    this = 'run_id="$run_id",task="$task"'
    of_log = '{app="aifbench"} | run_id=`$run_id` | batch=`$task`'

    def roles(title: str, unit: str, expr: Callable[[str], str], *more: Query, text: str = "") -> timeseries.Panel:
        return chart(title, unit, prom(f"sum by (role) ({expr(this)})", "{{role}}"), *more, text=text)

    def rate(metric: str) -> Callable[[str], str]:
        return lambda which: f"rate({metric}{{{which}}}[$__rate_interval])"

    def per_gpu(title: str, unit: str, metric: str, *more: Query) -> timeseries.Panel:
        return chart(title, unit, prom(f"max by (node, gpu) ({metric}{{{this}}})", "{{node}} {{gpu}}"), *more)

    def io(layer: str) -> str:
        return f'aif_task_io_bytes_total{{{this},layer="{layer}"}}[$__rate_interval]'

    since = f"time() - max(aif_workload_last_progress_timestamp_seconds{{{this}}})"
    waited = f"aif_node_pressure_stalled_seconds_total{{{this}}}[$__rate_interval]"
    return (
        page(
            "aifbench-job",
            "aifbench / job",
            "One task of a run: what each role uses, beside what it may use.",
            choice("run_id", "label_values(aif_run_info, run_id)"),
            choice("task", 'label_values(aif_run_info{run_id="$run_id"}, task)'),
        )
        .with_panel(number("Elapsed", f"max(aif_task_elapsed_seconds{{{this}}})", "s"))
        .with_panel(number("Time limit", f"max(aif_task_time_limit_seconds{{{this}}})", "s"))
        .with_panel(number("Left", f"max(aif_task_eta_seconds{{{this}}})", "s"))
        .with_panel(number("Repetitions done", f'sum(aif_task_repetitions{{{this},state="done"}})'))
        .with_panel(number("Planned", f'sum(aif_task_repetitions{{{this},state="planned"}})'))
        .with_panel(number("Since last progress", since, "s", steps=bad_above(60)))
        .with_panel(
            number("Age of the last sample", f"max(aif_task_sample_age_seconds{{{this}}})", "s", steps=bad_above(10))
        )
        .with_panel(number("Stalled", f"max(aif_task_stalled{{{this}}})", steps=bad_above(1)))
        .with_panel(
            chart(
                "Records per second",
                "cps",
                prom(f"sum by (kind) (rate(aif_workload_records_total{{{this}}}[$__rate_interval]))", "{{kind}}"),
                prom(
                    f"sum by (kind) (rate(aif_workload_errors_total{{{this}}}[$__rate_interval]))",
                    "{{kind}} and repetitions that failed",
                ),
            )
        )
        .with_panel(
            roles(
                "Cores",
                "none",
                rate("aif_task_cpu_seconds_total"),
                prom(f"max(aif_task_cpu_allocated_cores{{{this}}})", "allocated"),
                prom(f"max by (node) (aif_node_cpu_busy_cores{{{this}}})", "busy on {{node}}, anybody"),
            )
        )
        .with_panel(
            roles(
                "Memory (resident)",
                "bytes",
                lambda which: f"aif_task_memory_bytes{{{which}}}",
                prom(f"max(aif_task_memory_limit_bytes{{{this}}})", "limit"),
                text="Pages that processes share count for each of them.",
            )
        )
        .with_panel(
            chart(
                "Memory, largest so far",
                "bytes",
                prom(f"max by (role, source) (aif_task_memory_peak_bytes{{{this}}})", "{{role}} ({{source}})"),
            )
        )
        .with_panel(
            chart(
                "Storage devices",
                "Bps",
                prom(
                    f"sum by (role, direction) (rate({io('block')}))",
                    "{{role}} {{direction}}",
                ),
                text="What the page cache takes or gives does not count. Lustre is no such device.",
            )
        )
        .with_panel(
            chart(
                "Read and write calls",
                "Bps",
                prom(
                    f"sum by (role, direction) (rate({io('vfs')}))",
                    "{{role}} {{direction}}",
                ),
                text="On whatever: files of Lustre too, pipes too. Not what is read through a mapping.",
            )
        )
        .with_panel(
            chart(
                "Memory by kind",
                "bytes",
                prom(f"sum by (role, kind) (aif_task_memory_bytes{{{this}}})", "{{role}} {{kind}}"),
            )
        )
        .with_panel(
            chart(
                "Waiting on the node",
                "percentunit",
                prom(
                    f"max by (node, resource) (rate({waited}))",
                    "{{node}} for {{resource}}",
                ),
                text="Part of the time in which some process, of anybody, waited (pressure stall information).",
            )
        )
        .with_panel(
            chart(
                "Memory left on the node",
                "bytes",
                prom(f"min by (node) (aif_node_memory_available_bytes{{{this}}})", "{{node}}"),
            )
        )
        .with_panel(per_gpu("GPU use", "percentunit", "aif_gpu_utilization_ratio"))
        .with_panel(
            per_gpu(
                "GPU memory",
                "bytes",
                "aif_gpu_memory_used_bytes",
                prom(f"max by (node, gpu) (aif_gpu_memory_total_bytes{{{this}}})", "{{node}} {{gpu}}, all of it"),
            )
        )
        .with_panel(per_gpu("GPU power", "watt", "aif_gpu_power_watts"))
        .with_panel(log_rate("Statements", of_log, "level", span=24))
        .with_panel(lines("Log", of_log))
    )


def services() -> dashboard.Dashboard:
    """Return the dashboard of the services themselves."""
    of_log = '{app="aifbench", service=~"client|monitor|log|other"}'
    expiry = "max by (config) (aif_log_config_expiry_timestamp_seconds)"
    configs = unit_of(
        merged(
            "Log configurations",
            {"ends": f"{expiry} * 1000", "in": f"{expiry} - time()"},
            text="A configuration that has ended writes nothing more.",
        ),
        {"ends": "dateTimeAsIso", "in": "s"},
    )
    return (
        page("aifbench-services", "aifbench / services", "The client, the monitor and the log themselves.")
        .with_panel(number("Answers", 'sum(up{job="aifbench"})', text="Servers that were scraped."))
        .with_panel(number("Open streams", "sum(aif_sse_subscribers)"))
        .with_panel(number("squeue failures in a row", "max(aif_slurm_failures)", steps=bad_above(3)))
        .with_panel(number("Waiting for Loki", "sum(aif_log_loki_waiting)", text="Statements in the queue."))
        .with_panel(
            number(
                "Lost on the way to Loki",
                'sum(increase(aif_log_loki_statements_total{result=~"refused|dropped"}[$__range]))',
                text="Within the time shown. The files have them.",
                steps=bad_above(1),
            )
        )
        .with_panel(
            number(
                "Dropped statements",
                'sum(increase(aif_log_statements_total{decision="dropped"}[$__range]))',
                text="Within the time shown.",
                steps=bad_above(1),
            )
        )
        .with_panel(number("Log configurations", f"count({expiry} > time())", text="That are valid now."))
        .with_panel(number("Runs", "sum(aif_runs)", text="As last listed."))
        .with_panel(
            chart(
                "Launches",
                "cpm",
                prom("sum by (result, reason) (rate(aif_launch_requests_total[5m])) * 60", "{{result}} {{reason}}"),
            )
        )
        .with_panel(chart("Runs by state", "none", prom("sum by (state) (aif_runs)", "{{state}}")))
        .with_panel(
            chart(
                "Log statements",
                "cps",
                prom(
                    "sum by (level, decision) (rate(aif_log_statements_total[$__rate_interval]))",
                    "{{level}} {{decision}}",
                ),
            )
        )
        .with_panel(
            chart(
                "Push to Loki",
                "cps",
                prom("sum by (result) (rate(aif_log_loki_statements_total[$__rate_interval]))", "{{result}}"),
            )
        )
        .with_panel(
            chart(
                "Calls of squeue",
                "cpm",
                prom("sum(rate(aif_slurm_queries_total[5m])) * 60", "calls"),
                text="One for all jobs, at most two a minute.",
            )
        )
        .with_panel(
            chart(
                "Look at the results",
                "s",
                prom("max by (instance) (aif_monitor_poll_seconds)", "{{instance}} takes"),
                prom("time() - max by (instance) (aif_monitor_polled_timestamp_seconds)", "{{instance}} was ago"),
                text="Once per second; slower where the shared file system does not answer.",
            )
        )
        .with_panel(configs)
        .with_panel(
            merged(
                "Versions",
                {"info": "max by (instance, version, python) (aif_build_info)"},
                hidden=("info",),
            ).height(4)
        )
        .with_panel(log_rate("Statements of the services", of_log, "service", span=24))
        .with_panel(lines("Log of the services", of_log))
    )


def _ref(place: int) -> str:
    """Return the name of a panel's query: A, B, ..."""
    return chr(ord("A") + place)


def text_of(found: dashboard.Dashboard) -> str:
    """Return a dashboard as the text of its file."""
    built = found.build()
    for place, panel in enumerate(built.panels or []):
        assert isinstance(panel, model.Panel)
        panel.id_val = place + 1
        for number_of, target in enumerate(panel.targets or []):
            target.__dict__["ref_id"] = _ref(number_of)
    return JSONEncoder(sort_keys=True, indent=1).encode(built) + "\n"


DASHBOARDS = {"fleet": fleet, "run": run, "job": job, "services": services}


def main(folder: Path) -> None:
    """Write all dashboards into a folder."""
    for name, make in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(text_of(make()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
