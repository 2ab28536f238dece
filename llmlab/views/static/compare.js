/** A comparison: columns that fill, what is marked in them, and below it where and why they part. */

import { compareColumns } from "./compare_columns.js";
import { compareEvidence } from "./compare_evidence.js";
import {
  compareChanged, compareIsRunning, compareParted, compareRate, compareSaid, compareStanding,
} from "./compare_geometry.js";
import { element } from "./draw.js";
import { ownKeys, viewKeys } from "./own_keys.js";
import { projectorMode } from "./projector.js";
import { redrawing } from "./redraw.js";
import { tokensLegend } from "./tokens_legend.js";

const COMPARE_MODES = [["text", "text"], ["diff", "words that differ"], ["logprobs", "probabilities"]];
const COMPARE_SAY_MS = 1000;

/**
 * Draw `data` ({head, cells, mode}, see llmlab/views/compare_data.py). `send`: tells the kernel what a user wants; null
 * on a saved page. `isCut()`: the kernel is gone, nobody hears any more. Returns {changed(), destroy()}.
 */
export function showCompare(root, data, { send: tell = null, isCut = () => false } = {}) {
  root.classList.add("llmlab-view", "llmlab-tokens", "llmlab-compare");
  const isToldAsked = data.mode !== "logprobs" || data.head.has_logprobs;
  const at = { prompt: 0, b: 1, mode: (isToldAsked && data.mode) || "text", follows: true, saidMs: 0 };
  const go = (prompt) => {
    at.prompt = Math.max(0, Math.min(data.head.prompts.length - 1, prompt));
    at.follows = false;
    frames.changed();
  };

  const head = element("div", "llmlab-head", null, root);
  const title = element("h3", "", "", head);
  const subtitle = element("span", "", "", head);
  const bar = element("div", "llmlab-compare-bar", null, root);
  const prompt = element("p", "llmlab-compare-prompt", "", root);
  const columns = compareColumns(root, (column) => tell?.({ t: "stop", column }));
  const heat = tokensLegend(root);
  const voting = element("div", "llmlab-compare-vote", null, root);
  const evidence = compareEvidence(root, {
    choose: (b) => {
      at.b = b;
      frames.changed();
    },
    ask: tell && ((b) => isCut() || tell({ t: "why", prompt: at.prompt, b })),
  });
  const list = element("div", "llmlab-compare-list", null, root);
  const notes = element("div", "llmlab-compare-notes", null, root);
  const said = element("div", "llmlab-sr", "", root);
  said.setAttribute("aria-live", "polite");

  viewKeys(root, [projectorMode(root), (event) => {
    const step = { "[": -1, "]": 1 }[event.key];
    if (step) go(at.prompt + step);
    return Boolean(step);
  }]);

  function draw() {
    const { head: told, cells } = data;
    const send = isCut() ? null : tell;
    if (at.follows) at.prompt = compareNewest(cells);
    const here = cells[at.prompt];
    const parted = compareParted(here);
    if (!parted.includes(at.b)) at.b = parted[0] ?? 1;
    title.textContent = told.title;
    subtitle.textContent = told.subtitle;
    drawCompareBar(bar, data, at, { go, send, redraw: frames.changed });
    prompt.textContent = told.prompts[at.prompt];
    columns.draw(told, here, at.mode, at.mode === "diff" ? (j) => compareChanged(here, j, at.b) : null, send !== null);
    heat.hidden = at.mode !== "logprobs";
    drawCompareVoting(voting, data, at.prompt, send && ((choice) => send({ t: "vote", prompt: at.prompt, choice })), send);
    evidence.draw(told, here, at.prompt, at.b, parted);
    drawCompareList(list, data, at.prompt, go);
    notes.replaceChildren(...told.notes.map((note) => element("p", "", note)));
    if (Date.now() - at.saidMs > COMPARE_SAY_MS && told.state === "ended") {
      at.saidMs = Date.now();
      const words = compareSaid(told, here);
      if (said.textContent !== words) said.textContent = words;
    }
  }
  const frames = redrawing(root, draw);
  const giveKeysBack = ownKeys(root);
  return {
    changed: () => frames.changed(),
    destroy() {
      frames.destroy();
      giveKeysBack();
      root.replaceChildren();
    },
  };
}

/** The prompt that is being answered; when all are, the first one on which columns part. */
function compareNewest(cells) {
  const open = cells.findIndex((row) => row.some((cell) => compareIsRunning(cell.state)));
  return open >= 0 ? open : Math.max(0, cells.findIndex((row) => compareParted(row).length));
}

/** Put new children into an element only when they say something else: what has the focus keeps it. */
function compareReplace(el, key, make) {
  if (el.llmlabKey === key) return;
  const focused = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  el.llmlabKey = key;
  el.replaceChildren();
  make();
  if (focused) el.querySelector(`[data-key="${focused}"]`)?.focus();
}

function compareButton(parent, words, key, act, { pressed = null, className = "llmlab-chip" } = {}) {
  const el = element("button", className, words, parent);
  el.type = "button";
  el.dataset.key = key;
  if (pressed !== null) el.setAttribute("aria-pressed", String(pressed));
  el.onclick = act;
  return el;
}

/** Which prompt, how it is shown, Stop all. */
function drawCompareBar(bar, data, at, { go, send, redraw }) {
  const { head } = data;
  const count = head.prompts.length;
  const isOpen = head.state === "running" && send !== null;
  const modes = COMPARE_MODES.filter(([mode]) => !head.blind && (mode !== "logprobs" || head.has_logprobs));
  const key = JSON.stringify([at.prompt, count, at.mode, head.state, isOpen, modes.length]);
  compareReplace(bar, key, () => {
    if (count > 1) {
      compareButton(bar, "‹", "prev", () => go(at.prompt - 1)).setAttribute("aria-label", "Previous prompt ([)");
      element("b", "", `prompt ${at.prompt + 1} of ${count}`, bar);
      compareButton(bar, "›", "next", () => go(at.prompt + 1)).setAttribute("aria-label", "Next prompt (])");
    }
    if (modes.length > 1) {
      for (const [mode, words] of modes) {
        compareButton(bar, words, `mode-${mode}`, () => {
          at.mode = mode;
          redraw();
        }, { pressed: at.mode === mode });
      }
    }
    if (head.state === "testing") element("span", "", "testing why they part …", bar);
    if (isOpen) {
      const stop = compareButton(bar, "■ Stop all", "stop", () => send({ t: "stop" }), { className: "llmlab-chip llmlab-stop" });
      stop.title = "Abort on all engines; what arrived stays";
    }
    bar.hidden = !bar.childElementCount;
  });
}

/** Blind mode: which one is better; then who is who. */
function drawCompareVoting(el, data, prompt, vote, send) {
  const { head } = data;
  const chosen = head.votes[prompt];
  const isReady = data.cells[prompt].every((cell) => !compareIsRunning(cell.state));
  compareReplace(el, JSON.stringify([head.blind, prompt, chosen, isReady, head.rates, Object.keys(head.votes).length]), () => {
    if (head.blind && vote) {
      element("b", "", "Which answer is better?", el);
      const choices = [...head.columns.map((column, j) => [column.name, j]), ["tie", null]];
      for (const [name, place] of choices) {
        const isChosen = chosen !== undefined && chosen === place;
        const el_ = compareButton(el, name === "tie" ? "Tie" : `${name} is better`, name, () => vote(name), { pressed: isChosen });
        el_.disabled = !isReady;
      }
      compareButton(el, "Reveal names", "reveal", () => send({ t: "reveal" }));
    }
    for (const rate of head.rates) element("span", "", compareRate(rate), el);
    el.hidden = !el.childElementCount;
  });
}

/** All prompts, one line each. */
function drawCompareList(el, data, prompt, go) {
  const { head, cells } = data;
  if (head.prompts.length < 2) return;
  const standing = cells.map((row) => row.map(compareStanding));
  compareReplace(el, JSON.stringify([prompt, standing, head.columns.map((column) => column.name)]), () => {
    const table = element("table", "", null, el);
    const top = element("tr", "", null, element("thead", "", null, table));
    for (const name of ["", "prompt", ...head.columns.map((column) => column.name)]) element("th", "", name, top);
    const body = element("tbody", "", null, table);
    head.prompts.forEach((words, i) => {
      const line = element("tr", i === prompt ? "llmlab-chosen" : "", null, body);
      const open = compareButton(element("td", "", null, line), String(i + 1), `row-${i}`, () => go(i), { pressed: i === prompt });
      open.setAttribute("aria-label", `Show prompt ${i + 1}`);
      element("td", "", words, line);
      for (const words_ of standing[i]) element("td", "", words_, line);
    });
  });
}
