/**
 * Paints the rows of the timeline: shapes where a row has room for them, else pixels. A scene holds all it needs:
 * {theme, story, phases, axis, view, slots, layout, scroll, x(value)}, made in timeline.js.
 */

import { MARKS, text, textWidth } from "./draw.js";
import { timelineColumnArrays, timelineColumnFrom, timelinePieces } from "./timeline_geometry.js";
import { decodeBar, endMark, lostLine, prefillBox, recomputeBox, recomputeGaps, rowName, waitingLine } from "./timeline_marks.js";
import { PHASE_CODE, PHASE_NAMES } from "./timeline_phases.js";
import { mix, rgb, textOn } from "./theme.js";
import { lostWords } from "./timeline_words.js";

const TIMELINE_DOTS_FROM = 5; // px of a step
const [LOST_DASH, LOST_EVERY] = [4, 6]; // px: waiting after a preemption is dashed, as its line is in rows of shapes

/** Rows as shapes, with names. */
export function paintTimelineRows(g, scene) {
  const { theme, phases, layout } = scene;
  timelineHeadings(g, scene);
  phases.rows.forEach((row, r) => {
    const y = layout.top + r * layout.rowHeight;
    const ground = r % 2 ? theme.bg : theme.sub;
    g.fillStyle = ground;
    g.fillRect(layout.left, y, layout.plot, layout.rowHeight);
    timelineGutter(g, scene, row, r, y + layout.rowHeight / 2);
    const colour = theme.owner(r, phases.rows.length);
    for (const piece of timelinePieces(row, scene.slots)) {
      timelineShape(g, scene, row, piece, y, colour);
      if (piece.code === PHASE_CODE.decode) timelineDots(g, scene, row, piece, y + layout.rowHeight / 2, colour);
    }
    for (const mark of row.marks) timelineMark(g, scene, row, mark, y, ground);
  });
}

function timelineHeadings(g, { theme, story, layout }) {
  text(g, "prompt", layout.left - 44, layout.top - 4, { size: 11, colour: theme.ink2, align: "right" });
  if (!story.head.prefix_caching) return;
  text(g, "hit", layout.left - 13, layout.top - 4, { size: 11, colour: theme.hit, align: "right" });
}

function timelineGutter(g, { theme, story, phases, layout }, row, r, middle) {
  const right = rowName(g, theme, story.requests[r].name, theme.owner(r, phases.rows.length), layout.rowHeight, middle);
  const prompt = story.requests[r].prompt;
  text(g, prompt == null ? "–" : String(prompt), layout.left - 44, middle + 4, right);
  if (row.hit) text(g, String(row.hit), layout.left - 13, middle + 4, { ...right, weight: 600, colour: theme.hit });
}

function timelineShape(g, scene, row, { code, x0, x1, first, last }, y, colour) {
  const { theme, layout } = scene;
  const middle = y + layout.rowHeight / 2;
  if (code === PHASE_CODE.waiting) waitingLine(g, theme, x0, x1, middle);
  if (code === PHASE_CODE.lost) lostLine(g, theme, x0 + 8, x1, middle);
  if (code === PHASE_CODE.decode) decodeBar(g, x0, x1, middle, colour, theme.edge(colour));
  if (code !== PHASE_CODE.prefill && code !== PHASE_CODE.recompute) return;
  const box = [x0, y + 1.5, Math.max(1, x1 - x0 - (x1 - x0 > 3 ? 0.6 : 0)), layout.rowHeight - 3];
  const share = last - first > 1 ? 1 : row.tokensAt(first) / scene.budget; // several steps in a column: full
  if (code === PHASE_CODE.recompute) recomputeBox(g, theme, ...box);
  else prefillBox(g, theme, ...box, colour, share);
}

function timelineDots(g, { theme, axis, x }, row, { first, last, x0, x1 }, middle, colour) {
  g.fillStyle = mix(colour, textOn(colour), 0.6);
  for (let i = first; i < last; i++) {
    const from = Math.max(x0, x(axis.starts[i]));
    const wide = Math.min(x1, x(axis.ends[i])) - from;
    if (wide < TIMELINE_DOTS_FROM) continue;
    const tokens = Math.min(row.tokensAt(i), Math.floor(wide / 3));
    for (let k = 0; k < tokens; k++) g.fillRect(from + (wide * (k + 0.5)) / tokens - 0.75, middle - 0.75, 1.5, 1.5);
  }
}

function timelineMark(g, scene, row, [step, kind, n], y, ground) {
  const { theme, axis, layout, x } = scene;
  const middle = y + layout.rowHeight / 2;
  const [x0, x1] = [x(axis.starts[step]), x(axis.ends[step])];
  if (x1 < layout.left - 0.5 || x0 > layout.right + 0.5) return;
  const hasWords = layout.rowHeight >= 22;
  if (kind === "hit") {
    let lostFrom = step;
    while (row.at(lostFrom - 1) === PHASE_CODE.lost) lostFrom--;
    const isTight = lostFrom < step && x0 - x(axis.starts[lostFrom]) < 22;
    // Before the first step: beside its number in the gutter. Just after a preemption: not on its triangle.
    const at = isTight ? x0 + Math.min(8, Math.max(5, (x1 - x0) / 2)) : Math.max(layout.left - 5, x0 - 7);
    if (at > layout.left) timelinePlate(g, ground, at - 6, middle, 12);
    MARKS.hit(g, at, middle + 0.5, theme);
  } else if (kind === "preempted") {
    MARKS.preempted(g, Math.max(layout.left, x0) + 4, middle, theme);
    if (hasWords) timelineLost(g, scene, row, step, n, middle, ground);
  } else if (x1 <= layout.right + 1) {
    endMark(g, theme, kind, x1, middle, Math.min(12, layout.rowHeight - 2));
    if (hasWords) text(g, String(n), x1 + 7, middle + 4, { size: 11.5, colour: theme.ink2, halo: ground });
  }
}

/** "lost 4 blocks" on the dashed line, shorter where there is less room, nothing where there is none. */
function timelineLost(g, { theme, story, axis, layout, x }, row, step, lost, middle, ground) {
  let until = step;
  while (row.at(until) === PHASE_CODE.lost) until++;
  if (until === step) return;
  const from = Math.max(layout.left, x(axis.starts[step])) + 13;
  const room = Math.min(layout.right, x(axis.ends[until - 1])) - from - 13;
  const words = lostWords(story.head, lost);
  const font = { size: 11, weight: 600, colour: theme.warn };
  const label = [words, words.split(" ").slice(0, 2).join(" ")].find((value) => textWidth(g, value, font) <= room);
  if (!label) return;
  timelinePlate(g, ground, from - 3, middle, textWidth(g, label, font) + 6);
  text(g, label, from, middle + 4, font);
}

function timelinePlate(g, ground, x, middle, w) {
  g.fillStyle = ground;
  g.fillRect(x, middle - 5.5, w, 11);
}

/** Rows as pixels: each column shows the rarest phase in it. */
export function paintTimelinePixels(g, scene) {
  const { theme, phases, layout, scroll, slots } = scene;
  const [w, h] = [layout.plot, layout.rowsShown];
  const { image, pixels, small } = pixelSheet(scene.buffers, w, h);
  const paletteOf = (phases) => PHASE_NAMES.map((name) => pixelOf(phases[name] ?? theme.bg));
  const [own, other] = [paletteOf(theme.phases), paletteOf(theme.otherPhases)];
  pixels.fill(own[PHASE_CODE.none]);
  const columns = (scene.columns ??= timelineColumnArrays(slots, layout.left)); // the same as long as the slots are
  const again = []; // [row on screen, x0, x1] of each column of recompute
  for (let r = 0; r < h; r++) {
    const palette = theme.others?.has(scroll + r) ? other : own;
    paintPixelRow(pixels, r * w, phases.rows[scroll + r], columns, palette, (x0, x1) => again.push([r, x0, x1]));
  }
  small.getContext("2d").putImageData(image, 0, 0);
  g.imageSmoothingEnabled = false;
  g.drawImage(small, layout.left, layout.top, w, h * layout.rowHeight);
  recomputeGaps(g, theme, recomputeBoxes(again, layout));
  pixelFrame(g, scene);
}

/** A picture of one pixel a row, kept in `buffers`: at each scroll a new one is work to collect. */
function pixelSheet(buffers, w, h) {
  if (buffers.image?.width === w && buffers.image.height === h) return buffers;
  const small = document.createElement("canvas");
  small.width = w;
  small.height = h;
  const image = new ImageData(w, h);
  return Object.assign(buffers, { image, pixels: new Uint32Array(image.data.buffer), small });
}

/** Boxes [x, y, w, h] of recompute: columns side by side are one; a single pixel has no room for gaps. */
export function recomputeBoxes(found, { left, top, rowHeight }) {
  const runs = [];
  for (const [r, x0, x1] of found) {
    const last = runs.at(-1);
    if (last?.r === r && last.x1 === x0) last.x1 = x1;
    else runs.push({ r, x0, x1 });
  }
  const boxes = runs.map(({ r, x0, x1 }) => [left + x0, top + r * rowHeight, x1 - x0, rowHeight]);
  return boxes.filter(([, , w, h]) => w * h > 1);
}

/** A row of pixels, from `at` on: only the columns in which the request was there. `again(x0, x1)` hears of recompute. */
function paintPixelRow(pixels, at, { codes, first, length }, columns, palette, again) {
  const { starts, ends, firsts, lasts } = columns;
  for (let k = timelineColumnFrom(columns, first); k < firsts.length && firsts[k] < first + length; k++) {
    const last = Math.min(lasts[k] - first, length);
    let code = PHASE_CODE.none;
    for (let i = Math.max(firsts[k] - first, 0); i < last; i++) if (codes[i] > code) code = codes[i];
    for (let x = starts[k]; x < ends[k]; x++) pixels[at + x] = palette[code];
    if (code === PHASE_CODE.recompute) again(starts[k], ends[k]);
    if (code !== PHASE_CODE.lost) continue;
    for (let x = starts[k]; x < ends[k]; x++) if (x % LOST_EVERY >= LOST_DASH) pixels[at + x] = palette[PHASE_CODE.none];
  }
}

/** The frame of the pixels; where rows scroll, which part of them is on screen. */
function pixelFrame(g, { theme, layout, scroll }) {
  const height = layout.bottom - layout.top;
  g.strokeStyle = theme.line;
  g.lineWidth = 1;
  g.strokeRect(layout.left - 0.5, layout.top - 0.5, layout.plot + 1, height + 1);
  if (layout.rowsShown === layout.numRequests) return;
  const scale = height / layout.numRequests;
  g.fillStyle = theme.ink3;
  g.fillRect(layout.right + 4, layout.top + scale * scroll, 4, scale * layout.rowsShown);
}

/** "#rrggbb" as one pixel of an ImageData. */
function pixelOf(colour) {
  const [red, green, blue] = rgb(colour);
  return new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
}
