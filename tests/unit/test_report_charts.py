from dataclasses import replace

import pytest

from aifbench.analysis.cases import Case, Repetition, Value, Words
from aifbench.analysis.charts import Spec
from aifbench.analysis.curves import between, curves, knee_of
from aifbench.analysis.report import BenchmarkReport, charts_of, report_of
from aifbench.core.notes import TEXT
from aifbench.inference.loads import CLIENTS, RATE
from aifbench.inference.report import REPORT as INFERENCE
from aifbench.registry import benchmarks
from aifbench.report.figures import charts, draw_panels
from aifbench.report.load import load
from aifbench.retrieval.report import REPORT as RETRIEVAL
from tests.fixtures.results import BUILD, HALF, loads, retrieval, write_results

STORAGE = report_of(benchmarks()["storage"])
TIME = Spec("time", "Time", ("write_time_s",), prefer=("block_size", "clients"))
FRONTIER = next(spec for spec in RETRIEVAL.charts if spec.name == "retrieval_frontier")
BUILT = next(spec for spec in RETRIEVAL.charts if spec.name == "retrieval_build_time")
THROUGHPUT = next(spec for spec in INFERENCE.charts if spec.name == "inference_latency_throughput")


def case(number, state="valid", metrics=None, unit="s", **axes):
    values = {"write_time_s": float(number)} if metrics is None else metrics
    return Case(
        id=f"{number:08x}",
        batch="b",
        benchmark="storage",
        label=f"case {number}",
        suites=["s"],
        params=axes,
        axes=axes,
        state=state,
        planned=2,
        done=2,
        failed=0,
        reasons=[] if state == "valid" else [TEXT.against(text="because")],
        notes=[],
        metrics={name: Value(mean, unit, 2, mean * 0.9, mean * 1.1) for name, mean in values.items()},
        repetitions=[
            Repetition(i, 0, "ok", state == "valid", [], [], "", 0.0, 1.0, None, None, None, scaled(values, factor))
            for i, factor in enumerate((0.95, 1.05))
        ],
        words=STORAGE.words,
        why="" if state == "valid" else "because",
    )


def scaled(values, factor):
    return {name: mean * factor for name, mean in values.items()}


def shape(chart):
    return [
        (panel.title, [(series.label, [point.x for point in series.points]) for series in panel.series])
        for panel in chart.panels
    ]


def test_x_is_the_numeric_axis_with_most_values_and_the_rest_are_series():
    cases = [
        case(10 * clients + size, clients=clients, block_size=size, mode=mode, layout="shared")
        for clients in (1, 2, 4)
        for size in (1024, 4096)
        for mode in ("direct", "warm")
    ]
    chart = TIME.build(cases)
    assert chart.panels[0].x_label == "clients"
    assert [text for _, text in chart.panels[0].ticks] == ["1", "2", "4"]
    assert [label for label, _ in chart.legend] == [
        "block size 1KiB · direct",
        "block size 1KiB · warm",
        "block size 4KiB · direct",
        "block size 4KiB · warm",
    ]
    assert "Held fixed: layout shared." in chart.caption
    assert all([point.x for point in series.points] == [1, 2, 4] for series in chart.panels[0].series)


def test_equally_many_values_fall_to_the_preferred_axis():
    cases = [case(1 + size + c, clients=c, block_size=size) for c in (1, 2) for size in (1024, 4096)]
    assert TIME.build(cases).panels[0].x_label == "block size"


def test_an_axis_that_x_determines_splits_no_curve():
    cases = [case(c, clients=c, file_size=1024 * c) for c in (1, 2, 4)]
    assert shape(TIME.build(cases)) == [("", [("", [1, 2, 4])])]


def test_too_many_series_become_panels():
    cases = [
        case(number, clients=c, mode=mode, pattern=pattern, buffer=buffer)
        for number, (c, mode, pattern, buffer) in enumerate(
            ((c, m, p, b) for c in (1, 2, 4) for m in "abc" for p in "xy" for b in "uv"), start=1
        )
    ]
    chart = TIME.build(cases)
    assert [panel.title for panel in chart.panels] == ["x", "y"]
    assert all(len(panel.series) == 6 for panel in chart.panels)


def test_without_a_numeric_axis_words_are_places():
    chart = TIME.build([case(1, mode="direct"), case(2, mode="warm")])
    assert chart.panels[0].ticks == ((0.0, "direct"), (1.0, "warm"))
    assert not any(series.joined for series in chart.panels[0].series)


def test_a_single_case_is_a_chart():
    chart = TIME.build([case(3, clients=1)])
    assert [point.y for series in chart.panels[0].series for point in series.points] == [3.0]


def test_points_carry_interval_repetitions_and_unit():
    chart = TIME.build(
        [case(2, clients=1, metrics={"write_time_s": 0.002}), case(4, clients=2, metrics={"write_time_s": 0.004})]
    )
    point = chart.panels[0].series[0].points[0]
    assert chart.panels[0].y_label == "time to write (ms)"
    assert (point.y, point.low, point.high) == (2.0, pytest.approx(1.8), pytest.approx(2.2))
    assert [(x, pytest.approx(y), valid) for x, y, valid in point.repetitions] == [(1.0, 1.9, True), (1.0, 2.1, True)]
    assert point.text.endswith("time to write 2.00 ± 0.20 ms, n = 2")


def test_invalid_points_are_marked_and_absent_ones_counted():
    cases = [case(1, clients=1), case(2, "invalid", clients=2), case(3, "missing", metrics={}, clients=4)]
    chart = TIME.build(cases)
    assert chart.has_invalid
    assert [point.state for point in chart.panels[0].series[0].points] == ["valid", "invalid"]
    assert "invalid: because" in chart.panels[0].series[0].points[1].text
    assert "Cases without a value here: 1 missing." in chart.caption


def test_nothing_measured_is_no_chart():
    assert TIME.build([case(1, "missing", metrics={}, clients=1)]) is None


def test_frontier_runs_along_the_search_settings_of_an_index():
    points = [("Flat", None, 1.0, 10.0), ("HNSW32", 16, 0.8, 300.0), ("HNSW32", 64, 0.95, 100.0)]
    cases = [
        case(
            number,
            metrics={"recall_at_k": recall, "queries_per_second": rate},
            unit="1",
            **{"index": index, "top_k": 10, **({"search.efSearch": setting} if setting else {})},
        )
        for number, (index, setting, recall, rate) in enumerate(points, start=1)
    ]
    chart = FRONTIER.build(cases)
    assert shape(chart) == [("", [("Flat", [1.0]), ("HNSW32", [0.8, 0.95])])]
    assert "efSearch 64" in chart.panels[0].series[1].points[1].text
    assert chart.panels[0].y_log


def test_build_time_has_a_mark_for_each_index_whatever_else_varies(tmp_path):
    write_results(tmp_path / "r", list(retrieval()))
    (chart,) = [one for one in charts(load(tmp_path / "r"), "retrieval") if one.name == "retrieval_build_time"]
    (panel,) = chart.panels
    assert (panel.x_label, panel.y_label) == ("index", "build time (s)")
    assert [text for _, text in panel.ticks] == ["Flat", "HNSW32", "IVF1024,Flat"]
    (series,) = panel.series
    assert [point.y for point in series.points] == [BUILD[name][0] for name in ("Flat", "HNSW32", "IVF1024,Flat")]
    assert not series.joined
    assert not any(point.repetitions for point in series.points)
    assert "measured once per batch" in chart.caption
    assert "mean over repetitions" not in chart.caption


def build(number, index, dataset="a", seconds=1.0, state="valid", **axes):
    metrics = {} if seconds is None else {"build_time_s": seconds}
    made = case(number, state, metrics=metrics, index=index, dataset=dataset, **axes)
    made.batch, made.words = f"{dataset}-{index}", RETRIEVAL.words
    return made


def test_a_single_index_has_no_chart_of_build_times():
    assert BUILT.build([build(1, "Flat", top_k=1), build(2, "Flat", top_k=10), build(3, "Flat", "b")]) is None
    assert BUILT.build([build(1, "Flat"), build(2, "HNSW32", seconds=None, state="missing")]) is None


def test_build_times_are_told_apart_by_their_data_and_come_from_valid_cases_where_there_are():
    cases = [
        *[build(1, "Flat", state="invalid", top_k=1), build(2, "Flat", top_k=10), build(3, "HNSW32", seconds=9.0)],
        *[build(4, "Flat", "b", vectors=5), build(5, "HNSW32", "b", seconds=3.0, vectors=5), build(6, "Flat", "c")],
        build(7, "IVF4,Flat", seconds=None, state="missing"),
    ]
    chart = BUILT.build(cases)
    assert shape(chart) == [("", [("a", [0.0, 1.0]), ("b", [0.0, 1.0])])]
    assert not chart.has_invalid
    assert chart.panels[0].series[0].points[0].case == cases[1].id
    assert BUILT.build([build(1, "Flat"), build(2, "HNSW32", "b")]) is not None


def test_panels_of_one_metric_share_the_kind_of_their_axis():
    wide = [case(n, clients=c, mode=m, pattern=p, buffer=b) for n, (c, m, p, b) in enumerate(
        ((c, m, p, b) for c in (1, 2, 4) for m in "abc" for p in "xy" for b in "uv"), start=1
    )]  # fmt: skip
    assert [panel.y_log for panel in TIME.build(wide).panels] == [True, True]
    assert [panel.y_log for panel in TIME.build(wide[20:]).panels] == [False] * len(TIME.build(wide[20:]).panels)


def test_what_is_not_drawn_is_said():
    chart = TIME.build([case(n + 1, clients=c, mode=f"m{n}") for n in range(200) for c in (1, 2)])
    assert sum(len(panel.series) for panel in chart.panels) == 120
    assert "80 further curves are not drawn; the table has them." in chart.caption
    assert "Grey: further combinations" in chart.caption


def test_a_chart_has_a_bounded_number_of_points():
    chart = TIME.build([case(n + 1, clients=n + 1, mode=mode) for n in range(400) for mode in "abcdef"])
    assert [len(series.points) for panel in chart.panels for series in panel.series] == [400] * 3
    assert "3 further curves are not drawn" in chart.caption
    assert "single repetitions stand in the drawer" in chart.caption


def test_many_values_of_x_get_few_ticks():
    chart = TIME.build([case(n, file_size=1024 * n) for n in range(1, 101)])
    texts = [text for _, text in chart.panels[0].ticks]
    assert len(texts) <= 8
    assert (texts[0], texts[-1]) == ("1KiB", "100KiB")


def test_a_stranger_s_benchmark_gets_its_contract_outputs():
    (spec,) = charts_of("network", BenchmarkReport(), ("round_trip_s",))
    assert (spec.name, spec.metrics, spec.title) == ("network_headline", ("round_trip_s",), "Round trip")


def test_names_and_values_for_readers():
    assert STORAGE.words.metric("write_latency_p50_s") == "write latency p50"
    assert STORAGE.words.metric("write_time_s") == "time to write"
    assert STORAGE.words.value("block_size", 65536) == "64KiB"
    assert STORAGE.words.value("stripe_size", 1 << 20) == "1MiB"
    assert RETRIEVAL.words.axis("top_k") == "k"
    assert Words().axis("engine.kind") == "engine"
    assert Words().value("batch_size", 1) == "1"
    assert Words().value("prompt", "a\x00b" + "x" * 60) == "a�b" + "x" * 36 + "…"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "loads"
    write_results(folder, list(loads()))
    results = load(folder)
    return results, {chart.name: chart for chart in charts(results, "inference")}


def test_latency_runs_over_throughput_along_the_load(measured):
    chart = measured[1]["inference_latency_throughput"]
    assert [panel.title for panel in chart.panels] == ["time to first token", "inter-token latency"]
    short, long = chart.panels[0].series
    assert [point.label for point in short.points] == ["1", "2", "3", "4", "6", "8", "12", "16"]
    assert [point.x for point in short.points] == pytest.approx([102.4 * min(n, 6) for n in (1, 2, 3, 4, 6, 8, 12, 16)])
    assert short.points[0].x_low < short.points[0].x < short.points[0].x_high
    assert [point.label for point in long.points if point.state != "valid"] == ["12"]
    assert chart.has_invalid


def test_the_knee_is_marked_with_its_interval_and_told(measured):
    chart = measured[1]["inference_latency_throughput"]
    for series in chart.panels[0].series:
        assert series.mark.text.startswith(f"{series.label}\nknee at 6.0 clients (5.")
        assert series.mark.stretch[0][0] < series.mark.stretch[-1][0]
        assert series.mark.case == next(point.case for point in series.points if point.label == "6")
    assert "short: knee at 6.0 clients (5." in chart.caption
    assert "the wide stretch is its 95 % interval" in chart.mark
    drawn = draw_panels(chart)
    assert sum("knee at" in text for _, _, _, text in drawn[0].points) == 2


def test_no_knee_is_told_with_its_reason(measured):
    few = [case for case in measured[0].cases if case.axes["clients"] in (1, 2, 3, 4)]
    chart = THROUGHPUT.build(few)
    assert chart.mark == ""
    assert "short: no knee found up to 4 clients: one even line describes throughput as well" in chart.caption


def test_bounds_of_the_slo_are_lines_where_they_are_near(measured):
    first, gaps = measured[1]["inference_latency_throughput"].panels
    assert first.lines == ((300.0, "SLO 300 ms"),)
    assert gaps.lines == ()
    assert (
        "The SLO's bound on inter-token latency, 2 s, lies above the chart."
        in measured[1]["inference_latency_throughput"].caption
    )
    assert INFERENCE.words.axis("slo.time_to_first_token_s") == "SLO on time_to_first_token"
    assert INFERENCE.words.value("slo.time_to_first_token_s", 0.3) == "0.3 s"


def test_the_end_to_end_latency_is_shown_where_the_slo_bounds_it(measured):
    cases = [case for case in measured[0].cases if "slo.time_to_first_token_s" in case.axes]
    for case in cases:
        case.axes = {**case.axes, "slo.end_to_end_latency_s": 9.0}
    titles = [panel.title for panel in THROUGHPUT.build(cases).panels]
    for case in cases:
        del case.axes["slo.end_to_end_latency_s"]
    assert titles[-1] == "end-to-end latency"


def test_rates_have_a_curve_of_their_own_and_searches_have_none(measured):
    rates = measured[1]["inference_latency_rate"].panels[0]
    assert [point.label for point in rates.series[0].points] == ["1", "2", "4", "8", "16", "32"]
    for name in ("inference_time_to_first_token", "inference_latency_throughput"):
        told = [point.case for panel in measured[1][name].panels for one in panel.series for point in one.points]
        assert set(told) == {case.id for case in measured[0].cases if case.axes["schedule.kind"] == "closed"} - {
            case.id for case in measured[0].cases if "find" in case.axes
        }


def test_a_rate_that_no_server_could_reach_has_no_knee(measured):
    (curve,) = curves(measured[0].cases, RATE)
    assert knee_of(curve, RATE).load == pytest.approx(12, rel=0.03)
    before = curve[-1].metrics["makespan_s"]
    curve[-1].metrics["makespan_s"] = Value(3.0, "s", 5, 2.9, 3.1)
    told = knee_of(curve, RATE)
    curve[-1].metrics["makespan_s"] = before
    assert told.load is None
    assert told.reason.startswith("too few requests: one answer takes 0.65 s, all of the highest rate 3 s")


def test_invalid_cases_and_repetitions_are_no_part_of_a_knee(measured):
    curve = next(curve for curve in curves(measured[0].cases, CLIENTS) if curve[0].axes["prompt"] == "long")
    assert [case.axes["clients"] for case in curve if case.state == "invalid"] == [12]
    assert knee_of(curve, CLIENTS) == knee_of([case for case in curve if case.state == "valid"], CLIENTS)


def test_a_search_shows_what_it_tried_and_what_it_found(measured):
    chart = measured[1]["inference_search"]
    (series,) = chart.panels[0].series
    assert [(point.x, point.y) for point in series.points] == [(1, 1), (2, 1), (4, 1), (6, 0.97), (7, 0.7), (8, 0.4)]
    assert series.points[0].text.endswith("1 client: 100.0 % within the SLO\ntried by 5 searches")
    assert (series.mark.x, series.mark.y) == (6, 0.95)
    assert chart.panels[0].lines == ((0.95, "asked for 95 %"),)
    assert "6.00 ± 0.12 clients keep the SLO." in chart.caption


def test_a_place_between_two_loads_lies_on_the_drawn_line():
    places = [(1.0, 10.0, 1.0), (4.0, 40.0, 100.0), (16.0, 40.0, 200.0)]
    assert between(places, 2, x_log=False, y_log=True) == (25.0, pytest.approx(10))
    assert between(places, 8, x_log=False, y_log=False) == (40.0, pytest.approx(150))
    assert between(places, 99, x_log=False, y_log=False) == (40.0, 200.0)


def test_many_labels_become_the_first_and_the_last():
    made = [
        case(n, metrics={"time_to_first_token_s": 1.0 + n, "tokens_generated_per_second_aggregate": 1.0 + n}, clients=n)
        for n in range(1, 60)
    ]
    labels = [point.label for point in THROUGHPUT.build(made).panels[0].series[0].points]
    assert [label for label in labels if label] == ["1", "59"]


def test_a_search_for_a_rate_has_its_own_panel(tmp_path):
    (clients,) = [case for case in loads() if "find" in case.params]
    params = {**clients.params, "schedule": {"kind": "poisson", "rate": 16.0}, "find": "rate"}
    rate = replace(
        clients,
        params=params,
        metrics={"rate_under_slo": 2.0},
        facts={"probes": [[0.25, 1.0], [2.0, 0.96], [2.1, 0.5]]},
    )
    write_results(tmp_path / "r", [clients, rate])
    (chart,) = [one for one in charts(load(tmp_path / "r"), "inference") if one.name == "inference_search"]
    assert [panel.x_label for panel in chart.panels] == ["clients", "requests/s"]
    assert [text for _, text in chart.panels[1].ticks] == ["0.25", "2", "2.1"]
    (series,) = chart.panels[1].series
    assert series.mark.x == 2.0
    assert (series.mark.stretch[0][0], series.mark.stretch[-1][0]) == pytest.approx((2 * (1 - HALF), 2 * (1 + HALF)))


def test_a_wide_interval_leaves_the_panel_and_presses_no_points_together():
    made = [
        case(n, metrics={"time_to_first_token_s": 1.0, "tokens_generated_per_second_aggregate": 10.0 * n}, clients=n)
        for n in (1, 2, 3)
    ]
    made[2].metrics["tokens_generated_per_second_aggregate"] = Value(30.0, "1/s", 2, -500.0, 560.0)
    (panel,) = draw_panels(THROUGHPUT.build(made))
    places = [x for x, _, _, _ in panel.points]
    assert places[2] - places[0] > 0.3


def test_searches_without_a_limit_are_not_left_out_of_what_is_said(tmp_path):
    (clients,) = [case for case in loads() if "find" in case.params]
    write_results(tmp_path / "r", [clients])
    results = load(tmp_path / "r")
    repetitions = results.cases[0].repetitions
    for place, probes in ((3, ((1.0, 0.75),)), (4, ((1.0, 1.0), (16.0, 1.0)))):
        repetitions[place] = replace(repetitions[place], facts={"probes": probes}, values={})
    spec = next(spec for spec in INFERENCE.charts if spec.name == "inference_search")
    said = (
        "6.00 ± 0.12 clients keep the SLO in 3 of 5 searches; in 1 not even the lowest load kept it; "
        "in 1 no load failed."
    )
    assert said in spec.build(results.cases).caption
