/** Words about a paged KV cache: of one block, of all, of its free queue. Figures come with the step; nothing is drawn. */

import { blockLooks } from "./kv_blocks_geometry.js";
import { percent, thousands } from "./draw.js";
import { eachText } from "./story.js";

const TIP_HOLDERS = 4;
const TIP_TEXT = 160; // characters

/** 5 -> "5"; what is not known -> "–". */
export const blockCount = (n) => (n == null ? "–" : thousands(n));

/** [17, 6, 7, 8] -> ["#17", "#6–8"]. */
export function blockRuns(table) {
  const runs = [];
  for (const block of table) {
    const last = runs[runs.length - 1];
    if (last && last[1] + 1 === block) last[1] = block;
    else runs.push([block, block]);
  }
  return runs.map(([a, b]) => (a === b ? `#${a}` : `#${a}–${b}`));
}

/** The picture in two lines, for who cannot see it. */
export function blocksLabel(story, i) {
  const { head, steps } = story;
  const fig = steps[i].fig ?? {};
  const shared = fig.shared ? ` (${thousands(fig.shared)} shared)` : "";
  const held = `${blockCount(fig.held)} of ${thousands(head.num_blocks)} blocks held${shared}`;
  const rest = `${blockCount(fig.cached)} cached, ${blockCount(fig.free)} free`;
  return (
    `KV cache · ${head.engine} · step ${steps[i].n} of ${steps[story.length - 1].n}\n` +
    `${held}, ${rest}; ${blockCount(fig.tokens)} tokens, ${percent(fig.waste)} waste`
  );
}

/**
 * Texts of `count` tokens of a request from position `first` on, at the end of step i; null for each that is not known.
 * Prompts have `pieces`; outputs are counted from the first step, so those of a request that came before are unknown.
 */
export function textsAt(story, i, request, first, count) {
  const { prompt, pieces } = story.requests[request];
  const texts = new Array(count).fill(null);
  for (let k = 0; k < count && first + k < (prompt ?? 0); k++) texts[k] = pieces?.[first + k] ?? null;
  const cameBefore = prompt == null || (story.head.start?.a ?? []).some(([r]) => r === request);
  if (cameBefore || first + count <= prompt) return texts;
  let position = prompt;
  for (let s = 0; s <= i && position < first + count; s++) {
    eachText(story.steps[s], (r, text) => {
      if (r !== request) return;
      if (position >= first && position < first + count) texts[position - first] = text;
      position++;
    });
  }
  return texts;
}

/** Texts of tokens as one quotation, "…" where some are not known; null when none is. */
export function quotation(texts) {
  if (texts.every((text) => text === null)) return null;
  const joined = texts.map((text) => text ?? "\u0000").join("").replace(/\u0000+/g, "…").replace(/\s+/g, " ").trim();
  return `“${joined.length > TIP_TEXT ? `${joined.slice(0, TIP_TEXT)}…` : joined}”`;
}

/** Lines of a block's tooltip: [[words, isBold], ...] each. */
export function blockTip(story, i, block) {
  const state = story.stateAt(i);
  const [look] = blockLooks(state, block, block);
  const size = story.head.block_size;
  const title = [`Block #${block}${state.groups ? ` (KV cache group ${state.groups[block]})` : ""}`, true];
  const lines = [];
  if (look.holders.length) {
    lines.push([title, [` holds ${look.fill} of ${size} tokens`, false]]);
    for (const [r, logical] of look.holders.slice(0, TIP_HOLDERS)) lines.push([[holderWords(story, state, r, logical), false]]);
    const more = look.holders.length - TIP_HOLDERS;
    if (more > 0) lines.push([[`and ${more} more ${more === 1 ? "request" : "requests"}`, false]]);
    if (look.fill) {
      lines.push([[textOf(story, i, look, size) ?? "its text is not in the trace", false]]);
    }
  } else {
    const words = look.cached ? " is cached: nobody holds it, a prefix hit can revive it" : " is free";
    lines.push([title, [words, false]]);
  }
  const place = state.nextOut.indexOf(block);
  if (place >= 0) lines.push([[place ? `${ordinal(place + 1)} in the free queue` : "next to be handed out", false]]);
  if (state.fresh.has(block)) {
    lines.push([[`handed out in this step${state.evicted.has(block) ? ": its cached prefix was evicted" : ""}`, false]]);
  }
  return lines;
}

/** What is in a block, as the first of its holders tells it whose text is known: they hold the same tokens. */
function textOf(story, i, look, size) {
  for (const [r, logical] of look.holders) {
    const quoted = quotation(textsAt(story, i, r, logical * size, look.fill));
    if (quoted !== null) return quoted;
  }
  return null;
}

function holderWords(story, state, request, logical) {
  const size = story.head.block_size;
  const from = logical * size;
  const to = Math.min(from + size, state.tokens.get(request) ?? 0) - 1;
  const positions = to < from ? "nothing written yet" : to === from ? `position ${from}` : `positions ${from}–${to}`;
  return `${story.requests[request].name}: logical ${logical}, ${positions}`;
}

/** 2 -> "2nd", 3 -> "3rd", 11 -> "11th". */
export function ordinal(n) {
  const teen = n % 100 >= 11 && n % 100 <= 13;
  return `${n}${(!teen && { 1: "st", 2: "nd", 3: "rd" }[n % 10]) || "th"}`;
}

/** What a request that is selected has in the cache: ["Block table of r3", "128 tokens in 4 blocks, logical order"]. */
export function tableWords(story, i, request) {
  const state = story.stateAt(i);
  const { name } = story.requests[request];
  const table = state.tables.get(request);
  if (table) {
    const tokens = state.tokens.get(request);
    const held = tokens == null ? "" : `${thousands(tokens)} ${tokens === 1 ? "token" : "tokens"} in `;
    return [`Block table of ${name}`, `${held}${table.length} ${table.length === 1 ? "block" : "blocks"}, logical order`];
  }
  return [`${name} holds no block`, blocklessWords(story.steps, i, request)];
}

/** Why: the last thing that happened to a request without blocks. */
function blocklessWords(steps, i, request) {
  let isWaiting = false;
  for (let s = i; s >= 0; s--) {
    if (steps[s].fin.some(([r]) => r === request)) return "finished";
    if (steps[s].pre.some(([r]) => r === request)) return "preempted, waiting";
    isWaiting ||= steps[s].w.includes(request);
  }
  return isWaiting ? "waiting for its first block" : "not there yet";
}

/** The free queue in words: {list, note}. `list` is null when it is not known or empty; then `note` says which. */
export function queueWords(state, fig) {
  const queue = state.nextOut;
  if (!queue.length) {
    const isEmpty = fig?.free != null && fig.free + fig.cached === 0;
    return { list: null, note: isEmpty ? "empty: the next block costs a preemption" : "– (not told at this step)" };
  }
  const list = queue.slice(0, 9).map((block) => `#${block}${state.cached[block] ? "\u2009c" : ""}`).join("  ");
  const hasCached = queue.slice(0, 9).some((block) => state.cached[block]);
  const note = hasCached ? "c = still cached; evicted when reused" : null;
  return { list: list + (queue.length > 9 ? " …" : ""), note };
}

/**
 * Requests that get a chip: all, or with more than 40 only those that hold blocks; of these 40, and the selected one.
 * {shown, words}: `words` counts when some are left out, else null.
 */
export function chipRequests(story, state, selected, most = 40) {
  const all = story.requests.length;
  if (all <= most) return { shown: story.requests.map((_, r) => r), words: null };
  const holding = [...state.tables.keys()].sort((a, b) => a - b);
  const shown = holding.slice(0, most);
  if (selected !== null && !shown.includes(selected)) shown.push(selected);
  const words = `${thousands(holding.length)} of ${thousands(all)} requests hold blocks`;
  return { shown, words: holding.length > most ? `${words}, ${most} are shown` : words };
}

/** Rows of the panel: [name, figure, source]. Nothing is computed here but a ratio for the unit of a row. */
export function memoryRows(fig, head) {
  const reserved = fig.reserved == null || !fig.total_slots ? null : fig.reserved / fig.total_slots;
  const same = `${blockCount(fig.running)} running, contiguous`;
  return [
    ["tokens held", blockCount(fig.tokens), head.source],
    ["waste in last blocks", percent(fig.waste), head.source],
    [same, percent(reserved, 0), "simulated"],
  ];
}

export function sharingRows(fig, head) {
  const told = head.source === "simulated" ? "simulated" : "reported"; // by the engine itself
  return [
    ["shared blocks", blockCount(fig.shared), head.source],
    ["blocks saved by sharing", blockCount(fig.saved), head.source],
    ["prefix-hit tokens so far", blockCount(fig.hits), told],
  ];
}
