/**
 * Where things stand in the timeline: rows, strips, the x axis in steps, seconds or tokens, zoom. Pure: steps and
 * numbers in, pixels out. This file must not draw.
 */

import { PHASE_CODE } from "./timeline_phases.js";

export const TIMELINE_TOP = 72; // budget strip and the words above the rows
const BUDGET_STRIP = 40, QUEUE_STRIP = 26, KV_STRIP = 34, AXIS_STRIP = 16;
const MOST_PLOT_PX = 420; // px of rows on screen in pixel mode; more scroll
const TIMELINE_RIGHT = 54;

/** Sizes for `numRequests` rows on `width` px: rows of 22 px, of 12 px, or of pixels, 5 at most, that fill the plot. */
export function timelineLayout(width, numRequests, { hasKv = true } = {}) {
  const isPixels = numRequests > 48;
  const rowHeight = !isPixels ? (numRequests <= 16 ? 22 : 12) : Math.max(1, Math.min(5, Math.floor(MOST_PLOT_PX / numRequests)));
  const rowsShown = Math.min(numRequests, isPixels ? Math.floor(MOST_PLOT_PX / rowHeight) : numRequests);
  const left = isPixels ? 64 : 138;
  const plot = Math.max(40, width - left - (isPixels ? 14 : TIMELINE_RIGHT));
  const bottom = TIMELINE_TOP + rowsShown * rowHeight;
  const queue = { y: bottom + 14, h: QUEUE_STRIP };
  const kv = hasKv ? { y: queue.y + QUEUE_STRIP + 12, h: KV_STRIP } : null;
  const strips = kv ? kv.y + KV_STRIP : queue.y + QUEUE_STRIP;
  return {
    width, left, plot, right: left + plot, isPixels, rowHeight, rowsShown, numRequests,
    top: TIMELINE_TOP, bottom, budget: { y: TIMELINE_TOP - 20 - BUDGET_STRIP, h: BUDGET_STRIP }, queue, kv,
    strips, height: strips + AXIS_STRIP + 2,
  };
}

/** The x axis: where each step begins and ends, in steps, seconds or tokens. */
export class TimelineAxis {
  constructor(kind = "step") {
    this.kind = kind;
    this.starts = [];
    this.ends = [];
  }

  get length() {
    return this.ends.length;
  }

  grow(steps) {
    for (let i = this.length; i < steps.length; i++) {
      const { t, ms, u } = steps[i];
      const before = i ? this.ends[i - 1] : 0;
      let [start, end] = [i, i + 1];
      if (this.kind === "tokens") [start, end] = [before, before + u[0] + u[1] + u[2]];
      if (this.kind === "time") {
        // An engine that had nothing to do leaves a gap before the step.
        start = ms ? Math.max(before, t - (ms[0] + ms[1] + ms[2]) / 1000) : before;
        if (!i && !ms) start = t;
        end = Math.max(start, t);
      }
      this.starts.push(start);
      this.ends.push(end);
    }
  }

  /** [from, to] of all steps. */
  get all() {
    if (!this.length) return [0, 1];
    const [from, to] = [this.starts[0], this.ends[this.length - 1]];
    return [from, to > from ? to : from + 1];
  }

  /** The step at a value; the next one where the engine rested. */
  stepAt(value) {
    let [low, high] = [0, this.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low);
  }
}

/** Places along the x axis, {x0, x1, first, last}: a step each, or a pixel column with the steps in it. */
export function timelineSlots(axis, [from, to], left, width, asColumns = false) {
  if (!axis.length) return [];
  const [first, last] = [axis.stepAt(from), axis.stepAt(to)];
  const isNarrow = (i) => width * (axis.ends[i] - axis.starts[i]) < to - from;
  const isAnyNarrow = () => axis.kind !== "step" && axis.starts.some((_, i) => i >= first && i <= last && isNarrow(i));
  if (asColumns || last - first + 1 > width || isAnyNarrow()) return timelineColumns(axis, from, to, left, width);
  const x = (value) => left + Math.round((width * (value - from)) / (to - from));
  const slots = [];
  for (let i = first; i <= last; i++) {
    const x0 = Math.max(left, x(axis.starts[i]));
    const x1 = Math.min(left + width, Math.max(x0 + 1, x(axis.ends[i])));
    if (x1 > x0) slots.push({ x0, x1, first: i, last: i + 1 });
  }
  return slots;
}

// Each step is in the column where its middle is; a column without a middle shows the step that covers it.
function timelineColumns(axis, from, to, left, width) {
  const slots = [];
  const perPixel = (to - from) / width;
  const middle = (i) => (axis.starts[i] + axis.ends[i]) / 2;
  let next = axis.stepAt(from);
  while (next < axis.length && middle(next) < from) next++;
  for (let x = 0; x < width; x++) {
    const first = next;
    while (next < axis.length && middle(next) < from + (x + 1) * perPixel) next++;
    const slot = { x0: left + x, x1: left + x + 1, first, last: next };
    if (first === next) {
      const at = axis.stepAt(from + (x + 0.5) * perPixel);
      if (axis.starts[at] > from + (x + 0.5) * perPixel || axis.ends[at] < from + x * perPixel) continue;
      slot.first = at;
      slot.last = at + 1;
    }
    const before = slots.at(-1);
    const isSame = before?.first === slot.first && before.last === slot.last && before.x1 === slot.x0;
    if (isSame) before.x1 = slot.x1;
    else slots.push(slot);
  }
  return slots;
}

/** Slots as arrays, for those who go through them for each of a thousand rows; x counts from `left`. */
export function timelineColumnArrays(slots, left) {
  const of = (f) => Int32Array.from(slots, f);
  return {
    starts: of(({ x0 }) => x0 - left), ends: of(({ x1 }) => x1 - left),
    firsts: of(({ first }) => first), lasts: of(({ last }) => last),
  };
}

/** The first column that reaches step i or a later one. */
export function timelineColumnFrom({ lasts }, i) {
  let [low, high] = [0, lasts.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lasts[middle] <= i) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The rarest phase of a request in steps [first, last). */
export function timelineRarest(row, first, last) {
  let found = PHASE_CODE.none;
  const from = Math.max(0, first - row.first);
  const to = Math.min(row.length, last - row.first);
  for (let k = from; k < to; k++) if (row.codes[k] > found) found = row.codes[k];
  return found;
}

/** Pieces of a row to draw, {code, x0, x1, first, last}: chunks one by one, waiting and decoding in one piece. */
export function timelinePieces(row, slots) {
  const pieces = [];
  let piece = null;
  for (const { x0, x1, first, last } of slots) {
    let code = timelineRarest(row, first, last);
    if (code === PHASE_CODE.grow) code = PHASE_CODE.decode;
    const goesOn = code !== PHASE_CODE.prefill && code !== PHASE_CODE.recompute;
    if (piece && goesOn && piece.code === code && x0 - piece.x1 <= 1) {
      piece.x1 = x1;
      piece.last = last;
      continue;
    }
    piece = code === PHASE_CODE.none ? null : { code, x0, x1, first, last };
    if (piece) pieces.push(piece);
  }
  return pieces;
}

/** The largest value of f(step) in each slot; null where no step has one. */
export function timelineHighest(slots, steps, f) {
  return slots.map(({ first, last }) => {
    let most = null;
    for (let i = first; i < last; i++) {
      const value = f(steps[i]);
      if (value != null && (most === null || value > most)) most = value;
    }
    return most;
  });
}

/** The step of each slot that computed most tokens. */
export function timelineFullest(slots, steps) {
  const total = ({ u }) => u[0] + u[1] + u[2];
  return slots.map(({ first, last }) => {
    let at = first;
    for (let i = first + 1; i < last; i++) if (total(steps[i]) > total(steps[at])) at = i;
    return at;
  });
}

/** Bars of the budget strip, [x, y, w, h], by phase: decode below, prefill on it, recompute on top. */
export function timelineBars(slots, shares, { y, h }, budget) {
  const bars = [[], [], []];
  slots.forEach(({ x0, x1 }, k) => {
    const w = x1 - x0 - (x1 - x0 > 4 ? 1 : 0);
    let bottom = y + h;
    for (const phase of [1, 0, 2]) {
      if (!shares[k][phase]) continue;
      const high = Math.min(bottom - y, Math.max(1, (h * shares[k][phase]) / budget)); // 1 px at least
      bottom -= high;
      bars[phase].push([x0, bottom, w, high]);
    }
  });
  return bars;
}

/** The end of the KV axis: all of the memory, or a round number above `most` when under a quarter was ever used. */
export function timelineKvEnd(most, total) {
  if (!most || !total || most >= total / 4) return total || Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(1.1 * most));
  return Math.ceil([1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= 1.1 * most));
}

/** A round distance between `count` ticks over `span`: 1, 2 or 5 times a power of ten. */
export function timelineEvery(span, count) {
  const power = 10 ** Math.floor(Math.log10(span / count));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= span / count * 0.999);
}

/** Ticks of the x axis as [value, label]; steps are told by the engine's number, in the middle of the step. */
export function timelineTicks(axis, steps, [from, to], width) {
  const every = timelineEvery(to - from, Math.max(1, width / 72));
  const ticks = [];
  if (axis.kind === "step") {
    const distance = Math.max(1, every);
    for (let i = axis.stepAt(from); i < Math.min(axis.length, Math.ceil(to)); i++) {
      if (steps[i].n % distance === 0 && i + 0.5 >= from) ticks.push([i + 0.5, steps[i].n]);
    }
    return ticks;
  }
  const digits = axis.kind === "time" ? Math.max(0, -Math.floor(Math.log10(every) + 1e-9)) : 0;
  for (let k = Math.ceil(from / every); k * every <= to; k++) ticks.push([k * every, (k * every).toFixed(digits)]);
  return ticks;
}

/** `view` narrower by `factor` (wider below 1) around `at`, inside `all`; null when that is all there is. */
export function timelineZoom(view, all, factor, at, least) {
  const [from, to] = view ?? all;
  const span = Math.max(Math.min(least, all[1] - all[0]), (to - from) / factor);
  if (span >= all[1] - all[0]) return null;
  const start = at - (span * (at - from)) / (to - from);
  return timelinePan([start, start + span], all, 0);
}

/** `view` moved by `by`, inside `all`. */
export function timelinePan([from, to], all, by) {
  const start = Math.max(all[0], Math.min(all[1] - (to - from), from + by));
  return [start, start + to - from];
}
