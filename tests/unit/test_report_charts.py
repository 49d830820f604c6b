import pytest

from aifbench.report.charts import SPECS, Spec, build, chart_specs, metric_name
from aifbench.report.load import Case, Repetition, Value, axis_value

TIME = Spec("time", "storage", "Time", ("write_time_s",), ("block_size", "clients"))
FRONTIER = next(spec for spec in SPECS if spec.name == "retrieval_frontier")


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
        reasons=[] if state == "valid" else ["because"],
        notes=[],
        metrics={name: Value(mean, unit, 2, mean * 0.9, mean * 1.1) for name, mean in values.items()},
        repetitions=[
            Repetition(i, 0, "ok", state == "valid", [], [], "", 0.0, 1.0, None, None, None, scaled(values, factor))
            for i, factor in enumerate((0.95, 1.05))
        ],
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
    chart = build(TIME, cases)
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
    assert build(TIME, cases).panels[0].x_label == "block size"


def test_an_axis_that_x_determines_splits_no_curve():
    cases = [case(c, clients=c, file_size=1024 * c) for c in (1, 2, 4)]
    assert shape(build(TIME, cases)) == [("", [("", [1, 2, 4])])]


def test_too_many_series_become_panels():
    cases = [
        case(number, clients=c, mode=mode, pattern=pattern, buffer=buffer)
        for number, (c, mode, pattern, buffer) in enumerate(
            ((c, m, p, b) for c in (1, 2, 4) for m in "abc" for p in "xy" for b in "uv"), start=1
        )
    ]
    chart = build(TIME, cases)
    assert [panel.title for panel in chart.panels] == ["x", "y"]
    assert all(len(panel.series) == 6 for panel in chart.panels)


def test_without_a_numeric_axis_words_are_places():
    chart = build(TIME, [case(1, mode="direct"), case(2, mode="warm")])
    assert chart.panels[0].ticks == ((0.0, "direct"), (1.0, "warm"))
    assert not any(series.joined for series in chart.panels[0].series)


def test_a_single_case_is_a_chart():
    chart = build(TIME, [case(3, clients=1)])
    assert [point.y for series in chart.panels[0].series for point in series.points] == [3.0]


def test_points_carry_interval_repetitions_and_unit():
    chart = build(
        TIME, [case(2, clients=1, metrics={"write_time_s": 0.002}), case(4, clients=2, metrics={"write_time_s": 0.004})]
    )
    point = chart.panels[0].series[0].points[0]
    assert chart.panels[0].y_label == "time to write (ms)"
    assert (point.y, point.low, point.high) == (2.0, pytest.approx(1.8), pytest.approx(2.2))
    assert [(x, pytest.approx(y), valid) for x, y, valid in point.repetitions] == [(1.0, 1.9, True), (1.0, 2.1, True)]
    assert point.text.endswith("time to write 2.00 ± 0.20 ms, n = 2")


def test_invalid_points_are_marked_and_absent_ones_counted():
    cases = [case(1, clients=1), case(2, "invalid", clients=2), case(3, "missing", metrics={}, clients=4)]
    chart = build(TIME, cases)
    assert chart.has_invalid
    assert [point.state for point in chart.panels[0].series[0].points] == ["valid", "invalid"]
    assert "invalid: because" in chart.panels[0].series[0].points[1].text
    assert "Cases without a value here: 1 missing." in chart.caption


def test_nothing_measured_is_no_chart():
    assert build(TIME, [case(1, "missing", metrics={}, clients=1)]) is None


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
    chart = build(FRONTIER, cases)
    assert shape(chart) == [("", [("Flat", [1.0]), ("HNSW32", [0.8, 0.95])])]
    assert "efSearch 64" in chart.panels[0].series[1].points[1].text
    assert chart.panels[0].y_log


def test_panels_of_one_metric_share_the_kind_of_their_axis():
    wide = [case(n, clients=c, mode=m, pattern=p, buffer=b) for n, (c, m, p, b) in enumerate(
        ((c, m, p, b) for c in (1, 2, 4) for m in "abc" for p in "xy" for b in "uv"), start=1
    )]  # fmt: skip
    assert [panel.y_log for panel in build(TIME, wide).panels] == [True, True]
    assert [panel.y_log for panel in build(TIME, wide[20:]).panels] == [False] * len(build(TIME, wide[20:]).panels)


def test_what_is_not_drawn_is_said():
    chart = build(TIME, [case(n + 1, clients=c, mode=f"m{n}") for n in range(200) for c in (1, 2)])
    assert sum(len(panel.series) for panel in chart.panels) == 120
    assert "80 further curves are not drawn; the table has them." in chart.caption
    assert "Grey: further combinations" in chart.caption


def test_a_chart_has_a_bounded_number_of_points():
    chart = build(TIME, [case(n + 1, clients=n + 1, mode=mode) for n in range(400) for mode in "abcdef"])
    assert [len(series.points) for panel in chart.panels for series in panel.series] == [400] * 3
    assert "3 further curves are not drawn" in chart.caption
    assert "single repetitions stand in the drawer" in chart.caption


def test_many_values_of_x_get_few_ticks():
    chart = build(TIME, [case(n, file_size=1024 * n) for n in range(1, 101)])
    texts = [text for _, text in chart.panels[0].ticks]
    assert len(texts) <= 8
    assert (texts[0], texts[-1]) == ("1KiB", "100KiB")


def test_a_stranger_s_benchmark_gets_its_contract_outputs():
    (spec,) = chart_specs("network", ("round_trip_s",))
    assert (spec.metrics, spec.title) == (("round_trip_s",), "Round trip")


def test_names_and_values_for_readers():
    assert metric_name("write_latency_p50_s") == "write latency p50"
    assert axis_value("block_size", 65536) == "64KiB"
    assert axis_value("batch_size", 1) == "1"
    assert axis_value("prompt", "a\x00b" + "x" * 60) == "a�b" + "x" * 36 + "…"
