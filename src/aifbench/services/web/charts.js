// Lines over time by our own script: one time axis and one cursor for all charts, bands for phases.

import { bytes, el, svg } from "./common.js";

const HEIGHT = 132;
const PAD = { left: 56, right: 10, top: 8, bottom: 34 };
const SPAN_HEIGHT = 44;

// The groups of series that stand in one chart, in order.
export const CHARTS = [
  { title: "CPU in use", quantities: ["cpu"] },
  { title: "Memory of the job", quantities: ["memory"] },
  { title: "Work done", quantities: ["records"] },
  { title: "Read from devices", quantities: ["read"] },
  { title: "Written to devices", quantities: ["write"] },
  { title: "Read by calls, pipes included", quantities: ["vfs_read"] },
  { title: "Written by calls, pipes included", quantities: ["vfs_write"] },
  { title: "GPU in use", quantities: ["gpu"] },
  { title: "GPU memory", quantities: ["gpu_memory"] },
  { title: "GPU power", quantities: ["gpu_power"] },
  { title: "Memory available on the node", quantities: ["available"] },
  { title: "Waiting on the node, part of the time", quantities: ["pressure"] },
];

const ROLES = { server: "r0", worker: "r1", runner: "r2", node: "r3", workload: "r1", "client-node": "s2", sampler: "s3" };

export function roleClass(role) {
  if (role.startsWith("GPU ")) return `g${Number(role.slice(4)) % 4}`;
  if (role.startsWith("server-")) return `s${Number(role.slice(7)) % 4}`;
  if (role.includes(" wait")) return `${role.includes(",") ? "r" : "g"}${["CPU", "memory", "I/O"].indexOf(role.split(" ")[0])}`;
  return ROLES[role] ?? "r3";
}

const roleText = (role) => ({ node: "whole node", "client-node": "clients' whole node" }[role] ?? role);

export function withUnit(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "not measured";
  if (unit === "bytes") return bytes(value);
  if (unit === "bytes/s") return `${bytes(value)}/s`;
  if (unit === "ratio") return `${Math.round(value * 100)} %`;
  if (unit === "cores") return `${value.toFixed(2)} cores`;
  if (unit === "1/s") return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(3))}/s`;
  return `${Number(value.toPrecision(4))} ${unit}`;
}

// A step of 1, 2 or 5 times a power of ten (of two for bytes) that divides `top` into about `parts`.
export function step(top, parts, unit) {
  const rough = top / parts;
  if (unit.startsWith("bytes")) return 2 ** Math.ceil(Math.log2(Math.max(rough, 1)));
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

export function timeStep(span, width) {
  const most = Math.max(2, Math.floor(width / 92));
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800];
  return steps.find((each) => span / each <= most) ?? Math.ceil(span / most / 86400) * 86400;
}

export function short(seconds) {
  const whole = Math.round(seconds);
  const pad = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [whole / 3600 | 0, (whole % 3600) / 60 | 0, whole % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

const clockOf = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

function nearest(times, moment) {
  let [low, high] = [0, times.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] < moment) low = middle; else high = middle;
  }
  return moment - times[low] < times[high] - moment ? low : high;
}

// All charts of a job. `data` is {t, series: Map name -> {quantity, role, unit, values, low, high}}, `phases` are
// [name, from, to], `zero` is the wall time (ms) of t = 0. `draw` shows the last `span` seconds (null: all).
export class Charts {
  constructor() {
    this.data = { t: [], series: new Map() };
    this.phases = [];
    this.zero = 0;
    this.span = null;
    this.over = false; // the last sample is of the end, not of now
    this.cursor = null;
    this.legend = el("ul", { class: "legend" });
    this.readout = el("p", { class: "readout" });
    this.strip = svg("svg", { class: "strip", height: SPAN_HEIGHT, "aria-hidden": "true" });
    this.slider = el("div", {
      class: "slider", role: "slider", tabindex: "0", "aria-label": "Time, for all charts", "aria-describedby": "slider-help",
    }, this.strip);
    this.help = el("p", { class: "help", id: "slider-help" },
      "Arrow keys move the cursor through all charts, Page Up and Page Down by ten samples; Escape goes back to the last one.");
    this.grid = el("div", { class: "charts" });
    this.node = el("div", { class: "chartbox" }, this.readout, this.slider, this.help, this.legend, this.grid);
    this.drawn = new Map();
    this.slider.addEventListener("keydown", (event) => this.key(event));
    this.slider.addEventListener("blur", () => this.point(null));
    this.watch(this.strip, () => this.stripWidth);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.grid);
  }

  get range() {
    const { t } = this.data;
    const end = t.length ? t[t.length - 1] : 1;
    const begin = this.span === null ? 0 : Math.max(0, end - this.span);
    return [begin, Math.max(end, begin + 1)];
  }

  watch(picture, width) {
    picture.addEventListener("pointermove", (event) => {
      const [begin, end] = this.range;
      const x = event.clientX - picture.getBoundingClientRect().left - PAD.left;
      this.point(begin + (x / (width() - PAD.left - PAD.right)) * (end - begin));
    });
    picture.addEventListener("pointerleave", () => this.point(null));
  }

  key(event) {
    const { t } = this.data;
    if (!t.length) return;
    const [begin] = this.range;
    const first = t.findIndex((moment) => moment >= begin);
    const at = this.cursor ?? t.length - 1;
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    let to = at + (moves[event.key] ?? 0);
    if (event.key === "Home") to = first;
    else if (event.key === "End") to = t.length - 1;
    else if (event.key === "Escape") { this.point(null); return; }
    else if (!moves[event.key]) return;
    event.preventDefault();
    this.point(t[Math.min(t.length - 1, Math.max(first, to))]);
  }

  // Puts the cursor at the sample next to a moment; null takes it away.
  point(moment) {
    const { t } = this.data;
    this.cursor = moment === null || !t.length ? null : nearest(t, moment);
    this.tell();
  }

  phaseAt(moment) {
    const found = this.phases.filter(([, from, to]) => from <= moment && moment <= to);
    return found.length ? found[found.length - 1][0].replaceAll("_", " ") : "";
  }

  tell() {
    const { t } = this.data;
    if (!t.length) return;
    const at = this.cursor ?? t.length - 1;
    const [begin, end] = this.range;
    const phase = this.phaseAt(t[at]);
    const when = `${short(t[at])} after the start, ${clockOf(this.zero + t[at] * 1000)}`;
    this.readout.textContent = `${this.cursor !== null ? "" : this.over ? "At the end: " : "Now: "}${when}${phase ? ` · ${phase}` : ""}`;
    const told = [];
    for (const { chart, value, lines, cursor, width } of this.drawn.values()) {
      const texts = lines.map(({ role, unit, values }) => (
        lines.length > 1 || role.startsWith("GPU") ? `${roleText(role)} ${withUnit(values[at], unit)}` : withUnit(values[at], unit)));
      value.textContent = texts.join(", ");
      told.push(`${chart.title}: ${texts.join(", ")}`);
      const x = PAD.left + ((t[at] - begin) / (end - begin)) * (width - PAD.left - PAD.right);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("visibility", this.cursor === null || t[at] < begin ? "hidden" : "visible");
    }
    const x = PAD.left + ((t[at] - begin) / (end - begin)) * (this.stripWidth - PAD.left - PAD.right);
    this.stripCursor?.setAttribute("x1", x);
    this.stripCursor?.setAttribute("x2", x);
    this.slider.setAttribute("aria-valuemin", Math.round(begin));
    this.slider.setAttribute("aria-valuemax", Math.round(end));
    this.slider.setAttribute("aria-valuenow", Math.round(t[at]));
    this.slider.setAttribute("aria-valuetext", `${when}${phase ? `, ${phase}` : ""}. ${told.join(". ")}`);
  }

  draw() {
    const { t, series } = this.data;
    if (!t.length || !this.grid.clientWidth) return;
    const present = CHARTS.map((chart) => ({
      chart, lines: [...series.values()].filter((line) => chart.quantities.includes(line.quantity)),
    })).filter(({ lines }) => lines.length);
    const names = present.map(({ chart }) => chart.title).join();
    if (names !== this.names) {
      this.names = names;
      this.drawn.clear();
      this.grid.replaceChildren(...present.map(({ chart }) => this.frame(chart)));
    }
    for (const { chart, lines } of present) this.fill(this.drawn.get(chart.title), lines);
    this.drawStrip();
    this.drawLegend(present.flatMap(({ lines }) => lines));
    this.tell();
  }

  frame(chart) {
    const value = el("span", { class: "value" });
    const picture = svg("svg", { height: HEIGHT, role: "img" });
    const entry = { chart, value, picture, lines: [], cursor: svg("line", { class: "cursor", y1: PAD.top, y2: HEIGHT - PAD.bottom }), width: 0 };
    this.drawn.set(chart.title, entry);
    this.watch(picture, () => entry.width);
    return el("figure", { class: "chart" }, el("figcaption", {}, el("h3", {}, chart.title), value), picture);
  }

  fill(entry, lines) {
    const { t } = this.data;
    const [begin, end] = this.range;
    const width = Math.max(220, entry.picture.parentNode.clientWidth);
    const [inner, floor] = [width - PAD.left - PAD.right, HEIGHT - PAD.bottom];
    const from = Math.max(0, t.findIndex((moment) => moment >= begin) - 1);
    const unit = lines[0].unit;
    let most = 0;
    for (const line of lines) {
      for (let at = from; at < t.length; at += 1) if (line.high[at] > most) most = line.high[at];
    }
    const tick = unit === "ratio" ? 0.5 : step(most || 1, 3, unit);
    const top = unit === "ratio" ? 1 : Math.max(tick, Math.ceil((most || 1) / tick) * tick);
    const x = (moment) => PAD.left + Math.max(0, (moment - begin) / (end - begin)) * inner;
    const y = (value) => floor - (Math.min(value, top) / top) * (floor - PAD.top);
    const parts = [...this.bands(x, begin, PAD.top, floor - PAD.top)];
    for (let value = 0; value <= top + tick / 1e6; value += tick) {
      parts.push(svg("line", { class: "rule", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }));
      parts.push(svg("text", { class: "tick", x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end" }, axisText(value, unit)));
    }
    parts.push(...this.timeAxis(x, begin, end, inner, floor));
    for (const line of lines) {
      parts.push(...runs(t, line, from, x, y, inner).map((points) => svg("polyline", { class: roleClass(line.role), points })));
    }
    parts.push(entry.cursor);
    entry.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    entry.picture.setAttribute("width", width);
    entry.picture.replaceChildren(...parts);
    const now = lines.map((line) => `${line.role} ${withUnit(line.values[t.length - 1], unit)}`).join(", ");
    entry.picture.setAttribute("aria-label", `${entry.chart.title} over time: ${this.over ? "at the end" : "now"} ${now}; at most ${withUnit(most, unit)}`);
    entry.lines = lines;
    entry.width = width;
  }

  bands(x, begin, y, height) {
    return this.phases.filter(([, , to]) => to >= begin).map(([name, from, to]) => (
      svg("rect", { class: `phase ${phaseClass(name)}`, x: x(from), width: Math.max(0.75, x(to) - x(from)), y, height })));
  }

  timeAxis(x, begin, end, inner, floor) {
    const each = timeStep(end - begin, inner);
    const parts = [];
    for (let moment = Math.ceil(begin / each) * each; moment <= end; moment += each) {
      const anchor = x(moment) > PAD.left + inner - 30 ? "end" : x(moment) < PAD.left + 20 ? "start" : "middle";
      parts.push(svg("line", { class: "rule", x1: x(moment), x2: x(moment), y1: floor, y2: floor + 4 }));
      parts.push(svg("text", { class: "tick", x: x(moment), y: floor + 15, "text-anchor": anchor }, short(moment)));
      parts.push(svg("text", { class: "tick wall", x: x(moment), y: floor + 28, "text-anchor": anchor }, clockOf(this.zero + moment * 1000)));
    }
    return parts;
  }

  // The strip of phases, with their names where there is room.
  drawStrip() {
    const width = Math.max(220, this.slider.clientWidth);
    const [begin, end] = this.range;
    const inner = width - PAD.left - PAD.right;
    const x = (moment) => PAD.left + Math.max(0, (moment - begin) / (end - begin)) * inner;
    const parts = [...this.bands(x, begin, 4, SPAN_HEIGHT - 8)];
    for (const [name, from, to] of this.phases) {
      const text = name.replaceAll("_", " ");
      if (to < begin || x(to) - x(from) < text.length * 6.6 + 8) continue;
      parts.push(svg("text", { class: "phase-name", x: x(from) + 4, y: SPAN_HEIGHT / 2 + 4 }, text));
    }
    parts.push(svg("text", { class: "tick", x: PAD.left - 6, y: SPAN_HEIGHT / 2 + 4, "text-anchor": "end" }, "phase"));
    this.stripCursor = svg("line", { class: "cursor", y1: 0, y2: SPAN_HEIGHT });
    parts.push(this.stripCursor);
    this.strip.setAttribute("viewBox", `0 0 ${width} ${SPAN_HEIGHT}`);
    this.strip.setAttribute("width", width);
    this.strip.replaceChildren(...parts);
    this.stripWidth = width;
  }

  drawLegend(lines) {
    const roles = [...new Set(lines.map((line) => line.role))].filter((role) => role !== "workload");
    const [begin] = this.range;
    const phases = [...new Set(this.phases.filter(([, , to]) => to >= begin).map(([name]) => name))];
    const key = `${roles}|${phases}`;
    if (key === this.legendKey) return;
    this.legendKey = key;
    const swatch = (child) => svg("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" }, child);
    this.legend.replaceChildren(
      ...roles.map((role) => el("li", {}, swatch(svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, class: roleClass(role) })), roleText(role))),
      ...phases.map((name) => el("li", {}, swatch(svg("rect", { width: 26, height: 10, class: `phase ${phaseClass(name)}` })), name.replaceAll("_", " "))));
  }
}

const PHASES = ["preflight", "server_start", "prepare", "warmup", "measure", "write", "read", "verify", "teardown", "build", "search", "calibrate", "prepare cache"];

function phaseClass(name) {
  const known = PHASES.indexOf(name);
  return known >= 0 ? `p-${name.replaceAll(/[_ ]/g, "-")}` : "p-other";
}

export function axisText(value, unit) {
  if (unit === "ratio") return `${Math.round(value * 100)} %`;
  if (unit === "cores") return String(Number(value.toFixed(2)));
  if (unit === "bytes" || unit === "bytes/s") return value === 0 ? "0" : bytes(value);
  if (unit === "1/s") return value >= 1000 ? `${Number((value / 1000).toPrecision(3))} k` : String(Number(value.toPrecision(3)));
  return String(Number(value.toPrecision(3)));
}

// The points of a line, in stretches without a missing value; smallest and largest per pixel where samples are dense.
export function runs(t, line, from, x, y, inner) {
  const found = [];
  let points = [];
  let column = null;
  let [low, high] = [0, 0];
  const flush = () => {
    if (column === null) return;
    points.push(`${column.toFixed(1)},${y(low).toFixed(1)}`);
    if (high !== low) points.push(`${column.toFixed(1)},${y(high).toFixed(1)}`);
    column = null;
  };
  const dense = t.length - from > inner;
  for (let at = from; at < t.length; at += 1) {
    const value = line.values[at];
    if (value === null || value === undefined) {
      flush();
      if (points.length) found.push(points);
      points = [];
      continue;
    }
    const here = dense ? Math.round(x(t[at])) : x(t[at]);
    const [least, most] = dense ? [line.low[at], line.high[at]] : [value, value];
    if (column === here) {
      low = Math.min(low, least);
      high = Math.max(high, most);
    } else {
      flush();
      [column, low, high] = [here, least, most];
    }
  }
  flush();
  if (points.length) found.push(points);
  return found.map((each) => (each.length === 1 ? `${each[0]} ${each[0].replace(/^[\d.]+/, (text) => String(Number(text) + 1.5))}` : each.join(" ")));
}
