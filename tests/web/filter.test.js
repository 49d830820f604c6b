// The filter of tables, as the monitor and the report read it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { filterAdvice, fits, readFilter } from "../../src/aifbench/services/web/filter.js";

const ROWS = [
  { index: "HNSW32", clients: 2, size: "64MiB", state: "valid" },
  { index: "IVF256,Flat", clients: 20, size: "1GiB", state: "invalid" },
];
const KEYS = [
  { names: ["index"], of: (row) => [row.index], spoken: true },
  { names: ["clients"], of: (row) => [row.clients], spoken: true },
  { names: ["file size", "file_size"], of: (row) => [row.size] },
  { names: ["state", "verdict"], of: (row) => [row.state], spoken: true },
];
const found = (text) => {
  const filter = readFilter(text, KEYS);
  return ROWS.map((row, place) => [place, row]).filter(([, row]) => fits(filter, row, Object.values(row).join(" ").toLowerCase())).map(([place]) => place);
};
const advice = (text) => filterAdvice(readFilter(text, KEYS), KEYS, ROWS);

test("a value is whole: 2 clients are not 20", () => {
  assert.deepEqual(found("clients:2"), [0]);
  assert.deepEqual(found("clients = 20"), [1]);
});

test("several values of one key: any of them; several keys: all of them", () => {
  assert.deepEqual(found("clients:2 clients:20"), [0, 1]);
  assert.deepEqual(found("clients:2 state:invalid"), []);
});

test("a value with a comma or a space stands in quotes; quotes without a key are text", () => {
  assert.deepEqual(found('index:"IVF256,Flat"'), [1]);
  assert.deepEqual(found('"ivf256,flat"'), [1]);
  assert.deepEqual(found('"clients 2"'), []);
});

test("some keys are understood without a colon, and words are looked for in the row", () => {
  assert.deepEqual(found("clients 2"), [0]);
  assert.deepEqual(found("hnsw"), [0]);
});

test("sizes are numbers, and letter case does not matter", () => {
  assert.deepEqual(found("file_size:1024MiB"), [1]);
  assert.deepEqual(found("File-Size:67108864"), [0]);
  assert.deepEqual(found("INDEX:hnsw32"), [0]);
});

test("a key that is none shows nothing and says which there are", () => {
  assert.deepEqual(found("cleints:2"), []);
  assert.match(advice("cleints:2"), /^No key “cleints”\. Keys: index, clients, file_size, state\./);
});

test("a value that none has is told with those that there are, in order", () => {
  assert.equal(advice("clients:3"), "None has clients 3. Values: 2, 20.");
  assert.equal(advice("clients:"), "clients: 2, 20");
  assert.equal(advice("clients:2"), "");
});
