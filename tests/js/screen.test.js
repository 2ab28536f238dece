/** What is on screen of very much: zoom and windows of the KV pictures, the range of a long timeline, "go to". */

import assert from "node:assert/strict";
import { test } from "node:test";

import { goToAsked, goToStep } from "../../llmlab/views/static/go_to.js";
import { blockNear, blocksLayout } from "../../llmlab/views/static/kv_blocks_geometry.js";
import { BlocksZoom } from "../../llmlab/views/static/kv_blocks_zoom.js";
import { CellsScreen } from "../../llmlab/views/static/kv_cells_screen.js";
import { zoomOfKey } from "../../llmlab/views/static/kv_pointer.js";
import { endNotice } from "../../llmlab/views/static/notice.js";
import { TimelineMost } from "../../llmlab/views/static/timeline_most.js";
import { rangeAround, rangeDragged } from "../../llmlab/views/static/timeline_range.js";
import { subtitle } from "../../llmlab/views/static/view.js";

const STATE = { ringHead: 0, written: new Set() };

test("zooming in goes through the levels of detail and keeps the block where the pointer is", () => {
  const zoom = new BlocksZoom(1, 20000);
  zoom.by(1, 10001, 0.5);
  assert.deepEqual(zoom.shown, { first: 8001, count: 4000 });
  for (let k = 0; k < 6; k++) zoom.by(1, 10001, 0.5);
  assert.deepEqual(zoom.shown, { first: 9969, count: 64 });
  for (let k = 0; k < 9; k++) zoom.by(1, 10001, 0.5);
  assert.equal(zoom.shown.count, 16);
  for (let k = 0; k < 9; k++) zoom.by(-1, 10001, 0.5);
  assert.deepEqual([zoom.isOn, zoom.shown], [false, { first: 1, count: 20000 }]);
});

test("a zoomed picture stays among the blocks, and moves by whole rows to a block that is to be seen", () => {
  const zoom = new BlocksZoom(1, 100);
  zoom.by(1, 100, 0);
  assert.deepEqual(zoom.shown, { first: 37, count: 64 });
  zoom.moveTo(-5);
  assert.equal(zoom.shown.first, 1);
  zoom.reach(66, 7);
  assert.equal(zoom.shown.first, 8);
  zoom.reach(70, 7);
  assert.equal(zoom.shown.first, 8); // it is there already
  zoom.reach(3, 7);
  assert.equal(zoom.shown.first, 1);
  assert.match(zoom.words(), /^Blocks #1–#64 of 100: /);
  zoom.off();
  assert.equal(zoom.words(), "");
});

test("what is not zoomed cannot be moved", () => {
  const zoom = new BlocksZoom(0, 50);
  zoom.moveTo(20);
  assert.deepEqual(zoom.shown, { first: 0, count: 50 });
});

test("the block nearest to a point, also beside the grid", () => {
  const layout = blocksLayout(700, 64, 1);
  assert.equal(blockNear(layout, -10, -10), 1);
  assert.equal(blockNear(layout, layout.left + layout.pitchX + 1, layout.top + layout.pitchY + 1), 1 + layout.columns + 1);
  assert.equal(blockNear(layout, 9999, 9999), 64);
});

test("cells: each level of zoom halves the row, with the same cell in the same row of the picture", () => {
  const screen = new CellsScreen(1024);
  screen.layout(1000, STATE, 1024);
  assert.deepEqual([screen.grid.columns, screen.grid.first, screen.grid.last], [64, 0, 1024]);
  screen.zoomBy(1, 200); // in row 3
  screen.layout(1000, STATE, 1024);
  assert.deepEqual([screen.grid.columns, screen.grid.first], [32, 96]);
  assert.equal(Math.floor((200 - screen.grid.first) / screen.grid.columns), 3);
  assert.equal(screen.pan(96, 2), true);
  screen.layout(1000, STATE, 1024);
  assert.equal(screen.grid.first, 160);
  assert.equal(screen.pan(160, 0), false);
  screen.zoomBy(0, 0);
  screen.layout(1000, STATE, 1024);
  assert.deepEqual([screen.grid.columns, screen.grid.first], [64, 0]);
});

test("very many small cells get labels when they are zoomed, and go in as far as 16 a row", () => {
  const screen = new CellsScreen(8192);
  screen.layout(1000, STATE, 8192);
  assert.deepEqual([screen.grid.level, screen.grid.columns], ["bars", 128]);
  for (const columns of [64, 32, 16, 16]) {
    screen.zoomBy(1, 4000);
    screen.layout(1000, STATE, 8192);
    assert.deepEqual([screen.grid.level, screen.grid.columns], ["labels", columns]);
    assert.ok(screen.grid.first <= 4000 && 4000 < screen.grid.last);
  }
});

test("below an overview the window follows what is written until somebody moves it", () => {
  const screen = new CellsScreen(32768);
  const at = (cell) => screen.layout(1000, { ringHead: 0, written: new Set([cell]) }, 32768);
  at(20000);
  assert.ok(screen.grid.first <= 20000 && 20000 < screen.grid.last);
  at(5000);
  assert.ok(screen.grid.first <= 5000 && 5000 < screen.grid.last);
  screen.moveTo(30000);
  at(5000);
  assert.ok(screen.grid.first <= 30000 && 30000 < screen.grid.last);
});

test("keys of the zoom", () => {
  assert.deepEqual(["+", "=", "-", "0", "a"].map(zoomOfKey), [1, 1, -1, 0, undefined]);
});

test("a long run begins with 10,000 steps around the cursor", () => {
  assert.deepEqual(rangeAround(0, 12000), [0, 10000]);
  assert.deepEqual(rangeAround(6000, 12000), [1000, 11000]);
  assert.deepEqual(rangeAround(11999, 12000), [2000, 12000]);
});

test("the range is dragged whole, or by one of its ends, and stays inside the run", () => {
  assert.deepEqual(rangeDragged([1000, 3000], 10000, "whole", 0.2, 0.3), [2000, 4000]);
  assert.deepEqual(rangeDragged([1000, 3000], 10000, "whole", 0.2, 2), [8000, 10000]);
  assert.deepEqual(rangeDragged([1000, 3000], 10000, "first", 0.1, 0.15), [1500, 3000]);
  assert.deepEqual(rangeDragged([1000, 3000], 10000, "first", 0.1, 0.9), [2940, 3000]);
  assert.deepEqual(rangeDragged([1000, 3000], 10000, "last", 0.3, 0), [1000, 1060]);
});

test("the scales of the strips take the largest figures of the steps, whether they come at once or not", () => {
  const step = (tokens, nw, held, cached, fin = []) => ({ u: [tokens, 1, 0], nw, pre: [], fin, fig: { held, cached } });
  const most = new TimelineMost();
  const steps = [step(4, 2, 5, 1)];
  most.grow(steps);
  steps.push(step(2, 0, 3, 6, [[0, "abort", 3]]));
  most.grow(steps);
  assert.deepEqual([most.tokens, most.waiting, most.kv, most.preempted, most.cut], [5, 2, 9, 0, 1]);
});

test("what is typed after g is a step, or a place with its sign", () => {
  assert.deepEqual(goToAsked(" 26 "), { step: 26 });
  assert.deepEqual(goToAsked("#12"), { place: 12 });
  assert.deepEqual(goToAsked("# 12"), { place: 12 });
  for (const typed of ["", "two", "-3", "1.5", "#"]) assert.equal(goToAsked(typed), null);
});

test("a step goes by the engine's number, and one that is not there is told with those that are", () => {
  const steps = [{ n: 7 }, { n: 8 }, { n: 9 }];
  assert.deepEqual(goToStep(steps, 8), [1, null]);
  assert.deepEqual(goToStep(steps, 12), [null, "No step 12: they go from 7 to 9."]);
});

test("an engine that died has a box above its pictures, a trace that was cut has none", () => {
  const steps = [{ n: 40 }];
  const died = endNotice({ head: { engine: "vLLM 0.26.0", incident: { kind: "died" } }, steps });
  assert.deepEqual([died.title, died.isError], ["vLLM 0.26.0 died at step 41", true]);
  assert.equal(endNotice({ head: { incident: { kind: "cut" } }, steps }), null);
  assert.equal(endNotice({ head: {}, steps }), null);
});

test("beside the title stands the room of the cache, and what nobody measured is named", () => {
  const head = { engine: "llama.cpp", model: "m", dtype: null, device: "cpu", source: "simulated" };
  assert.equal(
    subtitle({ ...head, kind: "cells", num_cells: 4096 }),
    "llama.cpp · m · cpu · 4\u2009096 cells · simulated",
  );
  assert.equal(
    subtitle({ ...head, source: "measured", kind: "blocks", num_blocks: 1024, block_size: 16 }),
    "llama.cpp · m · cpu · 1\u2009024 blocks of 16 tokens",
  );
});
