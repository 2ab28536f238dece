/** Story, Blocks and Clock: who holds what at any step, whichever way the cursor came. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Clock, clockOf } from "../../llmlab/views/static/clock.js";
import { DECODE } from "../../llmlab/views/static/kv_state.js";
import { Story, eachText } from "../../llmlab/views/static/story.js";

const HEAD = { kind: "blocks", engine: "vLLM 0.26.0", block_size: 4, num_blocks: 6, first_block: 1, prefix_caching: true };
const step = (n, more) => ({ n, t: n, r: [], w: [], pre: [], fin: [], hit: [], say: [], fig: {}, ...more });

/** r0 and r1 share block 1; r0 is preempted, comes back through the prefix cache, and r1 ends. */
function sharing() {
  const story = new Story(HEAD);
  story.addRequests([{ name: "r0", prompt: 6 }, { name: "r1", prompt: 5 }]);
  story.addSteps([
    step(0, { r: [[0, 0, 6, 0]], kv: { a: [[0, [1, 2]]], c: [1], h: [3, 4] } }),
    step(1, { d: [0, 1], r: [[1, 0, 1, 4]], hit: [[1, 4]], kv: { a: [[1, [1, 3]]], h: [4, 5] } }),
    step(2, { d: [0, 2], kv: { c: [2] } }),
    step(3, { d: [1, 1], pre: [[0, 2, 8]], kv: { f: [[0, [2, 1]]], h: [4, 5, 6, 2] } }),
    step(4, { d: [1, 1], r: [[0, 2, 4, 4]], hit: [[0, 4]], kv: { e: [2], a: [[0, [1, 2]]] } }),
    step(5, { d: [0, 2], fin: [[1, "length", 4]], kv: { f: [[1, [3, 1]]], a: [[0, [4]]], h: [5, 6, 3] } }),
  ]);
  return story;
}

/** Everything a state says, in plain values. */
const told = (state) => ({
  tables: [...state.tables].sort((a, b) => a[0] - b[0]),
  tokens: [...state.tokens].sort((a, b) => a[0] - b[0]),
  refs: [...state.refs],
  cached: [...state.cached],
  owner: [...state.owner],
  nextOut: [...state.nextOut],
  fresh: [...state.fresh].sort(),
  evicted: [...state.evicted].sort(),
  rows: state.rows.map((row) => [...row]),
});

test("a block that two requests hold has two holders, each with its logical index", () => {
  const state = sharing().stateAt(1);
  assert.equal(state.refs[1], 2);
  assert.deepEqual(state.holders(1), [[0, 0], [1, 0]]);
  assert.deepEqual(state.holders(3), [[1, 1]]);
  assert.deepEqual(state.holders(6), []);
  assert.deepEqual(state.tables.get(1), [1, 3]);
});

test("tokens in a block: of the holder that wrote most", () => {
  const story = sharing();
  const fills = (i) => [1, 2, 3, 4].map((block) => story.stateAt(i).fill(block));
  assert.deepEqual(fills(0), [4, 2, 0, 0]);
  assert.deepEqual(fills(1), [4, 3, 1, 0]);
  assert.deepEqual(fills(2), [4, 4, 2, 0]);
  assert.deepEqual(fills(3), [4, 0, 3, 0]);
  assert.deepEqual(fills(4), [4, 4, 4, 0]);
  assert.deepEqual(fills(5), [4, 4, 0, 1]);
});

test("only blocks that nobody held before are new, and only in their step", () => {
  const story = sharing();
  assert.deepEqual([...story.stateAt(0).fresh], [1, 2]);
  assert.deepEqual([...story.stateAt(1).fresh], [3]); // block 1 was held by r0
  assert.deepEqual([...story.stateAt(2).fresh], []);
  assert.deepEqual([...story.stateAt(4).evicted], [2]);
  assert.deepEqual([...story.stateAt(5).evicted], []);
});

test("hashes come with `c` and go with `e`", () => {
  const story = sharing();
  const cached = (i) => [...story.stateAt(i).cached].flatMap((has, block) => (has ? [block] : []));
  assert.deepEqual([0, 1, 2, 3, 4, 5].map(cached), [[1], [1], [1, 2], [1, 2], [1], [1]]);
});

test("a preempted request holds nothing, and another holder of its block becomes the owner", () => {
  const state = sharing().stateAt(3);
  assert.equal(state.tables.has(0), false);
  assert.equal(state.tokens.has(0), false);
  assert.equal(state.owner[1], 1);
  assert.equal(state.owner[2], -1);
  assert.deepEqual(state.nextOut, [4, 5, 6, 2]);
});

test("a finished request is gone with its step", () => {
  const state = sharing().stateAt(5);
  assert.deepEqual([...state.tables], [[0, [1, 2, 4]]]);
  assert.deepEqual([...state.tokens], [[0, 9]]);
});

test("rows hold those that go on decoding too, in order of the requests", () => {
  const story = sharing();
  assert.deepEqual(story.stateAt(1).rows, [[0, DECODE, 1, 6], [1, 0, 1, 4]]);
  assert.deepEqual(story.stateAt(4).rows, [[0, 2, 4, 4], [1, DECODE, 1, 7]]);
});

test("a step without a word about the KV cache leaves it, but nothing is new any more", () => {
  const story = sharing();
  story.addSteps([step(6, { d: [0, 1] })]);
  const state = story.stateAt(6);
  assert.deepEqual(state.tables.get(0), [1, 2, 4]);
  assert.equal(state.fill(4), 2);
  assert.deepEqual(state.nextOut, [5, 6, 3]);
  assert.equal(state.fresh.size, 0);
});

test("a cache that was not empty when the trace began", () => {
  const story = new Story({ ...HEAD, start: { a: [[0, [2, 5]]], c: [2] } });
  story.addRequests([{ name: "r0", prompt: null }]);
  story.addSteps([step(40, { r: [[0, DECODE, 1, 6]], kv: {} })]);
  const state = story.stateAt(0);
  assert.deepEqual(state.tables.get(0), [2, 5]);
  assert.deepEqual([2, 5].map((block) => state.fill(block)), [4, 3]);
  assert.equal(state.cached[2], 1);
});

/** One request decodes 400 tokens, a block each 4th step; every 50th step it is preempted and comes back at once. */
function long(steps = 400) {
  const story = new Story({ ...HEAD, num_blocks: 200 });
  story.addRequests([{ name: "r0", prompt: 1 }]);
  let tokens = 0;
  let held = [];
  for (let n = 0; n < steps; n++) {
    const isBack = n % 50 === 49;
    const more = isBack ? { pre: [[0, held.length, tokens]], r: [[0, 2, tokens + 1, 0]] } : { d: [0, 1] };
    const kv = isBack ? { f: [[0, held]] } : {};
    if (isBack) held = [];
    tokens++;
    const needed = [];
    while ((held.length + needed.length) * 4 < tokens) needed.push(held.length + needed.length + 1);
    held = [...held, ...needed];
    if (needed.length) kv.a = [[0, needed]];
    if (n === 0) Object.assign(more, { d: [], r: [[0, 0, 1, 0]] });
    story.addSteps([step(n, { ...more, kv })]);
  }
  return story;
}

test("the state of a step does not depend on the way the cursor came, over key states too", () => {
  const forward = long();
  const expected = Array.from({ length: 400 }, (_, i) => told(forward.stateAt(i)));
  assert.deepEqual(expected[3].tables, [[0, [1]]]);
  assert.deepEqual(expected[4].tables, [[0, [1, 2]]]);
  assert.deepEqual(expected[399].tokens, [[0, 400]]);
  const back = long();
  for (let i = 399; i >= 0; i -= 7) assert.deepEqual(told(back.stateAt(i)), expected[i], `back to ${i}`);
  const jumps = long();
  for (const i of [399, 0, 128, 127, 129, 256, 255, 49, 399, 130, 130, 1, 383, 384]) {
    assert.deepEqual(told(jumps.stateAt(i)), expected[i], `jump to ${i}`);
  }
});

test("steps that come later go on from the state before them, wherever the cursor stands", () => {
  const all = long(300);
  const live = new Story({ ...HEAD, num_blocks: 200 });
  live.addRequests([{ name: "r0", prompt: 1 }]);
  live.addSteps(all.steps.slice(0, 130));
  assert.equal(live.stateAt(129).tokens.get(0), 130);
  live.stateAt(5);
  live.addSteps(all.steps.slice(130));
  assert.deepEqual(told(live.stateAt(299)), told(all.stateAt(299)));
  assert.equal(live.length, 300);
});

test("a copy that goes on leaves the key state as it was", () => {
  const story = long();
  const before = told(story.stateAt(128));
  story.stateAt(300);
  story.stateAt(129);
  assert.deepEqual(told(story.stateAt(128)), before);
});

// ---- the clock

test("the cursor stays among the steps, and says when it moved", () => {
  const clock = new Clock(10);
  let calls = 0;
  const stop = clock.on(() => calls++);
  assert.equal(calls, 1); // on() calls at once
  assert.equal(clock.i, 9);
  clock.set(99);
  assert.equal(calls, 1); // it was there already
  clock.set(-5);
  assert.deepEqual([clock.i, calls], [0, 2]);
  clock.set(4.7);
  assert.equal(clock.i, 4);
  stop();
  clock.set(1);
  assert.equal(calls, 3);
});

test("a clock without steps has its cursor at 0", () => {
  const clock = new Clock(0);
  clock.set(3);
  assert.equal(clock.i, 0);
});

test("selecting the same request again selects none", () => {
  const clock = new Clock(3);
  clock.select(7);
  assert.equal(clock.selected, 7);
  clock.select(2);
  assert.equal(clock.selected, 2);
  clock.select(2);
  assert.equal(clock.selected, null);
});

test("new steps move a cursor that follows, and no other", () => {
  const following = new Clock(3, { following: true });
  following.grow(5);
  assert.deepEqual([following.n, following.i], [5, 4]);
  const looking = new Clock(3);
  looking.grow(5);
  assert.deepEqual([looking.n, looking.i], [5, 2]);
});

test("who looks back in a live story stops following, and who goes to its end follows again", () => {
  const clock = new Clock(5, { following: true });
  clock.isLive = true;
  clock.set(2);
  assert.equal(clock.following, false);
  clock.grow(6);
  assert.equal(clock.i, 2);
  clock.set(5);
  assert.equal(clock.following, true);
  clock.grow(9);
  assert.equal(clock.i, 8);
});

test("playing goes 8 steps a second times the speed, begins anew from the end, and stops there", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const clock = new Clock(5);
  clock.play();
  assert.deepEqual([clock.i, clock.isPlaying], [0, true]);
  t.mock.timers.tick(250);
  assert.equal(clock.i, 2);
  clock.setSpeed(4);
  assert.equal(clock.isPlaying, true);
  t.mock.timers.tick(32); // 31.25 ms a step
  assert.equal(clock.i, 3);
  t.mock.timers.tick(200);
  assert.deepEqual([clock.i, clock.isPlaying], [4, false]);
});

test("views of one story share a clock, which grows with them", () => {
  const one = clockOf("run-1", 3);
  assert.equal(clockOf("run-1", 3), one);
  assert.equal(clockOf("run-1", 8).n, 8);
  assert.equal(clockOf("run-1", 2).n, 8); // a view that knows less does not shrink it
  assert.notEqual(clockOf("run-2", 3), one);
});

test("blocks of several KV cache groups: each group counts its logical blocks from 0", () => {
  const story = new Story({ ...HEAD, num_blocks: 5, first_block: 0 });
  story.addRequests([{ name: "r0", prompt: 5 }]);
  story.addSteps([
    step(0, { r: [[0, 0, 5, 0]], kv: { a: [[0, [0, 1, 2, 3]]], g: [[0, [0, 0, 1, 1]]] } }),
    step(1, { d: [0, 1], kv: { f: [[0, [2]]] } }), // the window of group 1 lets one go
  ]);
  assert.deepEqual(story.stateAt(0).logicals([0, 1, 2, 3]), [0, 1, 0, 1]);
  assert.deepEqual([0, 1, 2, 3].map((block) => story.stateAt(0).holders(block)), [[[0, 0]], [[0, 1]], [[0, 0]], [[0, 1]]]);
  assert.deepEqual([0, 1, 2, 3].map((block) => story.stateAt(0).fill(block)), [4, 1, 4, 1]);
  assert.deepEqual(story.stateAt(1).holders(3), [[0, 0]]);
  assert.deepEqual(story.stateAt(0).copy().logicals([2, 3]), [0, 1]);
});

test("a request that lets go of all its blocks need not name them, and texts of a decode step go by the order of the requests", () => {
  const story = new Story(HEAD);
  story.addRequests([{ name: "r0", prompt: 6 }, { name: "r1", prompt: 5 }]);
  story.addSteps([
    step(0, { r: [[0, 0, 6, 0], [1, 0, 5, 0]], kv: { a: [[0, [1, 2]], [1, [1, 3]]], c: [1] } }),
    step(1, { d: [0, 2], dx: ["to", "be"], x: [1, "!"] }),
    step(2, { d: [1, 1], fin: [[0, "length", 2]], kv: { f: [[0]] } }),
  ]);
  const texts = [];
  eachText(story.steps[1], (request, text) => texts.push(request, text));
  assert.deepEqual(texts, [0, "to", 1, "be", 1, "!"]);
  const state = story.stateAt(2);
  assert.deepEqual([...state.tables], [[1, [1, 3]]]);
  assert.deepEqual([...state.refs], [0, 1, 0, 1, 0, 0, 0]);
  assert.equal(state.owner[1], 1);
  assert.deepEqual(state.rows, [[1, DECODE, 1, 6]]);
});
