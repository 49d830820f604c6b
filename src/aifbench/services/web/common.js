// What all tabs share: the token, requests, streams, safe building of the page, and how values are written.

const KEY = "aifbench-token";

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

// A request that was refused: `status`, the parsed `body` (a problem, or {status: "ko", reason}), `message` in one line.
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.reason?.message ?? body?.detail ?? `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

function headers(more) {
  return { authorization: `Bearer ${token()}`, ...more };
}

// Asks the server: `await api("jobs?state=active")`, `await api("runs", {method: "POST", body: {...}})`.
// The path is relative to /api/v1 unless it begins with a slash. Returns parsed JSON, or null for an empty answer.
export async function api(path, { method = "GET", body, headers: more = {}, signal } = {}) {
  const address = path.startsWith("/") ? path : `/api/v1/${path}`;
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await fetch(address, {
    method, signal, headers: headers({ ...json, ...more }), cache: "no-store", credentials: "omit",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { content = { detail: text }; }
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("aifbench-unauthorised"));
  if (!answer.ok) throw new ApiError(answer.status, content);
  return content;
}

// Follows an event stream until `signal` aborts, reconnecting with Last-Event-ID after 1, 2, 4 … 15 s.
// `onEvent({event, data, id})` gets parsed JSON as data; `onState("live" | "waiting" | "refused", error)` tells the state.
export async function stream(path, { onEvent, onState = () => {}, signal }) {
  let id = "";
  let wait = 1000;
  while (!signal.aborted) {
    try {
      const answer = await fetch(`/api/v1/${path}`, {
        signal, cache: "no-store", credentials: "omit", headers: headers(id ? { "last-event-id": id } : {}),
      });
      if (!answer.ok) {
        const error = new ApiError(answer.status, await answer.json().catch(() => null));
        if (answer.status === 401) document.dispatchEvent(new CustomEvent("aifbench-unauthorised"));
        if (answer.status < 500 && answer.status !== 429) { onState("refused", error); return; }
        throw error;
      }
      onState("live");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        wait = 1000;
        const frames = (rest + value).split("\n\n");
        rest = frames.pop();
        for (const frame of frames) {
          const found = { event: "message", data: null, id: "" };
          for (const line of frame.split("\n")) {
            if (line.startsWith("data: ")) found.data = JSON.parse(line.slice(6));
            else if (line.startsWith("event: ")) found.event = line.slice(7);
            else if (line.startsWith("id: ")) found.id = line.slice(4);
          }
          if (found.id) id = found.id;
          if (found.data !== null) onEvent(found);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      onState("waiting", error);
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
    wait = Math.min(wait * 2, 15000);
  }
}

// Shows a text with everything visible that could change how it reads: control characters and marks of direction.
export function visible(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// Makes an element: el("td", {class: "n", onclick: f, "aria-label": "x"}, "text", other, ...). Text is never markup.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  fill(node, attributes, children);
  return node;
}

// The same for SVG.
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  fill(node, attributes, children);
  return node;
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

// Says something short for a moment, also to a screen reader.
export function toast(text) {
  const node = document.getElementById("toast");
  node.textContent = text;
  node.classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => node.classList.remove("shown"), 6000);
}

// A value that was not measured is a dash, never 0.
export const NONE = "–";

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let rank = 0;
  while (value >= 1024 && rank < units.length - 1) { value /= 1024; rank += 1; }
  return `${value >= 100 || rank === 0 ? Math.round(value) : value.toPrecision(3)} ${units[rank]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes, rest] = [whole / 86400 | 0, (whole % 86400) / 3600 | 0, (whole % 3600) / 60 | 0, whole % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(rest).padStart(2, "0")} s` : `${rest} s`;
}

// A time of day of the reader's clock; `moment` is a Date or an ISO text, or null: then a dash.
export function clock(moment) {
  const date = new Date(moment ?? NaN);
  return Number.isNaN(date.getTime()) ? NONE : date.toLocaleTimeString([], { hour12: false });
}

// A date and time of the reader's clock; a dash where there is none.
export function moment(value) {
  const date = new Date(value ?? NaN);
  const pad = (number) => String(number).padStart(2, "0");
  if (Number.isNaN(date.getTime())) return NONE;
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

// Opens the report of a run in a tab of its own; the client service has it.
export async function openReport(run) {
  try {
    const { path } = await api(`runs/${encodeURIComponent(run)}:ticket`, { method: "POST" });
    window.open(path, "_blank", "noopener");
  } catch (error) {
    toast(error.message);
  }
}
