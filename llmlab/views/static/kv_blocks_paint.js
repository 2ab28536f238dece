/**
 * A paged KV cache on a canvas: the slots view, grids of cells, the overview. Where things stand is decided in
 * kv_blocks_geometry.js. A scene is {theme, story, i, state, layout, from, looks, selected, focused, isRamp}.
 */

import { MARKS, box, hatch, pill, text, textWidth } from "./draw.js";
import { blockBands, blockCorner, slotColumns } from "./kv_blocks_geometry.js";
import { tableWords } from "./kv_blocks_text.js";
import { mix, textOn } from "./theme.js";

const SLOTS_HEAD = 17; // px, the names of the holders

/** (request, isDimmed) -> {fill, tint, edge, text}, each made once. */
export function ownerPaints(theme, count) {
  const made = new Map();
  return (request, isDimmed = false) => {
    const key = isDimmed ? -1 - request : request;
    if (!made.has(key)) {
      const full = theme.owner(request, count);
      const fill = isDimmed ? mix(full, theme.bg, 0.3) : full;
      made.set(key, { fill, tint: theme.tint(fill), edge: theme.edge(fill), text: textOn(fill) });
    }
    return made.get(key);
  };
}

/** The ring of the selected request: on the ramp of many requests ink would not be seen. */
export const selectionColour = ({ theme, isRamp }) => (isRamp ? theme.warn : theme.ink);

/** Up to 64 blocks: the block table of the selected request, arrows, and every slot of every block. */
export function paintSlots(g, scene) {
  const { theme, story, state, layout, looks, selected, focused } = scene;
  const { cell: w, cellHeight: h } = layout;
  const paints = ownerPaints(theme, story.requests.length);
  const table = selected === null ? undefined : state.tables.get(selected);
  paintTableStrip(g, scene, table, paints);
  for (const look of looks) {
    const [x, y] = blockCorner(layout, look.id);
    const isMine = table !== undefined && look.holders.some(([r]) => r === selected);
    if (look.holders.length) paintHeldBlock(g, scene, look, x, y, paints, table !== undefined && !isMine);
    else paintOpenBlock(g, scene, look, x, y);
    paintIdLine(g, scene, look, x, y, isMine);
    if (isMine) blockRing(g, x - 2.5, y - 2.5, w + 5, h + 5, 5, selectionColour(scene), 2.5);
    if (focused === look.id) blockRing(g, x - 6, y - 6, w + 12, h + 12, 7, theme.focus, 2);
  }
}

function paintTableStrip(g, { theme, story, state, i, layout, selected }, table, paints) {
  if (selected === null) {
    text(g, "Click a block or a name: its block table appears here.", 2, 14, { size: 12, colour: theme.ink2 });
    return;
  }
  const [title, words] = tableWords(story, i, selected);
  text(g, title, 2, 14, { size: 13, weight: 600, colour: theme.ink });
  text(g, words, 16 + textWidth(g, title, { size: 13, weight: 600 }), 14, { size: 12, colour: theme.ink2 });
  if (!table) return;
  const gap = table.length > 16 ? 3 : 8;
  const w = Math.max(3, Math.min(78, (layout.width - 10) / table.length - gap));
  const size = story.head.block_size;
  const paint = paints(selected);
  const heads = [];
  table.forEach((block, logical) => {
    const x = 2 + logical * (w + gap);
    const written = Math.max(0, Math.min(size, (state.tokens.get(selected) ?? 0) - logical * size));
    g.save();
    box(g, x, 24, w, 26);
    g.clip();
    g.fillStyle = paint.tint;
    g.fillRect(x, 24, w, 26);
    g.fillStyle = paint.fill;
    g.fillRect(x, 45, (w * written) / size, 5);
    g.restore();
    blockRing(g, x + 0.5, 24.5, w - 1, 25, 3, paint.edge, 1);
    if (w >= 62) {
      text(g, `${logical}`, x + 8, 40, { size: 13, weight: 600, colour: theme.ink });
      text(g, `→ #${block}`, x + w - 7, 40, { size: 12, align: "right", colour: theme.ink2 });
    } else if (w >= 30) text(g, `#${block}`, x + w / 2, 39, { size: 11, align: "center", colour: theme.ink });
    const [left, top] = blockCorner(layout, block);
    const share = state.fresh.has(block) ? 0.8 : 0.5; // the word `new` stands over the middle
    paintTableArrow(g, theme, x + w / 2, left + layout.cell * share, top - 4);
    heads.push([left + layout.cell * share, top - 4]);
  });
  for (const [x, y] of heads) paintArrowHead(g, theme, x, y); // last: the halo of no arrow may cut them
}

/** From logical to physical, behind the blocks, with a halo of paper. */
function paintTableArrow(g, theme, from, to, y) {
  const path = new Path2D();
  path.moveTo(from, 50);
  path.bezierCurveTo(from, 94, to, y - 52, to, y - 6);
  g.lineCap = "round";
  g.strokeStyle = theme.bg;
  g.lineWidth = 5;
  g.stroke(path);
  g.strokeStyle = theme.ink;
  g.lineWidth = 1.4;
  g.stroke(path);
}

function paintArrowHead(g, theme, x, y) {
  g.fillStyle = theme.ink;
  g.beginPath();
  g.moveTo(x - 4.5, y - 7);
  g.lineTo(x + 4.5, y - 7);
  g.lineTo(x, y);
  g.fill();
}

function paintHeldBlock(g, { theme, story, layout }, look, x, y, paints, isDimmed) {
  const { cell: w, cellHeight: h } = layout;
  const bands = blockBands(look.holders);
  const paintOf = (r) => (r === null ? restPaint(theme) : paints(r, isDimmed));
  g.save();
  box(g, x, y, w, h);
  g.clip();
  g.fillStyle = theme.bg;
  g.fillRect(x, y, w, h);
  bands.forEach((r, k) => {
    const left = x + (w * k) / bands.length;
    const { fill, text: colour } = paintOf(r);
    g.fillStyle = fill;
    g.fillRect(left, y, w / bands.length + 0.5, SLOTS_HEAD);
    const name = r === null ? `+${look.holders.length - 3}` : story.requests[r].name;
    const size = bands.length > 1 ? 10.5 : 12;
    const middle = left + w / bands.length / 2;
    const isShort = textWidth(g, name, { size, weight: 700 }) < w / bands.length;
    text(g, isShort ? name : name.slice(-3), middle, y + 12.5, { size, weight: 700, align: "center", colour });
  });
  paintSlotSquares(g, look, x, y + SLOTS_HEAD, w, h - SLOTS_HEAD, story.head.block_size, bands.map(paintOf));
  g.restore();
  const isShared = look.holders.length > 1;
  blockRing(g, x + 0.5, y + 0.5, w - 1, h - 1, 3, isShared ? theme.ink : paintOf(bands[0]).edge, 1);
  if (isShared) paintRefCount(g, theme, look.holders.length, x + w - 1, y - 18);
}

export const restPaint = (theme) => ({ fill: theme.ink2, tint: theme.line, edge: theme.ink, text: theme.bg });

function paintSlotSquares(g, look, x, y, w, h, size, bands) {
  const columns = slotColumns(size);
  const rows = Math.ceil(size / columns);
  const [sx, sy] = [w / columns, h / rows];
  const gap = Math.min(0.6, sy / 5);
  for (let slot = 0; slot < size; slot++) {
    const column = slot % columns;
    const paint = bands[Math.min(bands.length - 1, Math.floor(((column + 0.5) / columns) * bands.length))];
    const [left, top] = [x + column * sx, y + Math.floor(slot / columns) * sy];
    const isWritten = slot < look.fill;
    g.fillStyle = isWritten ? paint.fill : paint.tint;
    g.fillRect(left + gap, top + gap, sx - 2 * gap, sy - 2 * gap);
    if (isWritten && slot >= look.writtenFrom) {
      g.fillStyle = paint.text;
      g.fillRect(left + sx / 2 - 1.5, top + sy / 2 - 1.5, 3, 3);
    }
  }
}

function paintRefCount(g, theme, count, right, y) {
  const words = `×${count}`;
  const w = Math.max(25, textWidth(g, words, { size: 11, weight: 700 }) + 10);
  g.fillStyle = theme.ink;
  box(g, right - w, y, w, 15, 7.5);
  g.fill();
  text(g, words, right - w / 2, y + 11.5, { size: 11, weight: 700, align: "center", colour: theme.bg });
}

/** A block that nobody holds: cached or free, and its place among the next to be handed out. */
function paintOpenBlock(g, { theme, state, layout }, look, x, y) {
  const { cell: w, cellHeight: h } = layout;
  paintOpenFrame(g, theme, look.cached, x, y, w, h, 6);
  const words = look.cached ? "cached" : "free";
  const place = state.nextOut.indexOf(look.id);
  const isNext = place >= 0 && place < 3;
  const base = y + (isNext && h < 58 ? h / 2 - 3 : h / 2 + 4);
  if (look.cached) {
    const plate = textWidth(g, words) + 8;
    g.fillStyle = theme.bg;
    g.fillRect(x + w / 2 - plate / 2, base - 13, plate, 17);
  }
  text(g, words, x + w / 2, base, { size: 12, align: "center", colour: look.cached ? theme.ink : theme.ink3 });
  if (isNext) pill(g, ["next out", "2nd", "3rd"][place], x + w - 2.5, y + h - 17.5, theme, { filled: place === 0 });
}

/** Paper with a hatch and a solid outline (cached), or a dotted one (free). */
export function paintOpenFrame(g, theme, isCached, x, y, w, h, gap, radius = 3) {
  box(g, x + 0.5, y + 0.5, w - 1, h - 1, radius);
  g.fillStyle = theme.bg;
  g.fill();
  if (isCached) hatch(g, x + 1, y + 1, w - 2, h - 2, theme.ghost, gap, gap > 4 ? 1.3 : 1.1);
  g.setLineDash(isCached ? [] : w < 30 ? [1.5, 2.5] : [2, 3]);
  blockRing(g, x + 0.5, y + 0.5, w - 1, h - 1, radius, theme.ink3, 1);
  g.setLineDash([]);
}

function paintIdLine(g, { theme, state, layout }, look, x, y, isMine) {
  const id = { size: 11, weight: isMine ? 700 : 400, colour: isMine ? theme.ink : theme.ink3, halo: theme.bg };
  text(g, `#${look.id}`, x + 1, y - 4, id);
  let right = x + 1 + textWidth(g, `#${look.id}`, id) + 6;
  const room = x + layout.cell - (look.holders.length > 1 ? 28 : 0); // the pill of a shared block
  const isNew = state.fresh.has(look.id);
  if (isNew && right + 22 <= room) {
    text(g, "new", right, y - 4, { size: 11, weight: 700, colour: theme.ink, halo: theme.bg });
    right += textWidth(g, "new", { size: 11, weight: 700 }) + 8;
  }
  if (isNew && state.evicted.has(look.id)) MARKS.evicted(g, right, y - 8, theme);
}

export function blockRing(g, x, y, w, h, radius, colour, width) {
  box(g, x, y, w, h, radius);
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.stroke();
}
