// The tab Monitor: which job uses how much, and how far it is. `#/monitor` is the table, `#/monitor/run/<run>` that of
// one run, `#/monitor/<id>` one job.

import { api, bytes, duration, el, moment, NONE, stream, visible } from "./common.js";
import { filterAdvice, fits, readFilter } from "./filter.js";
import { showJob } from "./job.js";

const SHOWN_ENDED = 25;
const SEARCHED = 1000; // of those that are not active, while a filter is set
let last = ""; // the job that was open: its link gets the focus when the table is shown again

export function mount(root, rest) {
  const ending = new AbortController();
  if (rest.startsWith("run/")) {
    showJobs(root, ending.signal, rest.slice(4));
  } else if (rest) {
    last = rest;
    showJob(root, rest, ending.signal);
  } else {
    showJobs(root, ending.signal);
  }
  return () => ending.abort();
}

// What each state is called, and its sign.
const STATES = {
  pending: ["off", "pending"],
  running: ["live", "running"],
  lost: ["bad", "lost"],
  ok: ["ok", "complete"],
  complete: ["warn", "complete, but killed"],
  partial: ["warn", "partly failed"],
  "not-started": ["off", "not started"],
  terminated: ["bad", "terminated"],
  timeout: ["bad", "time limit"],
};

const ENDED_BY = { cancel: ["off", "cancelled"], signal: ["off", "ended by a signal"] };

function stateOf(row) {
  const [sign, text] = ENDED_BY[row.ended_by] ?? STATES[row.state] ?? ["bad", row.state.replaceAll("_", " ")];
  const invalid = row.active ? 0 : row.cases_invalid;
  return invalid ? [sign === "ok" ? "warn" : sign, `${text}, ${count(invalid)} invalid`] : [sign, text];
}

export function stateText(row) {
  return stateOf(row)[1];
}

export function stateMark(row) {
  const [sign, text] = stateOf(row);
  return el("span", { class: `state ${sign}` }, text);
}

// What is known of the cases' validity; results of an earlier version do not tell it.
function validity(row) {
  if (row.cases_invalid === null) return row.cases_done ? "validity not told" : null;
  return row.cases_invalid ? `${count(row.cases_invalid)} invalid` : null;
}

// Warnings beside the state: no progress, no samples, an owner that cannot be checked.
export function badges(row) {
  const silent = row.silent_s === null ? null : `no sample for ${duration(row.silent_s)}`;
  const stalled = row.stalled ? `stalled: ${silent ?? `no progress for ${duration(row.no_progress_s)}`}` : null;
  return stalled || silent ? [el("span", { class: "badge" }, stalled ?? silent)] : [];
}

// A measured value, or a dash with the reason why there is none.
export function measured(told, write, missing = NONE) {
  if (told.value !== null) return write(told.value);
  return el("span", { class: "none", title: told.reason }, missing, el("span", { class: "sr" }, ` (${told.reason})`));
}

export const cores = (value) => (value >= 100 ? String(Math.round(value)) : value.toFixed(value >= 10 ? 1 : 2));
export const count = (value) => Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
export const rate = (value) => (value >= 100 ? count(value) : String(Number(value.toPrecision(3))));
export const percent = (value) => `${Math.round(value * 100)} %`;

// How far a job is, as text and as a bar.
export function progress(row) {
  const part = row.repetitions_all ? Math.min(1, row.repetitions_done / row.repetitions_all) : 0;
  const bar = el("span", { class: "progress", "aria-hidden": "true" }, el("i"));
  bar.firstChild.style.width = `${100 * part}%`;
  const eta = row.eta.value === null ? null : `about ${duration(row.eta.value)} ${row.state === "pending" ? "in all" : "left"}`;
  return [
    [`${row.cases_done} of ${row.cases_all} cases`, validity(row)].filter(Boolean).join(", "), bar,
    el("small", {}, `${count(row.repetitions_done)} of ${count(row.repetitions_all)} repetitions${eta ? `, ${eta}` : ""}`),
  ];
}

const HEAD = ["Job", "State", "Elapsed / limit", "Progress", "CPU cores", "Memory", "GPU", "Records/s"];
const NUMBERS = new Set(["Elapsed / limit", "CPU cores", "Memory", "GPU", "Records/s"]);

function activeCells(row) {
  const step = row.step;
  const begun = row.state !== "pending";
  const queue = row.queue && row.state === "pending" ? `Slurm ${row.queue.state.toLowerCase()}: ${row.queue.reason}` : null;
  return [
    jobCell(row),
    [stateMark(row), ...badges(row),
      el("small", {}, row.state === "lost" ? visible(row.reason) : step ? phaseText(step.phase) : queue ? visible(queue) : null)],
    [duration(row.elapsed_s), begun ? el("small", {}, "/ ", measured(row.limit, duration, "no limit")) : null],
    progress(row),
    [measured(row.cores, cores), begun ? el("small", {}, "of ", measured(row.cores_allocated, count)) : null],
    [measured(row.memory, bytes), row.memory_peak.value === null ? null
      : el("small", { title: row.memory_peak.source }, `peak ${bytes(row.memory_peak.value)}, VmHWM`)],
    [measured(row.gpu, percent, row.active && row.state === "running" ? "not measured" : NONE), row.gpu_memory.value === null ? null
      : el("small", {}, `${bytes(row.gpu_memory.value)} of ${measuredText(row.gpu_memory_total, bytes)}`)],
    [measured(row.records_per_s, rate), row.records.value === null ? null
      : el("small", {}, `${count(row.records.value)} in all${row.errors.value ? `, ${count(row.errors.value)} failed` : ""}`)],
  ];
}

const ENDED_HEAD = ["Job", "State", "Ended", "Took", "Cases"];

function endedCells(row) {
  return [
    jobCell(row),
    [stateMark(row), row.reason ? el("small", { class: "why" }, visible(row.reason)) : null],
    [moment(row.ended_at)],
    [duration(row.elapsed_s)],
    [`${row.cases_done} of ${row.cases_all}`, validity(row) === null ? null : el("small", {}, validity(row))],
  ];
}

function jobCell(row) {
  return [el("a", { href: `#/monitor/${row.id}` }, visible(row.batch)), el("small", {}, `campaign ${visible(row.campaign)}`)];
}

function measuredText(told, write) {
  return told.value === null ? NONE : write(told.value);
}

export function phaseText(name) {
  return visible(name).replaceAll("_", " ");
}

// A table whose rows are changed in place, so that focus and selection stay.
class Rows {
  constructor(label, head, cells) {
    this.head = head;
    this.cells = cells;
    this.known = new Map();
    this.body = el("tbody", { role: "rowgroup" });
    this.node = el("table", { class: "jobs", role: "table" },
      el("caption", { class: "sr" }, label),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head.map((text) => (
        el("th", { scope: "col", role: "columnheader", class: NUMBERS.has(text) ? "n" : null }, text))))),
      this.body);
  }

  show(rows) {
    const gone = new Set(this.known.keys());
    let place = this.body.firstChild;
    for (const row of rows) {
      gone.delete(row.id);
      let entry = this.known.get(row.id);
      if (!entry) {
        const cells = this.head.map((text) => (
          el("td", { role: "cell", "data-label": text, class: NUMBERS.has(text) ? "n" : null })));
        entry = { tr: el("tr", { role: "row", "data-job": row.id }, cells), cells, row: null };
        entry.tr.addEventListener("click", (event) => {
          if (!event.target.closest("a") && !String(getSelection())) location.hash = `#/monitor/${row.id}`;
        });
        this.known.set(row.id, entry);
      }
      if (entry.tr === place) place = place.nextSibling;
      else this.body.insertBefore(entry.tr, place);
      if (entry.row !== row) {
        entry.row = row;
        entry.tr.classList.toggle("stalled", row.stalled || row.state === "lost");
        this.cells(row).forEach((children, index) => { this.fill(entry.cells[index], children); });
      }
    }
    for (const id of gone) {
      this.known.get(id).tr.remove();
      this.known.delete(id);
    }
  }

  fill(cell, children) {
    const fresh = el("td", {}, ...children);
    const [old, now] = [[...cell.childNodes], [...fresh.childNodes]];
    if (old.length === now.length && old.every((node, index) => node.isEqualNode(now[index]))) return;
    cell.replaceChildren(...now);
  }
}

// Says in words whether what is shown is live; told to a screen reader only when it changes. `onAgain` is called when a
// lost connection is there again: a stream resumes only from an event that it has seen. `over` says that what is shown
// has ended: then nothing is live, though it would be told if it went on.
export function connection(onAgain) {
  const node = el("p", { class: "connection", role: "status" }, el("span", { class: "state off" }, "connecting"));
  let since = null;
  let [there, ended] = [false, false];
  const show = (sign, text) => {
    if (node.textContent !== text) node.replaceChildren(el("span", { class: `state ${sign}` }, text));
  };
  const showThere = () => show(ended ? "off" : "live", ended ? "ended" : "live");
  return {
    node,
    over(now) {
      ended = now;
      if (there) showThere();
    },
    on(state, error) {
      there = state === "live";
      if (state === "live") {
        if (since) onAgain();
        since = null;
        showThere();
      }
      else if (state === "refused") show("bad", `the server refuses: ${error.message}`);
      else {
        since ??= new Date().toLocaleTimeString([], { hour12: false });
        show("bad", `connection lost at ${since}; trying again`);
      }
    },
  };
}

// What the filter may name: what a row says of itself, then what the cases of any of the jobs vary and hold.
function filterKeys(rows) {
  const own = [
    { names: ["state"], of: (row) => [row.state, stateOf({ ...row, cases_invalid: 0 })[1], row.active ? "active" : null,
      row.cases_invalid ? "invalid" : null, row.stalled ? "stalled" : null] },
    { names: ["run", "campaign"], of: (row) => [row.campaign] },
    { names: ["job", "batch"], of: (row) => [row.batch] },
    { names: ["benchmark"], of: (row) => [row.benchmark] },
    { names: ["node"], of: (row) => [row.node] },
  ].map(({ names, of }) => ({ names, of: (row) => of(row).filter((value) => value !== null) }));
  const axes = [...new Set(rows.flatMap((row) => Object.keys(row.axes)))].map((name) => {
    const [last, head] = name.split(".").reverse();
    return { names: [{ kind: head, top_k: "k" }[last] ?? last, name], of: (row) => row.axes[name] ?? [] };
  });
  return [...own, ...axes];
}

const textOf = (row) => [row.batch, row.campaign, row.benchmark, row.node, stateText(row)].join(" ").toLowerCase();

function showJobs(root, signal, run = null) {
  const rows = new Map();
  const filter = el("input", { type: "search", class: "filter", "aria-label": "Filter the jobs", autocomplete: "off", spellcheck: "false",
    placeholder: "Filter, e.g. clients:2 state:running", oninput: () => { draw(); if (!searched && filter.value.trim()) load(); } });
  const advice = el("p", { class: "help advice", role: "status", hidden: true });
  let searched = false;
  const link = connection(() => load());
  const summary = el("p", { class: "faint" });
  const said = el("p", { class: "sr", role: "status" });
  const problem = el("p", { class: "problem", hidden: true });
  const active = new Rows("Active jobs", HEAD, activeCells);
  const ended = new Rows("Recently ended jobs", ENDED_HEAD, endedCells);
  const waiting = new Rows("Planned jobs", ENDED_HEAD.slice(0, 2), (row) => endedCells(row).slice(0, 2));
  const none = el("p", { class: "empty", hidden: true }, run === null
    ? "No job is active. Start one in the tab Launch, or with snakemake in a terminal: it appears here by itself."
    : "No job of this run is active. A run that was just launched appears here once it is planned.");
  const nobody = el("p", { class: "empty", hidden: true },
    `No such run: the results have no folder ${visible(run)}. A run that is just being launched appears here by itself.`);
  const noneEnded = el("p", { class: "empty", hidden: true }, "No job has ended yet.");
  const more = el("p", { class: "help", hidden: true });
  const planned = el("details", { hidden: true }, el("summary", {}), waiting.node);
  const sections = [
    el("section", { "aria-label": "Active" }, el("h2", {}, "Active"), active.node, none),
    el("section", { "aria-label": "Recently ended" }, el("h2", {}, "Recently ended"), ended.node, noneEnded, more, planned),
  ];
  if (run !== null) {
    document.title = `${run} · Monitor · aifbench`;
    root.append(el("p", { class: "back" }, el("a", { href: "#/monitor" }, "← All jobs")));
  }
  root.append(
    el("div", { class: "tools" }, el("h1", {}, run === null ? "Jobs" : `Jobs of ${visible(run)}`), summary, filter, el("span", { class: "push" }, link.node)),
    said, problem, nobody, advice, ...sections,
  );
  let total = 0;
  let known = true;
  let loading = null;
  let again = false;
  let focused = false;

  function draw() {
    const every = [...rows.values()];
    const keys = filterKeys(every);
    const asked = readFilter(filter.value, keys);
    const all = every.filter((row) => fits(asked, row, textOf(row)));
    const told = filterAdvice(asked, keys, every, visible) || (all.length < every.length ? `${all.length} of ${every.length} jobs fit the filter.` : "");
    if (advice.textContent !== told) advice.textContent = told;
    advice.hidden = !told;
    nobody.hidden = known || every.length > 0;
    summary.hidden = filter.hidden = !nobody.hidden;
    const running = all.filter((row) => row.active);
    const over = all.filter((row) => !row.active && row.state !== "not-started");
    const idle = all.filter((row) => row.state === "not-started");
    const order = (row) => (row.state === "pending" ? 1 : 0);
    running.sort((a, b) => order(a) - order(b) || (b.started_at ?? "").localeCompare(a.started_at ?? "") || a.batch.localeCompare(b.batch));
    over.sort((a, b) => (b.ended_at ?? b.started_at ?? "").localeCompare(a.ended_at ?? a.started_at ?? ""));
    const at = document.activeElement?.closest?.("[data-job]")?.dataset.job;
    const less = all.length < every.length; // a part without a row is left out where the filter has made it so
    sections[0].hidden = !nobody.hidden || (less && !running.length);
    sections[1].hidden = !nobody.hidden || (less && !over.length && !idle.length);
    active.show(running);
    ended.show(over.slice(0, SHOWN_ENDED));
    waiting.show(idle.slice(0, SHOWN_ENDED));
    active.node.hidden = !running.length;
    none.hidden = running.length > 0;
    ended.node.hidden = !over.length;
    noneEnded.hidden = over.length > 0 || less;
    more.hidden = total <= every.length;
    more.textContent = `${count(total)} jobs are known in all${run === null ? "; older ones are in the reports of their campaigns" : ""}.`;
    planned.hidden = !idle.length;
    planned.firstChild.textContent = `Planned, and not started: ${idle.length}`;
    const number = (state) => running.filter((row) => row.state === state).length;
    summary.textContent = ["running", "pending", "lost"].filter((state) => state === "running" || number(state))
      .map((state) => `${number(state)} ${state}`).join(", ");
    if (at && document.activeElement === document.body) focus(at); // its row has gone to the other table
    if (!focused && last && rows.has(last)) {
      focused = true;
      focus(last);
    }
  }

  function focus(id) {
    root.querySelector(`[data-job="${CSS.escape(id)}"] a`)?.focus();
  }

  // Only what somebody waits for is said aloud: a job starts, ends, is lost, or stands still.
  function announce(before, row) {
    if (before?.state !== row.state) said.textContent = `${row.batch}: ${stateText(row)}`;
    else if (!before.stalled && row.stalled) said.textContent = `${row.batch}: stalled`;
  }

  function take(data) {
    let unknown = false;
    for (const change of data.jobs) {
      const before = rows.get(change.id);
      if (!before && change.batch === undefined) { unknown = unknown || run === null; continue; }
      const row = { ...before, ...change };
      if (run !== null && row.campaign !== run) continue;
      rows.set(row.id, row);
      announce(before, row);
    }
    for (const id of data.gone) rows.delete(id);
    draw();
    if (unknown) load();
  }

  async function load() {
    if (loading) { again = true; return; }
    searched = filter.value.trim() !== "";
    loading = api(`jobs?state=all&most=${searched ? SEARCHED : SHOWN_ENDED}${run === null ? "" : `&run=${encodeURIComponent(run)}`}`, { signal });
    try {
      const found = await loading;
      rows.clear();
      for (const row of found.jobs) rows.set(row.id, row);
      ({ total, known } = found);
      problem.textContent = found.problem ?? (found.slurm?.problem ? `Slurm does not answer (${visible(found.slurm.problem)}); states come from files only.` : "");
      problem.hidden = !problem.textContent;
      draw();
      if (!known) setTimeout(() => { if (!signal.aborted) load(); }, 2000);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status) { problem.textContent = error.message; problem.hidden = false; }
      setTimeout(() => { if (!signal.aborted) load(); }, 1000);
    } finally {
      loading = null;
      if (again) { again = false; load(); }
    }
  }

  let early = []; // what comes before the first answer is applied after it
  let ready = false;
  stream("stream", {
    signal,
    onState: link.on,
    onEvent: ({ event, data }) => {
      if (event === "gap" || event === "missed") load();
      else if (event === "jobs" && ready) take(data);
      else if (event === "jobs") early.push(data);
    },
  });
  const timer = setInterval(load, 30000);
  signal.addEventListener("abort", () => clearInterval(timer));
  load().then(() => {
    ready = true;
    early.forEach(take);
    early = [];
    root.dataset.shown = "jobs";
  });
}
