/** Time to each token as a strip of bars, one scale from 0 to 3 times the median gap. */

import { element, paper, text, textWidth } from "./draw.js";
import {
  latencyBarOf, latencyBars, latencyClear, latencyLabels, latencyTicks, latencyTokenAt, tokensMs,
} from "./tokens_geometry.js";

const LATENCY = { left: 64, right: 10, base: 76, height: 54, all: 104 };

/** The strip in `root`; a click moves the clock, `key(event)` takes the keys. Returns {draw(theme, data, index)}. */
export function latencyStrip(root, clock, key) {
  const title = element("h4", "llmlab-tokens-title", "", root);
  const holder = element("div", "", null, root);
  let canvas = null;
  let geometry = { bars: [], pitch: 1 };
  function draw(theme, data, index) {
    const gaps = data.tokens.map((token) => token.gap_ms);
    holder.hidden = title.hidden = !gaps.length;
    if (!gaps.length) return;
    title.textContent = `Time to each token (${data.timed}, ${data.source})`;
    if (!canvas || canvas.w !== holder.clientWidth) {
      canvas?.canvas.remove();
      canvas = paper(holder, holder.clientWidth, LATENCY.all, "Time to each token");
      canvas.canvas.tabIndex = 0;
      canvas.canvas.onclick = (event) => clock.set(latencyTokenAt(geometry, event.offsetX) ?? clock.i);
      canvas.canvas.onkeydown = key;
    }
    const { left, right, height } = LATENCY;
    geometry = latencyBars(gaps, data.median_gap_ms, { left, width: canvas.w - left - right, height });
    if (geometry.perBar > 1) title.textContent += `; each bar: the longest of ${geometry.perBar} tokens`;
    paintLatency(canvas.g, canvas.w, geometry, data, index, theme);
    canvas.canvas.setAttribute("aria-label", `Time to each token. Token ${index}: ${tokensMs(gaps[index])}`);
  }
  return { draw };
}

function paintLatency(g, width, { top, pitch, bars }, data, index, theme) {
  const { left, right, base, height } = LATENCY;
  g.clearRect(0, 0, width, LATENCY.all);
  const ticks = latencyTicks(top);
  ticks.forEach((value, i) => {
    const y = Math.round(base - (height * value) / top) + 0.5;
    g.fillStyle = theme.line;
    g.fillRect(left, y - 0.5, width - left - right, 1);
    text(g, i === ticks.length - 1 ? `${value} ms` : String(value), left - 8, y + 4, { size: 11, align: "right", colour: theme.ink2 });
  });
  const w = Math.max(1, pitch - (pitch > 4 ? 2 : 0.5));
  const now = latencyBarOf(bars, index);
  for (const bar of bars) {
    const rise = bar.isCut ? 6 : 0;
    g.fillStyle = bar === now ? theme.ink : bar.first === 0 ? theme.ink2 : theme.ghost;
    g.fillRect(bar.x + (pitch - w) / 2, base - bar.h - rise, w, bar.h + rise);
    if (bar.isCut) paintCut(g, bar.x, base - height, pitch, theme);
  }
  paintLatencyLabels(g, width, bars, pitch, theme);
  if (data.median_gap_ms > 0) paintMedian(g, width, bars, pitch, (height * data.median_gap_ms) / top, data.median_gap_ms, theme);
  if (now) paintLatencyCursor(g, width, now.x + pitch / 2, `token ${index}: ${tokensMs(data.tokens[index].gap_ms)}`, theme);
}

/** The double gap of a bar that is higher than the picture. */
function paintCut(g, x, y, pitch, theme) {
  g.strokeStyle = theme.bg;
  g.lineWidth = pitch > 6 ? 2.5 : 1.5;
  g.beginPath();
  for (const lower of [8, 13]) {
    g.moveTo(x - 1, y + lower);
    g.lineTo(x + pitch + 1, y + lower - Math.min(7, pitch));
  }
  g.stroke();
}

/** Numbers of the bars that are cut, and of the first one. */
function paintLatencyLabels(g, width, bars, pitch, theme) {
  const style = { size: 12, weight: 600 };
  const wanted = bars
    .filter((bar) => bar.isCut || bar.first === 0)
    .map((bar) => {
      const isFirst = bar.first === 0;
      const words = isFirst ? `first token ${tokensMs(bar.ms)}${bar.isCut ? " (bar cut)" : ""}` : tokensMs(bar.ms);
      const w = textWidth(g, words, style);
      const x = isFirst ? bar.x + pitch + 5 : bar.x + pitch / 2 - w / 2;
      return { words, w, x: Math.min(x, width - w), isFirst };
    })
    .sort((a, b) => b.isFirst - a.isFirst);
  for (const { words, x, isFirst } of latencyLabels(wanted)) {
    text(g, words, x, LATENCY.base - LATENCY.height - (isFirst ? 1 : 9), { ...style, colour: theme.ink, halo: theme.bg });
  }
}

function paintMedian(g, width, bars, pitch, h, ms, theme) {
  const y = LATENCY.base - h;
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  g.setLineDash([5, 3]);
  g.beginPath();
  g.moveTo(LATENCY.left, y);
  g.lineTo(width - LATENCY.right, y);
  g.stroke();
  g.setLineDash([]);
  const words = `median gap ${tokensMs(ms)}`;
  const style = { size: 12, weight: 600, align: "right", colour: theme.ink, halo: theme.bg };
  const w = textWidth(g, words, style) + 4;
  text(g, words, latencyClear(bars, pitch, { w, h: h + 5, right: width - LATENCY.right }) - 2, y - 5, style);
}

/** The token that the panel shows, below the axis. */
function paintLatencyCursor(g, width, x, words, theme) {
  const y = LATENCY.base;
  g.fillStyle = theme.ink;
  g.beginPath();
  g.moveTo(x, y + 2);
  g.lineTo(x - 5, y + 9);
  g.lineTo(x + 5, y + 9);
  g.fill();
  const half = textWidth(g, words, { size: 12, weight: 600 }) / 2;
  const middle = Math.max(half, Math.min(width - half, x));
  text(g, words, middle, y + 23, { size: 12, weight: 600, align: "center", colour: theme.ink });
}
