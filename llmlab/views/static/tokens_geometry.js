/** Tokens of one answer: how each is written, which class its probability has, where the bars of the strip stand. Pure. */

export const TOKENS_ROWS = 6; // of the panel
const CLASS_FROM = [0.9, 0.5, 0.2, 0.05, 0]; // probability from which a token is of class 0, 1, ...
export const TOKENS_CLASS_NAMES = ["p \u2265 .9", ".5\u2013.9", ".2\u2013.5", ".05\u2013.2", "< .05"];

/** Class of a log probability, 0 (sure) to 4 (surprising); null when it is not known. */
export function tokensClass(logprob) {
  return logprob == null ? null : CLASS_FROM.findIndex((from) => Math.exp(logprob) >= from);
}

/** A piece as a list shows it: a space is a dot, a line feed an arrow. */
export const tokensVisible = (text) => text.replace(/ /g, "\u00b7").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5");

/**
 * How a token stands in the running text: spaces before its box, what is in the box, and what follows the box: line feeds
 * with the spaces that begin the next line. `isMark`: it has no text of its own (half a character, a marker), or nothing
 * of it could be seen.
 */
export function tokensShown({ text, mark }) {
  if (!text) return { lead: "", shown: mark, tail: "", isMark: true };
  const tail = text.match(/(\n\s*)?$/)[0];
  const body = text.slice(0, text.length - tail.length);
  const feeds = "\u21b5".repeat(tail.split("\n").length - 1);
  if (!body.trim()) return { lead: "", shown: tokensVisible(body) + feeds, tail, isMark: true };
  const lead = body.match(/^ */)[0];
  return { lead, shown: body.slice(lead.length).replace(/\n/g, "\u21b5\n") + feeds, tail, isMark: false };
}

/** Rows of the panel, most likely first: {id, text, share, isChosen}. The chosen token is always among them. */
export function tokensRows(token) {
  const rows = token.top.slice(0, TOKENS_ROWS).map(([id, logprob, text]) => ({
    id, text: text || `id ${id}`, share: Math.exp(logprob), isChosen: id === token.id,
  }));
  if (token.logprob != null && !rows.some((row) => row.isChosen)) {
    rows.push({ id: token.id, text: token.text || token.mark, share: Math.exp(token.logprob), isChosen: true });
  }
  return rows;
}

/** 0.364 -> "36.4 %"; what would be written as 0.0 is said to be less than the smallest figure. */
export function tokensPercent(share) {
  if (share == null) return "\u2013";
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

/** 19.18 -> "19.2 ms", 86.4 -> "86 ms". */
export const tokensMs = (ms) => (ms == null ? "\u2013" : `${ms.toFixed(ms < 50 ? 1 : 0)} ms`);

/** Ticks of an axis from 0 to `top`: 3 to 5 of them, at round numbers. */
export function latencyTicks(top) {
  const power = 10 ** Math.floor(Math.log10(top / 3));
  const step = [1, 2, 5, 10].map((n) => n * power).filter((n) => top / n >= 2).pop();
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

const PITCH_MIN = 3, PITCH_MAX = 24; // px

/**
 * Bars of the latency strip, linear to 3 times the median gap: {top, perBar, pitch, bars: [{first, last, at, ms, x, h, isCut}]}.
 * Bar 0 is the first token alone. Where bars would get too thin, one stands for `perBar` tokens and shows the longest of
 * their gaps, that of token `at`.
 */
export function latencyBars(gapsMs, medianMs, { left, width, height }) {
  const top = medianMs > 0 ? 3 * medianMs : Math.max(...gapsMs, 0) || 1;
  const room = Math.max(1, Math.floor(width / PITCH_MIN) - 1);
  const perBar = Math.max(1, Math.ceil((gapsMs.length - 1) / room));
  const groups = gapsMs.length ? [[0, 0]] : [];
  for (let first = 1; first < gapsMs.length; first += perBar) {
    groups.push([first, Math.min(gapsMs.length, first + perBar) - 1]);
  }
  const pitch = Math.min(PITCH_MAX, width / Math.max(1, groups.length));
  const bars = groups.map(([first, last], i) => {
    let at = first;
    for (let k = first; k <= last; k++) if (gapsMs[k] > gapsMs[at]) at = k;
    const ms = gapsMs[at];
    return { first, last, at, ms, x: left + i * pitch, h: (height * Math.min(ms, top)) / top, isCut: ms > top };
  });
  return { top, perBar, pitch, bars };
}

/** The bar of a token, and the token under a point. */
export const latencyBarOf = (bars, token) => bars.find(({ first, last }) => first <= token && token <= last);
export function latencyTokenAt({ bars, pitch }, x) {
  const bar = bars[Math.floor((x - (bars[0]?.x ?? 0)) / pitch)];
  return bar ? bar.at : null;
}

/** Labels [{x (left), text, w, from}] that do not run into one another: an earlier one wins. */
export function latencyLabels(wanted) {
  const kept = [];
  for (const label of wanted) {
    if (kept.every((other) => label.x >= other.x + other.w + 4 || label.x + label.w + 4 <= other.x)) kept.push(label);
  }
  return kept;
}

/** Where a label of width `w` at height `h` ends so that no bar runs into it: as far right as can be, else at `right`. */
export function latencyClear(bars, pitch, { w, h, right }) {
  const isFree = (end) => bars.every((bar) => bar.h <= h || bar.x + pitch <= end - w || bar.x >= end);
  const ends = [right, ...bars.map((bar) => bar.x).reverse()].filter((end) => end <= right && end - w >= (bars[0]?.x ?? 0));
  return ends.find(isFree) ?? right;
}

/** The token above (-1) or below (+1) in the running text: on the next line, nearest in x. `boxes`: [{x, y, w}]. */
export function tokensBeside(boxes, index, direction) {
  const here = boxes[index];
  const middle = here.x + here.w / 2;
  let best = index;
  let line = null;
  for (let i = index + direction; i >= 0 && i < boxes.length; i += direction) {
    if (Math.abs(boxes[i].y - here.y) < 4) continue;
    line ??= boxes[i].y;
    if (Math.abs(boxes[i].y - line) >= 4) break;
    const away = (box) => Math.abs(box.x + box.w / 2 - middle);
    if (best === index || away(boxes[i]) < away(boxes[best])) best = i;
  }
  return best;
}
