/**
 * Which phase each request was in, step by step, and what happened to it. Grows with the story, one pass over the
 * records; rebuilds no KV cache. This file must not draw.
 */

// Ascending by rarity: a place that stands for several steps shows the highest code among them.
export const PHASE_CODE = Object.freeze({ none: 0, waiting: 1, decode: 2, grow: 3, prefill: 4, recompute: 5, lost: 6 });
export const PHASE_NAMES = Object.keys(PHASE_CODE);
const CODE_OF_SHARE = [PHASE_CODE.prefill, PHASE_CODE.decode, PHASE_CODE.recompute]; // by the phase in a record
const TIMELINE_ENDS = { stop: "finished", length: "finished", error: "failed" }; // any other reason: aborted

/** One request. Codes are kept from the step where it was first seen to the last one. */
export class PhaseRow {
  constructor() {
    this.first = 0; // step of codes[0]
    this.length = 0;
    this.codes = new Uint8Array(16);
    // [step, kind, number]: preempted (blocks lost), hit (tokens), finished, aborted, failed (tokens out)
    this.marks = [];
    this.hit = null; // tokens found in the prefix cache when it was first admitted
    this.hasEnded = false;
    this._shares = []; // [step, tokens]: only those of other than one token
    this._waitsFrom = -1; // first step of the waiting that is not in `codes` yet; -1: it does not wait
    this._waitCode = PHASE_CODE.waiting;
  }

  /** Phase code in a step. */
  at(step) {
    const k = step - this.first;
    return k >= 0 && k < this.length ? this.codes[k] : PHASE_CODE.none;
  }

  isComputing(step) {
    const code = this.at(step);
    return code >= PHASE_CODE.decode && code !== PHASE_CODE.lost;
  }

  /** Tokens computed for it in a step. */
  tokensAt(step) {
    if (!this.isComputing(step)) return 0;
    let [low, high] = [0, this._shares.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this._shares[middle][0] < step) low = middle + 1;
      else high = middle;
    }
    return this._shares[low]?.[0] === step ? this._shares[low][1] : 1;
  }

  get isSeen() {
    return this.length > 0 || this._waitsFrom >= 0;
  }

  run(step, code, tokens) {
    this.waitUntil(step);
    this._waitsFrom = -1;
    this._fill(step, step + 1, code);
    if (tokens !== 1) this._shares.push([step, tokens]);
  }

  /** It decodes one token, as in the step before: what most of a trace is. */
  goOn(step) {
    const k = step - this.first;
    const isPlain = this._waitsFrom < 0 && this.length > 0 && k < this.codes.length;
    if (!isPlain) return false;
    this.codes[k] = PHASE_CODE.decode;
    this.length = k + 1;
    return true;
  }

  wait(step, code = PHASE_CODE.waiting) {
    this._waitsFrom = step;
    this._waitCode = code;
  }

  /** Write down the waiting before `step`. */
  waitUntil(step) {
    if (this._waitsFrom < 0 || this._waitsFrom >= step) return;
    this._fill(this._waitsFrom, step, this._waitCode);
    this._waitsFrom = step;
  }

  end(step) {
    this.waitUntil(step + 1); // stopped while it waited
    this._waitsFrom = -1;
    this.hasEnded = true;
  }

  _fill(from, to, code) {
    if (!this.length) this.first = from;
    const [start, end] = [from - this.first, to - this.first];
    if (end > this.codes.length) {
      const more = new Uint8Array(Math.max(end, 2 * this.codes.length));
      more.set(this.codes);
      this.codes = more;
    }
    this.codes.fill(code, start, end);
    this.length = Math.max(this.length, end);
  }
}

/** All requests of a story, in its order: that of arrival. */
export class TimelinePhases {
  constructor() {
    this.rows = [];
    this.length = 0; // steps read
    this._ends = []; // seconds, of each step
  }

  /** Read the requests and steps that have come. True if there were any. */
  grow(story) {
    const { requests, steps } = story;
    if (this.rows.length === requests.length && this.length === steps.length) return false;
    while (this.rows.length < requests.length) this.rows.push(new PhaseRow());
    for (; this.length < steps.length; this.length++) this._read(this.length, steps[this.length], requests);
    this.rows.forEach((row, r) => {
      if (row.hasEnded) return;
      if (!row.isSeen) this._arrive(row, requests[r].arrival, this.length);
      row.waitUntil(this.length);
    });
    return true;
  }

  /** Requests that compute in a step. */
  active(step) {
    const found = [];
    this.rows.forEach((row, r) => row.isComputing(step) && found.push(r));
    return found;
  }

  _read(i, step, requests) {
    this._ends.push(step.t);
    for (const [r, lost] of step.pre) {
      const row = this.rows[r];
      row.marks.push([i, "preempted", lost]);
      row.waitUntil(i);
      row.wait(i, PHASE_CODE.lost);
    }
    const run = (r, code, tokens) => {
      const row = this.rows[r];
      if (!row.isSeen) this._arrive(row, requests[r].arrival, i);
      row.run(i, code, tokens);
    };
    for (let k = 0; k < (step.d ?? []).length; k += 2) {
      for (let r = step.d[k]; r < step.d[k] + step.d[k + 1]; r++) {
        if (!this.rows[r].goOn(i)) run(r, PHASE_CODE.decode, 1);
      }
    }
    for (const [r, phase, tokens] of step.r) run(r, CODE_OF_SHARE[phase], tokens);
    for (const [r] of step.kv?.a ?? []) {
      if (this.rows[r].at(i) === PHASE_CODE.decode) this.rows[r]._fill(i, i + 1, PHASE_CODE.grow);
    }
    for (const [r, tokens] of step.hit) this._hit(this.rows[r], i, tokens);
    for (const r of step.w ?? []) {
      if (!this.rows[r].isSeen) this._arrive(this.rows[r], requests[r].arrival ?? step.t, i + 1);
    }
    for (const [r, reason, tokens] of step.fin) {
      const row = this.rows[r];
      if (!row.isSeen) this._arrive(row, requests[r].arrival, i + 1);
      row.end(i);
      row.marks.push([i, TIMELINE_ENDS[reason] ?? "aborted", tokens]);
    }
  }

  _hit(row, i, tokens) {
    if (!row.marks.length) row.hit = tokens;
    row.marks.push([i, "hit", tokens]);
  }

  /** It waits from the step that ran when it came, if that is before step `until`. */
  _arrive(row, arrival, until) {
    if (arrival == null) return; // it was there before the trace began
    let [low, high] = [0, until];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this._ends[middle] < arrival) low = middle + 1;
      else high = middle;
    }
    if (low < until) row.wait(low);
  }
}

/** What the timeline shows of step i: [request, phase, tokens] of each that runs or waits. */
export function timelineShown(phases, i) {
  const rows = [];
  const grows = [];
  phases.rows.forEach((row, r) => {
    const code = row.at(i);
    if (code === PHASE_CODE.none) return;
    if (code === PHASE_CODE.grow) grows.push(r);
    rows.push([r, code === PHASE_CODE.grow ? "decode" : PHASE_NAMES[code], row.tokensAt(i)]);
  });
  return { rows, grows };
}
