"""Resource samples as lines of a screen's width: smallest and largest value of each pixel column, nothing averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from aifbench.core.roles import CLIENT_NODE, NODE
from aifbench.report.load import Results

COLUMNS = 480
"""Pixel columns of one line."""
POINTS = 60_000
"""Points of all lines of a page together: beyond it lines get fewer columns, so that the page stays below 1 MB."""
ROLES = ("server", "worker", "runner", CLIENT_NODE, NODE)
"""The order of the lines; servers with a number stand before all of them."""


@dataclass(frozen=True)
class Line:
    """One quantity of one role over time. `t` in seconds since the start of the invocation, ascending."""

    quantity: str
    role: str
    unit: str
    t: Any
    y: Any


@dataclass(frozen=True)
class Timeline:
    """The lines of one invocation of a batch, with the number of samples they come from."""

    batch: str
    invocation: int
    lines: list[Line]
    samples: int


def min_max(t: Any, y: Any, columns: int) -> tuple[Any, Any]:
    """Return at most `2 * columns + 2` points that draw the same picture: per pixel column its extremes, in time order.

    Every value returned is a sample; the global minimum and maximum, the first and the last sample are kept.
    """
    n = len(t)
    if n <= 2 * columns:
        return t, y
    column = np.minimum(((t - t[0]) / ((t[-1] - t[0]) or 1.0) * columns).astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], n)
    kept = {0, n - 1}
    for begin, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept.add(begin + int(np.argmin(y[begin:end])))
        kept.add(begin + int(np.argmax(y[begin:end])))
    kept_sorted = np.array(sorted(kept))
    return t[kept_sorted], y[kept_sorted]


def timelines(results: Results) -> list[Timeline]:
    """Return the reduced lines of all invocations, in the order of the plan."""
    columns = results.resources
    if not columns:
        return []
    columns = {"clock_s": np.full(len(columns["t_s"]), np.nan), **columns}  # tables from before it was told have none
    full = []
    order = {batch: place for place, batch in enumerate(results.batches)}
    batches, owner = np.unique(columns["batch"].astype(str), return_inverse=True)
    for place in sorted(range(len(batches)), key=lambda i: order.get(str(batches[i]), len(order))):
        mine = owner == place
        for invocation in np.unique(columns["invocation"][mine]):
            rows = np.flatnonzero(mine & (columns["invocation"] == invocation))
            rows = rows[np.argsort(columns["t_s"][rows], kind="stable")]
            lines = _lines({name: values[rows] for name, values in columns.items()})
            full.append(Timeline(str(batches[place]), int(invocation), lines, len(rows)))
    count = sum(len(timeline.lines) for timeline in full)
    width = max(20, min(COLUMNS, POINTS // (2 * count))) if count else COLUMNS
    return [replace(one, lines=[_reduced(line, width) for line in one.lines]) for one in full]


def gpu_energy(results: Results) -> float | None:
    """Return the energy of all GPUs over all invocations in joules, None when no power was sampled.

    Trapezoids between samples of the power draw.
    """
    columns = results.resources
    if not columns:
        return None
    total, known = 0.0, False
    node = columns["role"] == "node"
    jobs = {(batch, int(job)) for batch, job in zip(columns["batch"][node], columns["invocation"][node], strict=True)}
    for batch, invocation in jobs:
        rows = np.flatnonzero(node & (columns["batch"] == batch) & (columns["invocation"] == invocation))
        rows = rows[np.argsort(columns["t_s"][rows], kind="stable")]
        for line in _gpu(columns["t_s"][rows], columns["gpu"][rows]):
            if line.quantity == "GPU power" and len(line.t) > 1:
                total += float(np.sum((line.y[1:] + line.y[:-1]) / 2 * np.diff(line.t)))
                known = True
    return total if known else None


def _reduced(line: Line, columns: int) -> Line:
    t, y = min_max(line.t, line.y, columns)
    return Line(line.quantity, line.role, line.unit, t, y)


def _lines(rows: dict[str, Any]) -> list[Line]:
    """Return the lines of one invocation; a quantity that was never measured gives no line."""
    lines = []
    for role in sorted(set(rows["role"].tolist()), key=lambda name: (ROLES.index(name) if name in ROLES else -1, name)):
        mine = rows["role"] == role
        t = rows["t_s"][mine].astype(np.float64)
        lines.append(_line("CPU", role, "cores", t, rows["cpu_cores"][mine]))
        if role in (NODE, CLIENT_NODE):
            lines.append(_line("memory available", role, "bytes", t, rows["memory_available_bytes"][mine]))
            if role == NODE:
                lines.extend(_gpu(t, rows["gpu"][mine]))
            continue
        lines.append(_line("memory", role, "bytes", t, rows["rss_bytes"][mine]))
        for quantity, name in (("read", "read_bytes"), ("write", "write_bytes")):
            lines.append(_rate(quantity, role, t, rows["clock_s"][mine].astype(np.float64), rows[name][mine]))
    return [line for line in lines if len(line.t)]


def _line(quantity: str, role: str, unit: str, t: Any, values: Any) -> Line:
    y = values.astype(np.float64)
    known = np.isfinite(y)
    return Line(quantity, role, unit, t[known], y[known])


def _rate(quantity: str, role: str, t: Any, clock: Any, cumulative: Any) -> Line:
    """Return bytes per second between samples, at the later one's time. A fall (a process left) has no rate.

    `clock` tells when they were taken, on another node too; NaN in what was measured before it was told.
    """
    line = _line(quantity, role, "bytes/s", t, cumulative)
    if len(line.t) < 2:
        return Line(quantity, role, "bytes/s", line.t[:0], line.y[:0])
    taken = np.where(np.isfinite(clock), clock, t)[np.isfinite(cumulative.astype(np.float64))]
    step, grown = np.diff(taken), np.diff(line.y)
    known = (step > 0) & (grown >= 0)
    return Line(quantity, role, "bytes/s", line.t[1:][known], grown[known] / step[known])


def _gpu(t: Any, texts: Any) -> list[Line]:
    found: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
    wanted = (("GPU", "utilization", "%"), ("GPU memory", "memory_bytes", "bytes"), ("GPU power", "power_w", "W"))
    for moment, text in zip(t.tolist(), texts.tolist(), strict=True):
        for device in orjson.loads(text) if isinstance(text, str) else []:
            for quantity, key, unit in wanted:
                if device.get(key) is not None:
                    moments, values = found.setdefault((quantity, f"GPU {device['index']}", unit), ([], []))
                    moments.append(moment)
                    values.append(float(device[key]))
    return [Line(*key, np.array(moments), np.array(values)) for key, (moments, values) in found.items()]
