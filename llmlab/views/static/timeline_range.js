/** A strip above the timeline of a very long run: all of its steps, and which of them the plot shows. */

import { element, paper, resizePaper, text, thousands } from "./draw.js";
import { timelineFullest } from "./timeline_geometry.js";

export const RANGE_FROM = 10000; // steps; a shorter run is shown whole
const RANGE = { top: 18, height: 22, all: 48, edge: 7 };

/** Steps [first, after the last] of a run of `n` around step i, as many as a plot shows at first. */
export function rangeAround(i, n) {
  const first = Math.max(0, Math.min(n - RANGE_FROM, i - RANGE_FROM / 2));
  return [first, first + RANGE_FROM];
}

/** Steps [first, after the last] in `view`, [from, to] on an axis; null is all of it. */
export function rangeShown(axis, view) {
  if (!view) return [0, axis.length];
  const last = axis.stepAt(view[1]);
  return [axis.stepAt(view[0]), last + (axis.starts[last] < view[1] ? 1 : 0)];
}

/**
 * The range after the pointer went from share `from` to share `to` of the strip (0 to 1); `grip`: what it took, "first",
 * "last" or the "whole" of it. At least `least` steps.
 */
export function rangeDragged([first, last], n, grip, from, to, least = 60) {
  const by = Math.round((to - from) * n);
  if (grip === "first") return [Math.max(0, Math.min(last - least, first + by)), last];
  if (grip === "last") return [first, Math.min(n, Math.max(first + least, last + by))];
  const start = Math.max(0, Math.min(n - (last - first), first + by));
  return [start, start + last - first];
}

/** The strip, in `el`. `choose([first, after the last])`. Returns {draw(theme, layout, steps, range, i), hide()}. */
export function timelineRange(el, choose) {
  const holder = element("div", "llmlab-timeline-range", null, el);
  const sheet = paper(holder, 1, 1, "Range of steps");
  const { canvas } = sheet;
  canvas.tabIndex = 0;
  let now = null; // {layout, n, range}
  let bars = null; // {key, shares}: the fullest step of each column
  let held = null; // {grip, from, range}

  const shareAt = (event) => (event.offsetX - now.layout.left) / now.layout.plot;
  canvas.onpointerdown = (event) => {
    const at = shareAt(event);
    const near = (step) => Math.abs(at - step / now.n) * now.layout.plot < RANGE.edge;
    const [first, last] = now.range;
    const isInside = at * now.n > first && at * now.n < last;
    const grip = near(first) ? "first" : near(last) ? "last" : "whole";
    let { range } = now;
    if (grip === "whole" && !isInside) choose((range = rangeDragged(range, now.n, grip, (first + last) / 2 / now.n, at)));
    held = { grip, from: at, range };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (held) choose(rangeDragged(held.range, now.n, held.grip, held.from, shareAt(event)));
  };
  canvas.onpointerup = canvas.onpointercancel = () => (held = null);
  canvas.onkeydown = (event) => {
    const by = { ArrowLeft: -0.5, ArrowRight: 0.5 }[event.key];
    if (!by || event.shiftKey) return;
    const [first, last] = now.range;
    choose(rangeDragged(now.range, now.n, "whole", 0, (by * (last - first)) / now.n));
    event.preventDefault();
    event.stopPropagation();
  };

  function draw(theme, layout, steps, range, i) {
    holder.hidden = false;
    now = { layout, n: steps.length, range };
    resizePaper(sheet, layout.width, RANGE.all, theme.scale);
    const { g } = sheet;
    g.clearRect(0, 0, layout.width, RANGE.all);
    const { left, plot } = layout;
    const x = (step) => left + (plot * step) / now.n;
    const names = range.map((step, k) => thousands(steps[Math.min(now.n - 1, step - k)].n));
    const words = `All ${thousands(now.n)} steps; below: steps ${names[0]} to ${names[1]}`;
    text(g, words, left, 11, { size: 11.5, weight: 600, colour: theme.ink2 });
    g.fillStyle = theme.ghost;
    columnShares(steps, plot).forEach((share, c) => {
      const h = Math.max(1, share * RANGE.height);
      g.fillRect(left + c, RANGE.top + RANGE.height - h, 1, h);
    });
    g.fillStyle = theme.line;
    g.fillRect(left, RANGE.top + RANGE.height, plot, 1);
    g.fillStyle = theme.ink;
    g.fillRect(x(i) - 0.75, RANGE.top - 3, 1.5, RANGE.height + 6);
    const [from, to] = [Math.round(x(range[0])) - 0.5, Math.round(x(range[1])) + 0.5];
    for (const [colour, width] of [[theme.bg, 4], [theme.ink, 1.8]]) {
      g.strokeStyle = colour;
      g.lineWidth = width;
      g.strokeRect(from, RANGE.top - 2, Math.max(3, to - from), RANGE.height + 4);
    }
    canvas.setAttribute("aria-label", `${words}. Left and Right move the range.`);
  }

  /** The fullest step of each of `columns` columns, as a share of the fullest of all. */
  function columnShares(steps, columns) {
    const key = `${steps.length} ${columns}`;
    if (bars?.key === key) return bars.shares;
    const edges = Array.from({ length: columns + 1 }, (_, c) => Math.floor((steps.length * c) / columns));
    const slots = edges.slice(1).map((last, c) => ({ first: edges[c], last: Math.max(edges[c] + 1, last) }));
    const totals = timelineFullest(slots, steps).map((at) => steps[at].u[0] + steps[at].u[1] + steps[at].u[2]);
    const most = Math.max(1, ...totals);
    bars = { key, shares: totals.map((total) => total / most) };
    return bars.shares;
  }

  return { draw, hide: () => (holder.hidden = true) };
}
