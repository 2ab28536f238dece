/** Capsules of cells on a canvas: fills, bands, edges, labels. Scenes are those of kv_cells_paint.js. */

import { box, text, textWidth } from "./draw.js";
import { capsuleBands, capsuleLabels, cellCorner } from "./kv_cells_geometry.js";
import { textOn } from "./theme.js";

/** All capsules of a grid, with their labels and the ring of the selected request. */
export function paintCapsules(g, grid, scene, capsules) {
  const isBars = grid.level === "bars";
  paintOwnCapsules(g, grid, scene, capsules.filter(({ holders }) => holders.length === 1));
  for (const capsule of capsules) if (capsule.holders.length > 1) paintSharedCapsule(g, grid, scene, capsule);
  if (!isBars) paintCapsuleSeams(g, grid, scene, capsules);
  for (const capsule of capsules) {
    const isLabelled = !isBars && capsule.n * grid.cellWidth >= 12;
    if (isLabelled) paintCapsuleLabel(g, grid, scene, capsule);
  }
  for (const capsule of capsules) {
    if (capsule.holders.includes(scene.selected)) paintCapsuleRing(g, grid, scene, capsule);
  }
}

/** Colour of a request's cells: paler when they are only kept. */
export function cellColour({ theme, owner, isKept }, request) {
  return isKept(request) ? theme.dim(owner(request)) : owner(request);
}

/** Corners are square where the run goes on in the next or the last row. */
function capsuleCorners({ level }, { from, on }) {
  const radius = level === "bars" ? 1 : 3;
  const [left, right] = [from ? 0 : radius, on ? 0 : radius];
  return [left, right, right, left];
}

/** Capsules of one sequence, in one stroke a request: there may be thousands. Edges of kept cells are dashed. */
function paintOwnCapsules(g, grid, scene, capsules) {
  const byRequest = new Map();
  for (const capsule of capsules) {
    const [request] = capsule.holders;
    if (!byRequest.has(request)) byRequest.set(request, []);
    byRequest.get(request).push(capsule);
  }
  for (const [request, own] of byRequest) {
    g.beginPath();
    for (const capsule of own) {
      const [x, y] = cellCorner(grid, capsule.first);
      g.roundRect(x + 0.5, y + 0.5, capsule.n * grid.cellWidth - 1, grid.cellHeight - 1, capsuleCorners(grid, capsule));
    }
    g.fillStyle = cellColour(scene, request);
    g.fill();
    g.strokeStyle = scene.theme.edge(scene.owner(request));
    g.lineWidth = 1;
    if (scene.isKept(request)) g.setLineDash([2, 2]);
    g.stroke();
    g.setLineDash([]);
  }
}

function paintSharedCapsule(g, grid, scene, capsule) {
  const { theme, isKept } = scene;
  const [x, y] = cellCorner(grid, capsule.first);
  const w = capsule.n * grid.cellWidth;
  const h = grid.cellHeight;
  const [tl, tr, br, bl] = capsuleCorners(grid, capsule);
  const bands = capsuleBands(capsule.holders, h);
  bands.forEach(([request, at, height], i) => {
    const isLast = i === bands.length - 1;
    g.fillStyle = request === null ? theme.ink2 : cellColour(scene, request);
    const round = [i ? 0 : tl, i ? 0 : tr, isLast ? br : 0, isLast ? bl : 0];
    box(g, x + 0.5, y + at, w - 1, height + (isLast ? 0 : 0.5), round);
    g.fill();
  });
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  if (capsule.holders.every(isKept)) g.setLineDash([2, 2]);
  box(g, x + 0.5, y + 0.5, w - 1, h - 1, capsuleCorners(grid, capsule));
  g.stroke();
  g.setLineDash([]);
}

/** Thin lines between the cells of a capsule. */
function paintCapsuleSeams(g, grid, { theme }, capsules) {
  g.strokeStyle = theme.bg;
  g.globalAlpha = 0.35;
  g.lineWidth = 0.6;
  g.beginPath();
  for (const { first, n } of capsules) {
    const [x, y] = cellCorner(grid, first);
    for (let i = 1; i < n; i++) {
      g.moveTo(x + i * grid.cellWidth, y + 1);
      g.lineTo(x + i * grid.cellWidth, y + grid.cellHeight - 1);
    }
  }
  g.stroke();
  g.globalAlpha = 1;
}

function paintCapsuleLabel(g, grid, scene, capsule) {
  const { theme } = scene;
  const font = { size: 11, weight: 600 };
  const w = capsule.n * grid.cellWidth;
  const [x, y] = cellCorner(grid, capsule.first);
  const baseline = y + grid.cellHeight / 2 + 4;
  const isShared = capsule.holders.length > 1;
  for (const words of capsuleLabels(capsule, scene.name, scene.isKept)) {
    const wide = textWidth(g, words, font);
    if (wide + (isShared ? 12 : 4) > w) continue;
    if (isShared) {
      g.fillStyle = theme.bg;
      box(g, x + 3, y + grid.cellHeight / 2 - 7.5, wide + 7, 15);
      g.fill();
      text(g, words, x + 6.5, baseline, { ...font, colour: theme.ink });
    } else {
      const colour = textOn(cellColour(scene, capsule.holders[0]));
      text(g, words, x + Math.min(5, (w - wide) / 2), baseline, { ...font, colour });
    }
    return;
  }
}

function paintCapsuleRing(g, grid, { theme, isCrowd }, capsule) {
  const [x, y] = cellCorner(grid, capsule.first);
  g.strokeStyle = isCrowd ? theme.warn : theme.ink;
  g.lineWidth = grid.level === "bars" ? 1.5 : isCrowd ? 2.5 : 2;
  box(g, x, y - 1, capsule.n * grid.cellWidth, grid.cellHeight + 2, capsuleCorners(grid, capsule));
  g.stroke();
}
