/**
 * Many blocks on a canvas: a grid of cells with fill levels, and the overview of pixels with a window of such cells.
 * A scene is that of kv_blocks_paint.js, with `rowsOfCells` (cells that nobody holds) and `buffers` (what is kept).
 */

import { text, textWidth, thousands } from "./draw.js";
import { blockBands, blockCorner, blockNameRuns, blockWindowOutline, overviewPixels } from "./kv_blocks_geometry.js";
import { blockRing, ownerPaints, paintOpenFrame, restPaint, selectionColour } from "./kv_blocks_paint.js";
import { rgb } from "./theme.js";

const NAME_FILLED = 0.72; // of a cell: a name in its middle is on the fill then

/** Cells: fill level from below, bands of shared blocks, hatch of cached ones, names where they fit. */
export function paintBlockGrid(g, scene) {
  const { theme, story, state, layout, from, looks, selected, focused } = scene;
  const paints = ownerPaints(theme, story.requests.length);
  const { cell } = layout;
  paintUnheld(g, scene);
  for (const look of looks) {
    if (look.holders.length) paintLevel(g, scene, look, ...blockCorner(layout, look.id, from), paints);
  }
  paintGridNames(g, scene, paints);
  const next = blockCorner(layout, state.nextOut[0] ?? -1, from);
  if (next) paintNextPlate(g, theme, next[0] + cell, next[1] + cell);
  for (const block of selected === null ? [] : (state.tables.get(selected) ?? [])) {
    const corner = blockCorner(layout, block, from);
    if (corner) blockRing(g, ...corner, cell, cell, 2, selectionColour(scene), 2.5);
  }
  const focus = focused === null ? null : blockCorner(layout, focused, from);
  if (focus) {
    blockRing(g, focus[0] - 3, focus[1] - 3, cell + 6, cell + 6, 4, theme.bg, 4);
    blockRing(g, focus[0] - 3, focus[1] - 3, cell + 6, cell + 6, 4, theme.focus, 2);
  }
  if (layout.level !== "overview") paintRowIds(g, scene);
}

/**
 * Cells that nobody holds: neighbours of one kind at once, from a row of them. Held cells do not part cached ones, which
 * most are: they are painted over them. The dots of free ones would reach into the gaps beside a held cell.
 */
export function paintUnheld(g, { layout, from, looks, rowsOfCells }) {
  let run = null; // {isCached, first, last}
  const paintRun = () => {
    if (!run) return;
    const { strip, scale } = rowsOfCells[run.isCached ? "cached" : "free"];
    const [x, y] = blockCorner(layout, run.first, from);
    const [w, h] = [(run.last - run.first) * layout.pitchX + layout.cell, layout.cell];
    g.drawImage(strip, 0, 0, w * scale, h * scale, x, y, w, h);
    run = null;
  };
  looks.forEach(({ id, holders, cached }, k) => {
    const goesOn = run && k % layout.columns !== 0 && (holders.length ? run.isCached : run.isCached === cached);
    if (!goesOn) paintRun();
    if (holders.length) return;
    run ??= { isCached: cached, first: id };
    run.last = id;
  });
  paintRun();
}

function paintLevel(g, { theme, story, layout }, look, x, y, paints) {
  const { cell } = layout;
  const bands = blockBands(look.holders);
  const isShared = look.holders.length > 1;
  const level = Math.round(((cell - 2) * look.fill) / story.head.block_size);
  g.fillStyle = isShared ? theme.ink : paints(bands[0]).edge;
  g.fillRect(x, y, cell, cell);
  bands.forEach((r, k) => {
    const paint = r === null ? restPaint(theme) : paints(r);
    const left = x + 1 + ((cell - 2) * k) / bands.length;
    const w = (cell - 2) / bands.length;
    if (level < cell - 2) {
      g.fillStyle = paint.tint;
      g.fillRect(left, y + 1, w, cell - 2 - level);
    }
    g.fillStyle = paint.fill;
    g.fillRect(left, y + cell - 1 - level, w, level);
  });
}

/** Names: in each cell that has the room, else over two or more cells of the same request; `×n` on shared blocks. */
function paintGridNames(g, { theme, story, layout, looks, from }, paints) {
  const size = layout.cell >= 30 ? 11 : 9.5;
  const style = { size, weight: 700, align: "center" };
  const named = new Set();
  const label = (look, words, middle, y) => {
    const isUnder = look.fill >= NAME_FILLED * story.head.block_size;
    const paint = paints(look.holders[0][0]);
    const colours = isUnder ? { colour: paint.text, halo: paint.fill } : { colour: theme.ink, halo: paint.tint };
    text(g, words, middle, y + layout.cell / 2 + size * 0.36, { ...style, ...colours });
  };
  if (layout.level === "levels") {
    for (const look of looks) {
      if (!look.holders.length) continue;
      const [x, y] = blockCorner(layout, look.id, from);
      const isShared = look.holders.length > 1;
      const words = isShared ? `×${look.holders.length}` : story.requests[look.holders[0][0]].name;
      const w = textWidth(g, words, style);
      if (w > layout.cell - 2) continue;
      named.add(look.id);
      if (!isShared) label(look, words, x + layout.cell / 2, y);
      else paintPlate(g, theme, words, x + layout.cell / 2, y + layout.cell / 2, w + 4, style);
    }
  }
  for (const [block, length] of blockNameRuns(looks, layout.columns)) {
    const look = looks[block - looks[0].id];
    const words = story.requests[look.holders[0][0]].name;
    const w = textWidth(g, words, style);
    if (named.has(block) || w > length * layout.pitchX - 2) continue;
    const [x, y] = blockCorner(layout, block, from);
    label(look, words, x + Math.max(layout.cell / 2, w / 2 + 2), y);
  }
}

function paintPlate(g, theme, words, x, y, w, style) {
  g.fillStyle = theme.ink;
  g.fillRect(x - w / 2, y - style.size / 2 - 1.5, w, style.size + 3);
  text(g, words, x, y + style.size * 0.36, { ...style, colour: theme.bg });
}

/** `1`: the block that is handed out next; its lower right corner is at (right, bottom). */
function paintNextPlate(g, theme, right, bottom) {
  g.fillStyle = theme.ink;
  g.fillRect(right - 9, bottom - 11, 9, 11);
  text(g, "1", right - 4.5, bottom - 2, { size: 9.5, weight: 700, align: "center", colour: theme.bg });
}

function paintRowIds(g, { theme, layout }) {
  let free = -Infinity;
  for (let row = 0; row < layout.rows; row++) {
    const y = layout.top + row * layout.pitchY + layout.cell / 2 + 4;
    if (y < free) continue;
    free = y + 13;
    const style = { size: 11, align: "right", colour: theme.ink3 };
    text(g, `#${layout.first + row * layout.columns}`, layout.left - 6, y, style);
  }
}

/** A row of cached and a row of free cells of a grid, painted once: {cached, free}, each {strip, scale}. */
export function rowsOfCells(theme, { cell, pitchX, columns }) {
  const scale = Math.max(1, globalThis.devicePixelRatio || 1);
  const row = (isCached) => {
    const strip = document.createElement("canvas");
    strip.width = Math.round(pitchX * columns * scale);
    strip.height = Math.round(cell * scale);
    const g = strip.getContext("2d");
    g.scale(scale, scale);
    for (let k = 0; k < columns; k++) {
      paintOpenFrame(g, theme, isCached, k * pitchX, 0, cell, cell, cell >= 22 ? 6 : 4, cell >= 22 ? 3 : 1);
    }
    return { strip, scale };
  };
  return { cached: row(true), free: row(false) };
}

/** All blocks as pixels; the selected request, the window and the next block out stand out. */
export function paintOverview(g, scene) {
  const { theme, story, state, layout, from, selected } = scene;
  const { px, per, columns, height, top, left } = layout.overview;
  const caption = { size: 11.5, weight: 600, colour: theme.ink2 };
  text(g, `All ${thousands(layout.count)} blocks, ${overviewWords(px, per)}, read left to right`, 0, 12, caption);
  const picture = overviewImage(scene);
  g.imageSmoothingEnabled = false;
  g.drawImage(picture, left, top);
  blockRing(g, left - 0.5, top - 0.5, columns * px + 1, height + 1, 0, theme.ink3, 1);
  const at = (block) => {
    const k = Math.floor((block - layout.first) / per);
    return [left + (k % columns) * px, top + Math.floor(k / columns) * px];
  };
  const to = Math.min(layout.last, from + layout.columns * layout.rows - 1);
  const outline = new Path2D();
  blockWindowOutline(layout, from, to).forEach(([x, y], k) => (k ? outline.lineTo(x, y) : outline.moveTo(x, y)));
  outline.closePath();
  for (const [colour, width] of [[theme.bg, 4], [theme.ink, 1.8]]) {
    g.strokeStyle = colour;
    g.lineWidth = width;
    g.stroke(outline);
  }
  if (selected !== null) {
    for (const block of state.tables.get(selected) ?? []) {
      const [x, y] = at(block);
      g.fillStyle = theme.bg;
      g.fillRect(x - 3, y - 3, 8, 8);
      g.fillStyle = theme.warn;
      g.fillRect(x - 2.5, y - 2.5, 7, 7);
    }
    const words = `■ blocks of ${story.requests[selected].name}`;
    text(g, words, layout.width - 2, top + height + 16, { size: 12, weight: 600, align: "right", colour: theme.warn });
  }
  if (state.nextOut.length) paintNextTriangle(g, scene, at(state.nextOut[0]));
  const range = `window below: #${thousands(from)}–#${thousands(to)}`;
  text(g, range, 0, top + height + 16, { size: 12, weight: 600, colour: theme.ink });
  const words = `Window: ${to - from + 1} blocks at ${layout.pitchX} px, ${layout.columns} a row`;
  text(g, words, 0, layout.top - 8, caption);
}

/** How many blocks a mark of the overview stands for. */
export function overviewWords(px, per) {
  if (per > 1) return `${per} a pixel (held wins over cached, cached over free)`;
  return px > 1 ? `one ${px}×${px} px square each` : "one pixel each";
}

function overviewImage({ theme, story, state, layout, buffers }) {
  const { px, columns, rows } = layout.overview;
  const count = story.requests.length;
  if (buffers.theme !== theme || buffers.colours.owners.length !== count) {
    const pack = (hex) => ((([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r)(rgb(hex))) >>> 0;
    const owners = Uint32Array.from({ length: count }, (_, r) => pack(theme.owner(r, count)));
    buffers.colours = { owners, mark: pack(theme.ink3), dot: pack(theme.line), paper: pack(theme.bg) };
    buffers.theme = theme;
  }
  const canvas = (buffers.overview ??= document.createElement("canvas"));
  if (canvas.width !== columns * px || canvas.height !== rows * px || !buffers.image) {
    [canvas.width, canvas.height] = [columns * px, rows * px];
    buffers.image = new ImageData(canvas.width, canvas.height); // kept: in each step a new one is work to collect
    buffers.pixels = new Uint32Array(buffers.image.data.buffer);
  }
  overviewPixels(state, layout, buffers.colours, buffers.pixels);
  canvas.getContext("2d").putImageData(buffers.image, 0, 0);
  return canvas;
}

function paintNextTriangle(g, { theme, state, layout }, [x, y]) {
  const { top, height, px } = layout.overview;
  const isBelow = y + 18 < top + height;
  const [tip, foot] = isBelow ? [y + px + 1, y + px + 11] : [y - 1, y - 11];
  g.beginPath();
  g.moveTo(x, tip);
  g.lineTo(x - 6, foot);
  g.lineTo(x + 6, foot);
  g.closePath();
  g.lineJoin = "round";
  g.strokeStyle = theme.bg;
  g.lineWidth = 3;
  g.stroke();
  g.fillStyle = theme.ink;
  g.fill();
  const isRight = x > layout.width - 140;
  const style = { size: 12, weight: 600, colour: theme.ink, halo: theme.bg, align: isRight ? "right" : "left" };
  text(g, `next out #${thousands(state.nextOut[0])}`, x + (isRight ? -10 : 10), isBelow ? foot : foot + 8, style);
}
