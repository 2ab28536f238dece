import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { sayHere, sayingHere } from "../../llmlab/views/static/here.js";

/** A model that keeps what is sent to the kernel, and can tell what came from it. */
function fakeModel() {
  const handlers = new Map();
  return {
    sent: [],
    handlers,
    send: function (message) { this.sent.push(message); },
    on: (event, act) => handlers.set(event, act),
    off: (event, act) => handlers.get(event) === act && handlers.delete(event),
    tell: (event) => handlers.get(event)(),
  };
}

beforeEach(() => {
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
});

const show = (hidden) => {
  document.hidden = hidden;
  document.dispatchEvent(new Event("visibilitychange"));
};

test("a page says at once that it is there, and every two seconds while the kernel sends", ({ mock }) => {
  mock.timers.enable({ apis: ["setInterval", "Date"] });
  const model = fakeModel();
  sayHere(model, () => true);
  assert.deepEqual(model.sent, [{ t: "here" }]);
  for (let k = 0; k < 3; k++) {
    model.tell("msg:custom");
    mock.timers.tick(2000);
  }
  assert.equal(model.sent.length, 4);
});

test("where nothing comes back it says so every 20 seconds only: a line that is cut fills no queue", ({ mock }) => {
  mock.timers.enable({ apis: ["setInterval", "Date"] });
  const model = fakeModel();
  sayHere(model, () => true);
  mock.timers.tick(18_000);
  assert.equal(model.sent.length, 1);
  mock.timers.tick(2000);
  assert.equal(model.sent.length, 2);
  model.tell("msg:custom");
  mock.timers.tick(2000);
  assert.equal(model.sent.length, 3);
});

test("a tab that is shown again says so at once, one that is hidden does not", ({ mock }) => {
  mock.timers.enable({ apis: ["setInterval", "Date"] });
  const model = fakeModel();
  sayHere(model, () => true);
  show(true);
  assert.equal(model.sent.length, 1);
  show(false);
  assert.equal(model.sent.length, 2);
});

test("of what has ended nothing is said, and it may begin again", ({ mock }) => {
  mock.timers.enable({ apis: ["setInterval", "Date"] });
  const model = fakeModel();
  let isLive = false;
  sayHere(model, () => isLive);
  mock.timers.tick(60_000);
  show(false);
  assert.equal(model.sent.length, 0);
  isLive = true;
  mock.timers.tick(2000);
  assert.equal(model.sent.length, 1);
});

test("nothing is said to a kernel that is gone, nor for a widget that is", ({ mock }) => {
  mock.timers.enable({ apis: ["setInterval", "Date"] });
  const [gone, left] = [fakeModel(), fakeModel()];
  sayHere(gone, () => true);
  const isLeft = [];
  const widget = sayingHere({ initialize: () => () => isLeft.push(true), render() {} }, (model) => model === left);
  const leave = widget.initialize({ model: left });
  gone.tell("comm_live_update");
  leave();
  mock.timers.tick(60_000);
  show(false);
  assert.deepEqual([gone.sent.length, left.sent.length, isLeft.length, typeof widget.render], [1, 1, 1, "function"]);
  assert.deepEqual([gone.handlers.size, left.handlers.size], [0, 0]);
});
