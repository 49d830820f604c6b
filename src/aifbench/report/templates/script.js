(() => {
  const THIN = "\u202f";
  const STATES = ["valid", "invalid", "failed", "missing"];
  const ROWS = 25;
  const PRINTED = 500;
  const SVG = "http://www.w3.org/2000/svg";
  const drawer = document.getElementById("drawer");
  const tip = document.getElementById("tip");
  const chosen = new Set();
  const tables = [];
  let data;
  const byPlace = new Map();
  const byId = new Map();

  // Everything that a record holds reaches the page as text nodes and attribute values, never as markup.
  function make(tag, attributes, ...children) {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  // -- numbers: the same rules as in numbers.py; a test holds the two together ------------------------------------

  function decimalsFor(value, half) {
    const size = value ? Math.floor(Math.log10(Math.abs(value))) : 0;
    if (half === null) return 3 - size;
    if (half <= 0) return value ? 3 - size : 0;
    const wanted = 1 - Math.floor(Math.log10(half));
    return Math.min(value ? Math.max(wanted, 1 - size) : wanted, Math.max(5 - size, 0));
  }

  function fixed(value, decimals) {
    const power = 10 ** -decimals;
    const rounded = decimals < 0 ? Math.round(value / power) * power : value;
    let text = Math.abs(rounded).toFixed(Math.max(0, Math.min(decimals, 30)));
    const negative = rounded < 0 && Number(text) !== 0;
    const [whole, part] = text.split(".");
    text = whole.replace(/\B(?=(\d{3})+$)/g, THIN) + (part ? `.${part}` : "");
    return (negative ? "−" : "") + text;
  }

  function plain(value, half, factor, unit) {
    const shown = value / factor;
    const spread = half === null ? null : half < 1e-12 * Math.abs(value) ? 0 : half / factor;
    const decimals = decimalsFor(shown, spread);
    let text = fixed(shown, decimals);
    if (spread !== null) {
      const smallest = Number((10 ** -decimals).toPrecision(6));
      const vanishes = decimals >= 0 && Number(spread.toFixed(Math.min(decimals, 30))) === 0;
      text += ` ± ${spread === 0 ? "0" : vanishes ? `<${smallest}` : fixed(spread, decimals)}`;
    }
    return unit ? `${text} ${unit}` : text;
  }

  function size(bytes) {
    for (const [unit, factor] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]]) {
      if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${unit}`;
    }
    return `${bytes}B`;
  }

  function short(value, unit) {
    const scales = {
      bytes: [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024], ["B", 1]],
      s: [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]],
    };
    scales.B = scales.bytes;
    scales["bytes/s"] = scales.bytes.map(([name, factor]) => [`${name}/s`, factor]);
    for (const [name, factor] of scales[unit] || []) {
      if (value >= factor) return `${Number((value / factor).toPrecision(3))}${THIN}${name}`;
    }
    return `${Number(value.toPrecision(3))}${unit && THIN}${unit}`;
  }

  // -- rows -------------------------------------------------------------------------------------------------------

  const textAt = (place) => (place < 0 ? "" : data.texts[place]);

  function inputText(group, place, cell) {
    const value = inputValue(cell);
    if (value === null) return "—";
    return group.sizes.includes(place) ? size(value) : String(value);
  }

  // -- small parts of tables ----------------------------------------------------------------------------------------

  const cell = (child, kind) => make("td", { class: kind }, child);

  function plainTable(head, rows, kind = "") {
    const cells = head.map((text) => make("th", { scope: "col" }, text));
    for (const row of rows) [...(row ? row.children : [])].forEach((each, place) => { each.dataset.column = head[place]; });
    const table = make("table", { class: `plain ${kind}`.trim() }, make("thead", {}, make("tr", {}, cells)), make("tbody", {}, rows));
    return make("div", { class: "wide" }, table);
  }

  function readRow(group, row) {
    const [place, id, batch, label, state, counts, suites, inputs, reasons, notes, metrics, repetitions] = row;
    const [planned, done, failed] = counts;
    return {
      group, place, id, batch, label, state: STATES[state], planned, done, failed, suites, inputs, reasons, notes, metrics,
      repetitions: repetitions.map(readRepetition),
    };
  }

  function readRepetition(row) {
    const [index, invocation, status, valid, started, from, to, reasons, notes, error, seed, values] = row;
    return { index, invocation, status: textAt(status), valid, started, from, to, reasons, notes, error, seed, values };
  }

  function readMetric(cell) {
    if (!cell) return null;
    const [value, low, high, instrument, n, method, reason] = cell;
    const half = low === null || high === null ? null : (high - low) / 2;
    return { value, low, high, half, instrument, n, method: textAt(method), reason: textAt(reason) };
  }

  // The value of an input: a number, a text, or null where the case has no such input.
  function inputValue(cell) {
    if (!Array.isArray(cell)) return cell;
    return cell[0] < 0 ? null : textAt(cell[0]);
  }

  function cellText(metric, described, withUnit) {
    return plain(metric.value, metric.half, described.factor, withUnit ? described.shown : "");
  }

  // -- table of one benchmark ---------------------------------------------------------------------------------------

  // What a filter may name: the columns that tell cases apart, the verdict, and all other inputs.
  function filterKeys(group) {
    const told = group.axes.map(([place]) => place);
    const inputs = [...told, ...group.inputs.keys()].map((place) => ({
      names: [group.names[place].replaceAll("_", " "), group.inputs[place]],
      spoken: told.includes(place),
      of: (one) => (inputValue(one.inputs[place]) === null ? [] : [inputText(group, place, one.inputs[place])]),
    }));
    return [
      ...inputs.slice(0, told.length),
      { names: ["state", "verdict"], of: (one) => [one.state], spoken: true },
      { names: ["case"], of: (one) => [one.id] },
      { names: ["batch"], of: (one) => [data.batches[one.batch].name] },
      { names: ["suite"], of: (one) => one.suites.map(textAt) },
      ...inputs.slice(told.length).filter((_, place) => !told.includes(place)),
    ];
  }

  class CaseTable {
    constructor(host, group) {
      this.group = group;
      this.cases = group.rows.map((row) => readRow(group, row));
      for (const one of this.cases) {
        byPlace.set(one.place, one);
        byId.set(one.id, one);
        const axes = group.axes.map(([place, name]) => `${name} ${inputText(group, place, one.inputs[place])}`);
        one.words = [one.id, one.label, one.state, ...axes].join(" ").toLowerCase();
      }
      this.keys = filterKeys(group);
      this.query = "";
      this.sort = null;
      this.page = 0;
      this.size = ROWS;
      this.count = make("span", { class: "count", role: "status" });
      this.advice = make("p", { class: "advice", role: "status", hidden: true });
      this.back = make("button", { type: "button", on: { click: () => this.turn(-1) } }, "Previous");
      this.next = make("button", { type: "button", on: { click: () => this.turn(1) } }, "Next");
      this.copy = make("button", { type: "button", on: { click: () => this.copyCsv() } }, "Copy as CSV");
      const search = make("input", {
        type: "search", placeholder: "Filter, e.g. clients:4 state:valid", "aria-label": `Filter the cases of ${group.name}`,
        on: { input: (event) => { this.query = event.target.value; this.page = 0; this.refresh(); } },
      });
      this.head = make("thead");
      this.body = make("tbody");
      this.columns = [
        { name: "case", of: (one) => one.id, number: false },
        ...group.axes.map(([place, name]) => ({
          name, number: group.rows.every((row) => !Array.isArray(row[7][place]) || row[7][place][0] < 0),
          of: (one) => inputValue(one.inputs[place]),
          text: (one) => inputText(group, place, one.inputs[place]),
        })),
        ...group.columns.map((place) => ({
          name: group.metrics[place].label, number: true, metric: place,
          of: (one) => (one.metrics[place] ? one.metrics[place][0] : null),
        })),
        { name: "n", number: true, of: (one) => one.done, text: (one) => `${one.done} of ${one.planned}` },
      ];
      this.more = make("button", { type: "button", class: "more", hidden: true, on: { click: () => this.scrollOn() } });
      this.wide = make("div", { class: "wide", on: { scroll: () => this.tellMore() } },
        make("table", { class: "grid", "aria-label": `Cases of ${group.name}` }, this.head, this.body));
      host.append(make("div", { class: "tools" }, search, this.count, this.more, this.back, this.next, this.copy), this.advice, this.wide);
      new ResizeObserver(() => this.tellMore()).observe(this.wide);
      this.drawHead();
      this.refresh();
    }

    drawHead() {
      const cells = this.columns.map((column, place) => {
        const described = column.metric === undefined ? null : this.group.metrics[column.metric];
        const lines = [];
        if (described) {
          lines.push(make("small", {}, described.shown || "share"));
          if (described.instrument !== null) {
            const [least, most] = described.instrument.map((error) => short(error, described.unit));
            const whole = least === most ? "the error of our own measuring path, the same in all rows"
              : `the error of our own measuring path is ± ${least} to ± ${most}; each number says its own`;
            lines.push(make("small", { title: whole }, `instrument ${least === most ? "" : "at most "}±${THIN}${most}`));
          }
        }
        const sorted = this.sort && this.sort.place === place ? (this.sort.down ? "descending" : "ascending") : null;
        return make("th", { scope: "col", class: column.number ? "n" : null, "aria-sort": sorted },
          make("button", { type: "button", on: { click: () => this.sortBy(place) } }, column.name), lines);
      });
      this.head.replaceChildren(make("tr", {}, cells));
    }

    // A table that is cut at the right says how much of it is out of sight; the button brings it in, and back.
    tellMore() {
      const end = this.wide.scrollLeft + this.wide.clientWidth;
      const heads = [...this.head.querySelectorAll("th")];
      const hidden = heads.filter((head) => head.offsetLeft + head.offsetWidth > end + 2).length;
      this.more.hidden = this.wide.scrollWidth <= this.wide.clientWidth + 2;
      this.more.textContent = hidden ? `${hidden} more column${hidden === 1 ? "" : "s"} →` : "← first columns";
    }

    scrollOn() {
      const atEnd = this.wide.scrollLeft + this.wide.clientWidth >= this.wide.scrollWidth - 2;
      this.wide.scrollTo({ left: atEnd ? 0 : this.wide.scrollLeft + 0.7 * this.wide.clientWidth, behavior: "smooth" });
    }

    sortBy(place) {
      this.sort = this.sort && this.sort.place === place ? { place, down: !this.sort.down } : { place, down: false };
      this.page = 0;
      this.drawHead();
      this.refresh();
      this.head.querySelectorAll("button")[place].focus();
    }

    turn(step) {
      this.page += step;
      this.refresh();
    }

    matching() {
      const filter = readFilter(this.query, this.keys);
      const rows = this.cases.filter((one) => (!chosen.size || chosen.has(one.state)) && fits(filter, one, one.words));
      if (!this.sort) return rows;
      const { of } = this.columns[this.sort.place];
      const sign = this.sort.down ? -1 : 1;
      return rows.sort((a, b) => {
        const [x, y] = [of(a), of(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
      });
    }

    refresh() {
      const rows = this.matching();
      const last = Math.max(0, Math.ceil(rows.length / this.size) - 1);
      this.page = Math.min(Math.max(this.page, 0), last);
      const start = this.page * this.size;
      const shown = rows.slice(start, start + this.size);
      this.body.replaceChildren(...shown.map((one) => this.row(one)));
      const range = last ? `${start + 1}–${start + shown.length} of ` : "";
      const filtered = rows.length === this.cases.length ? "" : `, filtered from ${this.cases.length}`;
      this.count.textContent = `${range}${rows.length} case${rows.length === 1 ? "" : "s"}${filtered}`;
      this.advice.textContent = filterAdvice(readFilter(this.query, this.keys), this.keys, this.cases);
      this.advice.hidden = !this.advice.textContent;
      this.back.hidden = this.next.hidden = !last;
      this.back.disabled = this.page === 0;
      this.next.disabled = this.page === last;
      this.tellMore();
    }

    row(one) {
      const cells = this.columns.slice(1).map((column) => {
        const kind = column.number ? "n" : null;
        if (column.metric === undefined) return cell(column.text(one), kind);
        const metric = readMetric(one.metrics[column.metric]);
        if (metric && metric.value !== null) {
          const described = this.group.metrics[column.metric];
          const error = metric.instrument === null ? "not measured" : `±${THIN}${short(metric.instrument, described.unit)}`;
          return make("td", { class: kind, title: `instrument ${error}` }, cellText(metric, described, false));
        }
        return make("td", { class: kind, title: metric ? metric.reason : "not measured" }, "—");
      });
      const said = `${one.state}: ${one.label || one.id}, open`;
      const button = { type: "button", class: "open", "data-case": one.id, "aria-label": said };
      const first = make("td", {}, make("span", { class: `dot ${one.state}`, title: one.state }),
        make("button", button, make("code", {}, one.id)));
      return make("tr", { class: one.state, "data-row": one.id }, first, cells);
    }

    csv() {
      const columns = ["value", "low", "high", "n", "instrument"];
      const names = this.group.metrics.flatMap(({ name }) => [name, ...columns.slice(1).map((column) => `${name}_${column}`)]);
      const lines = [["case", "batch", "state", ...this.group.inputs, ...names, "reasons"]];
      for (const one of this.matching()) {
        const numbers = one.metrics.flatMap((packed) => {
          const metric = readMetric(packed);
          return columns.map((column) => (metric ? metric[column] : null));
        });
        const first = [one.id, data.batches[one.batch].name, one.state];
        lines.push([...first, ...one.inputs.map(inputValue), ...numbers, one.reasons.map(textAt).join("; ")]);
      }
      return `${lines.map((line) => line.map(csvCell).join(",")).join("\n")}\n`;
    }

    async copyCsv() {
      const text = this.csv();
      const said = `Copied ${this.matching().length} rows`;
      try {
        await navigator.clipboard.writeText(text);
        this.copy.textContent = said;
      } catch {
        const area = make("textarea", { class: "skip" });
        area.value = text;
        document.body.append(area);
        area.select();
        this.copy.textContent = document.execCommand("copy") ? said : "The browser refused to copy";
        area.remove();
      }
      setTimeout(() => { this.copy.textContent = "Copy as CSV"; }, 2500);
    }
  }

  // A text that a spreadsheet would take for a formula gets a quote in front.
  function csvCell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // -- drawer of one case -------------------------------------------------------------------------------------------

  function open(one) {
    hideTip();
    const { group } = one;
    const batch = data.batches[one.batch];
    const files = [["raw/operations.parquet", "raw operations"], ["cases.jsonl", "cases.jsonl"], ["log.jsonl", "log"],
      ["batch.json", "batch record"], ["resources.parquet", "resource samples"]];
    const said = [one.state, group.name, `case ${one.id}`, `batch ${batch.name}`, `suite ${one.suites.map(textAt).join(", ")}`,
      `${one.done} of ${one.planned} planned repetitions measured${one.failed ? `, ${one.failed} failed` : ""}`];
    const list = (title, places) => (places.length
      ? [make("h3", {}, title), make("ul", {}, places.map((place) => make("li", {}, textAt(place))))] : []);
    const inputs = group.inputs
      .map((name, place) => [name, place])
      .filter(([, place]) => inputValue(one.inputs[place]) !== null)
      .map(([name, place]) => make("div", {}, make("dt", {}, name), make("dd", {}, inputText(group, place, one.inputs[place]))));
    const title = make("h2", { id: "drawer-title" }, make("span", { class: `mark ${one.state}` }), one.label || one.id);
    const close = { type: "button", class: "drawer-close", on: { click: () => drawer.close() } };
    drawer.replaceChildren(
      make("header", {}, make("div", {}, title, make("p", { class: "sub" }, said.join(" · "))), make("button", close, "Close")),
      make("p", { class: "links" }, files.map(([file, name]) => make("a", { href: batch.link + file }, name))),
      ...list("Why it is not valid", one.reasons),
      ...list("Cautions", one.notes),
      make("h3", {}, "Metrics"), metricTable(one),
      make("h3", {}, "Repetitions"), repetitionTable(one),
      ...resourceLanes(one),
      ...logLines(one),
      make("h3", {}, "Input"), make("dl", { class: "facts input" }, inputs),
    );
    drawer.scrollTop = 0;
    if (!drawer.open) drawer.showModal();
  }

  function logLines(one) {
    const lines = data.log.filter(([, place]) => place === one.place).map(([, , time, level, message]) => (
      make("p", { class: "logline mono" }, `${time}  ${level > 1 ? "error" : "warning"}  ${message}`)));
    return lines.length ? [make("h3", {}, "Warnings and errors"), ...lines] : [];
  }

  function metricTable(one) {
    if (!one.metrics.some(Boolean)) return make("p", { class: "silent" }, "None: no repetition was measured.");
    const rows = one.group.metrics.map((described, place) => {
      const metric = readMetric(one.metrics[place]);
      if (!metric) return null;
      const absent = metric.value === null;
      const said = absent ? `absent: ${metric.reason}` : metric.method;
      const name = make("th", { scope: "row" }, make("code", {}, described.name), make("small", { class: "method" }, said));
      const error = metric.instrument === null ? "not measured" : short(metric.instrument, described.unit);
      return make("tr", {}, name,
        cell(absent ? "absent" : cellText(metric, described, true), "value"),
        cell(String(metric.n), "n"),
        cell(absent ? "" : error),
        cell(absent ? null : stripPlot(one, place, metric, described)));
    });
    return plainTable(["metric and its method", "value ± half interval", "n", "instrument", "repetitions"], rows, "metrics");
  }

  // One dot per repetition, the mean as a line, its interval as a band.
  function stripPlot(one, place, metric, described) {
    const dots = one.repetitions.filter(({ values }) => values[place] !== null);
    if (dots.length < 2) return null;
    const all = [...dots.map(({ values }) => values[place]), metric.low ?? metric.value, metric.high ?? metric.value];
    const [least, most] = [Math.min(...all), Math.max(...all)];
    const at = (value) => 5 + (most > least ? (value - least) / (most - least) : 0.5) * 110;
    const read = (value) => plain(value, null, described.factor, described.shown);
    const said = dots.map(({ index, values }) => `${index + 1}: ${read(values[place])}`).join("\n");
    const band = { x: at(metric.low), y: 2, width: Math.max(1, at(metric.high) - at(metric.low)), height: 14 };
    return make("svg:svg", { class: "strip-plot", viewBox: "0 0 120 18", role: "img", "aria-label": said },
      make("svg:title", {}, said),
      metric.half === null ? null : make("svg:rect", band),
      make("svg:line", { x1: at(metric.value), x2: at(metric.value), y1: 2, y2: 16 }),
      dots.map(({ index, valid, values }) => (
        make("svg:circle", { cx: at(values[place]), cy: 6 + (index % 3) * 3, r: 2.4, class: valid ? null : "not" }))));
  }

  function repetitionTable(one) {
    if (!one.repetitions.length) return make("p", { class: "silent" }, "None is recorded.");
    const rows = one.repetitions.map((repetition) => {
      const { from, to, seed } = repetition;
      const error = repetition.error < 0 ? [] : [repetition.error];
      const said = new Set([...error, ...repetition.reasons, ...repetition.notes].map(textAt));
      const verdict = repetition.status === "failed" ? "failed" : repetition.valid ? "valid" : "invalid";
      return make("tr", {},
        cell(String(repetition.index + 1), "n"),
        cell(make("span", { class: `mark ${verdict}` }, verdict)),
        cell(repetition.started.slice(0, 19).replace("T", " ")),
        cell(from === null || to === null ? "—" : `${Number((to - from).toPrecision(3))}${THIN}s`, "n"),
        cell(String(repetition.invocation + 1), "n"),
        cell(seed === null ? "" : String(seed)),
        cell([...said].join("; ")));
    });
    return plainTable(["no.", "verdict", "started (UTC)", "took", "job", "seed", "said"], rows);
  }

  function resourceLanes(one) {
    const jobs = new Set(one.repetitions.map(({ invocation }) => invocation));
    const found = data.lines.filter((entry) => entry.batch === one.batch && jobs.has(entry.invocation));
    if (!found.length) {
      return [make("h3", {}, "Resources"), make("p", { class: "silent" }, "No samples are recorded for the jobs of this case.")];
    }
    return found.flatMap((entry) => {
      const spans = one.repetitions
        .filter(({ invocation, from }) => invocation === entry.invocation && from !== null)
        .map(({ from, to }) => [from, to]);
      const host = make("div");
      drawLanes(host, entry, spans);
      const title = `Resources of job ${entry.invocation + 1}`;
      return [make("h3", {}, title, make("small", {}, "  dark bands: this case")), host];
    });
  }

  // -- resource lines -----------------------------------------------------------------------------------------------

  function drawLanes(host, entry, spans) {
    const end = Math.max(...entry.lines.map(([, , , times]) => times[times.length - 1]), 1e-9);
    const phases = data.phases.filter(([batch, invocation]) => batch === entry.batch && invocation === entry.invocation);
    const bands = merged(phases, end).concat((spans || []).map(([from, to]) => ["this", from, to]));
    const quantities = [...new Set(entry.lines.map(([quantity]) => quantity))];
    const roles = [...new Set(entry.lines.map(([, role]) => role))];
    const names = [...new Set(bands.map(([name]) => name))].filter((name) => name !== "this");
    const numbered = (role, name, prefix) => (role.startsWith(name) ? `${prefix}${Number(role.slice(name.length)) % 4}` : null);
    const roleClass = (role) => numbered(role, "GPU ", "gpu") ?? numbered(role, "server-", "server-n") ?? role;
    const swatch = (child) => make("svg:svg", { class: "swatch", viewBox: "0 0 14 10", "aria-hidden": "true" }, child);
    const stroke = (role) => make("svg:line", { x1: 0, x2: 14, y1: 5, y2: 5, class: roleClass(role) });
    const fill = (name) => make("svg:rect", { width: 14, height: 10, class: `phase ${name}` });
    host.append(make("ul", { class: "legend" },
      roles.map((role) => make("li", {}, swatch(stroke(role)), role)),
      names.map((name) => make("li", {}, swatch(fill(name)), name.replaceAll("_", " ")))));
    const lanes = make("div", { class: "lanes" });
    for (const quantity of quantities) {
      const lines = entry.lines.filter(([name]) => name === quantity);
      const unit = lines[0][2];
      const top = lines.reduce((most, line) => line[4].reduce((a, b) => Math.max(a, b), most), 0) || 1;
      const readout = make("span", {}, `top ${short(top, unit)}`);
      const cursor = make("svg:line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
      const x = (t) => (t / end) * 1000;
      const y = (value) => 100 - (value / top) * 96;
      const band = ([name, from, to]) => (
        { class: `phase ${name}`, x: x(from), width: Math.max(0.5, x(to) - x(from)), y: 0, height: 100 });
      const path = (times, values) => times.map((t, i) => `${x(t).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" ");
      const said = `${quantity} over time, at most ${short(top, unit)}`;
      const picture = make("svg:svg",
        { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": said },
        bands.map((each) => make("svg:rect", band(each))),
        lines.map(([, role, , times, values]) => (
          make("svg:polyline", { class: roleClass(role), points: path(times, values) }))),
        cursor);
      picture.addEventListener("mousemove", (event) => {
        const box = picture.getBoundingClientRect();
        const moment = ((event.clientX - box.left) / box.width) * end;
        cursor.setAttribute("x1", x(moment));
        cursor.setAttribute("x2", x(moment));
        cursor.setAttribute("visibility", "visible");
        const values = lines.map(([, role, , times, samples]) => `${role} ${short(samples[nearest(times, moment)], unit)}`);
        readout.textContent = `${moment.toFixed(1)}${THIN}s: ${values.join(", ")}`;
      });
      picture.addEventListener("mouseleave", () => {
        cursor.setAttribute("visibility", "hidden");
        readout.textContent = `top ${short(top, unit)}`;
      });
      const span = `${Number(end.toPrecision(3))}${THIN}s`;
      lanes.append(make("div", { class: "lane" },
        make("div", { class: "lane-head" }, make("b", {}, quantity), readout),
        picture,
        make("div", { class: "lane-foot" }, make("span", {}, "0"), make("span", {}, span))));
    }
    host.append(lanes);
  }

  // Bands of cases that are too narrow to be told apart become one band per stretch of measuring.
  function merged(phases, end) {
    const cases = phases.filter(([, , , , , place]) => place >= 0).sort((a, b) => a[3] - b[3]);
    const others = phases.filter(([, , , , , place]) => place < 0).map(([, , name, from, to]) => [name, from, to]);
    if (cases.length <= 60) return others.concat(cases.map(([, , name, from, to]) => [name, from, to]));
    const bands = [];
    for (const [, , , from, to] of cases) {
      const last = bands[bands.length - 1];
      if (last && from - last[2] < end / 200) last[2] = Math.max(last[2], to); else bands.push(["measure", from, to]);
    }
    return others.concat(bands);
  }

  function nearest(times, moment) {
    let [low, high] = [0, times.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] < moment) low = middle; else high = middle;
    }
    return moment - times[low] < times[high] - moment ? low : high;
  }

  function drawTimelines() {
    const host = document.getElementById("lines");
    data.lines.forEach((entry, place) => {
      const { name } = data.batches[entry.batch];
      const inner = make("div");
      const draw = () => { if (details.open && !inner.childElementCount) drawLanes(inner, entry); };
      const said = `  job ${entry.invocation + 1}, ${entry.samples} samples`;
      const details = make("details", { open: place < 3, on: { toggle: draw } },
        make("summary", {}, make("code", {}, name), make("small", {}, said)), inner);
      draw();
      host.append(details);
    });
    if (!data.lines.length) host.append(make("p", { class: "silent" }, "No resource samples are recorded."));
  }

  // -- charts: nearest point under the pointer or by arrow keys -------------------------------------------------------

  function watchPanel(panel) {
    const points = data.charts[panel.dataset.chart];
    const order = points.map((_, place) => place).sort((a, b) => points[a][0] - points[b][0] || points[b][1] - points[a][1]);
    const here = make("div", { class: "here", hidden: true });
    panel.append(here);
    let at = -1;
    const show = (place) => {
      at = place;
      const [x, y, , text] = points[place];
      const box = panel.getBoundingClientRect();
      here.hidden = false;
      here.style.left = `${x * 100}%`;
      here.style.top = `${y * 100}%`;
      showTip(text, box.left + x * box.width, box.top + y * box.height);
    };
    const hide = () => { at = -1; here.hidden = true; hideTip(); };
    panel.addEventListener("mousemove", (event) => {
      const box = panel.getBoundingClientRect();
      let best = -1;
      let distance = 30 ** 2;
      points.forEach(([x, y], place) => {
        const apart = (x * box.width + box.left - event.clientX) ** 2 + (y * box.height + box.top - event.clientY) ** 2;
        if (apart < distance) [best, distance] = [place, apart];
      });
      if (best < 0) hide(); else show(best);
    });
    panel.addEventListener("mouseleave", hide);
    panel.addEventListener("blur", hide);
    panel.addEventListener("click", () => { if (at >= 0) open(byPlace.get(points[at][2])); });
    panel.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        event.preventDefault();
        show(order[(Math.max(order.indexOf(at), step > 0 ? -1 : 0) + step + order.length) % order.length]);
      } else if (event.key === "Enter" && at >= 0) {
        event.preventDefault(); // or the key would also press the button that the drawer focuses
        open(byPlace.get(points[at][2]));
      } else if (event.key === "Escape") hide();
    });
  }

  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${y - height - 14 > 0 ? y - height - 14 : y + 16}px`;
  }

  function hideTip() { tip.hidden = true; }

  // -- the strip ------------------------------------------------------------------------------------------------------

  function filterBy(state, button) {
    if (chosen.has(state)) chosen.delete(state); else chosen.add(state);
    button.setAttribute("aria-pressed", String(chosen.has(state)));
    const note = document.getElementById("filtering");
    note.replaceChildren();
    if (chosen.size) {
      const names = STATES.filter((name) => chosen.has(name)).join(" or ");
      const other = STATES.some((name) => name !== "valid" && chosen.has(name));
      note.append(`Tables show ${names} cases only`);
      if (other) note.append("; ", make("a", { href: "#problems" }, "why, and what to do"));
    }
    for (const table of tables) { table.page = 0; table.refresh(); }
  }

  async function start() {
    const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    data = JSON.parse(await new Response(stream).text());
    const groups = new Map(data.groups.map((group) => [group.name, group]));
    for (const host of document.querySelectorAll(".cases")) {
      tables.push(new CaseTable(host, groups.get(host.dataset.benchmark)));
    }
    drawTimelines();
    document.querySelectorAll(".panel").forEach(watchPanel);
    for (const button of document.querySelectorAll(".state")) {
      button.addEventListener("click", () => filterBy(button.dataset.state, button));
    }
    document.addEventListener("click", (event) => {
      const found = event.target.closest("[data-case], [data-row]");
      const one = found && byId.get(found.dataset.case || found.dataset.row);
      if (!one) return;
      event.preventDefault();
      open(one);
    });
    const openByAddress = () => {
      const one = byId.get(location.hash.replace("#case=", ""));
      if (one) open(one);
    };
    addEventListener("hashchange", openByAddress);
    openByAddress();
    drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
    addEventListener("beforeprint", () => {
      document.querySelectorAll("#lines details").forEach((details) => { details.open = true; });
      for (const table of tables) { table.size = PRINTED; table.refresh(); }
    });
    addEventListener("afterprint", () => { for (const table of tables) { table.size = ROWS; table.refresh(); } });
    document.documentElement.dataset.ready = "yes";
  }

  globalThis.aifbench = { plain, csvCell, points: (chart) => data.charts[chart] };
  start().catch((error) => {
    const said = `Tables cannot be shown in this browser (${error.message}); the same numbers stand in ../cases.csv.`;
    document.querySelector("main").prepend(make("p", { class: "warn" }, said));
  });
})();
