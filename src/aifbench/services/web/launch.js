// The tab Launch.

import { el } from "./common.js";

export function mount(root) {
  root.append(el("h1", {}, "Launch"));
  return () => {};
}
