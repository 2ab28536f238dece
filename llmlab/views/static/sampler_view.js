/** The sampler playground as a view, or as a part of the tokens view: sliders, bars, and what they say in words. */

import { element, paper, thousands } from "./draw.js";
import { ownKeys, viewKeys } from "./own_keys.js";
import { projectorMode } from "./projector.js";
import { redrawing } from "./redraw.js";
import {
  SAMPLER_BASE, SAMPLER_NAMES, SAMPLER_PITCH, paintSampler, samplerBars, samplerCall, samplerFloats, samplerKeep,
  samplerOrder, samplerValue,
} from "./sampler.js";
import { tokensPercent, tokensVisible } from "./tokens_geometry.js";

// option, label, from, to, step
const SAMPLER_SLIDERS = [
  ["temperature", "temperature", 0, 2, 0.05], ["min_p", "min-p", 0, 0.5, 0.01], ["top_k", "top-k", 0, 100, 1],
  ["top_p", "top-p", 0.05, 1, 0.01],
];
const SAMPLER_WORDS = { T: "temperature 0", min: "min-p", k: "top-k", p: "top-p" };

/** Sliders and bars in `el`. `changed()` asks for a new frame. Returns {draw(theme), changed(data)}. */
export function samplerPart(el, first, changed) {
  const grid = element("div", "llmlab-sampler", null, el);
  const controls = element("div", "", null, grid);
  const picture = element("div", "llmlab-picture", null, grid);
  const tip = element("div", "llmlab-tip", null, picture);
  tip.hidden = true;
  let data, logprobs, order, sorted, texts, params;
  let canvas = null, bars = [], pitch = SAMPLER_PITCH, pointed = null;
  function take(next) {
    data = next;
    logprobs = samplerFloats(data.logprobs);
    order = samplerOrder(logprobs);
    sorted = Float32Array.from(order, (id) => logprobs[id]);
    texts = new Map(data.texts);
    params ??= { ...data.params };
  }
  take(first);
  const name = (bar) => (bar.j === null ? "others" : tokensVisible(texts.get(order[bar.j]) || `id ${order[bar.j]}`));

  for (const [key, label, min, max, step] of SAMPLER_SLIDERS) {
    const row = element("label", "llmlab-slider", null, controls);
    element("span", "", label, row);
    const range = element("input", "", null, row);
    Object.assign(range, { type: "range", min, max, step, value: params[key] });
    const value = element("b", "", samplerValue(key, params[key]), row);
    range.oninput = () => {
      params[key] = Number(range.value);
      value.textContent = samplerValue(key, params[key]);
      changed();
    };
    range.addEventListener("keydown", (event) => event.stopPropagation()); // the arrows are not the notebook's
  }
  const note = element("p", "", null, controls);
  note.setAttribute("aria-live", "polite");
  const call = element("p", "llmlab-sampler-call", null, controls);
  const source = element("p", "llmlab-source", "", controls);

  function draw(theme) {
    const width = picture.clientWidth;
    if (!canvas || canvas.w !== width) {
      canvas?.canvas.remove();
      canvas = paper(picture, width, SAMPLER_BASE + SAMPLER_NAMES, "What the sampler keeps");
      canvas.canvas.tabIndex = 0;
      samplerListen(canvas.canvas, (at) => point(at), () => [pointed, bars.length, pitch]);
    }
    const room = Math.floor(width / SAMPLER_PITCH) - 1;
    const result = samplerKeep(sorted, params);
    bars = samplerBars(result, Math.min(texts.size, room));
    pitch = width / bars.length;
    paintSampler(canvas.g, bars, { pitch, width, name, theme, pointed });
    const drawn = bars.filter((bar) => bar.j !== null).length;
    const more = result.kept > drawn ? ` ${thousands(result.kept - drawn)} of them are in \u201cothers\u201d.` : "";
    const all = thousands(sorted.length);
    const words = `${thousands(result.kept)} of ${all} tokens kept, ${tokensPercent(result.keptShare)} of the probability.${more}`;
    if (note.textContent !== words) note.textContent = words; // it is read aloud
    call.textContent = samplerCall(params);
    source.textContent = `All ${all} log probabilities are here, ${data.source}: nothing is approximated.`;
    canvas.canvas.setAttribute("aria-label", `What the sampler keeps: ${words}`);
    showTip();
  }

  function point(at) {
    pointed = at;
    changed();
  }

  function showTip() {
    const bar = pointed === null ? null : bars[pointed];
    tip.hidden = !bar;
    if (!bar) return;
    tip.replaceChildren();
    element("b", "", name(bar), tip);
    tip.append(bar.j === null ? "" : ` \u00b7 id ${order[bar.j]}`);
    const chance = bar.cut ? `cut by ${SAMPLER_WORDS[bar.cut]}` : `then ${tokensPercent(bar.after)}`;
    element("div", "", `${tokensPercent(bar.before)} before the filters, ${chance}`, tip);
    tip.style.left = `${Math.max(0, Math.min(picture.clientWidth - 220, pointed * pitch))}px`;
    tip.style.top = `${SAMPLER_BASE + SAMPLER_NAMES - 8}px`;
  }
  return { draw, changed: (next) => (take(next), changed()) };
}

/** Pointer and arrows on the bars: tell(index or null). `now`: () => [pointed, number of bars, pitch]. */
function samplerListen(canvas, tell, now) {
  canvas.onpointermove = (event) => {
    const [pointed, n, pitch] = now();
    const at = Math.min(n - 1, Math.floor(event.offsetX / pitch));
    if (at !== pointed) tell(at);
  };
  canvas.onpointerleave = canvas.onblur = () => tell(null);
  canvas.onkeydown = (event) => {
    const [pointed, n] = now();
    const to = { ArrowLeft: (pointed ?? n) - 1, ArrowRight: (pointed ?? -1) + 1, Home: 0, End: n - 1, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    tell(to === null ? null : Math.max(0, Math.min(n - 1, to)));
  };
}

/** What the bars mean, in words below them. */
export function samplerLegend(root) {
  const words = "Dark: kept, with the chance to be drawn in percent; the line in a bar is its height before the others were cut. Hatched: cut, with the filter that cut it first. Heights: after temperature.";
  element("div", "llmlab-legend", words, root);
}

/** The playground as a view of its own. Returns {changed(data), destroy()}. */
export function showSampler(root, data) {
  root.classList.add("llmlab-view", "llmlab-tokens");
  const head = element("div", "llmlab-head", null, root);
  element("h3", "", data.title, head);
  element("span", "", data.subtitle, head);
  element("p", "llmlab-prompt", tokensVisible(data.prompt).replaceAll("\u00b7", " "), root);
  const part = samplerPart(root, data, () => frames.changed());
  samplerLegend(root);
  const frames = redrawing(root, (theme) => part.draw(theme));
  const leaveKeys = ownKeys(root);
  viewKeys(root, [projectorMode(root, data.presentation)]);
  return {
    changed: (next) => part.changed(next),
    destroy() {
      frames.destroy();
      leaveKeys();
      root.replaceChildren();
    },
  };
}
