// The tab Launch: a form made from the menu and its schemas, checked by the server while it is filled in, and the runs.

import { api, bytes, duration, el, moment, NONE, openReport, toast, visible } from "./common.js";

const OWN = new Set(["name", "benchmark", "axes", "zip", "exclude", "include", "order", "pack", "repetitions", "engine",
  "clients", "servers", "topology", "client_processes", "path", "prompt_text", "schedule_s"]);
const PLACES = new Set(["kind", "url", "gguf", "api_key_env", "headers", "query", "ca_file", "extra", "gpus", "threads"]);
const THREADS = new Set(["threads"]);
const FILES = new Set(["dataset", "model"]);  // words here; a file only in a preset
const PASSING = new Set(["queue_full", "rate_limited", "partition_down", "slurm_unreachable", "start_failed", "image_missing"]);
const ACTIVE = new Set(["queued", "running", "cancelling"]);
const STATES = {
  queued: ["live", "queued"], running: ["live", "running"], cancelling: ["warn", "cancelling"], ended: ["ok", "ended"],
  complete: ["ok", "complete"],
  cancelled: ["off", "cancelled"], failed: ["bad", "failed"], incomplete: ["warn", "incomplete"],
};
const COUNTS = [["valid", "ok"], ["invalid", "warn"], ["failed", "bad"], ["missing", "off"]];

let serial = 0;
const unique = (name) => `${name.replaceAll(/[^a-z0-9]+/gi, "-")}-${serial += 1}`;
const words = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase()).replace(/ s$/, " (s)");
const sentence = (text) => text.replace(/^[a-z]/, (first) => first.toUpperCase());
const told = (reason) => [reason.message, reason.hint].filter(Boolean).map(sentence).join(". ");
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const listed = (value) => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);

// How a field of a schema is filled in: {kind: "choice" | "number" | "text" | "size" | "other", ...bounds}.
function shape(schema) {
  const parts = (schema.anyOf ?? [schema]).filter((part) => part.type !== "null");
  const only = parts.length === 1 ? parts[0] : null;
  if (parts.length === 2 && parts[0].type === "integer" && parts[1].type === "string") return { kind: "size" };
  if (!only || only.$ref) return { kind: "other" };
  if (only.enum) return { kind: "choice", choices: only.enum };
  if (only.type === "integer" || only.type === "number") {
    const low = only.minimum ?? only.exclusiveMinimum, high = only.maximum ?? only.exclusiveMaximum;
    return { kind: "number", low, high, whole: only.type === "integer" };
  }
  return { kind: only.type === "string" ? "text" : "other" };
}

// What the schema says of a field, and what of it the form does not take.
const helpOf = (name, schema) => (FILES.has(name) ? `${schema.description}. A file is named in a preset, not here` : schema.description);

function bounds({ kind, low, high, whole }) {
  if (kind === "size") return "such as 64KiB, 1MiB, 2GB";
  if (kind !== "number") return "";
  const what = whole ? "whole number" : "number";
  if (low !== undefined && high !== undefined) return `${what}, ${low} to ${high}`;
  return low !== undefined ? `${what}, at least ${low}` : what;
}

// A text of descriptions: what stands between backticks is code.
function prose(text) {
  return sentence(text).split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));
}

// A question of the form. `place` is the field of the request whose problem is shown at it.
class Question {
  constructor(place, title, help, changed) {
    this.place = place;
    this.changed = changed;
    this.id = unique(place);
    this.problem = el("p", { class: "problem", id: `${this.id}-problem`, hidden: true });
    this.help = help ? el("p", { class: "help", id: `${this.id}-help` }, ...prose(help)) : null;
    this.title = title;
    this.controls = [];
  }

  // Ties the help and the problem to a control.
  describe(control, more = "") {
    const by = [more, this.help?.id, this.problem.id].filter(Boolean).join(" ");
    control.setAttribute("aria-describedby", by);
    this.controls.push(control);
    return control;
  }

  // Puts title, help and control into a row.
  row(control, label = null) {
    const title = label ? el("label", { for: label }, this.title) : el("span", { class: "title", id: `${this.id}-title` }, this.title);
    this.node = el("div", { class: "question", "data-place": this.place },
      el("div", {}, title, this.help), el("div", {}, control, this.problem));
    return this.node;
  }

  complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    this.node.classList.toggle("wrong", Boolean(text));
    for (const control of this.controls) control.setAttribute("aria-invalid", text ? "true" : "false");
  }
}

// One or more values as chips; without any, the preset's hold, or the default. A choice is a row of buttons, anything else a field that adds to the chips.
class Values extends Question {
  constructor(place, title, help, form, values, { suggestions = [], fallback, changed }) {
    super(place, title, help, changed);
    this.form = form;
    this.values = [...values];
    this.fallback = values.length ? [...values] : listed(fallback);
    this.source = values.length ? "preset" : "default";
    this.suggestions = suggestions;
    this.build();
  }

  build() {
    if (this.form.kind === "choice") {
      this.buttons = this.form.choices.map((choice) => el("button", {
        type: "button", class: "choice", "aria-pressed": "false", onclick: () => this.flip(choice),
      }, String(choice)));
      for (const button of this.buttons) this.describe(button);
      this.row(el("div", { class: "chips", role: "group", "aria-labelledby": `${this.id}-title` }, ...this.buttons));
    } else {
      this.chips = el("ul", { class: "chips", "aria-label": `${this.title}: values` });
      const list = this.suggestions.length
        ? el("datalist", { id: `${this.id}-list` }, ...this.suggestions.map((word) => el("option", { value: word }))) : null;
      this.entry = this.describe(el("input", {
        id: this.id, class: "entry", type: "text", autocomplete: "off", spellcheck: "false", list: list?.id,
        inputmode: this.form.kind === "number" ? "numeric" : null,
        onkeydown: (event) => this.key(event), onchange: () => this.take(),
      }), `${this.id}-bounds`);
      const hint = ["Enter adds a value to compare", bounds(this.form)].filter(Boolean).join("; ");
      this.row(el("div", {}, el("div", { class: "values" }, this.chips, this.entry, list),
        el("p", { class: "help", id: `${this.id}-bounds` }, hint)), this.id);
    }
    this.draw();
  }

  draw() {
    if (this.buttons) {
      this.form.choices.forEach((choice, place) => {
        const on = this.values.includes(choice);
        this.buttons[place].setAttribute("aria-pressed", String(on));
        const holds = !this.values.length && this.fallback.includes(choice);
        this.buttons[place].classList.toggle("fallback", holds);
        this.buttons[place].dataset.source = holds ? ` (${this.source})` : "";
      });
      return;
    }
    this.chips.replaceChildren(...this.values.map((value) => el("li", {}, String(value),
      el("button", { type: "button", "aria-label": `remove ${value} from ${this.title}`, onclick: () => this.remove(value) }, "×"))));
    this.chips.hidden = !this.values.length;
    this.entry.classList.toggle("alone", !this.values.length);  // room for what it stands for
    this.entry.placeholder = this.values.length ? "add" : this.fallback.length ? `${this.fallback.join(", ")} (${this.source})` : "";
  }

  flip(choice) {
    if (this.values.includes(choice)) this.values = this.values.filter((value) => value !== choice);
    else this.values = this.form.choices.filter((one) => one === choice || this.values.includes(one));
    this.draw();
    this.changed();
  }

  key(event) {
    if (event.key === "Enter") { event.preventDefault(); this.take(); }
    if (event.key === "Backspace" && !this.entry.value && this.values.length) this.remove(this.values.at(-1));
  }

  take() {
    const text = this.entry.value.trim();
    if (!text) return;
    const number = Number(text);
    const isNumber = this.form.kind === "number" || (this.form.kind === "size" && Number.isInteger(number));
    if (this.form.kind === "number" && (!Number.isFinite(number) || (this.form.whole && !Number.isInteger(number)))) {
      this.complain(`${text} is no ${bounds(this.form)}`);
      return;
    }
    const value = isNumber ? number : text;
    this.entry.value = "";
    if (!this.values.includes(value)) this.values = [...this.values, value];
    this.complain("");
    this.draw();
    this.changed();
  }

  remove(value) {
    this.values = this.values.filter((one) => one !== value);
    this.draw();
    this.entry.focus();
    this.changed();
  }

  get value() {
    return this.values.length > 1 ? this.values : this.values[0];
  }
}

// One of several words, or none of them.
class Choice extends Question {
  constructor(place, title, help, choices, value, changed) {
    super(place, title, help, changed);
    this.select = this.describe(el("select", { id: this.id, onchange: () => changed() },
      ...choices.map(([key, text]) => el("option", { value: key, selected: key === value }, text))));
    this.row(this.select, this.id);
  }

  get value() {
    return this.select.value || undefined;
  }
}

// A number, or nothing.
class Amount extends Question {
  constructor(place, title, help, { low, high, step = 1, value, placeholder = "" }, changed) {
    super(place, title, help, changed);
    this.field = this.describe(el("input", {
      id: this.id, type: "number", min: low, max: high, step, value, placeholder, oninput: () => changed(),
    }));
    this.row(this.field, this.id);
  }

  get value() {
    return this.field.value === "" ? undefined : Number(this.field.value);
  }

  get error() {
    return this.field.validity.badInput ? "is no number" : "";
  }
}

// A text, or nothing.
class Words extends Question {
  constructor(place, title, help, { value = "", placeholder = "" }, changed) {
    super(place, title, help, changed);
    this.field = this.describe(el("input", {
      id: this.id, type: "text", value, placeholder, autocomplete: "off", spellcheck: "false", oninput: () => changed(),
    }));
    this.row(this.field, this.id);
  }

  get value() {
    return this.field.value.trim() || undefined;
  }
}

// Further keys of the suite as JSON.
class Keys extends Question {
  constructor(changed) {
    super("config", "Further keys", "More keys of the suite as JSON: zip, exclude, include, schedule, slo, search, order, pack. They are laid over all else.", changed);
    this.field = this.describe(el("textarea", {
      id: this.id, class: "mono", rows: 4, cols: 48, spellcheck: "false", placeholder: "{\"exclude\": [{\"clients\": 4}]}", oninput: () => changed(),
    }));
    this.row(this.field, this.id);
  }

  get value() {
    return this.read().found ?? {};
  }

  get error() {
    return this.read().error ?? "";
  }

  read() {
    if (!this.field.value.trim()) return {};
    try {
      const found = JSON.parse(this.field.value);
      if (found && typeof found === "object" && !Array.isArray(found)) return { found };
      return { error: "needs a JSON object: {\"key\": value}" };
    } catch (error) {
      return { error: `is not JSON: ${error.message}` };
    }
  }
}

function group(title, ...children) {
  return el("fieldset", {}, el("legend", {}, title), ...children);
}

const HARDWARE = {
  "server.device": "Each server: device", "server.gpus": "Each server: GPUs", "server.cores": "Each server: cores",
  "clients.place": "Clients: node", "clients.processes": "Clients: processes", "clients.cores": "Each client: cores",
};

// The form for one starting point. `service()` returns what it asks for; only what differs from the start is sent.
class Form {
  constructor(menu, schema, start, profile, changed) {
    this.menu = menu;
    this.schema = schema;
    this.start = start;
    this.benchmark = menu.benchmarks.find((one) => one.name === start.benchmark);
    this.profile = menu.profiles.find((one) => one.name === profile);
    this.changed = changed;
    this.questions = [];
    this.suite = start.suite;
    this.node = el("div", {}, this.parameters(), this.parties(), this.hardware(), this.advanced());
  }

  ask(question) {
    this.questions.push(question);
    return question;
  }

  first(name) {
    return listed(this.suite.axes?.[name] ?? this.suite[name]);
  }

  parameter(name) {
    const schema = this.schema.properties[name];
    const question = this.ask(new Values(`config.${name}`, words(name), helpOf(name, schema), shape(schema), this.first(name), {
      suggestions: this.benchmark.suggestions[name] ?? [], fallback: this.benchmark.defaults[name], changed: this.changed,
    }));
    question.name = name;
    return question;
  }

  parameters() {
    const simple = Object.keys(this.schema.properties).filter((name) => !OWN.has(name) && !THREADS.has(name) && shape(this.schema.properties[name]).kind !== "other");
    const shown = simple.filter((name) => this.first(name).length || this.benchmark.shown.includes(name));
    this.rest = simple.filter((name) => !shown.includes(name));
    this.parametersOf = shown.map((name) => this.parameter(name));
    const given = this.suite.repetitions ?? 5;
    this.repetitions = this.ask(new Amount("config.repetitions", "Repetitions", "Independent runs of each case; intervals are over these.",
      { low: 1, high: 1000, value: given.min ?? given, placeholder: `${given.min ?? given} (${this.suite.repetitions ? "preset" : "default"})` }, this.changed));
    return group("What is measured", ...this.parametersOf.map((one) => one.node), this.repetitions.node);
  }

  parties() {
    const most = this.profile.clients[this.benchmark.name];
    this.clients = this.ask(new Values("clients", "Clients", "Concurrent clients. Several numbers are compared.",
      { kind: "number", low: 1, high: most, whole: true }, this.first("clients"), { fallback: 1, changed: this.changed }));
    const inside = [this.clients.node];
    if (this.benchmark.has_server) {
      this.servers = this.ask(new Values("servers", "Servers", "Servers that each batch starts; the clients are spread over them.",
        { kind: "number", low: 1, high: 16, whole: true }, this.first("servers"), { fallback: 1, changed: this.changed }));
      inside.push(this.servers.node);
    }
    if (this.schema.properties.engine) inside.push(...this.engine());
    return group(this.benchmark.has_server ? "Clients and servers" : "Clients", ...inside);
  }

  // The questions about the engine: its kind, and the fields of that kind that are no places.
  engine() {
    const kinds = { llamacpp: "LlamaCpp", ollama: "Ollama" };
    this.engineNow = this.suite.engine ?? { kind: "llamacpp", model: "smollm2-135m" };
    const known = this.engineNow.kind in kinds;
    const choices = known ? Object.keys(kinds).map((kind) => [kind, kind]) : [[this.engineNow.kind, this.engineNow.kind]];
    this.kind = this.ask(new Choice("config.engine.kind", "Engine", "`llamacpp` is embedded and uses the cores; `ollama` uses cores or GPUs.", choices, this.engineNow.kind, () => {
      this.drawEngine();
      this.changed();
    }));
    this.engineBox = el("div");
    this.engineQuestions = [];
    this.kinds = kinds;
    this.drawEngine();
    return [this.kind.node, this.engineBox];
  }

  drawEngine() {
    this.questions = this.questions.filter((one) => !this.engineQuestions.includes(one));
    const kind = this.kind.value;
    const given = kind === this.engineNow.kind ? this.engineNow : { kind };
    const fields = this.schema.$defs[this.kinds[kind]]?.properties ?? {};
    this.engineQuestions = Object.entries(fields).filter(([name]) => !PLACES.has(name)).map(([name, schema]) => {
      const form = shape(schema);
      const place = `config.engine.${name}`;
      const shown = { value: given[name], placeholder: given[name] === undefined ? schema.default ?? "" : `${given[name]} (preset)`, low: form.low, high: form.high };
      const question = form.kind === "choice"
        ? new Choice(place, words(name), schema.description, form.choices.map((one) => [one, one]), given[name] ?? schema.default, this.changed)
        : new (form.kind === "number" ? Amount : Words)(place, words(name), helpOf(name, schema), shown, this.changed);
      question.name = name;
      return this.ask(question);
    });
    this.engineBox.replaceChildren(...this.engineQuestions.map((one) => one.node));
  }

  hardware() {
    const inside = [];
    const changed = this.changed;
    const slurm = this.profile.slurm;
    this.resources = [];
    const add = (path, question) => {
      this.resources.push([path, this.ask(question)]);
      inside.push(question.node);
    };
    const choices = {
      "server.device": [["", "as the engine says"], ["cpu", "CPU"], ["gpu", "GPU"]],
      "clients.place": slurm && [["", "as the preset says"], ["same-node", "the server's node"], ["own-node", "a node of their own"]],
    };
    const amounts = {
      "server.gpus": { low: 1, high: this.profile.node?.gpus || 16, placeholder: "1" }, "server.cores": { low: 1, high: 1024, placeholder: "all" },
      "clients.processes": { low: 1, high: 64, placeholder: "1" }, "clients.cores": { low: 1, high: 1024, placeholder: "1" },
    };
    for (const [path, help] of Object.entries(this.benchmark.hardware)) {
      const place = `resources.${path}`;
      if (choices[path]) add(path, new Choice(place, HARDWARE[path], help, choices[path], "", changed));
      else if (amounts[path]) add(path, new Amount(place, HARDWARE[path], help, amounts[path], changed));
    }
    if (slurm) {
      const names = slurm.partitions.map((one) => [one.name, `${one.name} · ${one.nodes} nodes · ${one.cores ?? "?"} cores${one.gpus ? ` · ${one.gpus}` : ""}${one.state === "up" ? "" : ` · ${one.state}`}`]);
      add("job.partition", new Choice("resources.job.partition", "Job: partition", slurm.problem ?? null, [["", `${slurm.partition}, or ${slurm.gpu_partition ?? slurm.partition} with GPUs`], ...names], "", changed));
      add("job.cores", new Amount("resources.job.cores", "Job: cores", "Of each node.", { low: 1, high: 4096, placeholder: this.profile.node?.cores }, changed));
      add("job.memory_mib", new Amount("resources.job.memory_mib", "Job: memory", "Of each node, in MiB.", { low: 512, high: 1 << 26, placeholder: this.profile.node?.memory_mib }, changed));
    }
    if (!inside.length) {
      inside.push(el("p", { class: "help alone" }, "The clients are processes of this machine and use its cores and its memory."));
    }
    return group("Hardware", ...inside);
  }

  advanced() {
    const more = this.rest.map((name) => this.parameter(name));
    this.parametersOf.push(...more);
    this.keys = this.ask(new Keys(this.changed));
    this.more = el("details", { class: "more" }, el("summary", {}, "More parameters"),
      ...more.map((one) => one.node), this.keys.node);
    return this.more;
  }

  get error() {
    const wrong = this.questions.find((question) => question.error);
    return wrong ? { field: wrong.place, message: wrong.error } : null;
  }

  service() {
    const config = {};
    for (const { name, values, value } of this.parametersOf) {
      if (!values.length || same(values, this.first(name))) continue;
      if (values.length > 1 || this.suite.axes?.[name] !== undefined) (config.axes ??= {})[name] = values;
      else config[name] = value;
    }
    const given = this.suite.repetitions ?? 5;
    const repetitions = this.repetitions.value;
    if (repetitions !== undefined && repetitions !== (given.min ?? given)) config.repetitions = repetitions;
    if (this.kind) {
      const engine = { kind: this.kind.value };
      const fields = this.schema.$defs[this.kinds[engine.kind]]?.properties ?? {};
      for (const { name, value } of this.engineQuestions) {
        if (value !== undefined && (value !== fields[name].default || this.engineNow[name] !== undefined)) engine[name] = value;
      }
      const before = Object.fromEntries(Object.entries(this.engineNow).filter(([key]) => key === "kind" || !PLACES.has(key)));
      const differs = Object.keys({ ...before, ...engine }).some((key) => !same(before[key], engine[key]));
      if (differs) config.engine = engine;
    }
    const resources = {};
    for (const [path, { value }] of this.resources) {
      if (value === undefined) continue;
      const [part, name] = path.split(".");
      (resources[part] ??= {})[name] = value;
    }
    const service = { ...this.start.request, config: { ...config, ...this.keys.value } };
    if (this.clients.values.length && !same(this.clients.values, this.first("clients"))) service.clients = this.clients.value;
    if (this.servers?.values.length && !same(this.servers.values, this.first("servers"))) service.servers = this.servers.value;
    if (Object.keys(resources).length) service.resources = resources;
    return service;
  }

  complain(reason) {
    const found = complain(this.questions, reason);
    if (found && this.more.contains(found.node)) this.more.open = true;
    return found;
  }
}

// Shows a refusal at the question of these that it is about; returns the question, or null when none is.
function complain(questions, reason) {
  for (const question of questions) question.complain("");
  if (!reason) return null;
  const field = (reason.field ?? "").replace(/\[\d+\]/g, "").replace(/^config\.(axes|zip)\./, "config.");
  const found = questions.filter((one) => field === one.place || field.startsWith(`${one.place}.`))
    .sort((one, other) => other.place.length - one.place.length)[0] ?? null;
  found?.complain(told(reason));
  return found;
}

// What all benchmarks of a launch share.
class Shared {
  constructor(changed) {
    this.seed = new Amount("seed", "Seed", "Orders, data and prompts follow from it.", { low: 0, high: 2 ** 53 - 1, placeholder: "1" }, changed);
    this.budget = new Amount("node_hours", "Budget", "In node-hours, of all together; a plan that takes more is refused.", { low: 0.01, step: "any", placeholder: "2" }, changed);
    this.questions = [this.seed, this.budget];
    this.node = el("details", { class: "more" }, el("summary", {}, "Seed and budget"), this.seed.node, this.budget.node);
  }

  get error() {
    const wrong = this.questions.find((question) => question.error);
    return wrong ? { field: wrong.place, message: wrong.error } : null;
  }

  get values() {
    return Object.fromEntries(this.questions.filter((one) => one.value !== undefined).map((one) => [one.place, one.value]));
  }

  complain(reason) {
    const found = complain(this.questions, reason);
    if (found) this.node.open = true;
    return found;
  }
}

// The benchmarks of a launch, each with its form. One is shown, and the cards are about it.
class Basket {
  constructor(show, remove, add) {
    this.list = el("ul", {}, []);
    this.node = el("div", { class: "basket", role: "group", "aria-labelledby": "basket-title" },
      el("span", { class: "title", id: "basket-title" }, "In this launch"), this.list,
      el("button", { type: "button", onclick: add }, "Add another benchmark"));
    this.show = show;
    this.remove = remove;
    this.wrong = null;  // place of the benchmark that a refusal names
  }

  draw({ services, now }) {
    const { wrong } = this;
    const name = ({ start }, place) => `${place + 1} · ${start.title === NOTHING ? words(start.benchmark) : start.title}`;
    this.list.replaceChildren(...services.map((service, place) => el("li", { class: place === wrong ? "wrong" : "" },
      el("button", { type: "button", class: "choice", "aria-pressed": String(place === now), onclick: () => this.show(place) },
        name(service, place), place === wrong ? el("span", { class: "sr" }, " has a problem") : null),
      services.length > 1 ? el("button", { type: "button", "aria-label": `remove ${name(service, place)}`, onclick: () => this.remove(place) }, "×") : null)));
  }
}

// The card at the side: what it will take, the problem, the button, the YAML.
class Summary {
  constructor(launch) {
    this.figures = el("dl", { class: "figures" });
    this.problem = el("p", { class: "problem", hidden: true });
    this.state = el("p", { class: "help" });
    this.button = el("button", { type: "button", class: "main", onclick: () => launch() }, "Launch");
    this.yaml = el("pre", { class: "mono", tabindex: "0", role: "region", "aria-label": "The campaign as YAML" });
    this.copy = el("button", { type: "button", onclick: () => this.copyText() }, "Copy");
    this.node = el("aside", { class: "panel summary", "aria-label": "What it will take" },
      el("h2", {}, "What it will take"), el("div", { role: "status" }, this.figures, this.problem, this.state), this.button,
      el("details", {}, el("summary", {}, "The campaign as YAML"), el("div", { class: "tools" }, this.copy), this.yaml));
    this.enable(false);
  }

  enable(on) {
    this.button.disabled = !on;
  }

  async copyText() {
    await navigator.clipboard.writeText(this.yaml.textContent);
    toast("The campaign is in the clipboard.");
  }

  say(text) {
    this.state.textContent = text;
  }

  ok(answer) {
    const plan = answer.plan, several = new Set(plan.varied.map(({ suite }) => suite)).size > 1;
    const rows = [
      ["Measuring", `about ${duration(plan.expected_s)}`], ["Node-hours", `${plan.node_hours.toPrecision(2)} of ${plan.budget_node_hours}`],
      plan.gpu_hours ? ["GPU-hours", plan.gpu_hours.toPrecision(2)] : null,
      ...(plan.targets ?? []).map((one) => ["Writes to", `${visible(one.path)}: ${one.type}, ${bytes(one.free_bytes)} free here`]),
      ["Cases", `${plan.cases}, ${plan.repetitions} repetitions`],
      plan.varied.length ? ["Varied", plan.varied.map(({ suite, key, values }) => `${several ? `${visible(suite)}: ` : ""}${visible(key)} (${values})`).join(", ")] : null, ["Jobs", String(plan.batches)], ["Ends", `${moment(plan.expected_end).slice(0, 16)} if all starts now`],
    ].filter(Boolean);
    this.figures.replaceChildren(...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    this.yaml.textContent = answer.config.replace(/^campaign: .*$/m, "campaign: my-run");
    this.problem.hidden = true;
    this.say("");
    this.enable(true);
  }

  ko(reason, elsewhere, before) {
    this.figures.replaceChildren();
    this.problem.textContent = before + (elsewhere ? `${elsewhere.title}: ${reason.message}` : told(reason));
    this.problem.hidden = false;
    this.say("");
    this.enable(false);
  }
}

// The table of runs; rows stay the same nodes while they change, so that the focus stays where it is.
class RunTable {
  constructor() {
    this.rows = new Map();
    this.body = el("tbody");
    this.empty = el("p", { class: "empty", hidden: true }, "No run yet. The first one is a click away.");
    this.node = el("section", { "aria-labelledby": "runs-title" }, el("h2", { id: "runs-title", tabindex: "-1" }, "Runs"), this.empty,
      this.table = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of runs", hidden: true }, el("table", { class: "runs" },
        el("thead", {}, el("tr", {}, ...["State", "Run", "Begun", "Progress", "Cases", ""].map((title) => (title ? el("th", { scope: "col" }, title) : el("td")))),), this.body)));
    this.dialog = el("dialog", { "aria-labelledby": "cancel-title" });
    this.node.append(this.dialog);
    this.short = el("p", { class: "help" });
  }

  draw(runs) {
    this.empty.hidden = runs.length > 0;
    this.table.hidden = !runs.length;
    const states = Object.keys(STATES).map((state) => [state, runs.filter((run) => run.state === state).length]).filter(([, count]) => count);
    this.short.replaceChildren(...(runs.length ? [el("a", { href: "#runs-title", onclick: (event) => this.show(event) }, "Runs"), `: ${states.map(([state, count]) => `${count} ${state}`).join(", ")}`] : []));
    const wanted = new Set(runs.map((run) => run.id));
    for (const [id, row] of this.rows) if (!wanted.has(id)) { row.node.remove(); this.rows.delete(id); }
    runs.forEach((run, place) => {
      const row = this.rows.get(run.id) ?? this.row(run);
      this.update(row, run);
      if (this.body.children[place] !== row.node) this.body.insertBefore(row.node, this.body.children[place] ?? null);
    });
  }

  show(event) {
    event.preventDefault();
    const title = document.getElementById("runs-title");
    title.scrollIntoView({ block: "start" });
    title.focus({ preventScroll: true });
  }

  row(run) {
    const row = { run, state: el("span"), message: el("small"), begun: el("td"), progress: el("td"), counts: el("td", { class: "counts" }) };
    row.report = el("button", { type: "button", "aria-label": `open the report of ${run.id}`, onclick: () => openReport(run.id) }, "Report");
    row.cancel = el("button", { type: "button", class: "danger", "aria-label": `cancel ${run.id}`, onclick: () => this.confirm(row.run) }, "Cancel");
    const what = run.benchmarks?.join(", ") ?? "";
    row.watch = el("a", { href: `#/monitor/run/${run.id}`, "aria-label": `watch ${run.id}` }, "Watch");
    row.more = el("button", { type: "button", "aria-label": `details of ${run.id}`, onclick: () => this.details(row.run) }, "Details");
    row.node = el("tr", { "data-run": run.id }, el("td", {}, row.state),
      el("th", { scope: "row" }, run.id, el("small", {}, [what, run.profile, run.launched ? "" : "started by hand"].filter(Boolean).join(" · ")), row.message),
      row.begun, row.progress, row.counts, el("td", { class: "actions" }, row.watch, row.report, row.more, row.cancel));
    this.rows.set(run.id, row);
    return row;
  }

  update(row, run) {
    const [mark, text] = STATES[run.state];
    row.run = run;
    row.state.className = `state ${mark}`;
    row.state.textContent = text;
    row.message.textContent = [run.launched && run.state !== "ended" ? run.message : null, run.problem && `not read: ${run.problem}`].filter(Boolean).join("; ");
    row.begun.textContent = run.created_at ? moment(run.created_at).slice(0, 16) : NONE;
    const { done, planned } = run.repetitions;
    if (planned) {
      const share = Math.min(1, done / planned);
      const bar = row.progress.querySelector("progress") ?? el("progress", { max: 1 });
      bar.setAttribute("aria-label", `progress of ${run.id}`);
      bar.value = share;
      const label = row.progress.querySelector("small") ?? el("small");
      label.textContent = `${done} of ${planned}`;
      if (!bar.isConnected) row.progress.replaceChildren(bar, label);
    } else {
      row.progress.textContent = NONE;
    }
    const counts = run.counts;
    row.counts.replaceChildren(...(counts ? COUNTS.filter(([name]) => counts[name]).map(([name, sign]) => el("span", { class: `state ${sign}` }, `${counts[name]} ${name === "missing" && ACTIVE.has(run.state) ? "to go" : name}`)) : [NONE]));
    row.report.disabled = !run.report;
    row.watch.hidden = !planned || !document.querySelector("#tabs [data-route=monitor]");
    row.watch.textContent = ACTIVE.has(run.state) ? "Watch" : "Jobs";
    row.more.hidden = !run.launched;
    row.cancel.hidden = !run.can.includes("cancel");
  }

  // How a run was launched, what Snakemake said last, and how to go on with it.
  async details(run) {
    const close = () => this.dialog.close();
    const goOn = (again) => async () => {
      close();
      try {
        await api(`runs/${run.id}:continue?again=${again}`, { method: "POST" });
        toast(`${run.id} goes on.`);
        this.refresh();
      } catch (error) {
        toast(error.message);
      }
    };
    const lines = (text) => text.split("\n").map(visible).join("\n");
    let found;
    try {
      found = await api(`runs/${run.id}`);
    } catch (error) {
      toast(error.message);
      return;
    }
    const buttons = [
      found.can.includes("continue") ? el("button", { type: "button", onclick: goOn(false) }, "Continue") : null,
      found.can.includes("again") ? el("button", { type: "button", onclick: goOn(true) }, "Measure again") : null,
    ].filter(Boolean);
    const help = [
      found.can.includes("continue") ? "Continue measures the cases that are missing." : null,
      found.can.includes("again") ? "Measure again sets aside what is invalid or failed (nothing is deleted) and measures it once more, with what is missing." : null,
    ].filter(Boolean).join(" ");
    this.dialog.replaceChildren(...[
      el("h2", { id: "cancel-title" }, run.id),
      found.message ? el("p", {}, visible(found.message)) : null,
      el("h3", {}, "Its campaign"), el("pre", { tabindex: "0", "aria-label": "campaign as YAML" }, lines(found.config ?? "")),
      el("h3", {}, "End of Snakemake's log"), el("pre", { tabindex: "0", "aria-label": "end of the log" }, lines(found.log || "It has said nothing.")),
      help ? el("p", { class: "help" }, help) : null,
      el("div", { class: "tools" }, ...buttons, el("button", { type: "button", onclick: close, autofocus: true }, "Close")),
    ].filter(Boolean));
    this.dialog.showModal();
    const log = this.dialog.querySelector("pre:last-of-type");
    log.scrollTop = log.scrollHeight;
  }

  confirm(run) {
    const close = () => this.dialog.close();
    const cancel = async () => {
      close();
      try {
        await api(`runs/${run.id}:cancel`, { method: "POST" });
        toast(`${run.id} is being cancelled.`);
        this.refresh();
      } catch (error) {
        toast(error.message);
      }
    };
    this.dialog.replaceChildren(el("h2", { id: "cancel-title" }, "Cancel this run?"), el("p", {}, run.id),
      el("p", { class: "help" }, "Its jobs end. What is measured so far stays and can be reported."),
      el("div", { class: "tools" }, el("button", { type: "button", class: "danger", onclick: cancel }, "Cancel the run"),
        el("button", { type: "button", onclick: close, autofocus: true }, "Keep it going")));
    this.dialog.showModal();
  }
}

const NOTHING = "From nothing";

// Where a service of a launch can start: a preset, or an empty suite of a benchmark.
function starts(menu) {
  const presets = menu.presets.map((preset) => ({ ...preset, key: preset.id, request: { preset: preset.id } }));
  const blank = menu.benchmarks.map((one) => ({
    key: `new:${one.name}`, title: NOTHING, text: one.text, benchmark: one.name, suite: {}, request: { benchmark: one.name },
    profiles: Object.fromEntries(menu.profiles.map((profile) => [profile.name, {}])),
  }));
  return menu.benchmarks.map((one) => ({
    benchmark: one, list: [...presets, ...blank].filter((start) => start.benchmark === one.name)
      .sort((a, b) => (a.profiles[menu.profiles[0].name]?.expected_s ?? 1e9) - (b.profiles[menu.profiles[0].name]?.expected_s ?? 1e9)),
  }));
}

let kept = null;  // the launch as it was left, {profile, shared, services: [{start, form}], now}: it comes back with the tab
let onChange = () => {};  // of the tab that is shown

export function mount(root) {
  const ending = new AbortController();
  const schemas = new Map();
  const box = el("div", { class: "form" });
  const basket = new Basket((place) => show(place), (place) => remove(place), () => add());
  const summary = new Summary(() => launch());
  const runs = new RunTable();
  let menu, groups, profile, checking, timer, polling, key = "", busy = false, due = false;
  let turn = 0, ready = false;  // whether each benchmark of the launch has its form
  let full = null;  // runs that were going on when a launch was refused for them; null: it was not

  root.append(el("h1", {}, "Launch"), runs.short, el("p", { class: "empty", id: "launch-wait" }, "Loading the menu …"));

  async function load() {
    try {
      menu = await api("menu", { signal: ending.signal });
    } catch (error) {
      if (ending.signal.aborted) return;
      root.querySelector("#launch-wait").replaceWith(el("p", { class: "problem", role: "alert" }, error.message));
      return;
    }
    if (!menu.profiles.length) {
      root.querySelector("#launch-wait").replaceWith(el("p", { class: "problem", role: "alert" },
        "Nothing can be launched from here: the folder of this service holds no profile. Start it in a checkout of aifbench, or name one with --project."), runs.node);
      await refresh();
      return;
    }
    groups = starts(menu);
    profile = el("select", { id: "profile", onchange: () => choose() },
      ...menu.profiles.map((one) => el("option", { value: one.name }, `${one.name}${one.slurm ? " · Slurm" : " · this machine"}`)));
    const cards = groups.map(({ benchmark, list }) => el("fieldset", { class: "starts" },
      el("legend", {}, words(benchmark.name)), el("p", { class: "help" }, benchmark.text),
      ...list.map((start) => el("label", { class: "start" },
        el("input", { type: "radio", name: "start", value: start.key, onchange: () => choose() }),
        el("span", {}, el("b", {}, start.title), el("small", { class: "takes" }), start.key.startsWith("new:") ? null : el("small", {}, start.text))))));
    if (menu.broken_presets.length) {
      cards.push(el("fieldset", { class: "starts broken" }, el("legend", {}, "Not usable"),
        el("p", { class: "help" }, "Files that are no presets. Mend them and load this page again."),
        ...menu.broken_presets.map(({ id, problem }) => el("div", { class: "start" },
          el("span", {}, el("b", {}, visible(id)), el("small", { class: "takes" }, "invalid config"), el("small", { class: "problem" }, visible(problem)))))));
    }
    root.querySelector("#launch-wait").remove();
    root.append(el("form", { class: "launcher", onsubmit: (event) => event.preventDefault(), novalidate: true },
      el("div", { class: "ask-first" }, el("div", { class: "field" }, el("label", { for: "profile" }, "Where it runs"), profile)), basket.node,
      el("div", { class: "cards" }, ...cards), el("div", { class: "two" }, box, summary.node)), runs.node);
    if (menu.profiles.some((one) => one.name === kept?.profile)) profile.value = kept.profile;
    kept ??= { shared: new Shared(() => onChange()), services: [], now: 0 };
    for (const service of kept.services) service.start = all().find((start) => start.key === service.start.key) ?? quickest();
    if (!kept.services.length) kept.services.push({ start: quickest(), form: null });
    await renew();
    await refresh();
  }

  const all = () => groups.flatMap((one) => one.list);
  const button = (start) => root.querySelector(`[name=start][value="${start.key}"]`);

  // The quickest start, of a benchmark that is not in the launch where there is one.
  function quickest(besides = []) {
    const usable = all().filter((start) => start.profiles[profile.value]);
    const fresh = usable.filter((start) => !besides.some((one) => one.start.benchmark === start.benchmark));
    const time = (start) => start.profiles[profile.value].expected_s ?? 1e9;
    return (fresh.length ? fresh : usable).sort((one, other) => time(one) - time(other))[0];
  }

  // Says at each card how long it takes on the profile; those that do not run on it cannot be chosen.
  function price() {
    for (const start of all()) {
      const takes = start.profiles[profile.value];
      button(start).disabled = !takes;
      const text = !takes ? "needs Slurm" : takes.status === "ko" ? takes.reason.code.replaceAll("_", " ") : takes.expected_s === undefined ? "" : `about ${duration(takes.expected_s)}`;
      button(start).parentNode.querySelector(".takes").textContent = text;
    }
  }

  // The card that was clicked is the start of the benchmark that is shown.
  function choose() {
    kept.services[kept.now].start = all().find((start) => start.key === root.querySelector("[name=start]:checked").value);
    return renew();
  }

  // Shows a benchmark of the launch: its card, and its form where it has one yet.
  function show(place) {
    const { start, form } = kept.services[place];
    kept.now = place;
    button(start).checked = true;
    basket.draw(kept);
    if (form) box.replaceChildren(form.node, kept.shared.node);
  }

  function add() {
    kept.now = kept.services.push({ start: quickest(kept.services), form: null }) - 1;
    return renew();
  }

  function remove(place) {
    kept.services.splice(place, 1);
    kept.now = Math.max(0, kept.now - (kept.now >= place ? 1 : 0));
    return renew();
  }

  // Makes the forms that are missing, or are of another start or profile, and shows the one that was asked for.
  async function renew() {
    const mine = turn += 1;
    ready = false;  // what is shown may be of another start
    kept.profile = profile.value;
    summary.enable(false);
    clearTimeout(timer);
    checking?.abort();
    price();
    for (const service of kept.services) {
      if (!service.start.profiles[profile.value]) service.start = quickest();
    }
    basket.wrong = null;
    show(kept.now);
    for (const { start: { benchmark } } of kept.services) {
      if (!schemas.has(benchmark)) schemas.set(benchmark, await api(`menu/${benchmark}/schema`, { signal: ending.signal }));
    }
    if (mine !== turn) return;
    for (const service of kept.services) {
      const { start, form } = service;
      if (!form || !same([form.start.key, form.start.suite, form.profile.name], [start.key, start.suite, profile.value])) {
        service.form = new Form(menu, schemas.get(start.benchmark), start, profile.value, () => onChange());
      }
    }
    ready = true;
    show(kept.now);
    changed();
  }

  function request() {
    const services = kept.services.map(({ form }) => form.service());
    return { ...(services.length > 1 ? { services } : services[0]), profile: profile.value, ...kept.shared.values };
  }

  // Whether a refusal names one of several benchmarks.
  const names = (reason) => kept.services.length > 1 && Boolean(reason?.field?.startsWith("services["));

  // Where in the launch a field of the request is: [place of the benchmark, the field of its form].
  function placeOf(field) {
    const [, place, rest] = /^(?:services\[(\d+)\]\.)?(.*)$/s.exec(field ?? "");
    return [Math.min(Number(place ?? 0), kept.services.length - 1), rest];
  }

  function changed() {
    due = busy;
    if (busy) return;  // checked once the launch is over
    key = "";
    full = null;
    summary.enable(false);
    summary.say("Checking …");
    clearTimeout(timer);
    timer = setTimeout(check, 250);
  }

  async function check() {
    checking?.abort();
    if (!ready) return;
    const mine = checking = new AbortController();
    complainAt(null);
    const wrong = kept.services.map(({ form }, place) => form.error && { ...form.error, field: `services[${place}].${form.error.field}` });
    const first = wrong.find((one) => one) ?? kept.shared.error;
    if (first) { refused(first); return; }
    try {
      const answer = await api("runs:validate", { method: "POST", body: request(), signal: mine.signal });
      summary.ok(answer);
      root.dataset.checked = String(Number(root.dataset.checked ?? 0) + 1);
    } catch (error) {
      if (mine.signal.aborted || ending.signal.aborted) return;
      refused(error.body?.reason ?? { message: error.message });
    }
  }

  // Shows a refusal at its question; returns the question, or null when none is.
  function complainAt(reason) {
    for (const { form } of kept.services) form.complain(null);
    const shared = kept.shared.complain(reason);
    const [place, field] = placeOf(reason?.field);
    const found = shared ?? (reason ? kept.services[place].form.complain({ ...reason, field }) : null);
    basket.wrong = names(reason) ? place : null;
    basket.draw(kept);
    return found;
  }

  function refused(reason) {
    const question = ready ? complainAt(reason) : null;
    const [place] = placeOf(reason.field);
    summary.ko(reason, question, names(reason) ? `${place + 1} · ` : "");
    root.dataset.checked = String(Number(root.dataset.checked ?? 0) + 1);
    return question;
  }

  async function launch() {
    if (busy || !ready) return;
    busy = true;
    full = null;
    key ||= crypto.randomUUID();
    summary.enable(false);
    const begun = Date.now();
    const { slurm } = menu.profiles.find((one) => one.name === profile.value);
    const ticking = setInterval(() => summary.say(`Checking with Snakemake${slurm ? " and Slurm" : ""}, then starting … ${Math.round((Date.now() - begun) / 1000)} s`), 500);
    summary.say("Checking with Snakemake, then starting …");
    try {
      const { run_id: id } = await api("runs", { method: "POST", body: request(), headers: { "idempotency-key": key } });
      key = "";
      clearInterval(ticking);
      toast(`${id} is started.`);
      summary.say(`Started: ${id}`);
      await refresh();
      document.getElementById("runs-title").scrollIntoView({ block: "start" });
      runs.rows.get(id)?.report.focus();
    } catch (error) {
      const reason = error.body?.reason;
      if (reason) key = "";  // without an answer the same key is sent again: it may have started
      const question = refused(reason ?? { message: error.message });
      if (names(reason)) show(placeOf(reason.field)[0]);
      question?.controls[0]?.focus();
      if (!reason || PASSING.has(reason.code)) summary.enable(true);
      if (reason?.code === "queue_full") {
        full = new Set();
        refresh();
      }
    } finally {
      clearInterval(ticking);
      busy = false;
      if (due) changed();
      else if (ready && summary.problem.hidden) summary.enable(true);
    }
  }

  async function refresh() {
    clearTimeout(polling);
    let wait = 10000;
    try {
      if (!document.hidden) {
        const found = (await api("runs", { signal: ending.signal })).runs;
        runs.draw(found);
        const active = new Set(found.filter((run) => ACTIVE.has(run.state)).map((run) => run.id));
        if (active.size) wait = 1500;
        if (full && (!active.size || [...full].some((id) => !active.has(id)))) changed();  // what stood in the way has ended
        else if (full) full = active;
      }
    } catch {
      if (ending.signal.aborted) return;
    }
    clearTimeout(polling);
    polling = setTimeout(refresh, wait);
  }

  onChange = changed;
  runs.refresh = refresh;
  const seen = () => { if (!document.hidden) refresh(); };
  document.addEventListener("visibilitychange", seen);
  load();
  return () => {
    ending.abort();
    checking?.abort();
    clearTimeout(timer);
    clearTimeout(polling);
    document.removeEventListener("visibilitychange", seen);
  };
}
