/** The marks of a row: its name, and how waiting, prefill, decode, recompute and the end look. Rows, lens, legend share them. */

import { MARKS, element, hatch, text } from "./draw.js";
import { mix } from "./theme.js";

const GAP_EVERY = 3; // px: one of three is a gap

function timelineDash(g, dash, width, colour, x0, x1, y) {
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.setLineDash(dash);
  g.beginPath();
  g.moveTo(x0, y);
  g.lineTo(x1, y);
  g.stroke();
  g.setLineDash([]);
}

export function waitingLine(g, theme, x0, x1, y) {
  timelineDash(g, [1.5, 4], 1.5, theme.ink3, x0 + 1, Math.max(x0 + 2.5, x1 - 2), y);
}

export function lostLine(g, theme, x0, x1, y) {
  if (x1 - 2 > x0) timelineDash(g, [6, 4], 1.6, theme.warn, x0, x1 - 2, y);
}

export function decodeBar(g, x0, x1, y, colour, edge, height = 7) {
  g.fillStyle = colour;
  g.fillRect(x0, y - height / 2, x1 - x0, height);
  if (!edge) return;
  g.fillStyle = edge;
  g.fillRect(x0, y - height / 2, x1 - x0, 0.75);
  g.fillRect(x0, y + height / 2 - 0.75, x1 - x0, 0.75);
}

export function prefillBox(g, theme, x, y, w, h, colour, share) {
  g.fillStyle = mix(colour, theme.bg, 0.72);
  g.fillRect(x, y, w, h);
  const filled = Math.max(2, h * Math.min(1, share));
  g.fillStyle = colour;
  g.fillRect(x, y + h - filled, w, filled);
  if (w < 3) return;
  g.strokeStyle = theme.edge(colour);
  g.lineWidth = 1;
  g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
}

export function recomputeBox(g, theme, x, y, w, h) {
  g.fillStyle = w < 4 ? theme.warn : theme.bg;
  g.fillRect(x, y, w, h);
  if (w < 4) return;
  hatch(g, x, y, w, h, theme.warn, 4, 1.7);
  g.strokeStyle = theme.warn;
  g.lineWidth = 1;
  g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
}

/** Pixels of recompute get gaps in lines, as its box has: in grey it is as dark as other phases. `boxes`: [x, y, w, h]. */
export function recomputeGaps(g, theme, boxes) {
  if (!boxes.length) return;
  const tile = element("canvas");
  tile.width = tile.height = GAP_EVERY;
  const line = tile.getContext("2d");
  line.fillStyle = theme.bg;
  for (let k = 0; k < GAP_EVERY; k++) line.fillRect(k, GAP_EVERY - 1 - k, 1, 1);
  g.imageSmoothingEnabled = false;
  g.fillStyle = g.createPattern(tile, "repeat");
  g.beginPath();
  for (const box of boxes) g.rect(...box);
  g.fill();
}

/** A bar where a request finished; a cross where it was aborted or failed. */
export function endMark(g, theme, kind, x, y, height = 12) {
  if (kind !== "finished") return MARKS[kind](g, x, y, theme);
  g.fillStyle = theme.ink;
  g.fillRect(x - 2, y - height / 2, 4, height);
}

/** The square and the name of a request, left of its row; the style of the figures that stand right of them. */
export function rowName(g, theme, name, colour, rowHeight, middle) {
  const side = Math.min(12, rowHeight - 3);
  const size = rowHeight >= 22 ? 13 : 11;
  g.fillStyle = colour;
  g.fillRect(8, middle - side / 2, side, side);
  g.strokeStyle = theme.edge(colour);
  g.lineWidth = 1;
  g.strokeRect(8.5, middle - side / 2 + 0.5, side - 1, side - 1);
  text(g, name, 26, middle + size / 3, { size, weight: 600, colour: theme.ink });
  return { size: Math.min(11.5, size), colour: theme.ink2, align: "right" };
}
