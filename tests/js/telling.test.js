/** A story that grows in a page, from messages that may be lost. */

import assert from "node:assert/strict";
import test from "node:test";

import { Telling, join, leave } from "../../llmlab/views/static/telling.js";
import { toLiveWords } from "../../llmlab/views/static/live_side.js";

const HEAD = { kind: "blocks", num_blocks: 8, first_block: 1, block_size: 4 };
const step = (n, more = {}) => ({ n, t: n / 10, d: [], r: [[0, 1, 1, n]], pre: [], fin: [], hit: [], w: [], ...more });
const steps = (from, to) => Array.from({ length: to - from }, (_, i) => step(from + i));
const REQUEST = [[0, { name: "r0" }]];
const opened = (n, isLive = true) => {
  const telling = new Telling(`story ${Math.random()}`, isLive);
  telling.open({ head: HEAD, requests: [{ name: "r0" }], steps: steps(0, n) });
  return telling;
};
const numbers = (telling) => telling.story.steps.map((s) => s.n);

test("steps that come are appended once, whichever views bring them", () => {
  const telling = opened(2);
  const message = { t: "s", from: 2, requests: [], steps: steps(2, 4) };
  assert.equal(telling.take(message), null);
  assert.equal(telling.take(message), null);
  assert.equal(telling.take({ t: "s", from: 3, requests: [[1, { name: "r1" }]], steps: steps(3, 6) }), null);
  assert.deepEqual(numbers(telling), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(telling.story.requests.map((r) => r.name), ["r0", "r1"]);
  assert.equal(telling.clock.i, 5);
});

test("a gap is not jumped over: the missing steps are asked for", () => {
  const telling = opened(2);
  assert.equal(telling.take({ t: "s", from: 5, requests: [], steps: steps(5, 6) }), 2);
  assert.deepEqual(numbers(telling), [0, 1]);
  assert.equal(telling.take({ t: "s", from: 2, requests: [], steps: steps(2, 6) }), null);
  assert.deepEqual(numbers(telling), [0, 1, 2, 3, 4, 5]);
});

test("a key message that covers the gap closes it", () => {
  const telling = opened(2);
  assert.equal(telling.take({ t: "k", from: 1, head: HEAD, requests: REQUEST, steps: steps(1, 5) }), null);
  assert.deepEqual([telling.from, ...numbers(telling)], [0, 0, 1, 2, 3, 4]);
});

test("a view that comes late draws at once from a key message, then gets the history", () => {
  const telling = new Telling("late", true);
  assert.equal(telling.take({ t: "s", from: 300, requests: [], steps: steps(300, 301) }), 0);
  assert.equal(telling.story, null);
  const start = { a: [[0, [3, 5]]], c: [3], h: [1], r: [[0, 1, 0, 6]] };
  assert.equal(telling.take({ t: "k", from: 300, head: { ...HEAD, start }, requests: REQUEST, steps: [step(300, { d: [0, 1], r: [] })] }), 0);
  const state = telling.story.stateAt(0);
  assert.deepEqual(state.tables.get(0), [3, 5]);
  assert.equal(state.tokens.get(0), 7);
  assert.deepEqual([...state.cached].map((hash, block) => (hash ? block : null)).filter(Boolean), [3]);
  let rebuilt = 0;
  telling.listeners.add({ changed() {}, rebuilt: () => rebuilt++ });
  telling.clock.following = false;
  assert.equal(telling.take({ t: "k", from: 0, head: HEAD, requests: REQUEST, steps: steps(0, 301) }), null);
  assert.equal(rebuilt, 1);
  assert.deepEqual([telling.from, telling.story.length, telling.clock.n], [0, 301, 301]);
  assert.equal(telling.clock.i, 300); // the cursor stays on its step
});

test("a cursor that looks back stays, one at the head follows", () => {
  const telling = opened(4);
  telling.clock.set(1);
  telling.take({ t: "s", from: 4, requests: [], steps: steps(4, 6) });
  assert.equal(telling.clock.i, 1);
  telling.clock.set(5);
  telling.take({ t: "s", from: 6, requests: [], steps: steps(6, 8) });
  assert.equal(telling.clock.i, 7);
});

test("views of one run share a story and a cursor, and the last one takes it along", () => {
  const [first, second] = [{ changed() {}, rebuilt() {} }, { changed() {}, rebuilt() {} }];
  const telling = join("shared", true, first);
  assert.equal(join("shared", true, second), telling);
  leave(telling, first);
  assert.equal(join("shared", true, first), telling);
  leave(telling, first);
  leave(telling, second);
  assert.notEqual(join("shared", true, first), telling);
});

test("the way back to the head says how far it is", () => {
  assert.equal(toLiveWords(1), "→ Live, 1 step on");
  assert.equal(toLiveWords(26), "→ Live, 26 steps on");
});

test("a story that begins anew takes the place of the one before, whatever its length", () => {
  const telling = opened(5);
  const head = { ...HEAD, start: { a: [[0, [3]]] } };
  const anew = { t: "k", anew: true, from: 0, head, requests: [[0, { name: "o1" }]], steps: steps(40, 42) };
  assert.equal(telling.take(anew), null);
  assert.deepEqual(numbers(telling), [40, 41]);
  assert.deepEqual(telling.story.requests.map((r) => r.name), ["o1"]);
  assert.equal(telling.clock.i, 1);
  assert.equal(telling.take({ t: "s", from: 2, requests: [], steps: steps(42, 43) }), null);
  assert.deepEqual(numbers(telling), [40, 41, 42]);
});
