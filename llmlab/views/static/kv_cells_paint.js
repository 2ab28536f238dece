/**
 * Marks of the cells picture on a canvas. A scene is {state, end, theme, owner, name, isKept, isCrowd, selected, focus}:
 * `owner`, `name` and `isKept` take a request, `isCrowd`: more requests than colours, `focus`: a cell or null. This file
 * must not know the page around the canvas.
 */

import { box, text, textWidth, thousands } from "./draw.js";
import { cellColour, paintCapsules } from "./kv_cells_capsules.js";
import { cellCapsules, cellCorner, cellKind, cellRuns } from "./kv_cells_geometry.js";
import { textOn } from "./theme.js";

/** All cells of a grid, in the order from ground to focus ring. */
export function paintCells(g, grid, scene) {
  const { state } = scene;
  const capsules = cellCapsules(cellRuns(state, grid.first, grid.last), grid.columns, grid.first);
  paintCellGround(g, grid, scene);
  paintEmptyCells(g, grid, scene);
  paintCapsules(g, grid, scene, capsules);
  paintWrittenCells(g, grid, scene);
  paintSpanEnd(g, grid, scene);
  if (grid.cut) {
    const words = `cells ${grid.last}–${grid.numCells - 1}: never read in this run, not drawn`;
    text(g, words, grid.left, grid.height - 7, { colour: scene.theme.ink2 });
  }
  paintRingHead(g, grid, scene);
  if (scene.focus !== null && scene.focus >= grid.first && scene.focus < grid.last) paintCellFocus(g, grid, scene);
}

function paintCellGround(g, grid, { state, theme }) {
  const { left, top, columns, cellWidth, pitch } = grid;
  const read = Math.max(0, Math.min(grid.last, state.attended) - grid.first);
  const full = Math.floor(read / columns);
  g.fillStyle = theme.sub;
  g.fillRect(left - 4, top - 4, columns * cellWidth + 8, full * pitch + (full ? 2 : 0));
  if (read % columns) g.fillRect(left - 4, top - 4 + full * pitch, (read % columns) * cellWidth + 4, pitch + 2);
  const every = pitch >= 14 ? 1 : 8;
  for (let row = 0; row < grid.rows; row += every) {
    const y = top + row * pitch + grid.cellHeight / 2 + 4;
    text(g, String(grid.first + row * columns), left - 9, y, { size: 11, align: "right", colour: theme.ink3 });
  }
}

function paintEmptyCells(g, grid, { state, end, theme }) {
  const { cellWidth: w, cellHeight: h } = grid;
  g.fillStyle = theme.ghost;
  g.strokeStyle = theme.ghost;
  g.lineWidth = 1;
  g.beginPath();
  for (let c = grid.first; c < grid.last; c++) {
    const kind = cellKind(state, c, end);
    if (kind === "used") continue;
    const [x, y] = cellCorner(grid, c);
    if (kind === "unread") {
      g.fillRect(x + w / 2 - 0.75, y + h / 2 - 0.75, 1.5, 1.5);
      continue;
    }
    g.rect(x, y + 0.5, w, h - 1); // neighbours share their line
    if (kind === "hole") {
      g.moveTo(x + 1.5, y + h - 2.5);
      g.lineTo(x + w - 1.5, y + 2.5);
    }
  }
  g.stroke();
}

function paintWrittenCells(g, grid, scene) {
  const { state } = scene;
  for (const c of state.written) {
    if (c < grid.first || c >= grid.last || !state.holders[c]) continue;
    const [x, y] = cellCorner(grid, c);
    const size = grid.cellHeight < 12 ? 2 : 3;
    g.fillStyle = textOn(cellColour(scene, state.holders[c].at(-1)));
    g.fillRect(x + (grid.cellWidth - size) / 2, y + grid.cellHeight - size - 1.5, size, size);
  }
}

/** The rule below the last cell that attention reads, and its words. */
function paintSpanEnd(g, grid, { state, theme }) {
  const { left, top, columns, cellWidth, pitch, cellHeight } = grid;
  const read = state.attended - grid.first;
  if (read <= 0 || state.attended > grid.last) return;
  const right = left + columns * cellWidth + 4;
  const full = Math.floor(read / columns);
  const gap = (pitch - cellHeight) / 2;
  let y = top + full * pitch - gap;
  g.strokeStyle = theme.ink;
  g.lineWidth = 1.5;
  g.beginPath();
  g.moveTo(right, y);
  if (read % columns) {
    const x = left + (read % columns) * cellWidth;
    g.lineTo(x, y);
    y += pitch;
    g.lineTo(x, y);
  }
  g.lineTo(left - 4, y);
  g.stroke();
  const words = `attention reads cells 0–${thousands(state.attended - 1)}`;
  const beyond = "beyond: not read";
  const [wide, beyondWide] = [textWidth(g, words, { weight: 600 }) + 6, textWidth(g, beyond) + 6];
  const isTold = state.attended < grid.numCells && wide + beyondWide + 8 < right - left;
  g.fillStyle = theme.bg; // the dots of the next row do not strike the words out
  g.fillRect(right - wide, y + 5, wide, 14);
  if (isTold) g.fillRect(left, y + 5, beyondWide, 14);
  text(g, words, right, y + 16, { weight: 600, align: "right", colour: theme.ink });
  if (isTold) text(g, beyond, left, y + 16, { colour: theme.ink2 });
}

/** The ring head; its tip is at (x, y). */
export function paintRingTriangle(g, x, y, theme) {
  g.beginPath();
  g.moveTo(x, y);
  g.lineTo(x - 5.5, y - 8);
  g.lineTo(x + 5.5, y - 8);
  g.closePath();
  g.strokeStyle = theme.bg;
  g.lineWidth = 2.4;
  g.stroke();
  g.fillStyle = theme.ink;
  g.fill();
}

/** Where the search for free cells starts: a triangle at the cell, and a sentence above the grid. */
function paintRingHead(g, grid, { state, theme }) {
  const cell = state.ringHead;
  if (cell === null) return;
  if (cell >= grid.first && cell < grid.last) {
    const [x, y] = cellCorner(grid, cell);
    paintRingTriangle(g, x + grid.cellWidth / 2, y - 1, theme);
  }
  paintRingTriangle(g, grid.left + 5.5, 12, theme);
  const room = grid.columns * grid.cellWidth - 17;
  const short = `ring head at cell ${cell}`;
  for (const words of [`${short}: the search for free cells starts here`, short]) {
    if (textWidth(g, words, { weight: 600 }) > room) continue;
    text(g, words, grid.left + 17, 12, { weight: 600, colour: theme.ink });
    return;
  }
}

function paintCellFocus(g, grid, { focus, theme }) {
  const [x, y] = cellCorner(grid, focus);
  for (const [colour, width] of [[theme.bg, 5], [theme.focus, 2]]) {
    g.strokeStyle = colour;
    g.lineWidth = width;
    box(g, x - 2, y - 2, grid.cellWidth + 4, grid.cellHeight + 4);
    g.stroke();
  }
}
