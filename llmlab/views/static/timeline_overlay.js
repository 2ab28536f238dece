/** Paints what moves over a finished timeline: cursor, selection, names of pixel rows, and the lens. Takes a scene. */

import { MARKS, box, text, textWidth, thousands } from "./draw.js";
import { timelineLens } from "./timeline_lens.js";
import { decodeBar, endMark, lostLine, prefillBox, recomputeBox, waitingLine } from "./timeline_marks.js";
import { PHASE_CODE } from "./timeline_phases.js";

/** Where a row is; rows that scrolled away are at the edge. */
export function timelineRowY({ layout, scroll }, r) {
  return layout.top + Math.max(0, Math.min(layout.rowsShown, r - scroll)) * layout.rowHeight;
}

/** Outline of the selected row. */
export function paintTimelineSelection(g, scene, selected) {
  const { theme, layout, story, scroll } = scene;
  if (selected === null || selected >= layout.numRequests) return;
  if (selected < scroll || selected >= scroll + layout.rowsShown) return;
  const y = timelineRowY(scene, selected);
  g.strokeStyle = theme.ink;
  g.lineWidth = layout.isPixels ? 1 : 1.5;
  if (!layout.isPixels) {
    g.strokeRect(1, y + 0.5, layout.width - 2, layout.rowHeight - 1);
    return;
  }
  g.strokeRect(layout.left - 0.5, y - 1.5, layout.plot + 1, layout.rowHeight + 3);
  const font = { size: 11, weight: 700, colour: theme.ink, align: "right" };
  text(g, story.requests[selected].name, layout.left - 6, y + 4, font);
}

/**
 * Names of pixel rows: each 25th, each 50th from 200 on, or one's own among those of other clients; where they are not in
 * each other's way, or in that of the selected one.
 */
export function paintTimelineNames(g, { theme, story, layout, scroll }, selected) {
  const every = layout.numRequests >= 200 ? 50 : 25;
  const isNamed = theme.others?.size ? (r) => !theme.others.has(r) : (r) => r % every === 0;
  let last = -Infinity; // where a name is
  for (let r = scroll; r < scroll + layout.rowsShown; r++) {
    if (!isNamed(r)) continue;
    const y = layout.top + (r - scroll) * layout.rowHeight;
    g.fillStyle = theme.line;
    g.fillRect(layout.left - 4, y, 4, 1);
    if (y - last < 13) continue;
    last = y;
    if (selected !== null && Math.abs((selected - r) * layout.rowHeight - 5) < 13) continue;
    text(g, story.requests[r].name, layout.left - 6, y + 9, { size: 11, colour: theme.ink2, align: "right" });
  }
}

/** The cursor: one step, named. The words for the budget make room for its name. */
export function paintTimelineCursor(g, scene, i) {
  const { theme, story, axis, layout, x } = scene;
  const words = `${story.head.token_budget ? "budget" : "at most"} ${thousands(scene.budget)}`;
  const font = { size: 11.5, colour: theme.ink2, align: "right" };
  const name = paintCursor(g, scene, i, x(axis.starts[i]), x(axis.ends[i]));
  const isFree = !name || name.right < layout.right - textWidth(g, words, font) - 6;
  text(g, words, isFree ? layout.right : name.left - 6, layout.budget.y - 4, font);
}

function paintCursor(g, { theme, story, layout }, i, x0, x1) {
  if (x1 < layout.left || x0 > layout.right) return null;
  const w = Math.max(2, x1 - x0);
  g.save();
  g.globalAlpha = 0.07;
  g.fillStyle = theme.ink;
  g.fillRect(x0, 16, w, layout.strips - 16);
  g.restore();
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  g.strokeRect(x0 - 0.5, 16.5, w + 1, layout.strips - 16);
  const words = `step ${thousands(story.steps[i].n)}`;
  const font = { size: 12, weight: 600, colour: theme.bg, align: "center" };
  const wide = textWidth(g, words, font) + 12;
  const left = Math.max(layout.left, Math.min(layout.right - wide, x0 + w / 2 - wide / 2));
  g.fillStyle = theme.ink;
  box(g, left, 0, wide, 17);
  g.fill();
  text(g, words, left + wide / 2, 12.5, font);
  return { left, right: left + wide };
}

/** The lens around a row and a step. Returns its geometry, for the pointer. */
export function paintTimelineLens(g, scene, row, i) {
  const { theme, story, axis, layout, scroll, x } = scene;
  const lens = timelineLens(layout, row, i, axis.length, x(axis.starts[i]), timelineRowY(scene, row));
  lensField(g, scene, lens);
  g.fillStyle = theme.bg;
  g.fillRect(lens.x, lens.y, lens.w, lens.h);
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  g.strokeRect(lens.x + 0.5, lens.y + 0.5, lens.w - 1, lens.h - 1);
  const name = (r) => story.requests[r].name;
  const [lastRow, lastStep] = [lens.firstRow + lens.numRows - 1, lens.firstStep + lens.numSteps - 1];
  const steps = `steps ${thousands(story.steps[lens.firstStep].n)}–${thousands(story.steps[lastStep].n)}`;
  const words = `lens: ${name(lens.firstRow)}–${name(lastRow)}, ${steps}`;
  text(g, words, lens.x + 8, lens.y + 14, { size: 11, colour: theme.ink2 });
  text(g, "✕", lens.x + lens.w - 8, lens.y + 14, { size: 11, colour: theme.ink2, align: "right" });
  for (let k = 0; k < lens.numRows; k++) lensRow(g, scene, lens, k, lens.firstRow + k === row);
  const at = lens.x + lens.labels + (i - lens.firstStep + 0.5) * lens.stepWidth;
  g.fillStyle = theme.ink;
  g.fillRect(at - 0.75, lens.rowsY - 2, 1.5, lens.numRows * lens.rowHeight + 3);
  return lens;
}

/** The outline of what the lens shows, in the plot. */
function lensField(g, scene, lens) {
  const { theme, axis, layout, x } = scene;
  const from = Math.max(layout.left, x(axis.starts[lens.firstStep]));
  const to = Math.min(layout.right, x(axis.ends[lens.firstStep + lens.numSteps - 1]));
  const [top, bottom] = [timelineRowY(scene, lens.firstRow), timelineRowY(scene, lens.firstRow + lens.numRows)];
  if (to <= from || bottom <= top) return;
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  g.strokeRect(from - 0.5, top - 1.5, to - from + 1, bottom - top + 3);
}

function lensRow(g, scene, lens, k, isSelected) {
  const { theme, story, phases } = scene;
  const r = lens.firstRow + k;
  const row = phases.rows[r];
  const [y, h] = [lens.rowsY + k * lens.rowHeight, lens.rowHeight];
  const middle = y + h / 2;
  const font = { size: 11, weight: isSelected ? 700 : 400, colour: theme.ink, align: "right" };
  text(g, story.requests[r].name, lens.x + lens.labels - 8, middle + 4, font);
  const x = (i) => lens.x + lens.labels + (i - lens.firstStep) * lens.stepWidth;
  const end = lens.firstStep + lens.numSteps;
  for (let i = lens.firstStep; i < end; ) {
    const code = row.at(i);
    let next = i + 1;
    const isLine = code === PHASE_CODE.waiting || code === PHASE_CODE.lost;
    while (isLine && next < end && row.at(next) === code) next++;
    lensStep(g, scene, row, i, code, x(i), x(next), y + 1, h - 2, theme.phasesOf(r));
    i = next;
  }
  for (const [i, kind] of row.marks) {
    if (i < lens.firstStep || i >= end) continue;
    if (kind === "preempted") MARKS.preempted(g, x(i) + 3, middle, theme);
    else if (kind === "hit") lensHit(g, theme, x(i) - 6, middle);
    else endMark(g, theme, kind, x(i + 1), middle, 10);
  }
}

/** Before the step in which it was found, as in rows of shapes: its chunk is to be seen. */
function lensHit(g, theme, x, middle) {
  g.fillStyle = theme.bg;
  g.fillRect(x - 5, middle - 5.5, 10, 11);
  MARKS.hit(g, x, middle + 0.5, theme);
}

function lensStep(g, { theme, budget }, row, i, code, x0, x1, y, h, colours) {
  const middle = y + h / 2;
  const w = x1 - x0 - (x1 - x0 > 4 ? 0.6 : 0);
  if (code === PHASE_CODE.waiting) waitingLine(g, theme, x0, x1, middle);
  if (code === PHASE_CODE.lost) lostLine(g, theme, x0 + 6, x1, middle);
  if (code === PHASE_CODE.recompute) recomputeBox(g, theme, x0, y, w, h);
  if (code === PHASE_CODE.prefill) prefillBox(g, theme, x0, y, w, h, colours.prefill, row.tokensAt(i) / budget);
  if (code !== PHASE_CODE.decode && code !== PHASE_CODE.grow) return;
  decodeBar(g, x0, x1 + 0.3, middle, colours.decode, null);
  if (code === PHASE_CODE.grow) decodeBar(g, x0 + w / 2 - 1, x0 + w / 2 + 1, middle, theme.ink, null, 9);
}
