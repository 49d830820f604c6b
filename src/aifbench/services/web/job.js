// One job: what it uses now, charts that go on live, and the end of its log.

import { api, bytes, clock, duration, el, moment, NONE, openReport, stream, visible } from "./common.js";
import { Charts } from "./charts.js";
import { badges, connection, cores, count, measured, percent, phaseText, progress, rate, stateMark, stateText } from "./monitor.js";

const SPANS = [["5 min", 300], ["15 min", 900], ["1 h", 3600], ["all", null]];
const MOST_ROWS = 6000;
const MOST_LINES = 500;
const LEVELS = ["info", "warning", "error"];
const RUN = /^[a-z0-9-]{1,64}$/; // others have no report on the page
const SIGNS = ["off", "warn", "bad"];

export function showJob(root, id, signal) {
  const link = connection(() => load());
  const title = el("h1", { tabindex: "-1" }, "Job");
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const state = el("p", { class: "stateline" });
  const said = el("p", { class: "sr", role: "status" });
  const facts = el("dl", { class: "tiles" });
  const run = el("a", {});
  const more = el("span", {});
  const report = el("button", { type: "button", hidden: true, onclick: () => openReport(row.campaign) }, "Report");
  const where = el("p", { class: "under", hidden: true }, "campaign ", run, more, " ", report);
  const charts = new Charts();
  const noSamples = el("p", { class: "empty", hidden: true }, "No sample is there yet.");
  const spans = el("div", { class: "spans", role: "group", "aria-label": "Time that the charts show" }, SPANS.map(([text, span]) => (
    el("button", { type: "button", "aria-pressed": String(span === null), onclick: (event) => {
      charts.span = span;
      for (const button of spans.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      charts.draw();
    } }, text))));
  const log = logTail();
  const muted = el("p", { class: "warning", role: "status", hidden: true });
  const parts = [
    facts,
    el("section", { "aria-label": "Use over time" },
      el("div", { class: "tools" }, el("h2", {}, "Use over time"), el("span", { class: "push" }, spans)),
      noSamples, charts.node),
    el("section", { "aria-label": "Log" }, el("h2", {}, "Log"), muted, log.node),
  ];
  root.append(
    el("p", { class: "back" }, el("a", { href: "#/monitor" }, "← All jobs")),
    el("div", { class: "tools" }, title, el("span", { class: "push" }, link.node)),
    where, state, said, problem, ...parts,
  );
  signal.addEventListener("abort", () => charts.observer.disconnect());

  let row = null;
  let early = []; // what comes while the whole is asked for is applied after it
  let loading = false;
  let again = false;
  let step = null;
  let logged = 0;
  let used = null;
  let reports = false;
  let first = true;

  function show() {
    title.textContent = visible(row.batch);
    document.title = `${row.batch} · Monitor · aifbench`;
    where.hidden = false;
    run.textContent = visible(row.campaign);
    run.href = `#/monitor/run/${encodeURIComponent(row.campaign)}`;
    report.setAttribute("aria-label", `open the report of ${visible(row.campaign)}`);
    report.hidden = !reports || !RUN.test(row.campaign);
    more.textContent = [
      "",
      row.node ? `node ${visible(row.node)}` : null,
      row.slurm_job ? `Slurm job ${row.slurm_job}` : null,
      row.started_at ? `started ${moment(row.started_at)}` : null,
      row.invocation > 1 ? `run ${row.invocation} (earlier ones are in the report)` : null,
    ].filter((text) => text !== null).join(" · ");
    const doing = row.step ? [phaseText(row.step.phase), row.step.case ? `case ${log.labels.get(row.step.case) ?? row.step.case}` : null,
      row.step.repetition === null || row.step.repetition === undefined ? null : `repetition ${Number(row.step.repetition) + 1}`] : [];
    const fresh = el("p", {}, stateMark(row), ...badges(row), el("span", {}, visible(doing.filter(Boolean).join(", "))),
      row.reason ? el("span", { class: "why" }, visible(row.reason)) : null,
      row.owner ? el("span", { class: "why" }, visible(row.owner)) : null);
    if (fresh.textContent !== state.textContent) state.replaceChildren(...fresh.childNodes);
    const quiet = mutedText(row.log_level);
    muted.hidden = !quiet;
    if (muted.textContent !== quiet) muted.textContent = quiet;
    const over = !["running", "pending", "lost"].includes(row.state);
    link.over(over);
    charts.over = over;
    const tiles = [
      ["Elapsed", [duration(row.elapsed_s)], [row.limit.value === null ? null : "of ", measured(row.limit, duration, "no limit")]],
      ["Progress", ...splitProgress(row)],
      ...(over ? usedTiles(row, used) : nowTiles(row)),
    ];
    facts.replaceChildren(...tiles.map(([name, value, more]) => (
      el("div", {}, el("dt", {}, name), el("dd", {}, ...value), el("dd", { class: "more" }, ...more)))));
  }

  function takeRow(change) {
    const before = row;
    row = { ...row, ...change };
    if (before.state !== row.state) said.textContent = `now ${stateText(row)}`;
    else if (!before.stalled && row.stalled) said.textContent = "stalled: no progress";
    show();
    if (before.state === "running" && row.state !== "running") closeStep();
    if (row.invocation !== before.invocation || row.ended_at !== before.ended_at) load();
  }

  // The phase that goes on now is told by the samples; the ended ones came with the job.
  function takeStep(now, moment) {
    const changed = step && (!now || now.phase !== step.phase || now.case !== step.case || now.since_s !== step.since_s);
    if (changed) step = null;
    if (now && !step) {
      const since = Math.min(now.since_s, moment);
      const previous = charts.phases[charts.phases.length - 1];
      const same = previous && previous[0] === now.phase && Math.abs(previous[1] - since) < 0.05;
      if (previous && !same && previous[2] > since - 3) previous[2] = Math.max(previous[1], since);
      step = { ...now, band: same ? previous : [String(now.phase), since, moment] };
      if (!same) charts.phases.push(step.band);
    }
    if (step) step.band[2] = moment;
  }

  function closeStep() { step = null; }

  function takeSample(sample) {
    if (sample.invocation !== row.invocation) { load(); return; }
    const { data } = charts;
    if (data.t.length && sample.t <= data.t[data.t.length - 1]) return;
    const length = data.t.length;
    data.t.push(sample.t);
    for (const [name, value] of Object.entries(sample.values)) {
      if (!data.series.has(name)) data.series.set(name, emptySeries(name, length));
      const line = data.series.get(name);
      for (const column of [line.values, line.low, line.high]) column.push(value);
    }
    for (const line of data.series.values()) {
      for (const column of [line.values, line.low, line.high]) if (column.length <= length) column.push(null);
    }
    takeStep(sample.step, sample.t);
    noSamples.hidden = true;
    charts.node.hidden = false;
    if (length > MOST_ROWS) load();
    draw();
  }

  let due = 0;
  function draw() { // at most once per frame, however many samples come at once
    if (due) return;
    due = requestAnimationFrame(() => { due = 0; charts.draw(); });
  }

  function apply({ event, data }) {
    if (event === "jobs") {
      const mine = data.jobs.find((change) => change.id === id);
      if (mine) takeRow(mine);
      if (data.gone.includes(id)) { problem.textContent = "The files of this job are gone."; problem.hidden = false; }
    } else if (event === "sample") takeSample(data);
    else if (event === "log") takeLog(data);
    else load();
  }

  // The whole and the events come from one file: the byte up to which it is shown tells what of an event is new.
  function takeLog({ lines, from, next, restarted }) {
    if (!restarted && next <= logged) return;
    if (restarted || from !== logged) { load(); return; }
    log.add(lines);
    logged = next;
  }

  async function load() {
    if (loading) { again = true; return; }
    loading = true;
    try {
      const [found, samples, lines] = await Promise.all([
        api(`jobs/${id}`, { signal }), api(`jobs/${id}/samples`, { signal }), api(`jobs/${id}/log`, { signal })]);
      row = found;
      ({ used } = samples);
      charts.zero = new Date(found.started_at).getTime();
      charts.phases = found.phases.map(([name, from, to]) => [name, from, to]);
      charts.data = { t: samples.t, series: new Map(samples.series.map((line) => [line.name, line])) };
      step = null;
      if (samples.t.length) takeStep(found.step, samples.t[samples.t.length - 1]);
      noSamples.hidden = samples.t.length > 0;
      noSamples.textContent = found.active ? "No sample is there yet." : "No samples are kept of this job.";
      charts.node.hidden = !samples.t.length;
      log.labels = new Map(Object.entries(found.cases));
      log.replace(lines.lines);
      logged = lines.next;
      problem.hidden = true;
      for (const part of parts) part.hidden = false;
      show();
      charts.draw();
      early.forEach(apply);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status) { problem.textContent = error.message; problem.hidden = false; }
      if (error.status === 404) {
        title.textContent = "No such job";
        problem.textContent = `There is no job ${visible(id)} in the results, or it is not there any more.`;
        for (const part of parts) part.hidden = true;
      }
      if (!error.status || error.status >= 500) setTimeout(() => { if (!signal.aborted) load(); }, 1000);
    } finally {
      early = [];
      loading = false;
      if (first) {
        first = false;
        root.dataset.shown = "job";
        title.focus();
      }
      if (again) { again = false; load(); }
    }
  }

  stream(`stream?jobs=${encodeURIComponent(id)}`, {
    signal,
    onState: link.on,
    onEvent: (found) => { if (loading || !row) early.push(found); else apply(found); },
  });
  api("services", { signal }).then(({ services }) => {
    reports = services.includes("client");
    if (row) show();
  }).catch(() => {}); // what else asks says what is wrong
  load();
}

// Why not every statement of a job is written; empty where all are.
function mutedText(told) {
  if (!told || told.level === 0) return "";
  const config = `log configuration ${visible(told.config)}`;
  if (told.over) return `This job writes errors only: the ${config} is over. Delete it in the tab Log, or set it again, and more is written.`;
  return `This job writes ${told.level === 2 ? "errors only" : "warnings and errors"}, as the ${config} says.`;
}

// What a job uses now.
function nowTiles(row) {
  return [
    ["CPU", [measured(row.cores, (value) => `${cores(value)} cores`)], ["of ", measured(row.cores_allocated, count), sourceOf(row.cores_allocated)]],
    ["Memory", [measured(row.memory, bytes)], [
      row.memory_peak.value === null ? null : `peak ${bytes(row.memory_peak.value)}${sourceOf(row.memory_peak)}`,
      row.memory_limit.value === null ? null : `, limit ${bytes(row.memory_limit.value)}`,
      row.memory_anon.value === null ? null
        : ` · ${bytes(row.memory_anon.value)} anonymous, ${bytes(row.memory_file.value)} of files, ${bytes(row.memory_shmem.value)} shared`]],
    ["GPU", [measured(row.gpu, percent, row.state === "running" ? "not measured" : NONE)], [row.gpu_memory.value === null
      ? (row.state === "running" ? row.gpu.reason ?? null : null)
      : `${bytes(row.gpu_memory.value)} of ${row.gpu_memory_total.value === null ? NONE : bytes(row.gpu_memory_total.value)}`]],
    ["Records", [measured(row.records_per_s, (value) => `${rate(value)}/s`)], [
      row.records.value === null ? null : `${count(row.records.value)} in all`,
      row.errors.value ? `, ${count(row.errors.value)} failed` : null]],
  ];
}

// What an ended job has used in its last run, by all its samples.
function usedTiles(row, used) {
  const told = (value, write) => measured({ value: value ?? null, reason: "no sample has it" }, write);
  const more = (...parts) => [parts.filter(Boolean).join(", ")];
  const { cores_mean: mean, cores_peak: most, memory_peak: memory, memory_peak_vmhwm: vmhwm } = used ?? {};
  return [
    ["CPU", [told(mean, (value) => `${cores(value)} cores`)], [
      ...more((mean ?? null) !== null && `mean, most ${cores(most)}`, "of "), measured(row.cores_allocated, count), sourceOf(row.cores_allocated)]],
    ["Memory", [told(memory, bytes)], more(
      (memory ?? null) !== null && `most at one time, mean ${bytes(used.memory_mean)}`,
      (vmhwm ?? null) !== null && `peak ${bytes(vmhwm)} (sum of VmHWM)`,
      row.memory_limit.value !== null && `limit ${bytes(row.memory_limit.value)}`)],
    ["GPU", [told(used?.gpu_mean, percent)], more(
      (used?.gpu_mean ?? null) !== null && "mean",
      (used?.gpu_memory_peak ?? null) !== null && `at most ${bytes(used.gpu_memory_peak)} of memory`)],
    ["Records", [told(used?.records, count)], more((used?.records ?? null) !== null && "in all", used?.errors && `${count(used.errors)} failed`)],
  ];
}

function splitProgress(row) {
  const [text, bar, more] = progress(row);
  return [[text, bar], [more.textContent]];
}

function sourceOf(told) {
  return told.value === null ? "" : ` (${told.source.replace(/^proc: /, "")})`;
}

function emptySeries(name, length) {
  const [quantity, ...role] = name.split("/");
  const units = { cpu: "cores", memory: "bytes", available: "bytes", read: "bytes/s", write: "bytes/s", vfs_read: "bytes/s", vfs_write: "bytes/s", pressure: "ratio", records: "1/s", gpu: "ratio", gpu_memory: "bytes", gpu_power: "W" };
  const column = () => new Array(length).fill(null);
  return { name, quantity, role: role.join("/"), unit: units[quantity] ?? "", values: column(), low: column(), high: column() };
}

// The end of the log: stays at the end while it is there, and leaves the reader alone when it was scrolled up.
function logTail() {
  const list = el("ol", { class: "lines job-lines", tabindex: "0", "aria-label": "End of the log" });
  const empty = el("p", { class: "empty" }, "Nothing is logged yet.");
  const tail = { labels: new Map() }; // what tells the cases apart, by their ids
  const whereOf = (id) => {
    const label = tail.labels.get(id);
    return el("span", { class: "where", title: label ? `case ${visible(id)}` : null }, visible(label ?? id ?? ""));
  };
  const line = (found) => el("li", {},
    el("time", { datetime: visible(found.t), title: visible(found.t) }, clock(found.t)),
    el("span", { class: `state ${SIGNS[found.level]}` }, LEVELS[found.level]),
    whereOf(found.case),
    el("span", { class: "msg" }, visible(found.msg)));
  const show = () => { list.hidden = !list.childElementCount; empty.hidden = !list.hidden; };
  const add = (lines) => {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    list.append(...lines.map(line));
    while (list.childElementCount > MOST_LINES) list.firstChild.remove();
    show();
    if (atEnd) list.scrollTop = list.scrollHeight;
  };
  show();
  return Object.assign(tail, {
    node: el("div", {}, list, empty),
    add,
    replace(lines) { list.replaceChildren(); add(lines); list.scrollTop = list.scrollHeight; },
  });
}
