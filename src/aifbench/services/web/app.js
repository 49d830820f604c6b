// The shell: takes the token out of the address, shows the tab that the address names, asks for a token when it must.

import { api, el, setToken, token } from "./common.js";

const TABS = [
  { service: "client", route: "launch", title: "Launch", load: () => import("./launch.js") },
  { service: "monitor", route: "monitor", title: "Monitor", load: () => import("./monitor.js") },
  { service: "log", route: "log", title: "Log", load: () => import("./log.js") },
];

const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
let there = TABS;
let leave = () => {};
let turn = 0;

// Moves the token from the address into the session. Returns what is wrong with it, or an empty text.
function takeToken() {
  const [, found] = /^#token=(.*)$/.exec(location.hash) ?? [];
  if (found === undefined) return "";
  history.replaceState(null, "", location.pathname);
  const whole = /^[\w-]+$/.test(found);
  setToken(whole ? found : "");
  return whole ? "" : "The token in this address is not whole, or was changed. Copy all of the address that was printed.";
}

function ask(problem) {
  const field = el("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const form = el("form", {
    class: "ask", onsubmit: (event) => { event.preventDefault(); setToken(field.value.trim()); start(); },
  },
  el("h1", {}, "Token"),
  el("p", {}, "Open the address that aifbench serve printed, or paste the content of the file token-launch that it names."),
  problem ? el("p", { class: "problem", role: "alert" }, problem) : null,
  el("label", { for: "token" }, "Token"), field, el("button", { class: "main", type: "submit" }, "Open"));
  leave();
  leave = () => {};
  turn += 1;
  tabs.replaceChildren();
  main.replaceChildren(form);
  document.title = "Token · aifbench";
  document.documentElement.dataset.ready = "token";
  field.focus();
}

// A tab is a module with `mount(root, rest)`: fills `root`, gets what stands behind the tab's name in the address
// (#/monitor/<rest>), and returns a function that ends its timers and streams.
async function show() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const tab = there.find((one) => one.route === name) ?? there[0];
  if (!tab) return;
  const mine = ++turn;
  for (const link of tabs.children) {
    if (link.dataset.route === tab.route) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${tab.title} · aifbench`;
  const { mount } = await tab.load();
  if (mine !== turn) return;
  leave();
  const root = el("div", { class: `tab ${tab.route}` });
  main.replaceChildren(root);
  leave = mount(root, rest.map(decodeURIComponent).join("/")) ?? (() => {});
  document.documentElement.dataset.ready = tab.route;
}

async function start() {
  const problem = takeToken();
  if (!token()) { ask(problem); return; }
  try {
    const { services } = await api("services");
    there = TABS.filter((tab) => services.includes(tab.service));
  } catch (error) {
    if (error.status !== 401) ask(`The server cannot be reached: ${error.message}`);
    return;
  }
  tabs.replaceChildren(...there.map((tab) => el("a", { href: `#/${tab.route}`, "data-route": tab.route }, tab.title)));
  await show();
}

document.addEventListener("aifbench-unauthorised", () => {
  if (!token()) return;  // several requests may have had the same answer
  setToken("");
  ask("This token is not the server's. Was it started again with another state folder?");
});
window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) start();
  else if (location.hash.startsWith("#/") && token()) show();
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
start();
