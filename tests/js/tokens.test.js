import assert from "node:assert/strict";
import { test } from "node:test";
import {
  latencyBarOf, latencyBars, latencyClear, latencyLabels, latencyTicks, latencyTokenAt, tokensBeside, tokensClass,
  tokensMs, tokensPercent, tokensRows, tokensShown, tokensVisible,
} from "../../llmlab/views/static/tokens_geometry.js";

const ROOM = { left: 64, width: 300, height: 54 };

test("the class of a probability changes at .9, .5, .2 and .05", () => {
  const classes = [1, 0.9, 0.89, 0.5, 0.49, 0.2, 0.19, 0.05, 0.049, 0].map((p) => tokensClass(Math.log(p) + 1e-12));
  assert.deepEqual(classes, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
  assert.equal(tokensClass(null), null);
});

test("a space and a line feed can be seen in lists", () => {
  assert.equal(tokensVisible(" of\n\tx"), "·of↵⇥x");
});

test("a leading space stands outside the box", () => {
  assert.deepEqual(tokensShown({ text: " of", mark: "" }), { lead: " ", shown: "of", tail: "", isMark: false });
});

test("a line feed is shown in the box and breaks the line after it", () => {
  assert.deepEqual(tokensShown({ text: ".\n\n", mark: "" }), { lead: "", shown: ".↵↵", tail: "\n\n", isMark: false });
  assert.deepEqual(tokensShown({ text: "\n", mark: "" }), { lead: "", shown: "↵", tail: "\n", isMark: true });
  assert.equal(tokensShown({ text: "a\nb", mark: "" }).shown, "a↵\nb");
  assert.deepEqual(tokensShown({ text: " x:\n   ", mark: "" }), { lead: " ", shown: "x:↵", tail: "\n   ", isMark: false });
});

test("spaces alone are shown as dots, so that there is a box to point at", () => {
  assert.deepEqual(tokensShown({ text: "  ", mark: "" }), { lead: "", shown: "··", tail: "", isMark: true });
});

test("a token without text is shown by its mark", () => {
  assert.deepEqual(tokensShown({ text: "", mark: "F0 9F" }), { lead: "", shown: "F0 9F", tail: "", isMark: true });
});

const candidates = [10, 11, 12, 13, 14, 15, 16].map((id, i) => [id, Math.log(0.3 / 2 ** i), `t${id}`]);

test("the panel lists six candidates and knows which was chosen", () => {
  const rows = tokensRows({ id: 11, logprob: Math.log(0.15), text: "t11", mark: "", top: candidates });
  assert.deepEqual(rows.map((row) => row.id), [10, 11, 12, 13, 14, 15]);
  assert.deepEqual(rows.map((row) => row.isChosen), [false, true, false, false, false, false]);
  assert.equal(rows[0].share.toFixed(4), "0.3000");
});

test("a chosen token that is not among the six comes as a seventh", () => {
  const rows = tokensRows({ id: 99, logprob: Math.log(0.001), text: " odd", mark: "", top: candidates });
  assert.equal(rows.length, 7);
  assert.deepEqual([rows[6].id, rows[6].text, rows[6].isChosen], [99, " odd", true]);
});

test("without probabilities the panel has no rows", () => {
  assert.deepEqual(tokensRows({ id: 99, logprob: null, text: " odd", mark: "", top: [] }), []);
});

test("unknown is a dash, and a small share is not written as zero", () => {
  assert.deepEqual([null, 0, 0.0004, 0.364].map(tokensPercent), ["–", "0.0 %", "< 0.1 %", "36.4 %"]);
  assert.deepEqual([null, 19.18, 86.4].map(tokensMs), ["–", "19.2 ms", "86 ms"]);
});

test("the strip is linear to three times the median, and what is higher is cut there", () => {
  const { top, bars } = latencyBars([86, 20, 10, 100, 60], 20, ROOM);
  assert.equal(top, 60);
  assert.deepEqual(bars.map((bar) => bar.h), [54, 18, 9, 54, 54]);
  assert.deepEqual(bars.map((bar) => bar.isCut), [true, false, false, true, false]);
  assert.deepEqual(bars.map((bar) => bar.x), [64, 88, 112, 136, 160]);
});

test("without a median the tallest bar is the scale", () => {
  assert.equal(latencyBars([86], null, ROOM).top, 86);
  assert.equal(latencyBars([86, 0, 0], 0, ROOM).top, 86);
  assert.deepEqual(latencyBars([], null, ROOM).bars, []);
});

test("where bars would be too thin one stands for several tokens, and shows the longest; the first token stays alone", () => {
  const gaps = Array.from({ length: 201 }, () => 20);
  gaps[5] = 50;
  const { bars, perBar, pitch } = latencyBars(gaps, 20, ROOM); // 99 bars of 3 px for 200 gaps
  assert.equal(perBar, 3);
  assert.equal(bars.length, 68); // 1 + 67
  assert.ok(pitch >= 3);
  assert.deepEqual([bars[0].first, bars[0].last], [0, 0]);
  assert.deepEqual([bars[2].first, bars[2].last, bars[2].at, bars[2].ms], [4, 6, 5, 50]);
  assert.deepEqual([bars[67].first, bars[67].last], [199, 200]);
  assert.equal(latencyBarOf(bars, 6), bars[2]);
});

test("a point in the strip leads to the token of the bar there", () => {
  const strip = latencyBars([86, 20, 10], 15, ROOM);
  assert.deepEqual([63, 64, 95, 135, 136].map((x) => latencyTokenAt(strip, x)), [null, 0, 1, 2, null]);
});

test("ticks stand at round numbers", () => {
  assert.deepEqual(latencyTicks(60), [0, 20, 40, 60]);
  assert.deepEqual(latencyTicks(58.8), [0, 20, 40]);
  assert.deepEqual(latencyTicks(9), [0, 2, 4, 6, 8]);
});

test("a label that would run into an earlier one is left out", () => {
  const labels = [{ x: 0, w: 50 }, { x: 40, w: 20 }, { x: 54, w: 20 }];
  assert.deepEqual(latencyLabels(labels), [labels[0], labels[2]]);
});

test("the label of the median moves left, out of the way of a bar that is higher", () => {
  const bars = [10, 10, 30, 10, 30, 10].map((h, i) => ({ x: 100 + 20 * i, h }));
  assert.equal(latencyClear(bars, 20, { w: 20, h: 12, right: 220 }), 220);
  assert.equal(latencyClear(bars, 20, { w: 35, h: 12, right: 220 }), 140); // over the first two
  assert.equal(latencyClear(bars, 20, { w: 90, h: 12, right: 220 }), 220); // nowhere: at the end
});

test("up and down lead to the nearest token of the next line", () => {
  const boxes = [
    { x: 0, y: 0, w: 40 }, { x: 45, y: 0, w: 40 }, { x: 90, y: 0, w: 40 },
    { x: 0, y: 35, w: 80 }, { x: 85, y: 35, w: 30 }, { x: 0, y: 70, w: 20 },
  ];
  assert.equal(tokensBeside(boxes, 2, 1), 4);
  assert.equal(tokensBeside(boxes, 3, -1), 0); // 20 and 25 px away
  assert.equal(tokensBeside(boxes, 1, -1), 1); // there is no line above
  assert.equal(tokensBeside(boxes, 4, 1), 5);
});
