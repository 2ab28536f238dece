import assert from "node:assert/strict";
import { test } from "node:test";

import { ArrivalRows, arrivalAt, arrivalLines, arrivalTicks, arrivalsLayout } from "../../llmlab/views/static/arrivals.js";
import { Theme } from "../../llmlab/views/static/theme.js";

const step = (n, t, told) => ({ n, t, d: [], r: [], u: [0, 0, 0], pre: [], hit: [], fin: [], in: [], ...told });

/** a is sent at 0.5 s and b at 1 s; a gets two tokens at once and then one, b one token, and is stopped. */
function story() {
  return {
    head: { unseen: "elsewhere" },
    requests: [{ name: "a", prompt: 10, arrival: 0.5 }, { name: "b", prompt: null, arrival: 1 }],
    steps: [
      step(0, 1.25, { in: [[0, 2]] }),
      step(1, 2, { in: [[0, 1], [1, 1]], fin: [[0, "length", 3]] }),
      step(2, 2.5, { fin: [[1, "abort", 1]] }),
    ],
  };
}

function rowsOf(told) {
  const rows = new ArrivalRows();
  rows.grow(told);
  return rows;
}

test("a row has what came of its request, when and how much, and how it ended", () => {
  const { rows } = rowsOf(story());
  assert.deepEqual(rows[0], { sent: 0.5, came: [[1.25, 2, 0], [2, 1, 1]], end: [2, "finished", 3] });
  assert.deepEqual(rows[1], { sent: 1, came: [[2, 1, 1]], end: [2.5, "aborted", 1] });
});

test("rows grow with the story, and what was read is not read again", () => {
  const all = story();
  const growing = { ...all, steps: all.steps.slice(0, 1) };
  const rows = rowsOf(growing);
  assert.equal(rows.tokensBy(0, 0), 2);
  growing.steps = all.steps;
  rows.grow(growing);
  rows.grow(growing);
  assert.deepEqual(rows.rows, rowsOf(all).rows);
  assert.equal(rows.tokensBy(0, 2), 3);
});

test("the axis goes from when the first was sent to the last that came", () => {
  assert.deepEqual(rowsOf(story()).span(story()), [0.5, 2.5]);
  assert.deepEqual(new ArrivalRows().span({ requests: [], steps: [] }), [0, 1]);
});

test("what came too close to be told apart is one tick of several tokens", () => {
  const came = [[0, 1, 0], [0.01, 1, 1], [0.5, 1, 2]];
  assert.deepEqual(arrivalTicks(came, (t) => 100 * t), [[0, 2], [50, 1]]);
});

test("a moment belongs to the last arrival before it", () => {
  const { steps } = story();
  assert.deepEqual([0, 1.25, 1.9, 2, 9].map((t) => arrivalAt(steps, t)), [0, 0, 0, 1, 2]);
});

test("a request is told in words: what came, so far, since it was sent, and its end", () => {
  const rows = rowsOf(story());
  assert.deepEqual(arrivalLines(story(), rows, 0, 1), [
    "1 token arrived", "3 tokens so far", "first token after 0.75 s", "finished", "prompt: 10 tokens",
  ]);
  assert.deepEqual(arrivalLines(story(), rows, 1, 0), ["nothing arrived", "0 tokens so far", "first token after 1.00 s"]);
});

test("many requests are drawn as thinner rows, and no more than fit", () => {
  const heights = [3, 30, 200].map((count) => arrivalsLayout(900, count).rowHeight);
  assert.deepEqual(heights, [22, 12, 2]);
  const { rowsShown, bottom, top } = arrivalsLayout(900, 1000);
  assert.equal(rowsShown, 210);
  assert.equal(bottom - top, 420);
});

test("requests of other clients are grey, in both themes, and ours keep their colours", () => {
  for (const isDark of [false, true]) {
    const theme = new Theme(isDark);
    const own = [theme.owner(0, 3), theme.owner(2, 3)];
    theme.others = new Set([1, 3]);
    assert.deepEqual([theme.owner(0, 3), theme.owner(2, 3)], own);
    for (const other of [1, 3]) {
      const [r, g, b] = theme.owner(other, 3).match(/[0-9a-f]{2}/g).map((v) => parseInt(v, 16));
      assert.ok(Math.max(r, g, b) - Math.min(r, g, b) < 32, theme.owner(other, 3));
    }
  }
});
