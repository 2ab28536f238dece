/** The overview of very many cells: a dot each, and the frame of the cells that the grid below shows. */

import { text, thousands } from "./draw.js";
import { cellColour } from "./kv_cells_capsules.js";
import { cellKind, dotCells } from "./kv_cells_geometry.js";
import { paintRingTriangle } from "./kv_cells_paint.js";
import { rgb } from "./theme.js";

const CELL_SQUARE = 7; // px, where cells of the selected request begin

/** "#rrggbb" as the word of one opaque pixel, in the order of bytes of ImageData. */
const cellPixel = (hex) => rgb(hex).reduce((sum, v, i) => sum + v * 2 ** (8 * i), 255 * 2 ** 24);

/** All cells as dots; `shown`: [first, after the last] cell of the window. The scene is that of kv_cells_paint.js. */
export function paintCellsOverview(g, overview, scene, shown) {
  const { left, top, columns, rows, size, each } = overview;
  const { theme } = scene;
  const dots = dotCells(scene.state, overview);
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [columns, rows];
  sheet.getContext("2d").putImageData(cellOverviewPixels(overview, dots, scene), 0, 0);
  g.imageSmoothingEnabled = false;
  g.drawImage(sheet, left, top, columns * size, rows * size);
  g.strokeStyle = theme.line;
  g.lineWidth = 1;
  g.strokeRect(left - 0.5, top - 0.5, columns * size + 1, rows * size + 1);
  paintSelectedCells(g, overview, dots, scene);
  const dot = each === 1 ? "a dot is one cell" : `one dot for ${thousands(each)} cells; used wins over empty`;
  const read = `attention reads cells 0–${thousands(scene.state.attended - 1)}`;
  const words = `above: ${dot}; below: cells ${shown[0]}–${shown[1] - 1}; ${read}`;
  text(g, words, left, top + rows * size + 20, { colour: theme.ink2 });
  const rowOf = (cell) => Math.floor(cell / each / columns);
  g.fillStyle = theme.ink; // the end of what attention reads
  if (scene.state.attended) g.fillRect(left, top + (rowOf(scene.state.attended - 1) + 1) * size, columns * size, 1.5);
  const y = top + rowOf(shown[0]) * size;
  const h = (rowOf(shown[1] - 1) - rowOf(shown[0]) + 1) * size;
  for (const [colour, width] of [[theme.bg, 4], [theme.ink, 1.8]]) {
    g.strokeStyle = colour;
    g.lineWidth = width;
    g.strokeRect(left - 2, y - 2, columns * size + 4, h + 4);
  }
  const head = scene.state.ringHead;
  if (head !== null) {
    const column = Math.floor(head / each) % columns;
    paintRingTriangle(g, left + (column + 0.5) * size, top + rowOf(head) * size, theme);
  }
}

function cellOverviewPixels({ columns, rows }, dots, scene) {
  const { state, end, theme } = scene;
  const pixels = new ImageData(columns, rows);
  const words = new Uint32Array(pixels.data.buffer);
  const [ghost, sub] = [theme.ghost, theme.sub].map(cellPixel);
  const colours = new Map(); // request -> word
  dots.forEach((cell, dot) => {
    const kind = cellKind(state, cell, end);
    if (kind === "padding") words[dot] = sub;
    if (kind === "hole") words[dot] = (dot + Math.floor(dot / columns)) % 2 ? ghost : sub; // a checker, not a grey
    if (kind !== "used") return;
    const holders = state.holders[cell];
    const request = holders.find((r) => !scene.isKept(r)) ?? holders[0];
    if (!colours.has(request)) colours.set(request, cellPixel(cellColour(scene, request)));
    words[dot] = colours.get(request);
  });
  return pixels;
}

/** Squares where cells of the selected request begin; those that would cover each other are one. */
function paintSelectedCells(g, { left, top, columns, size }, dots, { state, selected, theme }) {
  if (selected === null) return;
  const isHeld = (dot) => state.holders[dots[dot]]?.includes(selected);
  let last = -Infinity;
  g.fillStyle = theme.warn;
  for (let dot = 0; dot < dots.length; dot++) {
    if (!isHeld(dot) || isHeld(dot - 1) || dot - last < CELL_SQUARE / size) continue;
    const x = left + ((dot % columns) + 0.5) * size;
    const y = top + (Math.floor(dot / columns) + 0.5) * size;
    g.fillRect(x - CELL_SQUARE / 2, y - CELL_SQUARE / 2, CELL_SQUARE, CELL_SQUARE);
    last = dot;
  }
}
