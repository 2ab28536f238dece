/**
 * The sampler playground: what temperature, min-p, top-k and top-p keep of one real distribution.
 *
 * The order is the contract of SamplingParams in llmlab/engines/base.py. Each filter keeps the head of the list from the
 * most likely token down, so a filter is a number of tokens that are left.
 */

import { hatch, text, textWidth } from "./draw.js";

export const SAMPLER_OFF = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };

/** Float32 numbers from base64. */
export function samplerFloats(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** Token ids from the most likely one down; among equals the lowest id is first. */
export function samplerOrder(logprobs) {
  return Uint32Array.from(logprobs.keys()).sort((a, b) => logprobs[b] - logprobs[a] || a - b);
}

/**
 * What is left of a distribution. `sorted`: logits or log probabilities, descending. Returns {shares: after temperature,
 * before the filters; left: tokens after each filter; kept; keptShare: what the kept ones had before the filters}.
 */
export function samplerKeep(sorted, params) {
  const { temperature, top_k, top_p, min_p } = { ...SAMPLER_OFF, ...params };
  const n = sorted.length;
  const shares = new Float64Array(n);
  if (temperature === 0) {
    shares[0] = 1;
    return { shares, left: { T: 1, min: 1, k: 1, p: 1 }, kept: 1, keptShare: 1 };
  }
  let sum = 0;
  for (let j = 0; j < n; j++) sum += shares[j] = Math.exp((sorted[j] - sorted[0]) / temperature);
  for (let j = 0; j < n; j++) shares[j] /= sum;
  let min = n;
  while (min > 1 && shares[min - 1] < min_p * shares[0]) min--;
  const k = top_k > 0 ? Math.min(min, top_k) : min;
  const p = top_p < 1 ? samplerTopP(shares, k, top_p) : k;
  return { shares, left: { T: n, min, k, p }, kept: p, keptShare: samplerSum(shares, 0, p) };
}

/** How many of the first `n` tokens make up the share `top_p` of those n. */
function samplerTopP(shares, n, topP) {
  const enough = topP * samplerSum(shares, 0, n);
  let before = 0;
  let p = 0;
  while (p < n && (p === 0 || before < enough)) before += shares[p++];
  return p;
}

function samplerSum(shares, from, to) {
  let sum = 0;
  for (let j = from; j < to; j++) sum += shares[j];
  return sum;
}

/** Which filter cut token j: "T" (temperature 0), "min", "k" or "p"; null when it is kept. */
export function samplerCut({ left }, j) {
  return ["T", "min", "k", "p"].find((filter) => j >= left[filter]) ?? null;
}

/**
 * The first `count` tokens and the rest as bars: {j, before, after, cut}. `before` is the share after temperature, `after`
 * the chance to be drawn, renormalised; the rest has j = null, and is cut when nothing of it is kept.
 */
export function samplerBars(result, count) {
  const { shares, kept, keptShare } = result;
  const bars = Array.from({ length: Math.min(count, shares.length) }, (_, j) => {
    const cut = samplerCut(result, j);
    return { j, before: shares[j], after: cut ? 0 : shares[j] / keptShare, cut };
  });
  if (shares.length > bars.length) {
    const after = samplerSum(shares, bars.length, kept) / keptShare;
    const cut = kept > bars.length ? null : samplerCut(result, bars.length);
    bars.push({ j: null, before: samplerSum(shares, bars.length, shares.length), after, cut });
  }
  return bars;
}

/** 0.483 -> "48": percent without sign, over a bar. */
export const samplerOver = (share) => (share < 0.005 ? "<1" : (100 * share).toFixed(0));

/** What stands beside a slider. */
export function samplerValue(key, value) {
  if (key === "temperature") return value === 0 ? "0 greedy" : String(value);
  return value === SAMPLER_OFF[key] ? "off" : String(value);
}

/** The options that sample in this way. */
export function samplerCall(params) {
  const names = Object.keys(SAMPLER_OFF).filter((key) => key === "temperature" || params[key] !== SAMPLER_OFF[key]);
  return names.map((key) => `${key}=${params[key]}`).join(", ");
}

// ---- painting

export const SAMPLER_PITCH = 30, SAMPLER_BASE = 140, SAMPLER_NAMES = 96; // px: of a bar; from the top to the axis; below it
const SAMPLER_TALL = 116; // of the tallest bar

/** The bars on a canvas: `name(bar)` stands below each, `pointed` is the index of one or null. */
export function paintSampler(g, bars, { pitch, width, name, theme, pointed }) {
  g.clearRect(0, 0, width, SAMPLER_BASE + SAMPLER_NAMES);
  const top = Math.max(...bars.map(({ before, after }) => Math.max(before, after)));
  const height = (share) => (SAMPLER_TALL * share) / top;
  const w = Math.min(pitch - 5, 44);
  bars.forEach((bar, i) => {
    const x = i * pitch + (pitch - w) / 2;
    const tall = Math.max(2, height(bar.cut ? bar.before : bar.after));
    const over = { size: 11, align: "center" };
    if (bar.cut) {
      hatch(g, x, SAMPLER_BASE - tall, w, tall, theme.ghost, 4);
      g.strokeStyle = theme.ghost;
      g.lineWidth = 1;
      g.strokeRect(x + 0.5, SAMPLER_BASE - tall + 0.5, w - 1, tall - 1);
      text(g, bar.cut, x + w / 2, SAMPLER_BASE - tall - 4, { ...over, colour: theme.ink2 });
    } else {
      // of the rest, some is kept and some is cut
      if (bar.before > bar.after) hatch(g, x, SAMPLER_BASE - height(bar.before), w, height(bar.before), theme.ghost, 4);
      g.fillStyle = theme.ink2;
      g.fillRect(x, SAMPLER_BASE - tall, w, tall);
      g.fillStyle = theme.bg; // how high it was before the others were cut
      if (height(bar.before) > 2) g.fillRect(x, SAMPLER_BASE - height(bar.before), w, 1.5);
      const most = Math.max(tall, height(bar.before));
      text(g, samplerOver(bar.after), x + w / 2, SAMPLER_BASE - most - 4, { ...over, weight: 600, colour: theme.ink });
    }
    if (i === pointed) {
      g.strokeStyle = theme.ink;
      g.lineWidth = 2;
      g.strokeRect(x - 2, 3, w + 4, SAMPLER_BASE - 4);
    }
    paintSamplerName(g, name(bar), x + w / 2, bar, theme);
  });
  g.fillStyle = theme.ink;
  g.fillRect(0, SAMPLER_BASE, width, 1);
}

/** A name under its bar, read from top to bottom, cut where the room ends. */
function paintSamplerName(g, name, x, { j, cut }, theme) {
  const style = { size: 11.5, mono: j !== null, weight: cut ? 400 : 700 };
  let shown = name;
  while (shown.length > 1 && textWidth(g, shown, style) > SAMPLER_NAMES - 14) shown = `${shown.replace(/\u2026$/, "").slice(0, -1)}\u2026`;
  g.save();
  g.translate(x, SAMPLER_BASE + 8);
  g.rotate(Math.PI / 2);
  text(g, shown, 0, 4, { ...style, colour: cut ? theme.ink3 : theme.ink });
  g.restore();
}
