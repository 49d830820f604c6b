// The tab Log: which statements are written and until when, and what is written now.

import { api, bytes, clock, duration, el, moment, NONE, stream, toast, visible } from "./common.js";

const LEVELS = ["info", "warning", "error"];
const SIGNS = ["off", "warn", "bad"];
const MOST_ROWS = 1000;
const AT_FIRST = 300;
const ABOUT = ["run", "benchmark", "batch", "service"];

export function mount(root) {
  const ending = new AbortController();
  const { signal } = ending;
  const timers = [];
  const configs = configurations(signal, timers);
  const tail = statements(signal, timers, configs.refresh);
  root.append(el("h1", {}, "Log"), configs.node, tail.node);
  return () => {
    ending.abort();
    timers.forEach(clearInterval);
  };
}

function configurations(signal, timers) {
  const body = el("tbody");
  const table = el("div", { class: "wide" }, el("table", {},
    el("caption", { class: "sr" }, "Log configurations"),
    el("thead", {}, el("tr", {}, ...["Name", "Written", "About", "Until", "Left", "Set by", ""].map((text) =>
      el("th", { scope: "col" }, text || el("span", { class: "sr" }, "Action"))))),
    body));
  const empty = el("p", { class: "empty" },
    "No configuration: jobs write everything into their own logs. What other programs send to this service is not written.");
  const mutedText = el("span");
  const clearOver = el("button", { type: "button", onclick: clear }, "Clear those that are over");
  const muted = el("div", { class: "tools warning", role: "status", hidden: true }, mutedText, clearOver);
  const fileLine = el("p", { class: "help" });
  const fileProblem = el("p", { class: "problem", role: "alert", hidden: true });
  let left = [];

  async function refresh() {
    let found;
    try { found = await api("log/configs", { signal }); } catch (error) {
      if (!signal.aborted) { fileProblem.textContent = error.message; fileProblem.hidden = false; }
      return;
    }
    const at = performance.now();
    left = [];
    body.replaceChildren(...found.configs.map((config) => {
      const remaining = el("td", { class: "n" });
      left.push({ node: remaining, until: at + config.remaining_s * 1000, over: config.state === "expired" });
      const about = ABOUT.filter((name) => config.match[name]).map((name) => `${name} ${config.match[name]}`).join(", ");
      const remove = el("button", { type: "button", "aria-label": `Delete ${config.name}`, onclick: () => erase(config.name) }, "Delete");
      const over = config.state === "expired";
      return el("tr", { "data-config": config.name, class: over ? "over" : null },
        el("th", { scope: "row" }, el("span", { class: `state ${over ? "off" : "ok"}` }, config.name)),
        el("td", {}, config.logLevel === 2 ? "errors" : `${LEVELS[config.logLevel]} and above`),
        el("td", {}, visible(about) || "everything"),
        el("td", {}, el("time", { datetime: config.expires_at }, moment(config.expires_at))),
        remaining,
        el("td", {}, config.source === "file" ? "file" : "REST"),
        el("td", { class: "n" }, config.source === "file" ? null : remove));
    }));
    showOver(found.configs);
    table.hidden = !found.configs.length;
    empty.hidden = found.configs.length > 0;
    fileProblem.textContent = found.file.problem ? `${visible(found.file.problem)}. The last good one stays.` : "";
    fileProblem.hidden = !found.file.problem;
    fileLine.textContent = `${found.file.path} is read again when it changes.`;
    count();
  }

  // One that is over still counts: what only it was about is written from errors on.
  function showOver(configs) {
    const over = configs.filter((config) => config.state === "expired");
    const [set, filed] = [over.filter((config) => config.source !== "file"), over.filter((config) => config.source === "file")];
    const text = over.length ? [
      `Over: ${over.map((config) => config.name).join(", ")}. A job that only such a configuration is about writes errors only.`,
      set.length && !filed.length ? "When they are cleared, it writes everything again." : null,
      filed.length ? `Take ${filed.map((config) => config.name).join(", ")} out of the file, or give a new time there.` : null,
    ].filter(Boolean).join(" ") : "";
    if (mutedText.textContent !== text) mutedText.textContent = text;
    muted.hidden = !over.length;
    clearOver.hidden = !set.length;
  }

  async function clear() {
    try {
      const { deleted } = await api("log/configs:clear", { method: "POST", signal });
      toast(`${deleted.join(", ") || "nothing"} deleted`);
      await refresh();
      form.querySelector("input").focus();
    } catch (error) { if (!signal.aborted) toast(error.message); }
  }

  function count() {
    for (const { node, until, over } of left) {
      const seconds = (until - performance.now()) / 1000;
      node.textContent = over || seconds <= 0 ? "over" : duration(seconds);
    }
  }

  async function erase(name) {
    try {
      await api(`log/configs/${name}`, { method: "DELETE", signal });
      toast(`${name} deleted`);
      await refresh();
      form.querySelector("input").focus();
    } catch (error) { if (!signal.aborted) toast(error.message); }
  }

  const form = configForm(signal, refresh);
  timers.push(setInterval(count, 1000), setInterval(refresh, 30000));
  refresh();
  const node = el("section", { "aria-labelledby": "log-configs" },
    el("h2", { id: "log-configs" }, "Configurations"),
    el("p", { class: "help" }, "A statement is written while a configuration that is about it is valid and its level is high enough; ",
      "of several the most verbose one counts. When all that are about a job are over, the job writes errors only."),
    table, empty, muted, fileProblem, form, fileLine);
  return { node, refresh };
}

function configForm(signal, done) {
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const name = el("input", { id: "config-name", name: "name", required: true, pattern: "[a-z0-9\\-]{1,64}", maxlength: 64,
    autocomplete: "off", spellcheck: "false", title: "lower-case letters, digits and dashes" });
  const level = el("select", { id: "config-level", name: "logLevel" },
    el("option", { value: "0" }, "info and above"), el("option", { value: "1" }, "warnings and errors"), el("option", { value: "2" }, "errors"));
  const until = el("input", { id: "config-until", name: "expires_at", type: "datetime-local", step: 1, required: true });
  const about = ABOUT.map((key) => el("input", { id: `config-${key}`, name: key, maxlength: 128, autocomplete: "off",
    spellcheck: "false", placeholder: "any", "aria-describedby": "config-help" }));
  const soon = [["15 min", 900], ["1 h", 3600], ["8 h", 28800], ["1 day", 86400]].map(([text, seconds]) =>
    el("button", { type: "button", "aria-label": `Until ${text} from now`, onclick: () => { until.value = local(seconds); } }, text));
  until.value = local(3600);

  async function send(event) {
    event.preventDefault();
    const date = new Date(until.value);
    const match = {};
    ABOUT.forEach((key, number) => { if (about[number].value.trim()) match[key] = about[number].value.trim(); });
    [name, until, level, ...about].forEach((field) => { field.removeAttribute("aria-invalid"); });
    problem.hidden = true;
    try {
      await api(`log/configs/${encodeURIComponent(name.value)}`, {
        method: "PUT", signal,
        body: { logLevel: Number(level.value), expires_at: Number.isNaN(date.getTime()) ? until.value : date.toISOString(), match },
      });
      toast(`${name.value} is valid until ${moment(date)}`);
      await done();
    } catch (error) {
      if (signal.aborted) return;
      const reason = error.body?.reason;
      const key = (reason?.field ?? "").split(".").pop();
      const wrong = form.querySelector(`[name="${CSS.escape(key)}"]`);
      if (wrong) { wrong.setAttribute("aria-invalid", "true"); wrong.focus(); }
      problem.textContent = reason ? [key, reason.message, reason.hint && `(${reason.hint})`].filter(Boolean).join(" ") : error.message;
      problem.hidden = false;
    }
  }

  const labelled = (text, field, ...more) => el("div", { class: "field" }, el("label", { for: field.id }, text), field, ...more);
  const form = el("form", { class: "panel config", onsubmit: send, "aria-labelledby": "config-title" },
    el("h3", { id: "config-title" }, "Set a configuration"),
    el("div", { class: "fields" },
      labelled("Name", name), labelled("Write", level),
      el("div", { class: "field" }, el("label", { for: until.id }, "Until"), el("div", { class: "soon" }, until, ...soon))),
    el("div", { class: "fields" }, ABOUT.map((key, number) => labelled(key[0].toUpperCase() + key.slice(1), about[number])),
      el("button", { class: "main", type: "submit" }, "Set")),
    el("p", { class: "help", id: "config-help" }, "Only statements of this run, benchmark, batch or service; * stands for any text, as in ollama-*. A name that is there already is replaced."),
    problem);
  return form;
}

function statements(signal, timers, configsChanged) {
  const level = el("select", { id: "log-level" },
    el("option", { value: "0" }, "all"), el("option", { value: "1" }, "warnings and errors"), el("option", { value: "2" }, "errors"));
  const run = el("input", { id: "log-run", placeholder: "all", autocomplete: "off", spellcheck: "false", maxlength: 64 });
  const hold = el("button", { type: "button", "aria-pressed": "false", onclick: pause }, "Pause");
  const state = el("span", { class: "state off", role: "status" }, "connecting");
  const list = el("ol", { class: "lines", tabindex: 0, "aria-label": "Statements, newest last" });
  const empty = el("p", { class: "empty", hidden: true }, "Nothing is written yet.");
  const summary = el("p", { class: "help" });
  let following = new AbortController();
  let early = null;
  let held = null;

  function line(record) {
    const where = [record.run, record.batch].filter(Boolean).join(" · ") || record.service || "";
    return el("li", { class: `level-${record.level}` },
      el("time", { datetime: record.t, title: moment(record.t) }, clock(record.t)),
      el("span", { class: `state ${SIGNS[record.level]}` }, LEVELS[record.level]),
      el("span", { class: "where", title: record.case ? `case ${visible(record.case)}` : null }, visible(where)),
      el("span", { class: "msg" }, visible(record.msg)));
  }

  function add(records) {
    if (held) { held.push(...records); held.splice(0, held.length - MOST_ROWS); hold.textContent = `Go on (${held.length})`; return; }
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const fresh = document.createDocumentFragment();
    records.slice(-MOST_ROWS).forEach((record) => { fresh.append(line(record)); });
    list.append(fresh);
    while (list.children.length > MOST_ROWS) list.firstChild.remove();
    empty.hidden = list.children.length > 0;
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  function pause() {
    const records = held;
    held = held ? null : [];
    hold.setAttribute("aria-pressed", String(held !== null));
    hold.textContent = held ? "Go on" : "Pause";
    if (records) add(records);
  }

  // What was written before comes by a request, what is written from now on by the stream; the stream is opened first,
  // and what it brings meanwhile waits, so that nothing is missed and nothing is there twice.
  async function fill(query, turn) {
    early = [];
    try {
      const { statements: found } = await api(`log?${query}&limit=${AT_FIRST}`, { signal: turn.signal });
      const known = new Set(found.map((record) => JSON.stringify(record)));
      const late = early.filter((record) => !known.has(JSON.stringify(record)));
      early = null;
      list.replaceChildren();
      add([...found, ...late]);
      list.scrollTop = list.scrollHeight;
    } catch (error) { early = null; if (!turn.signal.aborted) tell("warn", error.message); }
  }

  function tell(sign, text) {
    state.className = `state ${sign}`;
    state.textContent = text;
  }

  function follow() {
    following.abort();
    following = new AbortController();
    const turn = following;
    signal.addEventListener("abort", () => turn.abort(), { signal: turn.signal });
    const query = new URLSearchParams({ level: level.value });
    if (run.value.trim()) query.set("run", run.value.trim());
    stream(`log/stream?${query}`, {
      signal: turn.signal,
      onState(now, error) {
        if (now === "live") { tell("live", "live"); fill(query, turn); }
        else tell(now === "refused" ? "bad" : "warn", now === "refused" ? error.message : "no connection, trying again");
      },
      onEvent({ event, data }) {
        if (event === "statements") { if (early) early.push(...data); else add(data); }
        else if (event === "configs") configsChanged();
        else if (event === "missed") tell("warn", `live; ${data.missed} message(s) were too fast for this page`);
        else if (event === "gap") fill(query, turn);
      },
    });
  }

  async function summarise() {
    try {
      const found = await api("log/status", { signal });
      const counts = Object.entries(found.statements).map(([name, count]) => `${count.toLocaleString("en")} ${name}`).join(" · ");
      const loki = found.loki ? ` · pushed to the log store: ${found.loki.sent.toLocaleString("en")} sent, ${found.loki.waiting} waiting, ${found.loki.dropped + found.loki.refused} lost` : "";
      const wrong = [found.problem, found.loki?.problem].filter(Boolean).map(visible).join("; ");
      summary.textContent = `Sent by other programs (docs/log.md says how) since the service has started: ${counts} · ${bytes(found.file.bytes)} of ${bytes(found.file.quota_bytes)} of it kept${loki}${wrong ? ` · ${wrong}` : ""}`;
    } catch { if (!signal.aborted) summary.textContent = NONE; }
  }

  let typing;
  level.addEventListener("change", follow);
  run.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(follow, 400); });
  timers.push(setInterval(summarise, 5000));
  summarise();
  follow();
  const node = el("section", { "aria-labelledby": "log-lines" },
    el("h2", { id: "log-lines" }, "Statements"),
    el("div", { class: "tools" },
      el("label", { for: level.id }, "Show"), level, el("label", { for: run.id }, "Run"), run, hold, el("span", { class: "push" }, state)),
    list, empty, summary);
  return { node };
}

function local(seconds) {
  const date = new Date(Date.now() + seconds * 1000);
  return moment(date).replace(" ", "T");
}
