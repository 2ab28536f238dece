/** The largest figures of the steps read so far: the strips of the timeline are drawn to their scale. Pure. */

import { kvHeldAndCached } from "./timeline_strips.js";

export class TimelineMost {
  constructor() {
    Object.assign(this, { tokens: 1, waiting: 0, kv: 0, preempted: 0, cut: 0 });
    this._read = 0;
  }

  /** Take the steps that have come. */
  grow(steps) {
    for (; this._read < steps.length; this._read++) {
      const step = steps[this._read];
      this.tokens = Math.max(this.tokens, step.u[0] + step.u[1] + step.u[2]);
      this.waiting = Math.max(this.waiting, step.nw);
      this.kv = Math.max(this.kv, kvHeldAndCached(step) ?? 0);
      this.preempted += step.pre.length;
      this.cut += step.fin.filter(([, reason]) => reason !== "stop" && reason !== "length").length;
    }
  }
}
