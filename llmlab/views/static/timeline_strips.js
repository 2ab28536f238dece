/** Paints what stands above and below the rows: tokens of each step, queue, KV memory, x axis. Takes a scene. */

import { hatch, text, textWidth, thousands } from "./draw.js";
import { timelineBars, timelineFullest, timelineHighest, timelineKvEnd, timelineTicks } from "./timeline_geometry.js";
import { mix } from "./theme.js";
import { kvTotal, kvUnit } from "./timeline_words.js";

export function paintTimelineStrips(g, scene) {
  budgetStrip(g, scene);
  queueStrip(g, scene);
  if (scene.layout.kv) kvStrip(g, scene);
  axisStrip(g, scene);
}

function stripLabel(g, { theme, layout }, lines, y) {
  lines.forEach((line, k) => {
    text(g, line, layout.left - 8, y + 13 * k, { size: 11.5, colour: theme.ink2, align: "right" });
  });
}

function stripRule(g, { layout }, y, colour, dash = []) {
  g.strokeStyle = colour;
  g.lineWidth = 1;
  g.setLineDash(dash);
  g.beginPath();
  g.moveTo(layout.left, y);
  g.lineTo(layout.right, y);
  g.stroke();
  g.setLineDash([]);
}

/** Tokens of each step: decode below, prefill on it, recompute on top. */
function budgetStrip(g, scene) {
  const { theme, story, slots, layout, budget } = scene;
  const { y, h } = layout.budget;
  stripLabel(g, scene, ["tokens", "per step"], y + 11);
  const shares = timelineFullest(slots, story.steps).map((i) => story.steps[i].u);
  const bars = timelineBars(slots, shares, layout.budget, budget);
  const colours = [theme.ink2, theme.ghost, theme.warn]; // prefill, decode, recompute
  bars.forEach((some, phase) => {
    g.fillStyle = g.strokeStyle = colours[phase];
    g.lineWidth = 1;
    for (const [x, top, w, high] of some) {
      if (phase < 2 || w < 4) {
        g.fillRect(x, top, w, high);
        continue;
      }
      hatch(g, x, top, w, high, theme.warn, 4, 1.6);
      if (high > 2) g.strokeRect(x + 0.5, top + 0.5, w - 1, high - 1);
    }
  });
  stripRule(g, scene, y + h + 0.5, theme.line);
  const limit = story.head.token_budget;
  if (limit) stripRule(g, scene, y - 0.5, theme.ink, [5, 3]);
}

function queueStrip(g, scene) {
  const { theme, story, slots, layout, mostWaiting } = scene;
  const { y, h } = layout.queue;
  stripLabel(g, scene, ["queue", `max ${thousands(mostWaiting)}`], y + 11);
  if (mostWaiting) {
    const heights = timelineHighest(slots, story.steps, (step) => step.nw).map((n) => (h * n) / mostWaiting);
    stripArea(g, slots, heights, y + h, mix(theme.ink3, theme.bg, 0.55), theme.ink2);
  } else {
    text(g, "the queue of the engine was always empty", layout.left + 6, y + 17, { size: 11.5, colour: theme.ink2 });
  }
  stripRule(g, scene, y + h + 0.5, theme.line);
}

/** Steps filled down to `bottom`; a null leaves a gap. `line` runs along the top. */
function stripArea(g, slots, heights, bottom, fill, line = null) {
  const outline = (isLine) => {
    g.beginPath();
    slots.forEach(({ x0, x1 }, k) => {
      const isFirst = heights[k] == null || k === 0 || heights[k - 1] == null || x0 > slots[k - 1].x1;
      const isLast = k === slots.length - 1 || heights[k + 1] == null || slots[k + 1].x0 > x1;
      if (heights[k] == null) return;
      if (isFirst) g.moveTo(x0, bottom);
      g.lineTo(x0, bottom - heights[k]);
      g.lineTo(x1, bottom - heights[k]);
      if (isLast) g.lineTo(x1, bottom);
    });
    if (!isLine) return;
    g.strokeStyle = line;
    g.lineWidth = 1.2;
    g.stroke();
  };
  outline(line !== null);
  g.fillStyle = fill;
  g.fill();
}

/** Held memory; what is only cached stands hatched on it. */
function kvStrip(g, scene) {
  const { theme, story, slots, layout, mostKv } = scene;
  const { y, h } = layout.kv;
  const total = kvTotal(story.head);
  const end = timelineKvEnd(mostKv, total);
  stripLabel(g, scene, [`KV ${kvUnit(story.head)}s`, total ? thousands(total) : ""], y + 11);
  const height = (n) => (n === null ? null : (h * Math.min(n, end)) / end);
  const scaled = (f) => timelineHighest(slots, story.steps, f).map(height);
  const all = scaled(kvHeldAndCached);
  stripArea(g, slots, all, y + h, hatchPattern(g, theme.ghost));
  stripArea(g, slots, scaled(({ fig }) => fig?.held ?? fig?.used), y + h, theme.ink2);
  stripRule(g, scene, y + h + 0.5, theme.line);
  if (end === total) stripRule(g, scene, y - 0.5, theme.ink, [5, 3]);
  if (!total || end === total) return;
  const words = `axis cut at ${thousands(end)} of ${thousands(total)}`;
  text(g, words, layout.left + 6, y + 8, { size: 11, colour: theme.ink2, halo: theme.bg });
}

/** Hatch as a fill: a clip along a thousand columns would be slow. */
function hatchPattern(g, colour) {
  const side = 4;
  const tile = document.createElement("canvas");
  tile.width = tile.height = side;
  hatch(tile.getContext("2d"), 0, 0, side, side, colour, side, 1);
  return g.createPattern(tile, "repeat");
}

/** Blocks held or cached, or cells used, at the end of a step; null when the engine did not say. */
export function kvHeldAndCached({ fig }) {
  const held = fig?.held ?? fig?.used;
  return held == null ? null : held + (fig.cached ?? 0);
}

function axisStrip(g, scene) {
  const { theme, story, axis, view, layout, x } = scene;
  const baseline = layout.height - 4;
  const name = { step: "step", time: "time, s", tokens: "tokens" }[axis.kind];
  text(g, name, layout.left - 8, baseline, { size: 11, colour: theme.ink2, align: "right" });
  g.fillStyle = theme.line;
  for (const [value, words] of timelineTicks(axis, story.steps, view, layout.plot)) {
    const at = x(value);
    g.fillStyle = theme.line;
    g.fillRect(Math.round(at), layout.strips + 1, 1, 4);
    const shown = typeof words === "number" || axis.kind === "tokens" ? thousands(words) : words;
    if (at - textWidth(g, shown, { size: 11 }) / 2 < layout.left - 5) continue; // it would run into the name of the axis
    text(g, shown, at, baseline, { size: 11, colour: theme.ink2, align: "center" });
  }
}
