import assert from "node:assert/strict";
import { test } from "node:test";
import { panelHindrance, panelStay, panelTab } from "../../llmlab/views/static/panel_geometry.js";

test("Run waits for two to four engines, a prompt, and the end of what goes on", () => {
  const free = { busy: "" };
  assert.equal(panelHindrance(free, ["a"], "Hi"), "Pick 2 to 4 engines; 1 picked.");
  assert.equal(panelHindrance(free, ["a", "b", "c", "d", "e"], "Hi"), "Pick 4 engines at most; 5 picked.");
  assert.equal(panelHindrance(free, ["a", "b"], "  "), "Type a prompt.");
  assert.equal(panelHindrance({ busy: "Running …" }, ["a", "b"], "Hi"), "Running …");
  assert.equal(panelHindrance(free, ["a", "b"], "Hi"), "");
});

test("arrows lead around the tabs, Home and End to their ends, other keys nowhere", () => {
  assert.deepEqual(["ArrowRight", "ArrowLeft", "Home", "End", "x"].map((key) => panelTab(key, 2, 3)), [0, 1, 0, 2, null]);
  assert.equal(panelTab("ArrowRight", 0, 0), null);
});

test("the tab that is open stays open when others come, and goes with its view", () => {
  const tabs = [{ model: "m1", title: "Answers" }, { model: "m3", title: "a" }];
  assert.equal(panelStay(tabs, tabs[1]), tabs[1]);
  assert.equal(panelStay(tabs, { model: "m2", title: "a" }), tabs[1]); // its run has ended: another view of it
  assert.equal(panelStay(tabs, { model: "gone", title: "b" }), tabs[0]);
  assert.equal(panelStay([], tabs[0]), null);
});
