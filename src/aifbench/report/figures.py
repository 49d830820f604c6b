"""Charts drawn by matplotlib: as SVG panels for the page, and as files for papers. One way to draw a panel for both."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifbench.analysis.charts import Chart, Panel, Point, Series, Spec
from aifbench.analysis.numbers import fixed, scale_for
from aifbench.analysis.report import charts_of, report_of
from aifbench.files.written import atomic_write
from aifbench.registry import benchmarks
from aifbench.report.load import Results
from aifbench.report.timelines import Timeline, timelines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56a0d3", "#6a51a3", "#8c2d04")
"""After Okabe and Ito (2008), with darker tones where a thin line on white needs them."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
INK, FAINT, GRID, PAPER, OTHER = "#1d2733", "#5b6673", "#e3e7ec", "#ffffff", "#9aa3ad"
_PANEL_INCHES = (4.7, 3.15)
_MARGINS_INCHES = (0.74, 0.46, 0.1, 0.28)
"""Left, lower, right and upper margin of a panel: fixed, so that panels line up."""
_DOTS_INCHES = 0.08
"""Single repetitions stand this far to the right of their mark, where the interval does not hide them."""
_LABEL_PIXELS = (16, 12)
"""Labels that would stand nearer than this (x, y) become one."""
_HEADROOM = 1.12
"""Upper end of y above the highest point."""
_OUT_OF_SIGHT = 1.6
"""What lies farther beyond the outermost points of a curve is left out of sight."""
_VARIABLES = {
    **{colour: f"var(--c{place})" for place, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    OTHER: "var(--other)",
}
_STYLE: Any = {
    "svg.hashsalt": "aifbench",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "legend.frameon": False,
}
MAX_TIMELINES = 8
"""Invocations in resources.svg: the longest ones; the page has all."""


@dataclass(frozen=True)
class DrawnPanel:
    """A panel as SVG for the page. `points`: (x, y) as parts of its width and height, case id, text on hover."""

    svg: str
    label: str
    points: list[tuple[float, float, str, str]]


def figure_files() -> list[str]:
    """Return the names of the files that `write_figures` always writes."""
    return [*(f"{spec.name}.svg" for _, spec in _registered()), "resources.svg"]


def _registered() -> list[tuple[str, Spec]]:
    """Return the charts of all benchmarks that are registered, each with the name of its benchmark."""
    entries = benchmarks().values()
    return [(one.name, spec) for one in entries for spec in charts_of(one.name, report_of(one), one.headline)]


def write_figures(results: Results) -> list[Path]:
    """Write `report/figures/*.svg` and return their paths; a chart without data becomes a file that says so."""
    folder = results.root / "report" / "figures"
    paths = []
    for name, spec in _registered():
        svg = results.part(f"the figure {spec.name}", partial(_figure, spec, results, name)) or _message(spec.title)
        paths.append(folder / f"{spec.name}.svg")
        atomic_write(paths[-1], svg.encode())
    lines = timelines(results)
    paths.append(folder / "resources.svg")
    atomic_write(paths[-1], (_resources_svg(lines) if lines else _message("Resources")).encode())
    return paths


def _figure(spec: Spec, results: Results, benchmark: str) -> str | None:
    chart = spec.build(results.of(benchmark))
    return None if chart is None else chart_svg(chart)


def charts(results: Results, benchmark: str) -> list[Chart]:
    """Return the charts of one benchmark that have data."""
    cases = results.of(benchmark)
    first = tuple(dict.fromkeys(name for case in cases for name in case.metrics))[:1]
    specs = charts_of(benchmark, results.reports[benchmark], results.headlines[benchmark] or first)
    built = (results.part(f"the chart {spec.name}", partial(spec.build, cases)) for spec in specs)
    return [chart for chart in built if chart is not None]


def draw_panels(chart: Chart) -> list[DrawnPanel]:
    """Return the panels of a chart as SVG whose colours follow the page's theme."""
    drawn = []
    for place, panel in enumerate(chart.panels):
        with _style() as plt:
            figure = plt.figure(figsize=_PANEL_INCHES)
            axes = _axes(figure, 0, 0)
            _draw(axes, panel)
            svg = _themed(_svg(figure), f"{chart.name}-{place}")
            width, height = figure.canvas.get_width_height()
            points = []
            for series in panel.series:
                for point in series.points:
                    x, y = axes.transData.transform((point.x, point.y))
                    points.append((round(float(x) / width, 4), round(1 - float(y) / height, 4), point.case, point.text))
                if series.mark is not None:
                    x, y = axes.transData.transform((series.mark.x, series.mark.y))
                    right, down = round(float(x) / width, 4), round(1 - float(y) / height, 4)
                    points.append((right, down, series.mark.case, series.mark.text))
            plt.close(figure)
        drawn.append(DrawnPanel(svg, panel.title or chart.title, points))
    return drawn


def chart_svg(chart: Chart) -> str:
    """Return a whole chart, all panels and the legend, as one SVG for a paper."""
    columns = 1 if len(chart.panels) == 1 else 2
    rows = -(-len(chart.panels) // columns)
    with _style() as plt:
        legend = 0.22 * -(-(len(chart.legend) + chart.has_invalid + bool(chart.mark)) // 3) + 0.1
        figure = plt.figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows + 0.3 + legend))
        figure.patch.set_facecolor(PAPER)
        for place, panel in enumerate(chart.panels):
            _draw(_axes(figure, place % columns, rows - 1 - place // columns, legend), panel)
        handles = [_handle(plt, label, style, "valid") for label, style in chart.legend]
        if chart.has_invalid:
            handles.append(_handle(plt, "not valid", None, "invalid"))
        if chart.mark:
            look = {"marker": "d", "markersize": 8, "markerfacecolor": PAPER, "markeredgecolor": FAINT}
            look |= {"color": GRID, "linewidth": 6}
            handles.append(plt.Line2D([], [], label=chart.mark, **look))
        if handles:
            figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=8)
        figure.suptitle(chart.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        svg = _svg(figure)
        plt.close(figure)
    return svg


def _axes(figure: Any, column: int, row: int, below: float = 0.0) -> Axes:
    """Return axes of a panel's size at a place counted from the lower left, `below` inches above the lower edge."""
    width, height = figure.get_size_inches()
    left, bottom, right, top = _MARGINS_INCHES
    axes: Axes = figure.add_axes(
        (
            (column * _PANEL_INCHES[0] + left) / width,
            (row * _PANEL_INCHES[1] + below + bottom) / height,
            (_PANEL_INCHES[0] - left - right) / width,
            (_PANEL_INCHES[1] - bottom - top) / height,
        )
    )
    return axes


def _draw(axes: Axes, panel: Panel) -> None:
    for series in panel.series:
        _draw_series(axes, series, shift=not panel.x_is_metric)
        _draw_mark(axes, series)
    for y, text in panel.lines:
        axes.axhline(y, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        at: Any = {"xytext": (3, 3 if panel.y_top is None else -10), "textcoords": "offset points", "fontsize": 7.5}
        axes.annotate(text, (0, y), xycoords=axes.get_yaxis_transform(), color=INK, **at)
    if panel.x_log:
        axes.set_xscale("log")
    if panel.y_log:
        axes.set_yscale("log")
    else:
        high = max(axes.get_ylim()[1], _HEADROOM * max(p.y for one in panel.series for p in one.points))
        axes.set_ylim(bottom=0, top=panel.y_top or high)
    if panel.ticks:
        axes.set_xticks([position for position, _ in panel.ticks], [text for _, text in panel.ticks])
        axes.minorticks_off()
    if not panel.ticks or panel.y_log:
        axes.tick_params(which="minor", length=0)
    if panel.ticks and not any(series.joined for series in panel.series):
        axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    if panel.x_is_metric and all(point.x <= 1 for series in panel.series for point in series.points):
        axes.set_xlim(right=min(axes.get_xlim()[1], 1.01))
    if any(point.label for series in panel.series for point in series.points):
        _keep_in_sight(axes, panel)
    _plain_ticks(axes, panel)
    for series in panel.series:
        _label_points(axes, series)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_title(panel.title)


def _draw_series(axes: Axes, series: Series, shift: bool) -> None:
    """Draw the curve, the single repetitions (`shift`: beside their mark) and the marks with their intervals."""
    from matplotlib.transforms import ScaledTranslation

    colour, marker = _look(series.style)
    if series.joined:
        for stretch in _stretches(series):
            axes.plot([p.x for p in stretch], [p.y for p in stretch], color=colour, linewidth=1.2, zorder=2)
    dots = [(x, y) for point in series.points for x, y, valid in point.repetitions if valid]
    doubtful = [(x, y) for point in series.points for x, y, valid in point.repetitions if not valid]
    look: Any = {"linestyle": "none", "marker": "o", "markersize": 2.2, "markeredgewidth": 0.5, "zorder": 3}
    look |= {"color": colour, "alpha": 0.7}
    if shift:
        look["transform"] = axes.transData + ScaledTranslation(_DOTS_INCHES, 0, axes.figure.dpi_scale_trans)
    axes.plot(*_columns(dots), **look)
    axes.plot(*_columns(doubtful), **look, markerfacecolor="none")
    for valid in (True, False):
        _draw_points(axes, [p for p in series.points if (p.state == "valid") == valid], colour, marker, valid)


def _draw_mark(axes: Axes, series: Series) -> None:
    """Draw the computed place on a curve as a diamond on a wide stretch."""
    if series.mark is None:
        return
    colour, _ = _look(series.style)
    axes.plot(*_columns(list(series.mark.stretch)), color=colour, linewidth=6, alpha=0.3, solid_capstyle="round")
    look: Any = {"marker": "d", "markersize": 9, "markerfacecolor": PAPER, "markeredgewidth": 1.4, "zorder": 5}
    axes.plot([series.mark.x], [series.mark.y], linestyle="none", color=colour, **look)


def _keep_in_sight(axes: Axes, panel: Panel) -> None:
    """Let no wide interval press the points of a curve together: it may leave the panel."""
    xs = [point.x for series in panel.series for point in series.points]
    ys = [y for series in panel.series for y in (point.y for point in series.points)] + [y for y, _ in panel.lines]
    axes.set_xlim(0, min(axes.get_xlim()[1], _OUT_OF_SIGHT * max(xs)))
    low, high = axes.get_ylim()
    if panel.y_log:
        axes.set_ylim(max(low, min(ys) / _OUT_OF_SIGHT), min(high, _OUT_OF_SIGHT * max(ys)))
    else:
        axes.set_ylim(low, min(high, _OUT_OF_SIGHT * max(ys)))


def _label_points(axes: Axes, series: Series) -> None:
    """Write what stands beside the points; of points that lie together, the first and the last in one."""
    near: list[list[Point]] = []
    last: tuple[float, float] | None = None
    for point in series.points:
        if not point.label:
            continue
        x, y = axes.transData.transform((point.x, point.y))
        if last is not None and abs(x - last[0]) < _LABEL_PIXELS[0] and abs(y - last[1]) < _LABEL_PIXELS[1]:
            near[-1].append(point)
        else:
            near.append([point])
        last = (float(x), float(y))
    for group in near:
        text = group[0].label if len(group) == 1 else f"{group[0].label}–{group[-1].label}"
        x, y = group[-1].x, group[-1].y
        outer = len(group) > 1 and axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0] > 0.9
        at: Any = {"xytext": (4 if not outer else 8, 4 if not outer else 7), "ha": "right" if outer else "left"}
        axes.annotate(text, (x, y), textcoords="offset points", fontsize=7.5, color=FAINT, zorder=6, **at)


def _draw_points(axes: Axes, points: list[Point], colour: str, marker: str, valid: bool) -> None:
    if not points:
        return
    along_x = any(point.x_low is not None for point in points)
    axes.errorbar(
        [point.x for point in points],
        [point.y for point in points],
        yerr=_columns([_bars(p.y, p.low, p.high) for p in points]),
        xerr=_columns([_bars(p.x, p.x_low, p.x_high) for p in points]) if along_x else None,
        fmt=marker,
        markersize=5,
        color=colour,
        markerfacecolor=colour if valid else PAPER,
        markeredgewidth=0.8 if valid else 1.2,
        elinewidth=1,
        capsize=2.2,
        capthick=0.9,
        zorder=4,
    )
    if not valid:
        places = _columns([(point.x, point.y) for point in points])
        axes.plot(*places, linestyle="none", marker="x", markersize=3, color=colour, zorder=5)


def _bars(value: float, low: float | None, high: float | None) -> tuple[float, float]:
    """Return the lengths of an interval below and above its value; NaN, which draws nothing, without an interval."""
    return (nan, nan) if low is None or high is None else (value - low, high - value)


def _stretches(series: Series) -> list[list[Point]]:
    """Cut a curve at points that are not valid: no line leads through them."""
    stretches: list[list[Point]] = [[]]
    for point in series.points:
        if point.state == "valid":
            stretches[-1].append(point)
        else:
            stretches.append([])
    return [stretch for stretch in stretches if len(stretch) > 1]


def _resources_svg(lines: list[Timeline]) -> str:
    """Return CPU and memory over time of the longest invocations, one row each."""
    longest = sorted(lines, key=lambda one: -max((line.t[-1] for line in one.lines), default=0.0))[:MAX_TIMELINES]
    with _style() as plt:
        size = (9.4, 1.7 * len(longest) + 0.5)
        figure, grid = plt.subplots(len(longest), 2, figsize=size, squeeze=False)
        figure.subplots_adjust(0.08, 0.45 / size[1], 0.99, 1 - 0.3 / size[1], wspace=0.16, hspace=0.55)
        figure.patch.set_facecolor(PAPER)
        for row, timeline in zip(grid, longest, strict=True):
            for axes, quantity in zip(row, ("CPU", "memory"), strict=True):
                chosen = [line for line in timeline.lines if line.quantity == quantity and line.role != "node"]
                values = [float(value) for line in chosen for value in line.y[:: max(1, len(line.y) // 50)]]
                scale = scale_for(values, chosen[0].unit if chosen else "")
                for place, line in enumerate(chosen):
                    axes.plot(line.t, line.y / scale.factor, color=COLOURS[place], linewidth=0.8, label=line.role)
                axes.set_ylim(bottom=0)
                axes.set_ylabel(f"{quantity} ({scale.unit})", fontsize=7.5)
            row[0].set_title(f"{timeline.batch}, invocation {timeline.invocation}", fontsize=8)
            if row[0].lines:
                row[0].legend(loc="upper right", fontsize=7, ncols=3)
        grid[-1][0].set_xlabel("s since the start of the invocation")
        grid[-1][1].set_xlabel("s since the start of the invocation")
        svg = _svg(figure)
        plt.close(figure)
    return svg


def _message(title: str) -> str:
    """Return a small SVG that says that there is nothing to draw. `title` is one of ours."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="420" height="60" font-family="sans-serif" font-size="13">'
        f'<text x="10" y="24" font-weight="bold">{title}</text>'
        '<text x="10" y="44">No case of this campaign has a value for this chart yet.</text></svg>'
    )


@contextmanager
def _style() -> Iterator[Any]:
    """Give `pyplot`, drawing without a display and in the look of the report."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context(_STYLE):
        yield pyplot


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _themed(svg: str, prefix: str) -> str:
    """Return an SVG to stand inside the page: ids of its own, colours as variables of the page's theme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sid="([^"]+)"', lambda match: f' id="{prefix}-{match[1]}"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)([^")]+)', lambda match: f"{match[1]}{prefix}-{match[2]}", svg)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace("xlink:href", "href")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"(-?\d+\.\d{3})\d+", r"\1", svg)


def _look(style: int | None) -> tuple[str, str]:
    return (OTHER, ".") if style is None else (COLOURS[style], MARKERS[style])


def _handle(plt: Any, label: str, style: int | None, state: str) -> Any:
    colour, marker = _look(style) if style is not None else (FAINT, "o")
    face = colour if state == "valid" else PAPER
    look = {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": 5, "linewidth": 1.2}
    return plt.Line2D([], [], label=label, **look)


def _columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _plain_ticks(axes: Axes, panel: Panel) -> None:
    """Write numbers on the axes as people do: 10 000, not 10^4."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    def text(value: float, _: object) -> str:
        if value == 0:
            return "0"
        digits = f"{abs(value):.6g}"
        decimals = len(digits.partition(".")[2]) if "e" not in digits else 6
        return fixed(value, decimals)

    if panel.y_log:
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    axes.yaxis.set_major_formatter(FuncFormatter(text))
    if not panel.ticks:
        axes.xaxis.set_major_formatter(FuncFormatter(text))
