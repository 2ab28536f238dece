/**
 * What a view draws: the records of a run, step by step, and the KV cache after any of them.
 *
 * Records come from llmlab/views/story.py, which says what each field is; figures and sentences are made there. This
 * file must not draw, and computes no figure: it only rebuilds who holds what.
 */

import { Blocks, Cells, eachOfRanges } from "./kv_state.js";

const KEY_EVERY = 128; // steps between two states that are kept

export class Story {
  constructor(head) {
    this.head = head;
    this.requests = [];
    this.steps = [];
    this._keys = []; // states before steps 0, KEY_EVERY, 2 * KEY_EVERY, ...
    this._last = head.kind === "cells" ? new Cells(head) : new Blocks(head);
    this._at = -1; // the step after which _last is the state
    if (head.start) this._last.step({ kv: head.start, r: head.start.r ?? [], pre: [], fin: [] });
  }

  get length() {
    return this.steps.length;
  }

  addRequests(requests) {
    this.requests.push(...requests);
  }

  addSteps(steps) {
    for (const step of steps) this.steps.push(step);
  }

  /** The KV cache at the end of step i. Do not change it. */
  stateAt(i) {
    if (i === this._at) return this._last;
    const from = Math.floor(Math.max(0, i) / KEY_EVERY);
    if (i < this._at || (this._keys[from] && from * KEY_EVERY > this._at + 1)) {
      this._last = this._keys[from].copy();
      this._at = from * KEY_EVERY - 1;
    }
    while (this._at < i) {
      const next = this._at + 1;
      if (next % KEY_EVERY === 0) this._keys[next / KEY_EVERY] ??= this._last.copy();
      this._last.step(this.steps[next]);
      this._at = next;
    }
    return this._last;
  }
}

/** Call act(request, text) for each text that came out in a step: of those that go on decoding, then of the others. */
export function eachText({ d, dx, x = [] }, act) {
  let next = 0;
  if (dx) eachOfRanges(d, (r) => act(r, dx[next++]));
  for (let k = 0; k < x.length; k += 2) act(x[k], x[k + 1]);
}
