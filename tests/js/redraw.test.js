import assert from "node:assert/strict";
import { test } from "node:test";
import { redrawing } from "../../llmlab/views/static/redraw.js";

const frames = [];
const nextFrame = () => frames.splice(0).forEach((act) => act());

/** A page that tells nobody of its sizes; its canvases do not resolve colours. */
function standInForAPage() {
  const observer = class {
    observe() {}
    disconnect() {}
  };
  const canvas = { getContext: () => ({ fillStyle: "#ffffff" }) };
  Object.assign(globalThis, {
    requestAnimationFrame: (act) => frames.push(act),
    cancelAnimationFrame: () => frames.splice(0),
    ResizeObserver: observer,
    MutationObserver: observer,
    getComputedStyle: () => ({ getPropertyValue: () => "" }),
    document: { body: { dataset: {} }, createElement: () => canvas },
  });
}

test("what changed while the page was hidden for a frame is drawn in the next one, and nothing is asked for ever", () => {
  standInForAPage();
  const root = { clientWidth: 600 };
  let drawn = 0;
  const { changed, destroy } = redrawing(root, () => drawn++);
  nextFrame();
  assert.equal(drawn, 1);
  root.clientWidth = 0;
  changed();
  nextFrame();
  root.clientWidth = 600;
  nextFrame();
  assert.equal(drawn, 2);
  root.clientWidth = 0;
  changed();
  for (let k = 0; k < 5; k++) nextFrame();
  assert.equal(frames.length, 0);
  assert.equal(drawn, 2);
  destroy();
});
