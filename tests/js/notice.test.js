import assert from "node:assert/strict";
import { test } from "node:test";

import { whenGone } from "../../llmlab/views/static/gone.js";
import { goneNotice, noKvNotice, noticeTitle, nothingRanNotice } from "../../llmlab/views/static/notice.js";

test("an error begins with a cross, anything else does not", () => {
  assert.equal(noticeTitle("Engine q4 died at step 41: SIGSEGV", true), "✕ Engine q4 died at step 41: SIGSEGV");
  assert.equal(noticeTitle("Nothing has run yet", false), "Nothing has run yet");
});

test("before the first step the box says how much room is free, in the engine's own unit", () => {
  assert.equal(nothingRanNotice({ kind: "blocks", num_blocks: 20 }).why, "The engine is loaded; its 20 blocks are free.");
  assert.equal(
    nothingRanNotice({ kind: "cells", num_cells: 4096 }).why,
    "The engine is loaded; its 4\u2009096 cells are free.",
  );
});

test("room that was in use before the trace began is not called free", () => {
  const why = nothingRanNotice({ kind: "cells", num_cells: 256, start: { att: 256 } }).why;
  assert.equal(why, "The engine is loaded; no step was recorded yet.");
});

test("room that nobody told is not called 0", () => {
  assert.equal(nothingRanNotice({ kind: "none" }).why, "The engine is loaded; no step was recorded yet.");
  assert.equal(nothingRanNotice({ kind: "blocks", num_blocks: null }).why, "The engine is loaded; no step was recorded yet.");
});

test("an engine without KV says its name and the line that loads one that shows it", () => {
  const { why, command } = noKvNotice({ kind: "none", engine: "vLLM 0.32.0" });
  assert.match(why, /^vLLM 0\.32\.0 tells tokens and times/);
  assert.equal(command, "%llm load smollm2-135m -e vllm");
  assert.match(noKvNotice({ kind: "none", engine: "" }).why, /^The engine tells/);
});

test("a view whose kernel is gone says what was the last to come, and does not promise to look through nothing", () => {
  assert.equal(goneNotice("step 115").title, "The kernel is gone: frozen at step 115");
  assert.match(goneNotice("step 115").why, /^This is the last that came; it can still be looked through\. Restart/);
  assert.equal(goneNotice("").title, "The kernel is gone");
  assert.match(goneNotice("").why, /^Nothing had come\. Restart/);
});

test("a kernel that is gone stays gone, however often Jupyter tells it", () => {
  const heard = new Set();
  const model = { on: (name, f) => heard.add(f), off: (name, f) => heard.delete(f) };
  let count = 0;
  const stop = whenGone(model, () => count++);
  for (let k = 0; k < 3; k++) for (const f of heard) f(); // each restart, also of a kernel that had died
  assert.equal(count, 1);
  stop();
  assert.equal(heard.size, 0);
});

test("a kernel that is shut down is gone when its connection is", () => {
  const heard = new Set();
  const disposed = { connect: (f) => heard.add(f), disconnect: (f) => heard.delete(f) };
  const model = { on() {}, off() {}, widget_manager: { kernel: { disposed } } };
  let count = 0;
  const stop = whenGone(model, () => count++);
  for (const f of heard) f();
  assert.equal(count, 1);
  stop();
  assert.equal(heard.size, 0);
});
