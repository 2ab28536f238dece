/** The tokens of one answer: running text coloured by probability, a panel for one token, the time that each took. */

import { Clock } from "./clock.js";
import { element, figures } from "./draw.js";
import { goToAsked, goToField } from "./go_to.js";
import { ownKeys, viewKeys } from "./own_keys.js";
import { projectorMode } from "./projector.js";
import { redrawing } from "./redraw.js";
import { samplerLegend, samplerPart } from "./sampler_view.js";
import {
  tokensBeside, tokensClass, tokensMs, tokensPercent, tokensRows, tokensShown, tokensVisible,
} from "./tokens_geometry.js";
import { tokensLegend } from "./tokens_legend.js";
import { latencyStrip } from "./tokens_strip.js";

/**
 * Draw an answer; `data` is tokens_data() of llmlab/views/tokens.py. `clock`: its cursor is a token. Returns
 * {changed(data), destroy()}: call changed() when tokens have come, or with another answer.
 */
export function showTokens(root, data, { clock = tokensClock(data) } = {}) {
  root.classList.add("llmlab-view", "llmlab-tokens");
  const head = element("div", "llmlab-head", null, root);
  element("h3", "", data.title, head);
  const subtitle = element("span", "", "", head);
  const columns = element("div", "llmlab-columns", null, root);
  const left = element("div", "llmlab-picture", null, columns);
  const prompt = element("p", "llmlab-prompt", "", left);
  let hovered = null;
  const words = tokensText(left, clock, (index) => {
    hovered = index;
    frames.changed();
  });
  const classes = tokensLegend(left);
  const panel = element("div", "llmlab-panel llmlab-tokens-panel", null, columns);
  const strip = latencyStrip(root, clock, (event) => tokensKey(event, clock));
  let sampler = null;

  function take(next) {
    data = next;
    subtitle.textContent = data.error ? `${data.subtitle} · ✕ ${data.error}` : data.subtitle;
    prompt.textContent = (data.prompt ?? "").replaceAll("\n", "↵ ");
    prompt.hidden = !data.prompt;
    words.take(data.tokens);
    classes.style.display = data.tokens.some((token) => token.logprob !== null) ? "" : "none";
    hovered = null;
    clock.isLive = data.finish_reason === null;
    clock.grow(data.tokens.length);
    if (clock.i >= clock.n) clock.set(clock.n - 1);
    if (data.sampler && !sampler) sampler = samplerSection(root, data.sampler, () => frames.changed());
    else if (data.sampler) sampler.changed(data.sampler);
  }

  function draw(theme) {
    const index = Math.min(hovered ?? clock.i, data.tokens.length - 1);
    words.select(clock.i);
    drawTokensPanel(panel, data, index);
    strip.draw(theme, data, index);
    sampler?.draw(theme);
  }
  const frames = redrawing(root, draw);
  take(data);
  const stopListening = clock.on(frames.changed);
  const leaveKeys = ownKeys(root);
  const field = goToField(root, "Go to token ", (typed) => {
    const { step: index } = goToAsked(typed) ?? {};
    if (index === undefined || index >= clock.n) return `Type a number from 0 to ${clock.n - 1}.`;
    words.focus(index);
    return null;
  });
  viewKeys(root, [projectorMode(root, data.presentation), field.key]);
  return {
    changed(next = data) {
      take(next);
      frames.changed();
    },
    destroy() {
      stopListening();
      leaveKeys();
      frames.destroy();
      root.replaceChildren();
    },
  };
}

const tokensClock = (data) => new Clock(data.tokens.length, { following: data.finish_reason === null });

// ---- the running text

function tokensText(parent, clock, hover) {
  const box = element("div", "llmlab-tokens-text", null, parent);
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-label", "Tokens of the answer");
  const spans = [];
  let ids = [];
  const indexOf = (target) => (target.dataset?.token === undefined ? null : Number(target.dataset.token));

  function append(token) {
    const { lead, shown, tail, isMark } = tokensShown(token);
    const kind = tokensClass(token.logprob);
    if (lead) box.append(lead);
    const span = element("span", `llmlab-token llmlab-token-p${kind ?? ""}${isMark ? " llmlab-token-mark" : ""}`, shown, box);
    span.dataset.token = spans.length;
    span.tabIndex = -1;
    span.setAttribute("role", "option");
    const known = kind === null ? "" : `, probability ${tokensPercent(Math.exp(token.logprob))}`;
    span.setAttribute("aria-label", `${token.text.trim() || shown}${known}`);
    if (tail) box.append(tail);
    spans.push(span);
  }

  function take(tokens) {
    const grows = ids.length <= tokens.length && ids.every((id, i) => id === tokens[i].id);
    if (!grows) {
      box.replaceChildren();
      spans.length = 0;
    }
    for (const token of tokens.slice(spans.length)) append(token);
    ids = tokens.map((token) => token.id);
  }

  function select(index) {
    if (spans[index]?.tabIndex === 0) return;
    box.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    box.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    spans[index]?.setAttribute("aria-selected", "true");
    spans[index]?.setAttribute("tabindex", "0");
  }

  box.onclick = (event) => indexOf(event.target) !== null && clock.set(indexOf(event.target));
  box.onpointerover = (event) => hover(indexOf(event.target));
  box.onpointerleave = () => hover(null);
  box.addEventListener("focusin", (event) => indexOf(event.target) !== null && clock.set(indexOf(event.target)));
  box.onkeydown = (event) => {
    const to = tokensKey(event, clock, () => spans.map((el) => ({ x: el.offsetLeft, y: el.offsetTop, w: el.offsetWidth })));
    if (to === null) return;
    focus(to);
  };
  function focus(index) {
    hover(null); // the keyboard leads now, wherever the pointer rests
    spans[index]?.focus();
  }
  return { take, select, focus };
}

/** The token that a key leads to, or null; moves the clock, and takes the key from the notebook. */
function tokensKey(event, clock, boxes = null) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const at = clock.i;
  const to = {
    ArrowLeft: () => at - 1,
    ArrowRight: () => at + 1,
    ArrowUp: () => (boxes ? tokensBeside(boxes(), at, -1) : at),
    ArrowDown: () => (boxes ? tokensBeside(boxes(), at, 1) : at),
    PageUp: () => at - 10,
    PageDown: () => at + 10,
    Home: () => 0,
    End: () => clock.n - 1,
  }[event.key];
  if (!to) return null;
  event.preventDefault();
  event.stopPropagation();
  clock.set(to());
  return clock.i;
}

// ---- the panel of one token

function drawTokensPanel(panel, data, index) {
  panel.replaceChildren();
  const token = data.tokens[index];
  if (!token) {
    element("h4", "", data.finish_reason === null ? "No token yet" : "No token came out", panel);
    return;
  }
  element("h4", "", `Token ${index}: chosen “${tokensVisible(token.text || token.mark)}”`, panel);
  const list = element("div", "llmlab-tokens-list", null, panel);
  for (const row of tokensRows(token)) {
    const line = element("div", row.isChosen ? "llmlab-tokens-row llmlab-chosen" : "llmlab-tokens-row", null, list);
    element("code", "", tokensVisible(row.text), line).title = `id ${row.id}`;
    const bar = element("i", "", null, element("span", "", null, line));
    bar.style.width = `${100 * row.share}%`;
    element("span", "", tokensPercent(row.share), line);
  }
  if (token.top.length < 2) tokensHint(list, token.logprob === null);
  const { source } = data;
  const bytes = token.bytes === null ? null : token.bytes.split(" ");
  const rows = [["id", String(token.id), ""], [`bytes ${tokensHex(bytes)}`, bytes ? String(bytes.length) : "–", ""]];
  if (token.logprob !== null) {
    rows.unshift(["others", tokensPercent(token.others), source], ["entropy, at least", `${token.entropy_bits.toFixed(2)} bit`, source]);
  }
  figures(panel, [...rows, [index ? "after the last one" : "after it was sent", tokensMs(token.gap_ms), source]]);
  if (token.logprob !== null) {
    element("p", "llmlab-source", "Entropy of what is known: all others count as one token.", panel);
  }
}

const tokensHex = (bytes) => (bytes === null ? "" : bytes.slice(0, 5).join(" ") + (bytes.length > 5 ? " …" : ""));

/** How to get what is not here. */
function tokensHint(parent, nothingIsKnown) {
  const what = nothingIsKnown ? "No probabilities: this answer was asked for without. Ask again with " : "Other candidates come with ";
  const hint = element("p", "llmlab-tokens-hint", what, parent);
  element("code", "", "%%llm --logprobs 5", hint);
  hint.append(" or ");
  element("code", "", "logprobs=5", hint);
  hint.append(".");
}

/** The sampler below the answer: its distribution belongs to one token, whatever the cursor is on. */
function samplerSection(root, data, changed) {
  const where = data.at === null ? "the next token" : `token ${data.at}`;
  element("h4", "llmlab-tokens-title", `Sampler playground: the distribution at ${where}`, root);
  const part = samplerPart(root, data, changed);
  samplerLegend(root);
  return part;
}
