// The report's own script, in a page that has nothing but what it asks for first.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";

const said = [];
const node = () => ({ textContent: "", setAttribute() {}, append: (...children) => said.push(...children), prepend() {} });
const page = createContext({
  document: { getElementById: node, querySelector: node, createElement: node },
  atob: () => { throw new Error("no data"); },
});
const folder = new URL("../../src/aifbench/", import.meta.url);
const filter = readFileSync(new URL("services/web/filter.js", folder), "utf8").replaceAll("export function", "function");
runInContext(filter + readFileSync(new URL("report/templates/script.js", folder), "utf8"), page);
const { plain, csvCell } = page.aifbench;
const THIN = "\u202f";

test("a number has as many digits as its interval supports", () => {
  assert.equal(plain(143.2345, 4.1234, 1, "ms"), "143.2 ± 4.1 ms");
  assert.equal(plain(0.1432345, 0.0041234, 1e-3, "ms"), "143.2 ± 4.1 ms");
  assert.equal(plain(14234.5, 312.4, 1, "1/s"), `14${THIN}230 ± 310 1/s`);
  assert.equal(plain(0.98765, null, 1, ""), "0.9877");
});

test("an interval that vanishes is not 0, and one of 0 is", () => {
  assert.equal(plain(1, 0, 1, "s"), "1.000 ± 0 s");
  assert.equal(plain(123456.7, 0.0001, 1, "1/s"), `123${THIN}457 ± <1 1/s`);
});

test("negative numbers have a minus sign", () => {
  assert.equal(plain(-4.2, 0.31, 1, "ms"), "−4.20 ± 0.31 ms");
});

test("a text that a spreadsheet would take for a formula is quoted", () => {
  assert.deepEqual(["=1+1", "@x", "+1", "-1"].map(csvCell), ["'=1+1", "'@x", "'+1", "'-1"]);
  assert.deepEqual([-1, null, "a,b", 'a"b', "plain"].map(csvCell), ["-1", "", '"a,b"', '"a""b"', "plain"]);
});

test("a page whose data cannot be read says where the numbers are", async () => {
  await new Promise(setImmediate);
  assert.match(said.join(), /no data.*the same numbers stand in \.\.\/cases\.csv/);
});
