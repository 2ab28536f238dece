import assert from "node:assert/strict";
import { test } from "node:test";
import {
  samplerBars, samplerCall, samplerCut, samplerFloats, samplerKeep, samplerOrder, samplerOver, samplerValue,
} from "../../llmlab/views/static/sampler.js";

const logs = (...shares) => shares.map(Math.log);
const HALVES = logs(0.5, 0.25, 0.125, 0.125);
const rounded = (numbers) => Array.from(numbers, (x) => Number(x.toFixed(4)));
const after = (sorted, params) => {
  const result = samplerKeep(sorted, params);
  return rounded(samplerBars(result, sorted.length).map((bar) => bar.after));
};

test("with every filter off the distribution stays as it is", () => {
  const result = samplerKeep(HALVES, {});
  assert.deepEqual(rounded(result.shares), [0.5, 0.25, 0.125, 0.125]);
  assert.equal(result.kept, 4);
  assert.equal(Number(result.keptShare.toFixed(4)), 1);
});

test("what is kept is renormalised, and its share before is told", () => {
  assert.deepEqual(after(HALVES, { top_k: 2 }), [0.6667, 0.3333, 0, 0]);
  assert.equal(samplerKeep(HALVES, { top_k: 2 }).keptShare.toFixed(4), "0.7500");
});

test("top-p keeps tokens until their sum has reached it", () => {
  assert.equal(samplerKeep(HALVES, { top_p: 0.7 }).kept, 2);
  assert.equal(samplerKeep(HALVES, { top_p: 0.76 }).kept, 3);
  assert.equal(samplerKeep(HALVES, { top_p: 0.01 }).kept, 1);
});

test("top-p counts shares of what top-k has left, not of everything", () => {
  assert.equal(samplerKeep(HALVES, { top_p: 0.6 }).kept, 2); // 0.5 is less than 0.6
  assert.equal(samplerKeep(HALVES, { top_k: 2, top_p: 0.6 }).kept, 1); // 0.5 of 0.75 is 0.667 already
});

test("temperature comes before min-p", () => {
  const sorted = logs(16 / 21, 4 / 21, 1 / 21);
  assert.deepEqual(rounded(samplerKeep(sorted, { temperature: 2 }).shares), [0.5714, 0.2857, 0.1429]); // 4 : 2 : 1
  assert.equal(samplerKeep(sorted, { min_p: 0.3 }).kept, 1); // 4/16 is below 0.3
  assert.equal(samplerKeep(sorted, { min_p: 0.3, temperature: 2 }).kept, 2); // 2/4 is not
});

test("temperature 0 takes the most likely token, whatever the filters say", () => {
  const result = samplerKeep(HALVES, { temperature: 0, top_k: 3, min_p: 0.1 });
  assert.equal(result.kept, 1);
  assert.deepEqual(after(HALVES, { temperature: 0 }), [1, 0, 0, 0]);
  assert.equal(samplerCut(result, 1), "T");
});

test("a cut token names the first filter that cut it, in the order min-p, top-k, top-p", () => {
  const result = samplerKeep(HALVES, { min_p: 0.4, top_k: 2, top_p: 0.6 });
  assert.deepEqual([0, 1, 2, 3].map((j) => samplerCut(result, j)), [null, "p", "min", "min"]);
  assert.equal(samplerCut(samplerKeep(HALVES, { top_k: 3 }), 3), "k");
});

test("among equal tokens the lowest id is first", () => {
  assert.deepEqual([...samplerOrder(Float32Array.of(-2, -1, -3, -1))], [1, 3, 0, 2]);
});

test("what is not drawn is one bar, kept as long as any of it is", () => {
  const [, , rest] = samplerBars(samplerKeep(HALVES, { top_k: 3 }), 2);
  assert.equal(rest.j, null);
  assert.equal(rest.cut, null);
  assert.equal(rest.before.toFixed(4), "0.2500");
  assert.equal(rest.after.toFixed(4), "0.1429"); // 0.125 of 0.875
  assert.equal(samplerBars(samplerKeep(HALVES, { top_k: 2 }), 2)[2].cut, "k");
  assert.equal(samplerBars(samplerKeep(HALVES, {}), 4).length, 4);
});

test("log probabilities come as 32 bit floats in base64", () => {
  assert.deepEqual([...samplerFloats("AACAvwAAIMA=")], [-1, -2.5]);
});

test("a chance below half a percent is not written as nothing", () => {
  assert.deepEqual([0.483, 0.004, 0.005].map(samplerOver), ["48", "<1", "1"]);
});

test("a filter that does nothing is said to be off, and is not in the call", () => {
  const params = { temperature: 0.8, top_k: 0, top_p: 1, min_p: 0.05 };
  assert.equal(samplerCall(params), "temperature=0.8, min_p=0.05");
  assert.deepEqual(Object.entries(params).map(([key, value]) => samplerValue(key, value)), ["0.8", "off", "off", "0.05"]);
  assert.equal(samplerValue("temperature", 0), "0 greedy");
});
