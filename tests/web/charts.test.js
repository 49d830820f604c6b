// Scales and lines of the live charts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { axisText, roleClass, runs, short, step, timeStep, withUnit } from "../../src/aifbench/services/web/charts.js";

test("a scale has round steps: 1, 2 or 5 times a power of ten, a power of two for bytes", () => {
  assert.equal(step(1, 3, "cores"), 0.5);
  assert.equal(step(7, 3, "cores"), 5);
  assert.equal(step(100, 3, "1/s"), 50);
  assert.equal(step(0.02, 3, "W"), 0.01);
  assert.equal(step(3 * 2 ** 20, 3, "bytes"), 2 ** 20);
  assert.equal(step(3 * 2 ** 20 + 1, 3, "bytes/s"), 2 ** 21);
  assert.equal(step(1, 3, "bytes"), 1);
});

test("a scale never has more than its parts, and at least a third of them", () => {
  for (let top = 0.0013; top < 1e9; top *= 1.7) {
    const parts = top / step(top, 3, "cores");
    assert.ok(parts <= 3 + 1e-9 && parts > 1, `${top}: ${parts}`);
  }
});

test("marks of time are as many as there is room for, whole days in the end", () => {
  assert.equal(timeStep(60, 920), 10);
  assert.equal(timeStep(60, 100), 30);
  assert.equal(timeStep(3600, 920), 600);
  assert.equal(timeStep(10 * 86400, 460), 172800);
  assert.equal(timeStep(100 * 86400, 460), 20 * 86400);
});

test("times since the start are minutes and hours", () => {
  assert.deepEqual([0, 59.4, 59.6, 3599.4, 3600, 90061].map(short), ["0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01"]);
});

test("what was not measured is said, never 0", () => {
  for (const value of [null, undefined, NaN]) assert.equal(withUnit(value, "cores"), "not measured");
  assert.equal(withUnit(0, "cores"), "0.00 cores");
});

test("values carry their unit", () => {
  assert.equal(withUnit(1.5, "cores"), "1.50 cores");
  assert.equal(withUnit(0.256, "ratio"), "26 %");
  assert.equal(withUnit(1536, "bytes"), "1.50 KiB");
  assert.equal(withUnit(1536, "bytes/s"), "1.50 KiB/s");
  assert.equal(withUnit(1234.5, "1/s"), "1235/s");
  assert.equal(withUnit(12.345, "1/s"), "12.3/s");
  assert.equal(withUnit(301.26, "W"), "301.3 W");
});

test("an axis is shorter than a value", () => {
  assert.equal(axisText(0.5, "ratio"), "50 %");
  assert.equal(axisText(0, "bytes"), "0");
  assert.equal(axisText(2 ** 30, "bytes"), "1.00 GiB");
  assert.equal(axisText(12500, "1/s"), "12.5 k");
  assert.equal(axisText(0.30000000000000004, "cores"), "0.3");
});

test("a line breaks where a value is missing, and a lone point is still seen", () => {
  const line = { values: [1, 2, null, 4], low: [1, 2, null, 4], high: [1, 2, null, 4] };
  const same = (value) => value;
  assert.deepEqual(runs([0, 1, 2, 3], line, 0, same, same, 100), ["0.0,1.0 1.0,2.0", "3.0,4.0 4.5,4.0"]);
});

test("where samples are denser than pixels, each column has its smallest and largest value", () => {
  const t = [0, 0.2, 0.4, 1, 1.2];
  const line = { values: [5, 5, 5, 5, 5], low: [5, 1, 4, 2, 3], high: [5, 6, 9, 2, 8] };
  const same = (value) => value;
  assert.deepEqual(runs(t, line, 0, same, same, 2), ["0.0,1.0 0.0,9.0 1.0,2.0 1.0,8.0"]);
});

test("each role has its colour, and GPUs and servers take turns", () => {
  assert.equal(roleClass("worker"), "r1");
  assert.equal(roleClass("GPU 5"), "g1");
  assert.equal(roleClass("server-6"), "s2");
  assert.equal(roleClass("memory wait, all"), "r1");
  assert.equal(roleClass("I/O wait"), "g2");
  assert.equal(roleClass("something new"), "r3");
});
