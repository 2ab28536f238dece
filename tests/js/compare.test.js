import assert from "node:assert/strict";
import { test } from "node:test";
import {
  compareBars, compareChanged, compareEnd, compareFigures, compareHeat, compareIsRunning, compareMarks, compareParted,
  comparePartingOf, comparePieces, compareRate, compareSaid, compareShare, compareSpans, compareStanding, compareTake,
  compareVisible,
} from "../../llmlab/views/static/compare_geometry.js";

const words = (...texts) => texts.map((text) => [text, null]);
const cell = (tokens, more = {}) => ({ from: 0, tokens, state: "length", error: null, ...more });

test("the first column is marked where each other parts from it, the others where they part", () => {
  const cells = [cell([]), cell([], { differs_at: 34 }), cell([], { differs_at: 3 }), cell([], { differs_at: null })];
  assert.deepEqual(compareMarks(cells, 0), [3, 34]);
  assert.deepEqual(compareMarks(cells, 1), [34]);
  assert.deepEqual(compareMarks(cells, 3), []);
  assert.deepEqual(compareParted(cells), [1, 2]);
});

test("text before the first mark is the same, the marked token stands in a box, its leading space does not", () => {
  assert.deepEqual(comparePieces(words("The", " sky", " is", " blue"), [2]), [
    { text: "The sky ", kind: "same" }, { text: "is", kind: "parts", index: 2 }, { text: " blue", kind: "own" },
  ]);
});

test("between two marks the text is the column's own", () => {
  const kinds = comparePieces(words("a", "b", "c", "d", "e"), [1, 3]).map(({ text, kind }) => `${kind}:${text}`);
  assert.deepEqual(kinds, ["same:a", "parts:b", "own:c", "parts:d", "own:e"]);
});

test("without a mark all of it is the same; an answer that ended early is marked at its end", () => {
  assert.deepEqual(comparePieces(words("a", "b"), []), [{ text: "ab", kind: "same" }]);
  assert.deepEqual(comparePieces(words("a"), [1]), [{ text: "a", kind: "same" }, { text: "end", kind: "parts", index: 1 }]);
  assert.deepEqual(comparePieces([], [0]), [{ text: "end", kind: "parts", index: 0 }]);
});

test("a marked token can be seen, whatever it is", () => {
  assert.deepEqual(["\n", "", "\t"].map(compareVisible), ["↵", "□", "⇥"]);
  assert.equal(comparePieces(words("a", "  "), [1]).at(-1).text, "□");
});

test("pieces put together again are the text", () => {
  const tokens = words("The", " sky", "\n", " is", " blue");
  for (const marks of [[], [1], [0, 3], [4]]) {
    const text = comparePieces(tokens, marks).map((piece) => piece.text).join("");
    assert.equal(text, "The sky\n is blue".replace("\n", marks.includes(2) ? "↵" : "\n"));
  }
});

test("spans of a text are told apart, and nothing of it is lost", () => {
  assert.deepEqual(compareSpans("the cat sat", [[3, 7]]), [
    { text: "the", isChanged: false }, { text: " cat", isChanged: true }, { text: " sat", isChanged: false },
  ]);
  assert.deepEqual(compareSpans("x", []), [{ text: "x", isChanged: false }]);
  const cells = [cell([]), cell([], { changed: [[[0, 1]], [[2, 3]]] }), cell([], { changed: [] })];
  assert.deepEqual([compareChanged(cells, 0, 1), compareChanged(cells, 1, 1)], [[[0, 1]], [[2, 3]]]);
  assert.deepEqual([compareChanged(cells, 0, 2), compareChanged(cells, 2, 2)], [[], []]);
});

test("a message adds tokens, and one that came too early asks for all of it", () => {
  const data = { head: { state: "running" }, cells: [[cell(words("a"), { state: "streaming" })]] };
  assert.equal(compareTake(data, { t: "s", head: null, cells: [{ i: 0, j: 0, from: 1, tokens: words("b"), state: "stop" }] }), true);
  assert.deepEqual(data.cells[0][0].tokens, words("a", "b"));
  assert.equal(data.cells[0][0].state, "stop");
  assert.equal(data.head.state, "running");
  assert.equal(compareTake(data, { t: "s", head: null, cells: [{ i: 0, j: 0, from: 5, tokens: [], state: "stop" }] }), false);
  assert.deepEqual(data.cells[0][0].tokens, words("a", "b"));
  assert.equal(compareTake(data, { t: "k", head: { state: "ended" }, cells: [] }), true);
  assert.deepEqual(data, { head: { state: "ended" }, cells: [] });
});

test("a message that comes twice changes nothing", () => {
  const data = { head: {}, cells: [[cell(words("a"))]] };
  const news = { t: "s", head: null, cells: [{ i: 0, j: 0, from: 1, tokens: words("b"), state: "stop" }] };
  compareTake(data, news);
  compareTake(data, news);
  assert.deepEqual(data.cells[0][0].tokens, words("a", "b"));
});

test("bars of both sides share one scale, and six rows are enough", () => {
  const rows = Array.from({ length: 9 }, (_, i) => [`t${i}`, 0.4 / (i + 1), i ? 0.1 : null, i === 0, i === 1]);
  const bars = compareBars(rows);
  assert.equal(bars.length, 6);
  assert.deepEqual([bars[0].wa, bars[0].wb, bars[1].wa, bars[1].wb], [1, 0, 0.5, 0.25]);
  assert.deepEqual([bars[0].isA, bars[1].isB], [true, true]);
});

test("unknown figures are dashes, and a blind column shows none that gives it away", () => {
  const known = cell(words("a", "b"), { ttft_s: 0.0861, tokens_per_s: 50.94, differs_at: 34 });
  assert.deepEqual(compareFigures(known), [["86 ms", "first token"], ["50.9", "tok/s"], ["2", "tokens"], ["◆ 34", "differs at token"]]);
  assert.deepEqual(compareFigures(cell([])).slice(0, 2), [["–", "first token"], ["–", "tok/s"]]);
  assert.equal(compareFigures(cell([], { ttft_s: 1.234, tokens_per_s: 512.3 }))[0][0], "1.23 s");
  assert.deepEqual(compareFigures(known, { isBlind: true }), [["2", "tokens"]]);
  assert.deepEqual([null, 0.287, 0.0001].map(compareShare), ["–", "28.7 %", "< 0.1 %"]);
});

test("how a column stands is told in words", () => {
  assert.deepEqual(["length", "stop", "interrupted", "waiting", "error"].map((state) => compareEnd(state, 72)), [
    "finished: length 72", "finished: stop", "stopped", "waiting", "✕ failed",
  ]);
  assert.deepEqual(["waiting", "held", "streaming", "stop"].map(compareIsRunning), [true, true, true, false]);
});

test("the list of prompts says equal, where it parts, or how far it came", () => {
  assert.equal(compareStanding(cell(words("a")), 0), "1");
  assert.equal(compareStanding(cell(words("a"), { differs_at: null }), 1), "equal");
  assert.equal(compareStanding(cell(words("a"), { differs_at: 0 }), 1), "◆ 0");
  assert.equal(compareStanding(cell(words("a"), { state: "streaming" }), 1), "1 …");
  assert.equal(compareStanding(cell([], { state: "error" }), 1), "✕");
});

test("the evidence belongs to one prompt and one pair", () => {
  const head = { partings: [{ prompt: 0, b: 2 }, { prompt: 1, b: 1 }] };
  assert.equal(comparePartingOf(head, 1, 1), head.partings[1]);
  assert.equal(comparePartingOf(head, 1, 2), null);
});

test("a screen reader hears each column, and a win rate comes with its interval", () => {
  const head = { columns: [{ name: "F16" }, { name: "Q8_0" }] };
  const cells = [cell(words("a")), cell(words("b"), { state: "streaming", differs_at: 0 })];
  assert.equal(compareSaid(head, cells), "F16: finished: length 1. Q8_0: writing, differs at token 0");
  assert.equal(compareRate({ name: "F16", wins: 8, of: 10, ties: 1, low: 0.4902, high: 0.9433 }), "F16 wins 8 of 10 (49–94 %), 1 tie");
  assert.equal(compareRate({ name: "F16", wins: 0, of: 0, ties: 2, low: null, high: null }), "F16 wins 0 of 0, 2 ties");
});

test("the class of a probability is that of the tokens view", () => {
  assert.deepEqual(compareHeat([["a", Math.log(0.95)], ["b", Math.log(0.01)], ["c", null]]).map(({ kind }) => kind), [0, 4, null]);
});
