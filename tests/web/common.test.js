// What all tabs share: how values are written, signed requests, and streams that go on after a break.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { afterEach, beforeEach, mock, test } from "node:test";

const kept = new Map();
globalThis.sessionStorage = {
  getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value), removeItem: (name) => kept.delete(name),
};
globalThis.location = { origin: "http://localhost:8080" };
const events = [];
globalThis.document = { dispatchEvent: (event) => events.push(event.type) };

const { ApiError, api, bytes, clock, duration, moment, NONE, setToken, stop, stream, visible } = await import("../../src/aifbench/services/web/common.js");

const TOKEN = "a token";
const sign = (...words) => createHmac("sha256", TOKEN).update(words.join("\n")).digest("hex");

// A server that knows the token. It keeps what it was asked and answers what it is told to.
function serve(...answers) {
  const asked = [];
  globalThis.fetch = async (url, options) => {
    const { authorization, ...headers } = options.headers;
    const [, nonce, digest, mac] = /^aifbench-hmac nonce=(\w+), body=(\w+), mac=(\w+)$/.exec(authorization);
    assert.equal(mac, sign("ask", nonce, options.method, url.pathname + url.search, digest));
    asked.push({ path: url.pathname + url.search, headers, body: options.body });
    const { status = 200, body = "", proof = sign("answer", nonce) } = answers.shift();
    return new Response(body, { status, headers: { "aifbench-proof": proof } });
  };
  return asked;
}

beforeEach(() => { setToken(TOKEN); events.length = 0; });
afterEach(() => mock.restoreAll());

test("sizes are powers of two with three digits", () => {
  assert.deepEqual([0, 1023, 1024, 1536, 100 * 2 ** 20, 2 ** 40, 3000 * 2 ** 40].map(bytes),
    ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "100 MiB", "1.00 TiB", "3000 TiB"]);
  assert.equal(bytes(null), NONE);
});

test("durations have their two largest units", () => {
  assert.deepEqual([0, 59.6, 61, 3600, 90061].map(duration), ["0 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "1 d 1 h"]);
  assert.deepEqual([duration(null), duration(-3)], [NONE, "0 s"]);
});

test("a time that is none is a dash", () => {
  for (const value of [null, undefined, "soon"]) assert.deepEqual([clock(value), moment(value)], [NONE, NONE]);
  assert.match(moment("2026-11-30T12:00:00Z"), /^2026-1[12]-\d\d \d\d:00:00$/);
});

test("what would change how a text reads is made visible", () => {
  assert.equal(visible("a\nb\u202ec\u001b[31m"), "a\\u000ab\\u202ec\\u001b[31m");
});

test("a request is signed and its token is not in it", async () => {
  const asked = serve({ body: '{"jobs": []}' });
  assert.deepEqual(await api("jobs?state=active"), { jobs: [] });
  assert.equal(asked[0].path, "/api/v1/jobs?state=active");
  assert.ok(!JSON.stringify(asked).includes(TOKEN));
});

test("a refusal carries its reason", async () => {
  serve({ status: 422, body: '{"status": "ko", "reason": {"message": "no such preset"}}' });
  await assert.rejects(api("runs", { method: "POST", body: {} }), (error) => error instanceof ApiError && error.status === 422 && error.message === "no such preset");
});

test("an answer that is not signed ends the page, and nothing is sent after that", async () => {
  serve({ body: "{}" }, { body: '{"status": "ok"}', proof: "0" });
  await api("jobs");
  await assert.rejects(api("jobs"), /something else answers/);
  assert.deepEqual(events, ["aifbench-gone"]);
  stop();
  const asked = serve({ body: "{}" });
  await assert.rejects(api("jobs"), /something else answers/);
  assert.equal(asked.length, 0);
});

test("a stream goes on after the last event that it has seen, and waits longer each time", async () => {
  const waits = [];
  mock.method(globalThis, "setTimeout", (go, wait) => { waits.push(wait); go(); });
  const ending = new AbortController();
  const seen = [];
  const states = [];
  const asked = serve(
    { body: 'id: 1\nevent: jobs\ndata: {"n": 1}\n\nid: 2\ndata: {"n": 2}\n\nid: 3\ndata: {"n"' },   // cut within an event
    { status: 503, body: "{}" },
    { status: 503, body: "{}" },
    { body: ': heartbeat\n\nid: 3\ndata: {"n": 3}\n\n' },
  );
  await stream("stream?jobs=a", {
    signal: ending.signal,
    onEvent: ({ event, data, id }) => { seen.push([event, data.n, id]); if (data.n === 3) ending.abort(); },
    onState: (state) => states.push(state),
  });
  assert.deepEqual(seen, [["jobs", 1, "1"], ["message", 2, "2"], ["message", 3, "3"]]);
  assert.deepEqual(asked.map(({ headers }) => headers["last-event-id"]), [undefined, "2", "2", "2"]);
  assert.deepEqual(states, ["live", "waiting", "waiting", "live"]);
  assert.deepEqual(waits, [1000, 2000, 4000, 1000]);
});

test("a stream that is refused is not asked for again", async () => {
  const asked = serve({ status: 404, body: '{"detail": "no such job"}' });
  const states = [];
  await stream("stream?jobs=x", { signal: new AbortController().signal, onEvent: assert.fail, onState: (state, error) => states.push([state, error.message]) });
  assert.deepEqual(states, [["refused", "no such job"]]);
  assert.equal(asked.length, 1);
});
