// The shell: takes the token out of the address, shows the tab that the address names, asks for a token when it must.
// All scripts are loaded at once: a later one could come from whoever has taken the server's address meanwhile.

import { GONE, api, el, setToken, stop, token } from "./common.js";
import * as launch from "./launch.js";
import * as log from "./log.js";
import * as monitor from "./monitor.js";

const TABS = [
  { service: "client", route: "launch", title: "Launch", mount: launch.mount },
  { service: "monitor", route: "monitor", title: "Monitor", mount: monitor.mount },
  { service: "log", route: "log", title: "Log", mount: log.mount },
];

const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
let there = TABS;
let leave = () => {};
let opening = false;

// Moves the token from the address into the session, or gets one for the code there, which is good once.
// Returns what is wrong with it, or an empty text.
async function takeToken() {
  const [, kind, found] = /^#(token|once)=(.*)$/.exec(location.hash) ?? [];
  if (found === undefined) return "";
  history.replaceState(null, "", location.pathname);
  const whole = /^[\w-]+$/.test(found);
  setToken(whole ? found : "");
  if (!whole) return "The token in this address is not whole, or was changed. Copy all of the address that was printed.";
  if (kind === "token") return "";
  opening = true;
  try {
    setToken((await api("session", { method: "POST" })).token);
    return "";
  } catch (error) {
    setToken("");
    return error.status === 401
      ? "This link was used already, or is too old. Take the address that aifbench serve printed."
      : `The server cannot be reached: ${error.message}`;
  } finally {
    opening = false;
  }
}

function ask(problem) {
  const field = el("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  fill("token", el("form", {
    class: "ask", onsubmit: (event) => { event.preventDefault(); setToken(field.value.trim()); start(); },
  },
  el("h1", {}, "Token"),
  el("p", {}, "Open the address that aifbench serve printed, or paste the content of the file token-launch that it names."),
  problem ? el("p", { class: "problem", role: "alert" }, problem) : null,
  el("label", { for: "token" }, "Token"), field, el("button", { class: "main", type: "submit" }, "Open")));
  document.title = "Token · aifbench";
  field.focus();
}

// Shows one thing instead of the tabs.
function fill(state, content) {
  leave();
  leave = () => {};
  tabs.replaceChildren();
  main.replaceChildren(content);
  document.documentElement.dataset.ready = state;
}

// A tab is a module with `mount(root, rest)`: fills `root`, gets what stands behind the tab's name in the address
// (#/monitor/<rest>), and returns a function that ends its timers and streams.
function show() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const tab = there.find((one) => one.route === name) ?? there[0];
  if (!tab) return;
  for (const link of tabs.children) {
    if (link.dataset.route === tab.route) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${tab.title} · aifbench`;
  leave();
  const root = el("div", { class: `tab ${tab.route}` });
  main.replaceChildren(root);
  leave = tab.mount(root, rest.map(decodeURIComponent).join("/")) ?? (() => {});
  document.documentElement.dataset.ready = tab.route;
}

async function start() {
  const problem = await takeToken();
  if (!token()) { ask(problem); return; }
  try {
    const { services } = await api("services");
    there = TABS.filter((tab) => services.includes(tab.service));
  } catch (error) {
    if (error.status !== 401) ask(`The server cannot be reached: ${error.message}`);
    return;
  }
  tabs.replaceChildren(...there.map((tab) => el("a", { href: `#/${tab.route}`, "data-route": tab.route }, tab.title)));
  show();
}

document.addEventListener("aifbench-unauthorised", () => {
  if (!token() || opening) return;  // several requests may have had the same answer
  setToken("");
  ask("This token is not the server's. Was it started again? Open the address that it prints now.");
});
document.addEventListener("aifbench-gone", () => {
  stop();
  fill("gone", el("section", { class: "ask" }, el("h1", {}, "The server has ended"),
    el("p", { class: "problem", role: "alert" }, `Nothing more is sent from here: ${GONE}.`),
    el("p", {}, "Runs go on. Close this page, start aifbench serve again, and open the address that it prints then.")));
  document.title = "Ended · aifbench";
});
window.addEventListener("hashchange", () => {
  if (/^#(token|once)=/.test(location.hash)) start();
  else if (location.hash.startsWith("#/") && token()) show();
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
start();
