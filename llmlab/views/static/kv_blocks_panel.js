/** What stands beside the picture of a paged KV cache: figures and chips. Figures come with the step. */

import {
  describe, element, figures, hatch, paper, refigure, resizePaper, reword, text, textWidth, thousands,
} from "./draw.js";
import { blockCount, blockRuns, chipRequests, memoryRows, queueWords, sharingRows } from "./kv_blocks_text.js";

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

/**
 * The side panel; draw(scene) at each change, with its width() of before the change as `side`. Its elements stay from step
 * to step, with other words in them: to make them anew would be most of the work of a step.
 */
export function blocksPanel(side) {
  const ramp = { key: null, nodes: [] };
  const made = new Map(); // name -> element
  const part = (name, make) => {
    if (!made.has(name)) made.set(name, make());
    return made.get(name);
  };
  const words = (name, tag, className, value) => {
    const el = part(name, () => element(tag, className));
    reword(el, value);
    return el;
  };
  const heading = (name, value = name) => words(name, "h4", "", value);
  const rows = (name, all) => {
    const table = part(name, () => figures(null, []));
    refigure(table, all.map(([what, figure, source]) => [what, figure, figure === "–" ? "" : source])); // no figure, no source
    return table;
  };

  function draw(scene) {
    const { theme, story, state, i, layout, selected } = scene;
    const { scale } = theme;
    const { head } = story;
    const fig = story.steps[i].fig ?? {};
    const w = scene.side;
    const sheet = (name, height) => {
      const its = part(name, () => paper(null, w, height));
      resizePaper(its, w, height, scale);
      its.g.clearRect(0, 0, w, height);
      return its;
    };
    // Bars first: to paint a text after other words have come is to lay out the page.
    const bar = blocksBar(sheet("bar", 36), w, theme, fig, head);
    const isKnown = fig.tokens != null && fig.total_slots;
    const bars = isKnown ? [contiguousBars(sheet("bars", 82), w, theme, fig, head.block_size)] : [];
    const shown = [
      heading("room", `${thousands(head.num_blocks)} blocks of ${head.block_size} tokens`),
      bar,
      heading("Memory"),
      rows("memory", memoryRows(fig, head)),
      ...bars,
    ];
    if (head.prefix_caching) shown.push(heading("Sharing"), rows("sharing", sharingRows(fig, head)));
    if (layout.level !== "slots" && selected !== null) {
      const { title, list } = tableWordsOf(story, state, selected);
      shown.push(heading("table", title));
      if (list) shown.push(words("blocks", "div", "llmlab-blocks-list", list));
    }
    shown.push(heading("Free queue, next out first"));
    const { list, note } = queueWords(state, fig);
    if (list) shown.push(words("queue", "div", "llmlab-blocks-list", list));
    if (note) shown.push(words("note", "div", "llmlab-blocks-note", note));
    if (scene.isRamp) {
      const key = [theme.bg, w, story.requests.length, selected].join();
      if (ramp.key !== key) Object.assign(ramp, { key, nodes: admissionRamp(w, scale, theme, story, selected) });
      shown.push(...ramp.nodes);
    }
    const isSame = shown.length === side.childNodes.length && shown.every((el, k) => el === side.childNodes[k]);
    if (!isSame) side.replaceChildren(...shown);
  }
  return { draw: unhurried(draw), width: () => side.clientWidth };
}

/** Held, cached, free as one bar of all blocks, each with its number. Returns its canvas, as the other bars do. */
function blocksBar({ canvas, g }, w, theme, fig, head) {
  const parts = [[fig.held, "held"], [fig.cached, "cached"], [fig.free, "free"]];
  const words = parts.map(([n, name]) => `${blockCount(n)} ${name}`);
  describe(canvas, words.join(", "));
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
  return canvas;
}

/** The tokens held in blocks, and what the same requests would take if each had its room in one piece. */
function contiguousBars({ canvas, g }, w, theme, fig, size) {
  describe(canvas, "memory taken: paged, contiguous");
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
  return canvas;
}

/** The block table of a request: {title, list}; without blocks there is no list. */
function tableWordsOf(story, state, selected) {
  const table = state.tables.get(selected) ?? [];
  const { name } = story.requests[selected];
  const tokens = state.tokens.get(selected);
  const held = table.length && tokens != null ? `${thousands(tokens)} tokens, ` : "";
  const title = `${name}: ${held}${table.length} ${table.length === 1 ? "block" : "blocks"}`;
  const runs = blockRuns(table);
  const rest = runs.length - MOST_RUNS;
  return { title, list: runs.slice(0, MOST_RUNS).join("  ") + (rest > 0 ? `  and ${rest} more runs` : "") };
}

/** Returns its nodes: the colours do not change with the step. */
function admissionRamp(w, scale, theme, story, selected) {
  const count = story.requests.length;
  const title = element("h4", "", "Colour: order of admission");
  const sheet = paper(null, w, 30);
  const { canvas, g } = sheet;
  resizePaper(sheet, w, 30, scale);
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

/** Chips of the requests; draw(scene) at each change. As in the panel, chips stay and get other names. */
export function blockChips(parent, clock) {
  const line = element("div", "llmlab-chips", null, parent);
  element("span", "llmlab-blocks-chips", "Requests", line);
  const note = element("span", "llmlab-blocks-chips", "", line);
  const chips = []; // of the request that each shows now, or null: {button, request}
  let key = "";
  function draw({ theme, story, state, selected }) {
    const { shown, words } = chipRequests(story, state, selected);
    const now = `${story.requests.length} ${theme.isDark} ${words} ${shown}`;
    if (now !== key) {
      key = now;
      rename(theme, story, shown);
      reword(note, words ?? "");
      note.hidden = !words;
    }
    for (const { button, request } of chips) {
      button.classList.toggle("llmlab-gone", !state.tables.has(request));
      button.setAttribute("aria-pressed", String(request === selected));
    }
  }
  function rename(theme, story, shown) {
    const focused = chips.find(({ button }) => button === document.activeElement);
    const before = focused?.request;
    while (chips.length < shown.length) chips.push(chip());
    chips.forEach((its, k) => {
      const request = (its.request = shown[k] ?? null);
      its.button.hidden = request === null;
      if (request === null) return;
      its.button.firstChild.style.background = theme.owner(request, story.requests.length);
      its.button.lastChild.data = story.requests[request].name;
    });
    if (!focused) return;
    focused.button.blur(); // it is another request's now
    chips.find(({ request }) => request === before)?.button.focus({ preventScroll: true });
  }
  function chip() {
    const button = element("button", "llmlab-chip");
    const its = { button, request: null };
    button.type = "button";
    button.append(element("i"), "");
    button.onclick = () => clock.select(its.request);
    note.before(button);
    return its;
  }
  return { draw: unhurried(draw) };
}
