import assert from "node:assert/strict";
import { test } from "node:test";

import {
  capsuleBands, capsuleLabels, cellBeside, cellCapsules, cellCorner, cellKind, cellRuns, cellUnder, cellsByRequest,
  cellsEnd, cellsGrid, cellsLevel, cellsOverview, cellsOverviewCell, cellsWindow, dotCells, holderAfter,
} from "../../llmlab/views/static/kv_cells_geometry.js";
import { cellChipRequests } from "../../llmlab/views/static/kv_cells_panel.js";
import {
  CellTexts, cellBarParts, cellChipWords, cellNames, cellPanelRows, cellTip, cellsTwin,
} from "../../llmlab/views/static/kv_cells_words.js";
import { Story } from "../../llmlab/views/static/story.js";

const HEAD = {
  kind: "cells", num_cells: 16, engine: "llama.cpp 0.5.0", source: "measured", cell_source: "raw", prefix_caching: true,
};

/** a (0) and b (1) share 4 cells; both end and are kept; c (2) shares 6 cells of a, and b is evicted. */
function sharing() {
  const story = new Story(HEAD);
  story.addRequests([
    { name: "a", prompt: 5, arrival: 0, pieces: ["The", " sky", " is", " blue", "?"] },
    { name: "b", prompt: 5, arrival: 0.5, pieces: null },
    { name: "c", prompt: 7, arrival: 3.5, pieces: null },
  ]);
  const rest = { pre: [], hit: [], w: [] };
  const step = (n, d, r, kv, fin = [], x = []) => ({ n, t: n + 1, d, r, fin, x, kv: { att: 12, head: n, ...kv }, ...rest });
  story.addSteps([
    step(0, [], [[0, 0, 5, 0]], { w: [[0, 0, 0, 5]] }, [], [0, " Be"]),
    step(1, [0, 1], [[1, 0, 1, 4]], { s: [[1, 0, 4]], w: [[0, 5, 5, 1], [1, 6, 4, 1]] }, [], [0, "cause", 1, "X"]),
    step(2, [0, 2], [], { w: [[0, 7, 6, 1], [1, 8, 5, 1]] }, [[0, "length", 3], [1, "length", 2]], [0, "\n", 1, "Y"]),
    step(3, [], [[2, 0, 1, 6]], { f: [[1, 0, 4], [1, 6, 1], [1, 8, 1]], s: [[2, 0, 6]], w: [[2, 9, 6, 1]] }),
  ]);
  return story;
}

const named = (request) => "abc"[request];
const none = () => false;

test("a run is cells in a row, of the same sequences, at positions in a row", () => {
  assert.deepEqual(cellRuns(sharing().stateAt(1)), [
    { first: 0, n: 4, position: 0, holders: [0, 1] },
    { first: 4, n: 2, position: 4, holders: [0] },
    { first: 6, n: 1, position: 4, holders: [1] },
  ]);
});

test("a jump in the positions of one sequence ends a run", () => {
  const state = { position: [0, 1, 5, 6], holders: [[3], [3], [3], [3]] };
  assert.deepEqual(cellRuns(state).map(({ first, n, position }) => [first, n, position]), [[0, 2, 0], [2, 2, 5]]);
});

test("an empty cell between two runs is in neither", () => {
  const state = { position: [0, -1, 1], holders: [[0], null, [0]] };
  assert.deepEqual(cellRuns(state).map(({ first, n }) => [first, n]), [[0, 1], [2, 1]]);
});

test("a run is cut at the end of a row, and its parts know that it goes on", () => {
  const run = { first: 6, n: 12, position: 100, holders: [2] };
  assert.deepEqual(cellCapsules([run], 8), [
    { first: 6, n: 2, position: 100, holders: [2], from: false, on: true },
    { first: 8, n: 8, position: 102, holders: [2], from: true, on: true },
    { first: 16, n: 2, position: 110, holders: [2], from: true, on: false },
  ]);
});

test("rows of a window that begins later are cut at its own row ends", () => {
  const cut = cellCapsules([{ first: 9, n: 6, position: 0, holders: [0] }], 8, 4);
  assert.deepEqual(cut.map(({ first, n }) => [first, n]), [[9, 3], [12, 3]]);
});

test("empty cells are holes up to the last used one, padding up to the end of what is read, then not read", () => {
  const state = sharing().stateAt(3); // b gave cells 6 and 8 back; cell 9 is the last used one; 12 are read
  const end = cellsEnd(state);
  assert.equal(end, 10);
  assert.deepEqual([5, 6, 8, 9, 10, 11, 12, 15].map((c) => cellKind(state, c, end)), [
    "used", "hole", "hole", "used", "padding", "padding", "unread", "unread",
  ]);
});

test("a sequence's runs are neighbouring cells, whatever else holds them", () => {
  const state = sharing().stateAt(2);
  const held = cellsByRequest(state, cellsEnd(state));
  assert.deepEqual([held.get(0).cells, held.get(0).runs], [7, 2]); // 0-5 and 7
  assert.deepEqual([held.get(1).cells, held.get(1).runs], [6, 3]); // 0-3, 6, 8
  assert.equal(held.get(2), undefined);
});

test("labels of a capsule go from long to short and tell kept cells by a word", () => {
  const own = { first: 0, n: 50, position: 104, holders: [2] };
  assert.deepEqual(capsuleLabels(own, named, none), ["c 104–153", "c"]);
  assert.deepEqual(capsuleLabels(own, named, (r) => r === 2), ["c kept 104–153", "c kept", "c"]);
  assert.deepEqual(capsuleLabels({ n: 1, position: 9, holders: [0] }, named, none), ["a 9", "a"]);
});

test("labels of shared cells count the sequences, and those that are only kept", () => {
  const shared = { n: 64, position: 0, holders: [0, 1, 2] };
  assert.deepEqual(capsuleLabels(shared, named, none), ["×3 sequences, positions 0–63", "×3"]);
  assert.equal(capsuleLabels(shared, named, (r) => r < 2)[0], "×3 sequences, 2 kept, positions 0–63");
});

test("shared cells have a band a sequence; what is thinner than 3 px is one band together", () => {
  assert.deepEqual(capsuleBands([4, 5], 20), [[4, 0, 10], [5, 10, 10]]);
  assert.deepEqual(capsuleBands([0, 1, 2, 3, 4], 9), [[0, 0, 3], [1, 3, 3], [null, 6, 3]]);
});

test("64 cells a row, 32 in a narrow picture, 128 small ones above 4 096 cells", () => {
  assert.equal(cellsGrid(1024, 686).columns, 64);
  assert.equal(cellsGrid(1024, 590).columns, 32);
  assert.deepEqual([cellsGrid(4096, 686).columns, cellsGrid(4096, 686).level], [64, "labels"]);
  const small = cellsGrid(4352, 686);
  assert.deepEqual([small.columns, small.cellHeight, small.level], [128, 8, "bars"]);
  assert.deepEqual([cellsLevel(16384), cellsLevel(16640)], ["bars", "overview"]);
});

test("cells are 20 to 26 px high and 6 px apart", () => {
  assert.deepEqual([cellsGrid(1024, 686).cellHeight, cellsGrid(1024, 686).pitch], [20, 26]);
  assert.equal(cellsGrid(1024, 2000).cellHeight, 26);
});

test("rows that nothing ever read are cut off a long picture, and counted", () => {
  const long = cellsGrid(4096, 686, { reach: 1536 }); // 24 rows read, 2 more are shown
  assert.deepEqual([long.rows, long.last, long.cut], [26, 1664, 2432]);
  const short = cellsGrid(1024, 686, { reach: 256 });
  assert.deepEqual([short.rows, short.cut], [16, 0]);
  assert.equal(cellsGrid(4096, 686).cut, 0);
});

test("the cell under a point is the one that is drawn there", () => {
  const grid = cellsGrid(1024, 690); // cells of 10 x 20 px from (34, 26) on, rows 26 px apart
  assert.deepEqual(cellCorner(grid, 0), [34, 26]);
  assert.deepEqual(cellCorner(grid, 66), [54, 52]);
  assert.equal(cellUnder(grid, 55, 60), 66);
  assert.equal(cellUnder(grid, 33, 60), null); // the row number
  assert.equal(cellUnder(grid, 675, 60), null); // right of the grid
  assert.equal(cellUnder(grid, 55, 25), null); // above it
});

test("places of the last row without a cell are no cell", () => {
  const grid = cellsGrid(70, 690);
  assert.equal(cellUnder(grid, 34 + 5 * 10 + 1, 55), 69);
  assert.equal(cellUnder(grid, 34 + 6 * 10 + 1, 55), null);
});

test("arrows move by a cell and by a row, and stay inside", () => {
  const grid = cellsGrid(1024, 690);
  assert.equal(cellBeside(grid, 70, "ArrowLeft"), 69);
  assert.equal(cellBeside(grid, 70, "ArrowDown"), 134);
  assert.equal(cellBeside(grid, 70, "ArrowUp"), 6);
  assert.equal(cellBeside(grid, 6, "ArrowUp"), 6);
  assert.equal(cellBeside(grid, 1023, "ArrowRight"), 1023);
  const cut = cellsGrid(4096, 690, { reach: 1536 });
  assert.equal(cellBeside(cut, 1663, "ArrowDown"), 1663); // what is not drawn gets no focus
});

test("clicks on a shared cell select its sequences one after the other, then none", () => {
  assert.equal(holderAfter([1, 4], null), 1);
  assert.equal(holderAfter([1, 4], 7), 1);
  assert.equal(holderAfter([1, 4], 1), 4);
  assert.equal(holderAfter([1, 4], 4), null);
  assert.equal(holderAfter(null, 4), null);
});

test("an overview takes 2 px a cell, 1 px when that is too high, then several cells a dot", () => {
  const roomy = cellsOverview(32768, 698); // 640 px: 320 dots a row
  assert.deepEqual([roomy.size, roomy.each, roomy.columns, roomy.rows], [2, 1, 320, 103]);
  const tight = cellsOverview(131072, 698);
  assert.deepEqual([tight.size, tight.each, tight.columns, tight.rows], [1, 1, 640, 205]);
  const many = cellsOverview(262144, 698); // 166 400 dots fit
  assert.deepEqual([many.size, many.each, many.height], [1, 2, 205]);
});

test("a point of the overview leads to its cell, a point outside to the nearest one", () => {
  const overview = cellsOverview(32768, 698);
  assert.equal(cellsOverviewCell(overview, 42 + 21, 26 + 5), 2 * 320 + 10);
  assert.equal(cellsOverviewCell(overview, -50, -50), 0);
  assert.equal(cellsOverviewCell(overview, 9999, 9999), 32767);
});

test("the window is whole rows around a cell and stays inside the pool", () => {
  assert.equal(cellsWindow(10_000, 32768, 64), 9728); // row 156, four rows before it
  assert.equal(cellsWindow(3, 32768, 64), 0);
  assert.equal(cellsWindow(32767, 32768, 64), 32768 - 8 * 64);
});

test("a dot of several cells shows a used one, if there is any", () => {
  const state = { holders: [null, [1], null, null, [2]] };
  assert.deepEqual([...dotCells(state, { numCells: 5, each: 2 })], [1, 2, 4]);
});

test("a tooltip tells position, sequences and text; a line feed is a sign", () => {
  const story = sharing();
  const texts = new CellTexts(story);
  const words = (i, cell) => {
    const state = story.stateAt(i);
    const isKept = (r) => !state.tokens.has(r);
    return cellTip(state, cell, cellsEnd(state), { name: named, isKept, text: (r, p) => texts.at(r, p) });
  };
  const head = "The search for free cells starts here.";
  assert.deepEqual(words(1, 1), ["Cell 1", "×2: a and b, position 1", "“ sky”", head]);
  assert.deepEqual(words(1, 5), ["Cell 5", "a, position 5", "“ Be”", "written in this step"]);
  assert.deepEqual(words(3, 7), ["Cell 7", "a, position 6", "“cause”", "kept: a ended, the KV can still be shared"]);
  assert.equal(words(3, 6)[0], "Cell 6: hole");
  assert.equal(words(3, 11)[0], "Cell 11: padding");
  assert.equal(words(3, 15)[0], "Cell 15: not read");
});

test("texts of a request that came before the trace are unknown, and so are those nobody told", () => {
  const story = new Story({ ...HEAD, start: { att: 4, w: [[0, 0, 0, 2]] } });
  story.addRequests([{ prompt: 2 }, { prompt: 2, pieces: null }, { prompt: null }]); // 0 held cells at the start
  story.addSteps([{ n: 0, d: [], r: [], pre: [], fin: [], x: [0, "x", 1, "y", 2, "z"] }]);
  const texts = new CellTexts(story);
  assert.equal(texts.at(0, 2), null);
  assert.deepEqual([0, 2, 3].map((position) => texts.at(1, position)), [null, "y", null]);
  assert.equal(texts.at(2, 0), null);
});

test("texts that come later are found later", () => {
  const story = sharing();
  const texts = new CellTexts(story);
  assert.equal(texts.at(2, 7), null);
  story.addSteps([{ n: 4, d: [], r: [], pre: [], fin: [], x: [2, "!"] }]);
  assert.equal(texts.at(2, 7), "!");
});

test("figures of the panel come from the step; what is unknown is a dash", () => {
  const fig = { read: 768, masked: 146, holes: 134, shared: 72, saved: 432, hits: 96 };
  const rows = cellPanelRows(fig, HEAD, { name: "r3", runs: 33 });
  assert.deepEqual(rows.attention, [
    ["cells read each step", "768", "measured"],
    ["of them masked", "146 (19 %)", "measured"],
    ["holes", "134", "measured"],
    ["runs of r3", "33", "measured"],
  ]);
  assert.deepEqual(rows.sharing.map((row) => row[1]), ["72", "432", "96"]);
  assert.deepEqual(cellPanelRows({}, HEAD, null).attention.map((row) => row[1]), ["–", "–", "–"]);
});

test("cells that nobody read from the engine are predicted, not measured", () => {
  const rows = cellPanelRows({ read: 256 }, { ...HEAD, cell_source: "predicted" }, null);
  assert.deepEqual(rows.attention.map((row) => row[2]), ["predicted", "predicted", "predicted"]);
});

test("an engine without prefix cache has no rows about sharing", () => {
  assert.deepEqual(cellPanelRows({ shared: 0 }, { ...HEAD, prefix_caching: false }, null).sharing, []);
});

test("the bar is used, holes, padding, not read, in this order", () => {
  assert.deepEqual(cellBarParts({ unread: 256, used: 622, padding: 12, holes: 134 }), [
    [622, "used"], [134, "holes"], [12, "padding"], [256, "not read"],
  ]);
});

test("the text twin says engine, step and what the cells are", () => {
  const fig = { used: 622, shared: 72, holes: 134, padding: 12, unread: 256, read: 768 };
  assert.equal(
    cellsTwin({ ...HEAD, num_cells: 1024 }, { n: 26, fig }, { n: 111 }),
    "KV cache · llama.cpp 0.5.0 · step 26 of 111\n" +
      "622 of 1\u2009024 cells used (72 shared), 134 holes, 12 padding, 256 not read; attention reads 768",
  );
});

test("a chip says how many cells a request holds, and when they are only kept", () => {
  assert.equal(cellChipWords("r0", { cells: 170 }, true, ""), "r0 · 170");
  assert.equal(cellChipWords("r0", { cells: 57 }, false, "done"), "r0 · 57 kept");
  assert.equal(cellChipWords("r0", undefined, false, "waiting"), "r0 · waiting");
});

test("of very many requests those that hold cells or are selected get a chip", () => {
  const held = new Map([[90, { cells: 1 }]]);
  assert.deepEqual(cellChipRequests(100, held, (r) => r === 50, 70, 4), [0, 50, 70, 90]);
  assert.deepEqual(cellChipRequests(3, held, none, null, 4), [0, 1, 2]);
});

test("a long list of names ends with a count", () => {
  assert.equal(cellNames(["a"]), "a");
  assert.equal(cellNames(["a", "b", "c"]), "a, b and c");
  assert.equal(cellNames(["a", "b", "c", "d"], 2), "a, b and 2 more");
});
