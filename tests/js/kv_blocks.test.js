/** The paged KV picture: where blocks stand, what is seen in them, and what is said about them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  blockBands, blockCorner, blockLooks, blockNameRuns, blockOverviewScale, blockUnder, blockWindow, blockWindowFor,
  blockWindowOutline, blocksLayout, overviewBlock, overviewPixels, slotColumns,
} from "../../llmlab/views/static/kv_blocks_geometry.js";
import { overviewWords, paintUnheld } from "../../llmlab/views/static/kv_blocks_grid.js";
import {
  blockRuns, blockTip, blocksLabel, chipRequests, memoryRows, ordinal, queueWords, quotation, sharingRows, tableWords,
  textsAt,
} from "../../llmlab/views/static/kv_blocks_text.js";
import { Story } from "../../llmlab/views/static/story.js";

const HEAD = {
  kind: "blocks", engine: "vLLM 0.26.0", source: "measured", block_size: 4, num_blocks: 6, first_block: 1, prefix_caching: true,
};
const step = (n, more) => ({ n, t: n, r: [], w: [], pre: [], fin: [], hit: [], say: [], fig: {}, ...more });
const lines = (tip) => tip.map((line) => line.map(([words]) => words).join(""));

/** r0 (6 prompt tokens) and r1 (5) share block 1; r0 is preempted in step 3 and comes back in step 4. */
function sharing(head = HEAD) {
  const story = new Story(head);
  story.addRequests([
    { name: "r0", prompt: 6, pieces: ["The", " sky", " is", " blue", " to", "day"] },
    { name: "r1", prompt: 5, pieces: null },
  ]);
  story.addSteps([
    step(0, { r: [[0, 0, 6, 0]], w: [1], x: [0, ","], kv: { a: [[0, [1, 2]]], c: [1], h: [3, 4] } }),
    step(1, { d: [0, 1], r: [[1, 0, 1, 4]], x: [0, " be", 1, "cause"], kv: { a: [[1, [1, 3]]], h: [4, 5] } }),
    step(2, { d: [0, 2], x: [0, "fore", 1, " of"], kv: { c: [2] } }),
    step(3, { d: [1, 1], x: [1, " the"], pre: [[0, 2, 8]], kv: { f: [[0, [2, 1]]], h: [4, 5, 6, 2] } }),
    step(4, { d: [1, 1], r: [[0, 2, 4, 4]], kv: { e: [2], a: [[0, [1, 2]]] } }),
    step(5, { d: [0, 2], fin: [[1, "length", 4]], kv: { f: [[1, [3, 1]]], a: [[0, [4]]], h: [5, 6, 3] } }),
  ]);
  return story;
}

// ---- where blocks stand

test("the number of blocks decides the level of detail", () => {
  const level = (count) => blocksLayout(700, count).level;
  assert.deepEqual([1, 64, 65, 600, 601, 4000, 4001, 100000].map(level), [
    "slots", "slots", "levels", "levels", "small", "small", "overview", "overview",
  ]);
});

test("slots: 7 columns from 560 px, 10 from 980, cells of at most 104 px", () => {
  const at = (width) => blocksLayout(width, 20, 1);
  const { columns, cell, cellHeight, pitchY, height } = at(678);
  assert.deepEqual([columns, cell, cellHeight, pitchY, height], [7, 85, 60, 88, 366]);
  assert.deepEqual([at(980).columns, at(980).cell], [10, 87]);
  assert.deepEqual([at(1230).columns, at(1230).cell, at(1230).cellHeight], [10, 104, 69]);
  assert.deepEqual([at(340).columns, at(340).cell], [5, 56]);
  assert.deepEqual([at(320).columns, at(320).cell], [4, 68]); // 5 would be too narrow for words
});

test("a block stands in the place of its id, and a point in it finds it", () => {
  const layout = blocksLayout(678, 20, 1);
  assert.deepEqual(blockCorner(layout, 1), [8, 118]);
  assert.deepEqual(blockCorner(layout, 8), [8, 206]);
  assert.deepEqual(blockCorner(layout, 20), [483, 294]);
  assert.equal(blockCorner(layout, 21), null);
  assert.equal(blockCorner(layout, 0), null); // vLLM's null block
  assert.equal(blockUnder(layout, 483, 294), 20);
  assert.equal(blockUnder(layout, 567.9, 353.9), 20);
  assert.equal(blockUnder(layout, 569, 300), null); // the gap beside it
  assert.equal(blockUnder(layout, 500, 290), null); // the line with its id
  assert.equal(blockUnder(layout, 600, 300), null); // there is no block 21
  assert.equal(blockUnder(layout, 2, 200), null);
});

test("grids take the largest cell that keeps them below 440 px", () => {
  const at = ({ columns, rows, cell, height }) => [columns, rows, cell, height];
  assert.deepEqual(at(blocksLayout(680, 256)), [20, 13, 27, 413]);
  assert.deepEqual(at(blocksLayout(680, 1000)), [39, 26, 14, 426]);
  assert.deepEqual(at(blocksLayout(680, 4000)), [57, 71, 10, 791]); // no cell is smaller than 10 px
});

test("the overview takes 2 px a block, then 1 px, then several blocks a pixel", () => {
  const at = (count) => {
    const { px, per, columns, rows, height } = blockOverviewScale(684, count);
    return [px, per, columns, rows, height];
  };
  assert.deepEqual(at(34909), [2, 1, 341, 103, 206]);
  assert.deepEqual(at(100000), [1, 1, 682, 147, 147]);
  assert.deepEqual(at(1000000), [1, 6, 682, 245, 245]);
  assert.equal(overviewWords(2, 1), "one 2×2 px square each");
  assert.equal(overviewWords(1, 6), "6 a pixel (held wins over cached, cached over free)");
});

test("below the overview stands a window of 40 x 9 cells of 17 to 20 px", () => {
  const layout = blocksLayout(684, 34909, 1);
  assert.deepEqual([layout.columns, layout.rows, layout.pitchX, layout.top, layout.height], [40, 9, 17, 284, 441]);
  assert.equal(blocksLayout(1280, 34909).pitchX, 20);
  assert.deepEqual(blockCorner(layout, 2761, 2721), [2, 301]);
  assert.equal(blockCorner(layout, 2720, 2721), null);
  assert.equal(blockCorner(layout, 3081, 2721), null);
  assert.equal(blockUnder(layout, 3, 302, 2721), 2761);
});

test("a point of the overview is a block; beside it there is none, or the nearest for who drags", () => {
  const layout = blocksLayout(684, 34909, 1);
  assert.equal(overviewBlock(layout, 1, 20), 1);
  assert.equal(overviewBlock(layout, 682.5, 21.5), 341);
  assert.equal(overviewBlock(layout, 1, 22), 342);
  assert.equal(overviewBlock(layout, 1, 19), null);
  assert.equal(overviewBlock(layout, 9999, 9999), null);
  assert.equal(overviewBlock(layout, 9999, 9999, true), 34909);
  assert.equal(overviewBlock(layout, -5, -5, true), 1);
});

test("the window has the block in its middle row, and ends with the last block", () => {
  const layout = blocksLayout(684, 34909, 1);
  assert.equal(blockWindow(layout, 2881), 2721);
  assert.equal(blockWindow(layout, 7), 1);
  assert.equal(blockWindow(layout, 34909), 34550);
});

test("the window follows the keyboard by as few rows as will do", () => {
  const layout = blocksLayout(684, 34909, 1);
  assert.equal(blockWindowFor(layout, 360, 1), 1);
  assert.equal(blockWindowFor(layout, 361, 1), 41);
  assert.equal(blockWindowFor(layout, 40, 41), 1);
  assert.equal(blockWindowFor(layout, 34909, 34540), 34550);
});

test("the window's outline in the overview: a box in one row, else a band with steps", () => {
  const layout = { first: 1, overview: { px: 2, per: 1, columns: 341, left: 1, top: 20 } };
  assert.deepEqual(blockWindowOutline(layout, 1, 5), [[1, 20], [11, 20], [11, 22], [1, 22]]);
  assert.deepEqual(blockWindowOutline(layout, 340, 350), [
    [679, 20], [683, 20], [683, 22], [19, 22], [19, 24], [1, 24], [1, 22], [679, 22],
  ]);
});

// ---- what is seen in them

test("a block shows its holders, its fill, and the slots that this step wrote", () => {
  const looks = blockLooks(sharing().stateAt(1), 1, 4);
  assert.deepEqual(looks, [
    { id: 1, holders: [[0, 0], [1, 0]], cached: true, fill: 4, writtenFrom: Infinity },
    { id: 2, holders: [[0, 1]], cached: false, fill: 3, writtenFrom: 2 },
    { id: 3, holders: [[1, 1]], cached: false, fill: 1, writtenFrom: 0 },
    { id: 4, holders: [], cached: false, fill: 0, writtenFrom: Infinity },
  ]);
});

test("what a preempted request left stays cached, and nobody holds it", () => {
  const [one, two] = blockLooks(sharing().stateAt(3), 1, 2);
  assert.deepEqual(one.holders, [[1, 0]]);
  assert.deepEqual(two, { id: 2, holders: [], cached: true, fill: 0, writtenFrom: Infinity });
});

test("holders are told in order of the requests, whoever came first, and the fill is that of the fullest", () => {
  assert.deepEqual(blockLooks(sharing().stateAt(4), 1, 1)[0].holders, [[0, 0], [1, 0]]); // r0 came back after r1
  const state = sharing().stateAt(4);
  state.tokens.set(0, 3);
  assert.equal(blockLooks(state, 1, 1)[0].fill, 4);
});

test("looks of a part are those of the whole, and agree with the state", () => {
  const state = sharing().stateAt(5);
  const all = blockLooks(state, 1, 6);
  assert.deepEqual(blockLooks(state, 2, 4), all.slice(1, 4));
  for (const look of all) {
    assert.deepEqual(look.holders, state.holders(look.id));
    assert.equal(look.fill, state.fill(look.id));
  }
});

test("a shared block has a band for each of 4 holders, of more for 3 and one for the rest", () => {
  const holders = (n) => Array.from({ length: n }, (_, r) => [r, 0]);
  assert.deepEqual(blockBands(holders(4)), [0, 1, 2, 3]);
  assert.deepEqual(blockBands(holders(5)), [0, 1, 2, null]);
});

test("slots stand 8 in a row while they are large enough to see", () => {
  assert.deepEqual([4, 16, 32, 64, 128, 512].map(slotColumns), [4, 8, 8, 8, 16, 32]);
});

test("a name stands where two or more blocks of one request begin or resume, never over a row's end", () => {
  const looks = [0, 0, 1, 2, 2, 2, 2, 3, null, null].map((r, k) => ({ id: k + 1, holders: r === null ? [] : [[r, k]] }));
  assert.deepEqual(blockNameRuns(looks, 6), [[1, 2], [4, 3]]);
  assert.deepEqual(blockNameRuns(looks, 100), [[1, 2], [4, 4]]);
});

test("in the overview held blocks are full squares, cached ones a checker, free ones a dot", () => {
  const state = { owner: [-1, 0, -1, -1, 1, -1, -1], cached: [0, 1, 1, 0, 0, 0, 0] };
  const [A, B, M, D, P] = [1, 2, 3, 4, 5];
  const colours = { owners: [A, B], mark: M, dot: D, paper: P };
  const layout = { first: 1, count: 6, overview: { px: 2, per: 1, columns: 3, rows: 2 } };
  assert.deepEqual([...overviewPixels(state, layout, colours)], [
    A, A, M, P, D, P, //
    A, A, P, M, P, P,
    B, B, D, P, D, P,
    B, B, P, P, P, P,
  ]);
});

test("of several blocks in a pixel held wins over cached, and cached over free", () => {
  const colours = { owners: [1, 2], mark: 3, dot: 4, paper: 5 };
  const layout = { first: 1, count: 6, overview: { px: 1, per: 2, columns: 3, rows: 1 } };
  const owner = [-1, -1, 0, -1, -1, -1, -1];
  assert.deepEqual([...overviewPixels({ owner, cached: [0, 1, 0, 0, 0, 0, 1] }, layout, colours)], [1, 5, 3]);
  assert.deepEqual([...overviewPixels({ owner, cached: [0, 0, 0, 0, 0, 0, 0] }, layout, colours)], [1, 5, 4]);
});

// ---- what is said

test("the label is the text twin's first two lines", () => {
  const story = sharing();
  story.steps[2].fig = { held: 17, shared: 3, cached: 3, free: 0, tokens: 1469, waste: 0.1379 };
  assert.equal(
    blocksLabel(story, 2),
    "KV cache · vLLM 0.26.0 · step 2 of 5\n17 of 6 blocks held (3 shared), 3 cached, 0 free; 1\u2009469 tokens, 13.8 % waste",
  );
  story.steps[3].fig = { held: null, shared: null, cached: null, free: null, tokens: null, waste: null };
  assert.equal(
    blocksLabel(story, 3).split("\n")[1], "– of 6 blocks held, – cached, – free; – tokens, – waste",
  );
});

test("the tooltip of a held block: its holders, their positions, and its text", () => {
  assert.deepEqual(lines(blockTip(sharing(), 1, 1)), [
    "Block #1 holds 4 of 4 tokens", "r0: logical 0, positions 0–3", "r1: logical 0, positions 0–3", "“The sky is blue”",
  ]);
  assert.deepEqual(lines(blockTip(sharing(), 2, 2)), [
    "Block #2 holds 4 of 4 tokens", "r0: logical 1, positions 4–7", "“today, be”",
  ]);
});

test("what the trace does not tell of a text is said", () => {
  assert.deepEqual(lines(blockTip(sharing(), 1, 3)), [
    "Block #3 holds 1 of 4 tokens", "r1: logical 1, position 4", "its text is not in the trace", "handed out in this step",
  ]);
  assert.equal(lines(blockTip(sharing(), 2, 3))[2], "“…cause”");
});

test("a block that is shared with somebody else's request has the text of one's own", () => {
  const story = sharing();
  [story.requests[0].pieces, story.requests[1].pieces] = [null, story.requests[0].pieces];
  assert.equal(lines(blockTip(story, 1, 1)).at(-1), "“The sky is blue”");
  story.requests[1].pieces = null;
  assert.equal(lines(blockTip(story, 1, 1)).at(-1), "its text is not in the trace");
});

test("the tooltip of a block that nobody holds: cached or free, and its place in the queue", () => {
  assert.deepEqual(lines(blockTip(sharing(), 3, 2)), [
    "Block #2 is cached: nobody holds it, a prefix hit can revive it", "4th in the free queue",
  ]);
  assert.deepEqual(lines(blockTip(sharing(), 3, 4)), ["Block #4 is free", "next to be handed out"]);
  assert.equal(lines(blockTip(sharing(), 4, 2)).at(-1), "handed out in this step: its cached prefix was evicted");
});

test("of many holders the tooltip names four", () => {
  const story = new Story(HEAD);
  story.addRequests(Array.from({ length: 6 }, (_, r) => ({ name: `r${r}`, prompt: 4, pieces: null })));
  const rows = [0, 1, 2, 3, 4, 5].map((r) => [r, 0, 4, 0]);
  story.addSteps([step(0, { r: rows, kv: { a: rows.map(([r]) => [r, [1]]) } })]);
  assert.deepEqual(lines(blockTip(story, 0, 1)).slice(4, 6), ["r3: logical 0, positions 0–3", "and 2 more requests"]);
});

test("texts: prompts by their pieces, outputs by the steps up to the cursor, else unknown", () => {
  const story = sharing();
  assert.deepEqual(textsAt(story, 5, 0, 4, 5), [" to", "day", ",", " be", "fore"]);
  assert.deepEqual(textsAt(story, 1, 0, 6, 4), [",", " be", null, null]);
  assert.deepEqual(textsAt(story, 5, 1, 3, 4), [null, null, "cause", " of"]);
});

test("outputs of a request that came before the trace began are not counted from its first step", () => {
  const story = sharing({ ...HEAD, start: { a: [[0, [5]]] } });
  assert.deepEqual(textsAt(story, 5, 0, 5, 3), ["day", null, null]);
});

test("a quotation shows spaces once, marks what is missing, and ends in time", () => {
  assert.equal(quotation([null, "a\n\n b", null, null]), "“…a b…”");
  assert.equal(quotation([null, null]), null);
  assert.equal(quotation(["x".repeat(300)]), `“${"x".repeat(160)}…”`);
});

test("a block table as runs of ids, in logical order", () => {
  assert.deepEqual(blockRuns([17, 6, 7, 8, 9, 3]), ["#17", "#6–9", "#3"]);
  assert.deepEqual(blockRuns([]), []);
});

test("a request without blocks: why", () => {
  const story = sharing();
  assert.deepEqual(tableWords(story, 0, 1), ["r1 holds no block", "waiting for its first block"]);
  assert.deepEqual(tableWords(story, 1, 1), ["Block table of r1", "5 tokens in 2 blocks, logical order"]);
  assert.deepEqual(tableWords(story, 3, 0), ["r0 holds no block", "preempted, waiting"]);
  assert.deepEqual(tableWords(story, 5, 1), ["r1 holds no block", "finished"]);
  story.steps[3].w = [0]; // who was preempted stands in the queue, too
  assert.deepEqual(tableWords(story, 3, 0), ["r0 holds no block", "preempted, waiting"]);
});

test("the free queue: cached blocks are marked, an empty one has a price, an untold one is not empty", () => {
  const story = sharing();
  assert.deepEqual(queueWords(story.stateAt(3), { free: 3, cached: 1 }), {
    list: "#4  #5  #6  #2\u2009c", note: "c = still cached; evicted when reused",
  });
  assert.deepEqual(queueWords(story.stateAt(1), { free: 3, cached: 0 }), { list: "#4  #5", note: null });
  const none = { nextOut: [], cached: [] };
  assert.equal(queueWords(none, { free: 0, cached: 0 }).note, "empty: the next block costs a preemption");
  assert.equal(queueWords(none, { free: 3, cached: 0 }).note, "– (not told at this step)");
  assert.equal(queueWords(none, {}).note, "– (not told at this step)");
  const long = { nextOut: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], cached: [] };
  assert.equal(queueWords(long, {}).list, "#1  #2  #3  #4  #5  #6  #7  #8  #9 …");
});

test("up to 40 requests have a chip each; of more, those that hold blocks, and the selected one", () => {
  const story = { requests: new Array(41).fill({}) };
  const state = (...holding) => ({ tables: new Map(holding.map((r) => [r, [1]])) });
  assert.deepEqual(chipRequests({ requests: [{}, {}] }, state(1), null), { shown: [0, 1], words: null });
  assert.deepEqual(chipRequests(story, state(9, 3), 40), { shown: [3, 9, 40], words: "2 of 41 requests hold blocks" });
  const many = chipRequests(story, state(...Array(41).keys()), null);
  assert.equal(many.shown.length, 40);
  assert.equal(many.words, "41 of 41 requests hold blocks, 40 are shown");
});

test("figures that are not known are dashes", () => {
  const known = { tokens: 1469, waste: 0.138, running: 7, reserved: 1344, total_slots: 640 };
  assert.deepEqual(memoryRows(known, HEAD), [
    ["tokens held", "1\u2009469", "measured"],
    ["waste in last blocks", "13.8 %", "measured"],
    ["7 running, contiguous", "210 %", "simulated"],
  ]);
  const rows = [...memoryRows({ tokens: null, waste: null, running: 1, reserved: null }, HEAD), ...sharingRows({}, HEAD)];
  assert.deepEqual(rows.map(([, figure]) => figure), ["–", "–", "–", "–", "–", "–"]);
  assert.deepEqual(sharingRows({ hits: 0 }, HEAD)[2], ["prefix-hit tokens so far", "0", "reported"]);
  assert.equal(sharingRows({ hits: 8 }, { source: "simulated" })[2][2], "simulated");
});

test("places in a row", () => {
  assert.deepEqual([1, 2, 3, 4, 11, 12, 13, 22].map(ordinal), ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "22nd"]);
});

test("cached cells of a row are drawn in one piece, whatever is held between them; free ones up to the next that is held", () => {
  const layout = { first: 0, last: 7, columns: 4, rows: 2, cell: 8, pitchX: 10, pitchY: 10, left: 0, top: 0 };
  const look = (kind, id) => ({ id, holders: kind === "held" ? [[0, 0]] : [], cached: kind === "cached" });
  const looks = ["cached", "held", "cached", "free", "held", "free", "held", "free"].map(look);
  const drawn = [];
  const g = { drawImage: (strip, sx, sy, sw, sh, x, y, w) => drawn.push([strip, x, y, w]) };
  const rowsOfCells = { cached: { strip: "cached", scale: 1 }, free: { strip: "free", scale: 1 } };
  paintUnheld(g, { layout, from: 0, looks, rowsOfCells });
  assert.deepEqual(drawn, [["cached", 0, 0, 28], ["free", 30, 0, 8], ["free", 10, 10, 8], ["free", 30, 10, 8]]);
});
