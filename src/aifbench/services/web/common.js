// What all tabs share: the token, requests, streams, safe building of the page, and how values are written.

export const GONE = "the server of this page has ended, and something else answers at its address";
const KEY = "aifbench-token";
let proven = false;  // the server has shown that it knows the token
let stopped = false;  // and then something else has answered at its address

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(value) {
  proven = false;
  stopped = false;
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

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const encoded = (text) => new TextEncoder().encode(text);

async function sign(secret, ...words) {
  const key = await crypto.subtle.importKey("raw", encoded(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return hex(await crypto.subtle.sign("HMAC", key, encoded(words.join("\n"))));
}

// Sends a request that is signed with the token, which itself never leaves the page, and returns the answer if it is
// signed too. After one that is, the first that is not ends it all: another program has taken the server's address.
async function send(address, { method = "GET", body = "", headers = {}, signal }) {
  if (stopped) throw new Error(GONE);
  if (!crypto.subtle) throw new Error("the browser signs nothing here: open the page as http://localhost or http://127.0.0.1");
  const secret = token();
  const url = new URL(address, location.origin);
  const nonce = hex(crypto.getRandomValues(new Uint8Array(16)));
  const digest = hex(await crypto.subtle.digest("SHA-256", encoded(body)));
  const mac = await sign(secret, "ask", nonce, method, url.pathname + url.search, digest);
  const answer = await fetch(url, {
    method, signal, cache: "no-store", credentials: "omit", redirect: "error", body: body || undefined,
    headers: { ...headers, authorization: `aifbench-hmac nonce=${nonce}, body=${digest}, mac=${mac}` },
  });
  if (answer.headers.get("aifbench-proof") === await sign(secret, "answer", nonce)) {
    proven = secret === token();
    return answer;
  }
  if (stopped || secret !== token()) throw new Error(GONE);
  const [event, detail] = proven ? ["aifbench-gone", GONE] : ["aifbench-unauthorised", "the server does not know this token"];
  document.dispatchEvent(new CustomEvent(event));
  throw new ApiError(401, { detail });
}

// Forgets the token for good, and sends nothing more.
export function stop() {
  setToken("");
  stopped = true;
}

// Asks the server: `await api("jobs?state=active")`, `await api("runs", {method: "POST", body: {...}})`.
// The path is relative to /api/v1 unless it begins with a slash. Returns parsed JSON, or null for an empty answer.
export async function api(path, { method = "GET", body, headers: more = {}, signal } = {}) {
  const address = path.startsWith("/") ? path : `/api/v1/${path}`;
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const sent = body === undefined ? "" : JSON.stringify(body);
  const answer = await send(address, { method, body: sent, headers: { ...json, ...more }, signal });
  const text = await answer.text();
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { content = { detail: text }; }
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
      const answer = await send(`/api/v1/${path}`, { signal, headers: id ? { "last-event-id": id } : {} });
      if (!answer.ok) {
        const error = new ApiError(answer.status, await answer.json().catch(() => null));
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
      if (signal.aborted || !token()) return;
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
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
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
