import assert from "node:assert/strict";
import { test } from "node:test";

import {
  TimelineAxis, timelineBars, timelineColumnArrays, timelineColumnFrom, timelineFullest, timelineHighest, timelineKvEnd,
  timelineLayout, timelinePan, timelinePieces, timelineSlots, timelineTicks, timelineZoom,
} from "../../llmlab/views/static/timeline_geometry.js";
import { timelineLegendItems, timelineNextAxis } from "../../llmlab/views/static/timeline_legend.js";
import { timelineLens, timelineLensAt } from "../../llmlab/views/static/timeline_lens.js";
import { recomputeBoxes } from "../../llmlab/views/static/timeline_paint.js";
import { PHASE_CODE, TimelinePhases, timelineShown } from "../../llmlab/views/static/timeline_phases.js";
import { requestLines, stepLines, timelineSummary } from "../../llmlab/views/static/timeline_words.js";
import { Theme, luminance, rgb, textOn } from "../../llmlab/views/static/theme.js";

const {
  none: NONE, waiting: WAITING, decode: DECODE, grow: GROW, prefill: PREFILL, recompute: RECOMPUTE, lost: LOST,
} = PHASE_CODE;

const step = (n, told) => ({
  n, t: n + 1, ms: null, d: [], r: [], u: [0, 0, 0], w: [], nw: 0, nr: 0, pre: [], fin: [], hit: [], fig: {}, ...told,
});

/**
 * a and b come at 0 s, c at 2.5 s. a prefills in two chunks; b waits a step, decodes, is preempted in step 3 and comes
 * back in step 5; c is stopped while it waits.
 */
function smallStory() {
  return {
    head: { kind: "blocks", num_blocks: 20, token_budget: 8, prefix_caching: true },
    requests: [
      { name: "a", prompt: 10, arrival: 0 },
      { name: "b", prompt: 2, arrival: 0 },
      { name: "c", prompt: 3, arrival: 2.5 },
    ],
    steps: [
      step(0, { r: [[0, 0, 8, 0]], u: [8, 0, 0], w: [1], nw: 1, fig: { held: 2, cached: 0 } }),
      step(1, { r: [[0, 0, 2, 8], [1, 0, 2, 4]], u: [4, 0, 0], hit: [[1, 4]], fig: { held: 4, cached: 1 } }),
      step(2, { d: [0, 2], u: [0, 2, 0], kv: { a: [[1, [5]]] }, w: [2], nw: 1, fig: { held: 5, cached: 1 } }),
      step(3, { d: [0, 1], u: [0, 1, 0], pre: [[1, 4, 7]], w: [1, 2], nw: 2, fig: { held: 1, cached: 3 } }),
      step(4, {
        d: [0, 1], u: [0, 1, 0], fin: [[0, "length", 4], [2, "abort", 0]], w: [1], nw: 1, fig: { held: 1, cached: 3 },
      }),
      step(5, { r: [[1, 2, 7, 0]], u: [0, 0, 7], fig: { held: 2, cached: 3 } }),
      step(6, { d: [1, 1], u: [0, 1, 0], fin: [[1, "error", 2]], fig: { held: 0, cached: 3 } }),
    ],
  };
}

function phasesOf(story) {
  const phases = new TimelinePhases();
  phases.grow(story);
  return phases;
}
const codes = (phases, r, n) => Array.from({ length: n }, (_, i) => phases.rows[r].at(i));

test("each request has its phase in each step: chunks, decoding, a new block, preemption and the way back", () => {
  const phases = phasesOf(smallStory());
  assert.deepEqual(codes(phases, 0, 7), [PREFILL, PREFILL, DECODE, DECODE, DECODE, NONE, NONE]);
  assert.deepEqual(codes(phases, 1, 7), [WAITING, PREFILL, GROW, LOST, LOST, RECOMPUTE, DECODE]);
});

test("a request waits from the step that was running when it came, until it is scheduled or stopped", () => {
  // 2.5 s lies in step 2, which ends at 3 s; it is stopped at the end of step 4
  assert.deepEqual(codes(phasesOf(smallStory()), 2, 7), [NONE, NONE, WAITING, WAITING, WAITING, NONE, NONE]);
});

test("a request that arrives exactly at the end of a step waits in that step", () => {
  const story = smallStory();
  story.requests[2].arrival = 3;
  assert.equal(phasesOf(story).rows[2].at(2), WAITING);
});

test("a request that came before the trace began is not said to wait before it runs", () => {
  const story = smallStory();
  story.requests[0].arrival = null;
  story.steps[0].r = [];
  assert.deepEqual(codes(phasesOf(story), 0, 3), [NONE, PREFILL, DECODE]);
});

test("a request preempted and taken back in one step recomputes in it", () => {
  const story = smallStory();
  story.steps[3].r = [[1, 2, 7, 0]];
  story.steps[3].w = [2];
  const row = phasesOf(story).rows[1];
  assert.equal(row.at(3), RECOMPUTE);
  assert.equal(row.at(4), NONE); // runs, but got no tokens
  assert.deepEqual(row.marks[1], [3, "preempted", 4]);
});

test("a step in which a running request gets no tokens stays empty", () => {
  const story = smallStory();
  story.steps[3].d = [];
  assert.deepEqual(codes(phasesOf(story), 0, 5), [PREFILL, PREFILL, DECODE, NONE, DECODE]);
});

test("tokens of a step are told per request, 0 for one that waits", () => {
  const [a, b] = phasesOf(smallStory()).rows;
  assert.deepEqual([0, 1, 2, 5].map((i) => a.tokensAt(i)), [8, 2, 1, 0]);
  assert.deepEqual([0, 1, 2, 3, 5].map((i) => b.tokensAt(i)), [0, 2, 1, 0, 7]);
});

test("events stand on their row with their numbers, and the hit at the admission goes to the gutter", () => {
  const { rows } = phasesOf(smallStory());
  assert.deepEqual(rows[1].marks, [[1, "hit", 4], [3, "preempted", 4], [6, "failed", 2]]);
  assert.equal(rows[1].hit, 4);
  assert.deepEqual(rows[0].marks, [[4, "finished", 4]]);
  assert.deepEqual(rows[2].marks, [[4, "aborted", 0]]);
});

test("a hit found on the way back after a preemption is no hit at the admission", () => {
  const story = smallStory();
  story.steps[1].hit = [];
  story.steps[5].hit = [[1, 4]];
  assert.equal(phasesOf(story).rows[1].hit, null);
});

test("what is read as it comes is what is read at once", () => {
  const whole = smallStory();
  const live = { ...whole, requests: [], steps: [] };
  const phases = new TimelinePhases();
  for (let i = 0; i < 7; i++) {
    if (i === 0) live.requests.push(...whole.requests.slice(0, 2));
    if (i === 3) live.requests.push(whole.requests[2]); // its record came one step late
    live.steps.push(whole.steps[i]);
    if (i === 2) live.steps[2] = { ...whole.steps[2], w: [] };
    assert.equal(phases.grow(live), true);
  }
  assert.equal(phases.grow(live), false);
  const atOnce = phasesOf(whole);
  for (let r = 0; r < 3; r++) assert.deepEqual(codes(phases, r, 7), codes(atOnce, r, 7));
});

test("a request that still waits is seen to wait while steps come", () => {
  const story = smallStory();
  story.steps = story.steps.slice(0, 4);
  const phases = phasesOf(story);
  assert.equal(phases.rows[2].at(3), WAITING);
  assert.equal(phases.rows[1].at(3), LOST);
  assert.equal(phases.rows[1].at(4), NONE); // no such step yet
});

test("what is shown of a step lists who runs and who waits, with tokens", () => {
  const phases = phasesOf(smallStory());
  const rows = [[0, "decode", 1], [1, "decode", 1], [2, "waiting", 0]];
  assert.deepEqual(timelineShown(phases, 2), { rows, grows: [1] });
  assert.deepEqual(timelineShown(phases, 5).rows, [[1, "recompute", 7]]);
});

test("only those that compute are active", () => {
  const phases = phasesOf(smallStory());
  assert.deepEqual([0, 1, 3, 5].map((i) => phases.active(i)), [[0], [0, 1], [0], [1]]);
});

test("rows are 22 px up to 16 requests, 12 px up to 48, and pixels above, as high as the plot has room", () => {
  const heights = [1, 16, 17, 48, 49, 64, 100, 210, 211, 1000].map((n) => timelineLayout(1000, n).rowHeight);
  assert.deepEqual(heights, [22, 22, 12, 12, 5, 5, 4, 2, 1, 1]);
  assert.equal(timelineLayout(1000, 1000).rowsShown, 420);
  const { left, right } = timelineLayout(1000, 12);
  assert.deepEqual([left, right], [138, 946]);
  assert.equal(timelineLayout(1000, 64).left, 64);
});

test("an engine that shows no KV cache gets no KV strip", () => {
  assert.equal(timelineLayout(1000, 12, { hasKv: false }).kv, null);
  assert.equal(timelineLayout(1000, 12).height - timelineLayout(1000, 12, { hasKv: false }).height, 46);
});

test("steps are as wide as each other, as long as they took, or as many tokens as they computed", () => {
  const { steps } = smallStory();
  const axis = (kind) => {
    const made = new TimelineAxis(kind);
    made.grow(steps);
    return made;
  };
  assert.deepEqual(axis("step").ends, [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(axis("tokens").starts, [0, 8, 12, 14, 15, 16, 23]);
  steps[1].t = 5;
  steps[1].ms = [0, 1000, 0]; // the engine rested from 1 s to 4 s
  const time = axis("time");
  assert.deepEqual([time.starts[1], time.ends[1]], [4, 5]);
  assert.equal(time.stepAt(4.5), 1);
  assert.equal(time.stepAt(2), 1);
});

test("while steps are wider than a pixel each has its own place", () => {
  const axis = new TimelineAxis();
  axis.grow(smallStory().steps);
  const slots = timelineSlots(axis, [0, 7], 100, 70);
  assert.deepEqual(slots[2], { x0: 120, x1: 130, first: 2, last: 3 });
  assert.equal(slots.length, 7);
  assert.deepEqual(timelineSlots(axis, [2, 4], 100, 70).map(({ first }) => first), [2, 3]);
});

test("with more steps than pixels each step is in one column, and the column shows the rarest phase in it", () => {
  const axis = new TimelineAxis();
  axis.grow(smallStory().steps.concat(step(7)));
  const slots = timelineSlots(axis, [0, 8], 0, 4);
  assert.deepEqual(slots.map(({ first, last }) => [first, last]), [[0, 2], [2, 4], [4, 6], [6, 8]]);
  const pieces = timelinePieces(phasesOf(smallStory()).rows[1], slots);
  assert.deepEqual(pieces.map(({ code }) => code), [PREFILL, LOST, DECODE]);
  const order = [LOST, RECOMPUTE, PREFILL, GROW, DECODE, WAITING, NONE];
  assert.deepEqual([...order].sort((x, y) => y - x), order);
});

test("columns that one step covers are one place", () => {
  const axis = new TimelineAxis();
  axis.grow(smallStory().steps.slice(0, 2));
  const slots = timelineSlots(axis, [0, 2], 0, 6, true);
  assert.deepEqual(slots, [{ x0: 0, x1: 3, first: 0, last: 1 }, { x0: 3, x1: 6, first: 1, last: 2 }]);
});

test("where the engine rested there is no column", () => {
  const axis = new TimelineAxis("time");
  axis.grow([step(0, { ms: [0, 1000, 0] }), step(9, { ms: [0, 1000, 0] })]); // 0 to 1 s and 9 to 10 s
  assert.deepEqual(timelineSlots(axis, [0, 10], 0, 10, true).map(({ x0 }) => x0), [0, 9]);
});

test("a row is drawn as chunks one by one, and waiting or decoding in one piece", () => {
  const axis = new TimelineAxis();
  axis.grow(smallStory().steps);
  const slots = timelineSlots(axis, [0, 7], 0, 70);
  const { rows } = phasesOf(smallStory());
  const drawn = (row) => timelinePieces(row, slots).map(({ code, x0, x1 }) => [code, x0, x1]);
  assert.deepEqual(drawn(rows[0]), [[PREFILL, 0, 10], [PREFILL, 10, 20], [DECODE, 20, 50]]);
  assert.deepEqual(drawn(rows[1]), [
    [WAITING, 0, 10], [PREFILL, 10, 20], [DECODE, 20, 30], [LOST, 30, 50], [RECOMPUTE, 50, 60], [DECODE, 60, 70],
  ]);
});

test("a bar is broken where the engine rested", () => {
  const row = phasesOf(smallStory()).rows[0]; // decodes in steps 2, 3 and 4
  const slots = [{ x0: 0, x1: 10, first: 2, last: 3 }, { x0: 40, x1: 50, first: 3, last: 4 }];
  assert.deepEqual(timelinePieces(row, slots).map(({ x0, x1 }) => [x0, x1]), [[0, 10], [40, 50]]);
});

test("strips show the highest figure of a column, and leave out what the engine did not say", () => {
  const { steps } = smallStory();
  const slots = [{ first: 0, last: 3 }, { first: 3, last: 7 }];
  assert.deepEqual(timelineFullest(slots, steps), [0, 5]);
  assert.deepEqual(timelineHighest(slots, steps, ({ fig }) => fig.held), [5, 2]);
  assert.deepEqual(timelineHighest(slots, steps, ({ fig }) => fig.used), [null, null]);
});

test("tokens of a step stand on each other: decode, prefill, recompute; one of 8000 still has a pixel", () => {
  const slots = [{ x0: 0, x1: 10 }, { x0: 10, x1: 12 }];
  const bars = timelineBars(slots, [[400, 200, 100], [0, 1, 0]], { y: 12, h: 40 }, 800);
  assert.deepEqual(bars, [[[0, 22, 9, 20]], [[0, 42, 9, 10], [10, 51, 2, 1]], [[0, 17, 9, 5]]]);
});

test("the KV axis is cut at a round number when less than a quarter of the memory was ever used", () => {
  assert.equal(timelineKvEnd(5400, 34909), 6000);
  assert.equal(timelineKvEnd(4999, 20000), 6000);
  assert.equal(timelineKvEnd(5000, 20000), 20000);
  assert.equal(timelineKvEnd(0, 20), 20);
});

test("ticks stand in the middle of their step and carry the engine's number of it", () => {
  const steps = Array.from({ length: 50 }, (_, i) => step(100 + i));
  const axis = new TimelineAxis();
  axis.grow(steps);
  const ticks = [[0.5, 100], [10.5, 110], [20.5, 120], [30.5, 130], [40.5, 140]];
  assert.deepEqual(timelineTicks(axis, steps, [0, 50], 360), ticks);
});

test("ticks of the wall time carry as many digits as their distance needs", () => {
  const axis = new TimelineAxis("time");
  const labels = timelineTicks(axis, [], [0, 1], 360).map(([, label]) => label);
  assert.deepEqual(labels, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
});

test("zooming keeps the place under the pointer, and ends at all and at a few steps", () => {
  assert.deepEqual(timelineZoom(null, [0, 100], 2, 20, 5), [10, 60]);
  assert.equal(timelineZoom([10, 60], [0, 100], 0.5, 20, 5), null);
  assert.deepEqual(timelineZoom([10, 14], [0, 100], 2, 12, 5), [9.5, 14.5]);
});

test("dragging stops at both ends", () => {
  assert.deepEqual(timelinePan([10, 60], [0, 100], -30), [0, 50]);
  assert.deepEqual(timelinePan([10, 60], [0, 100], 70), [50, 100]);
});

test("the lens shows five rows and sixty steps on the side where the cursor is not", () => {
  const layout = timelineLayout(1000, 256);
  const lens = timelineLens(layout, 118, 190, 508, 400, 300);
  assert.deepEqual([lens.firstRow, lens.numRows, lens.firstStep, lens.numSteps], [116, 5, 160, 60]);
  assert.ok(lens.x > 500);
  assert.ok(timelineLens(layout, 118, 190, 508, 700, 300).x < 100);
  assert.deepEqual([timelineLens(layout, 255, 507, 508, 900, 400)].map((l) => [l.firstRow, l.firstStep]), [[251, 448]]);
});

test("the lens stays inside the rows, also of the smallest pixel picture", () => {
  const layout = timelineLayout(700, 49);
  const lens = timelineLens(layout, 48, 5, 10, 100, layout.bottom);
  assert.ok(lens.y >= layout.top && lens.y + lens.h <= layout.bottom);
  assert.equal(lens.numSteps, 10);
});

test("the pointer in the lens finds the request and the step that it shows", () => {
  const lens = timelineLens(timelineLayout(1000, 256), 118, 190, 508, 400, 300);
  const at = timelineLensAt(lens, lens.x + lens.labels + 1, lens.rowsY + lens.rowHeight + 1);
  assert.deepEqual(at, { request: 117, step: 160 });
  assert.deepEqual(timelineLensAt(lens, lens.x + 2, lens.y + 2), { request: null, step: null });
  assert.equal(timelineLensAt(lens, lens.x - 1, lens.y), null);
});

test("key t goes through steps, wall time and tokens", () => {
  assert.deepEqual(["step", "time", "tokens"].map(timelineNextAxis), ["time", "tokens", "step"]);
});

test("words of a step: tokens by phase, queue and memory", () => {
  const story = smallStory();
  assert.deepEqual(stepLines(story, 1), ["4 of 8 tokens: 4 prefill", "queue empty", "4 of 20 blocks held, 1 cached"]);
  assert.equal(stepLines(story, 3)[1], "2 requests wait");
  story.head = { kind: "cells", num_cells: 4096, token_budget: null };
  story.steps[1].fig = { used: 72 };
  assert.deepEqual(stepLines(story, 1), ["4 tokens: 4 prefill", "queue empty", "72 of 4\u2009096 cells used"]);
});

test("words of a request: its phase and what happens to it", () => {
  const story = smallStory();
  const phases = phasesOf(story);
  const lines = (r, i) => requestLines(story, phases, r, i);
  assert.deepEqual(lines(1, 1), ["prefill, 2 tokens (prompt: 2)", "4 tokens found in the prefix cache"]);
  assert.deepEqual(lines(1, 2), ["decode, 1 token, takes a new block"]);
  assert.deepEqual(lines(1, 3), ["waits after preemption, since step 3", "preempted, lost 4 blocks"]);
  assert.deepEqual(lines(2, 4), ["waits, since step 2", "aborted, 0 tokens out"]);
  assert.deepEqual(lines(2, 0), ["not there yet"]);
  assert.deepEqual(lines(0, 6), ["has ended"]);
});

test("the text twin tells the step and the selected request", () => {
  const story = smallStory();
  assert.equal(
    timelineSummary(story, phasesOf(story), 5, 1),
    "Batching timeline: 3 requests, 7 steps. Step 5: 7 of 8 tokens: 7 recompute; queue empty; " +
      "2 of 20 blocks held, 3 cached. b: recompute, 7 tokens.",
  );
});

test("the legend leaves out what the engine cannot do and what did not happen", () => {
  const words = (head, n, has) =>
    timelineLegendItems(head, timelineLayout(1000, n), new Theme(), has).map(([told]) => told);
  const cells = { kind: "cells", prefix_caching: false, token_budget: null };
  const nothing = { preempted: false, cut: false };
  assert.deepEqual(words(cells, 3, nothing), [
    "waiting", "prefill, fill = share of the fullest step", "decode, one token", "finished, tokens out", "cells used",
  ]);
  const all = words(smallStory().head, 3, { preempted: true, cut: true });
  for (const told of ["recompute", "preempted", "prefix hit", "stopped, failed", "held · cached"]) {
    assert.ok(all.includes(told), told);
  }
  assert.deepEqual(words(cells, 64, nothing), ["prefill", "decode", "waiting"]);
  assert.ok(words(smallStory().head, 64, { preempted: true, cut: false }).includes("decode, takes a new block"));
});

test("the columns of a request begin with the first that reaches it", () => {
  const slots = [
    { x0: 64, x1: 65, first: 0, last: 4 },
    { x0: 65, x1: 66, first: 4, last: 8 },
    { x0: 67, x1: 68, first: 8, last: 12 },
  ];
  const columns = timelineColumnArrays(slots, 64);
  assert.deepEqual([...columns.starts], [0, 1, 3]);
  assert.deepEqual([3, 4, 11, 12].map((i) => timelineColumnFrom(columns, i)), [0, 1, 2, 3]);
});

test("the phases of other clients are greys as light as their colours; what went wrong keeps its colour", () => {
  for (const isDark of [false, true]) {
    const theme = new Theme(isDark);
    theme.others = new Set([1]);
    assert.equal(theme.phasesOf(0), theme.phases);
    const others = theme.phasesOf(1);
    for (const name of ["prefill", "grow", "decode"]) {
      const [red, green, blue] = rgb(others[name]);
      assert.ok(red === green && green === blue);
      assert.ok(Math.abs(luminance(others[name]) - luminance(theme.phases[name])) < 0.005);
    }
    assert.equal(others.recompute, theme.phases.recompute);
  }
});

test("a name on any ground has a contrast of four and a half", () => {
  for (let v = 0; v < 256; v++) {
    const ground = `#${v.toString(16).padStart(2, "0").repeat(3)}`;
    const [dark, light] = [luminance(textOn(ground)), luminance(ground)].sort((a, b) => a - b);
    assert.ok((light + 0.05) / (dark + 0.05) >= 4.5, ground);
  }
});

test("recompute in pixels: columns side by side are one box with gaps, and a single pixel has none", () => {
  const found = [[0, 4, 5], [0, 5, 6], [0, 9, 10], [2, 6, 7]];
  const boxes = (rowHeight) => recomputeBoxes(found, { left: 64, top: 100, rowHeight });
  assert.deepEqual(boxes(5), [[68, 100, 2, 5], [73, 100, 1, 5], [70, 110, 1, 5]]);
  assert.deepEqual(boxes(1), [[68, 100, 2, 1]]);
});
