/** What stands around the picture of a paged KV cache: figures, legend, chips. Figures come with the step. */

import { MARKS, element, figures, hatch, legend, paper, text, textWidth, thousands } from "./draw.js";
import { paintOpenFrame, selectionColour } from "./kv_blocks_paint.js";
import { blockCount, blockRuns, chipRequests, memoryRows, queueWords, sharingRows } from "./kv_blocks_text.js";
import { mix } from "./theme.js";

const MOST_RUNS = 60; // of a block table, in the list
const FIGURES_MS = 200; // nobody reads figures that change more often

/**
 * draw(scene), but not at each step while the view follows a run: what is read and not watched would cost more than the
 * picture. The last scene is always drawn.
 */
function unhurried(draw) {
  let latest = null;
  let last = -Infinity;
  let timer = null;
  const now = () => {
    clearTimeout(timer);
    timer = null;
    last = performance.now();
    draw(latest);
  };
  return (scene) => {
    latest = scene;
    const wait = scene.isFollowing ? last + FIGURES_MS - performance.now() : 0;
    if (wait <= 0) now();
    else timer ??= setTimeout(now, wait);
  };
}

/** The side panel; draw(scene) at each change. */
export function blocksPanel(side) {
  const ramp = { key: null, nodes: [] };
  function draw(scene) {
    const { theme, story, state, i, layout, selected } = scene;
    const { head } = story;
    const fig = story.steps[i].fig ?? {};
    const w = side.clientWidth; // before anything changes: to ask later is to lay out the page again
    side.replaceChildren();
    element("h4", "", `${thousands(head.num_blocks)} blocks of ${head.block_size} tokens`, side);
    blocksBar(side, w, theme, fig, head);
    element("h4", "", "Memory", side);
    blockFigures(side, memoryRows(fig, head));
    contiguousBars(side, w, theme, fig, head.block_size);
    if (head.prefix_caching) {
      element("h4", "", "Sharing", side);
      blockFigures(side, sharingRows(fig, head));
    }
    if (layout.level !== "slots" && selected !== null) tableList(side, story, state, selected);
    element("h4", "", "Free queue, next out first", side);
    const { list, note } = queueWords(state, fig);
    if (list) element("div", "llmlab-blocks-list", list, side);
    if (note) element("div", "llmlab-blocks-note", note, side);
    if (!scene.isRamp) return;
    const key = [theme.bg, w, story.requests.length, selected].join();
    if (ramp.key === key) side.append(...ramp.nodes);
    else Object.assign(ramp, { key, nodes: admissionRamp(side, w, theme, story, selected) });
  }
  return { draw: unhurried(draw) };
}

/** Rows without a source where there is no figure. */
const blockFigures = (side, rows) =>
  figures(side, rows.map(([name, figure, source]) => [name, figure, figure === "–" ? "" : source]));

/** Held, cached, free as one bar of all blocks, each with its number. */
function blocksBar(side, w, theme, fig, head) {
  const parts = [[fig.held, "held"], [fig.cached, "cached"], [fig.free, "free"]];
  const words = parts.map(([n, name]) => `${blockCount(n)} ${name}`);
  const { g } = paper(side, w, 36, words.join(", "));
  const ends = [];
  let x = 0;
  parts.forEach(([n, name]) => {
    const part = (w * (n ?? 0)) / head.num_blocks;
    if (n && name === "held") {
      g.fillStyle = theme.ink2;
      g.fillRect(x, 0, Math.max(1, part - 1), 18);
    } else if (n) {
      if (name === "cached") hatch(g, x, 0, Math.max(1, part - 1), 18, theme.ghost, 5);
      g.strokeStyle = theme.ink3;
      g.lineWidth = 1;
      g.setLineDash(name === "free" ? [2, 3] : []);
      g.strokeRect(x + 0.5, 0.5, Math.max(0.5, part - 2), 17);
      g.setLineDash([]);
    }
    ends.push(x + part / 2);
    x += part;
  });
  const widths = words.map((label) => textWidth(g, label));
  const middle = Math.max(widths[0] + 8, Math.min(ends[1] - widths[1] / 2, w - widths[2] - 8 - widths[1]));
  [0, middle, w - widths[2]].forEach((left, k) => {
    if (k !== 1 || head.prefix_caching) text(g, words[k], left, 32, { colour: theme.ink });
  });
}

/** The tokens held in blocks, and what the same requests would take if each had its room in one piece. */
function contiguousBars(side, w, theme, fig, size) {
  const known = fig.tokens != null && fig.total_slots;
  if (!known) return;
  const { g } = paper(side, w, 82, "memory taken: paged, contiguous");
  const scale = (w - 1) / Math.max(fig.reserved ?? 0, fig.total_slots);
  const used = fig.tokens * scale;
  text(g, "paged", 0, 14, { size: 11, colour: theme.ink2 });
  g.fillStyle = theme.ink2;
  g.lineWidth = 1;
  g.fillRect(0, 18, used, 12);
  g.strokeStyle = theme.ink2;
  g.strokeRect(0.5, 18.5, Math.max(0, fig.held * size * scale - 1), 11);
  const words = fig.reserved == null ? "contiguous: –, no limit on the output is known" : "contiguous";
  text(g, words, 0, 46, { size: 11, colour: theme.ink2 });
  if (fig.reserved != null) {
    const reserved = fig.reserved * scale;
    const full = Math.min(used, reserved);
    g.fillRect(0, 50, full, 12);
    hatch(g, full, 50, reserved - full, 12, theme.warn, 5, 1.2);
    g.strokeStyle = theme.warn;
    g.strokeRect(0.5, 50.5, Math.max(0, reserved - 1), 11);
  }
  const all = Math.min(w - 1, fig.total_slots * scale);
  g.fillStyle = theme.bg;
  g.fillRect(all - 3, 12, 6, 54);
  g.fillStyle = theme.ink;
  g.fillRect(all - 1, 12, 2, 54);
  const half = textWidth(g, "all memory", { size: 11 }) / 2;
  const label = { size: 11, align: "center", colour: theme.ink2 };
  text(g, "all memory", Math.max(half, Math.min(w - half, all)), 78, label);
}

function tableList(side, story, state, selected) {
  const table = state.tables.get(selected) ?? [];
  const { name } = story.requests[selected];
  const tokens = state.tokens.get(selected);
  const held = table.length && tokens != null ? `${thousands(tokens)} tokens, ` : "";
  element("h4", "", `${name}: ${held}${table.length} ${table.length === 1 ? "block" : "blocks"}`, side);
  const runs = blockRuns(table);
  const rest = runs.length - MOST_RUNS;
  const words = runs.slice(0, MOST_RUNS).join("  ") + (rest > 0 ? `  and ${rest} more runs` : "");
  if (runs.length) element("div", "llmlab-blocks-list", words, side);
}

/** Returns its nodes: the colours do not change with the step. */
function admissionRamp(side, w, theme, story, selected) {
  const count = story.requests.length;
  const title = element("h4", "", "Colour: order of admission", side);
  const { canvas, g } = paper(side, w, 30);
  const nodes = [title, canvas];
  const step = w / Math.min(count, w);
  for (let x = 0; x < w; x += step) {
    g.fillStyle = theme.owner(Math.min(count - 1, Math.floor((x / w) * count)), count);
    g.fillRect(x, 1, step + 0.5, 12);
  }
  const [first, last] = [story.requests[0].name, story.requests[count - 1].name];
  text(g, first, 0, 27, { colour: theme.ink });
  text(g, last, w, 27, { align: "right", colour: theme.ink });
  if (selected === null) return nodes;
  const x = ((selected + 0.5) / count) * w;
  g.strokeStyle = theme.warn;
  g.lineWidth = 2;
  g.strokeRect(x - 2, 0, 4, 14);
  const { name } = story.requests[selected];
  const style = { weight: 700, align: "center", colour: theme.warn };
  const half = textWidth(g, name, style) / 2;
  const [left, right] = [textWidth(g, first) + 6 + half, w - textWidth(g, last) - 6 - half];
  if (name !== first && name !== last) text(g, name, Math.max(left, Math.min(right, x)), 27, style);
  return nodes;
}

/** The legend of one level of detail; what the engine lacks is said, not drawn. */
export function blocksLegend(parent, scene) {
  const { theme, story, layout } = scene;
  const [one, two] = [theme.owner(0, 1), theme.owner(1, 2)];
  const square = (colour, hasDot) => (g) => {
    g.fillStyle = colour;
    g.fillRect(4, 2, 9, 9);
    g.fillStyle = "#ffffff";
    if (hasDot) g.fillRect(7, 5, 3, 3);
  };
  const shared = (g) => {
    [one, two].forEach((colour, k) => {
      g.fillStyle = colour;
      g.fillRect(12 * k, 1, 12, 12);
    });
    g.strokeStyle = theme.ink;
    g.strokeRect(0.5, 1.5, 23, 11);
    text(g, "×2", 27, 11, { size: 11, weight: 700, colour: theme.ink });
  };
  const level = (g) => {
    g.fillStyle = mix(one, theme.bg, 0.84);
    g.fillRect(2, 0, 14, 14);
    g.fillStyle = one;
    g.fillRect(2, 6, 14, 8);
    g.strokeStyle = theme.edge(one);
    g.strokeRect(2.5, 0.5, 13, 13);
  };
  const open = (isCached) => (g) => paintOpenFrame(g, theme, isCached, 0, 0, 18, 14, 5);
  const ring = (g) => {
    g.strokeStyle = selectionColour(scene);
    g.lineWidth = 2.5;
    g.strokeRect(2.5, 1.5, 12, 11);
  };
  const word = (value) => (g) => text(g, value, 1, 11, { size: 9.5, weight: 700, colour: theme.ink });
  const isSlots = layout.level === "slots";
  const held = isSlots
    ? [["token", square(one)], ["written in this step", square(one, true)], ["empty slot", square(theme.tint(one))]]
    : [["held, fill = tokens in the block", level]];
  const evicted = (g) => MARKS.evicted(g, 9, 7, theme);
  const prefix = [["shared, ref count", shared, 44], ["cached, free to take", open(true)]];
  if (isSlots) prefix.push(["taking this block evicted a cached prefix", evicted, 14]);
  const grid = [["name where a request begins or resumes", word(story.requests[0]?.name ?? "r0"), 20]];
  if (layout.level === "levels") grid.pop();
  const items = [...held, ...(story.head.prefix_caching ? prefix : []), ["free", open(false)], ...(isSlots ? [] : grid)];
  if (!isSlots) items.push(["next out", nextSign(theme), 12], ["selected request", ring]);
  const line = legend(parent, items);
  if (!story.head.prefix_caching) element("span", "", "no prefix cache in this engine", line);
  return line;
}

const nextSign = (theme) => (g) => {
  g.fillStyle = theme.ink;
  g.fillRect(1, 1, 9, 12);
  text(g, "1", 5.5, 11, { size: 9.5, weight: 700, align: "center", colour: theme.bg });
};

/** Chips of the requests; draw(scene) at each change, buttons stay where they are while the list does. */
export function blockChips(parent, clock) {
  const line = element("div", "llmlab-chips", null, parent);
  let key = "";
  const buttons = new Map();
  function draw({ theme, story, state, selected }) {
    const { shown, words } = chipRequests(story, state, selected);
    const now = `${story.requests.length} ${theme.isDark} ${words} ${shown}`;
    if (now !== key) {
      key = now;
      build(theme, story, shown, words);
    }
    for (const [r, button] of buttons) {
      button.classList.toggle("llmlab-gone", !state.tables.has(r));
      button.setAttribute("aria-pressed", String(r === selected));
    }
  }
  function build(theme, story, shown, words) {
    const focused = [...buttons].find(([, button]) => button === document.activeElement)?.[0];
    line.replaceChildren();
    buttons.clear();
    element("span", "llmlab-blocks-chips", "Requests", line);
    for (const r of shown) {
      const chip = element("button", "llmlab-chip", null, line);
      chip.type = "button";
      element("i", "", null, chip).style.background = theme.owner(r, story.requests.length);
      chip.append(story.requests[r].name);
      chip.onclick = () => clock.select(r);
      buttons.set(r, chip);
    }
    if (words) element("span", "llmlab-blocks-chips", words, line);
    buttons.get(focused)?.focus({ preventScroll: true }); // the list has changed, the chip is still there
  }
  return { draw: unhurried(draw) };
}
