/** What stands around the timeline: signs and what they mean, the choice of the x axis, the tooltip. */

import { MARKS, element, hatch, legend, othersSign } from "./draw.js";
import { decodeBar, endMark, lostLine, prefillBox, recomputeBox, recomputeGaps, waitingLine } from "./timeline_marks.js";
import { kvUnit } from "./timeline_words.js";

const TIMELINE_AXES = [["step", "step"], ["time", "wall time"], ["tokens", "tokens"]];

/** [[words, sign, width]] for a layout. `has`: {preempted, cut, others}, whether such marks are to be explained. */
export function timelineLegendItems(head, layout, theme, has) {
  const items = (layout.isPixels ? pixelLegend : shapeLegend)(head, theme, has);
  if (!layout.kv || layout.isPixels) return items;
  const kvSign = (g, w, h) => {
    g.fillStyle = theme.ink2;
    g.fillRect(0, 1, head.kind === "cells" ? w : w / 2, h - 2);
    if (head.kind !== "cells") hatch(g, w / 2, 1, w / 2, h - 2, theme.ghost, 4, 1);
  };
  return [...items, [head.kind === "cells" ? `${kvUnit(head)}s used` : "held · cached", kvSign, 26]];
}

function pixelLegend(head, theme, has) {
  const names = [
    ["prefill", "prefill"], ["decode", "decode"], ["grow", "decode, takes a new block"], ["recompute", "recompute"],
    ["waiting", "waiting"], ["lost", "waiting after preemption"],
  ];
  const missing = [...(has.preempted ? [] : ["recompute", "lost"]), ...(head.kind === "blocks" ? [] : ["grow"])];
  const isShown = (phase) => !missing.includes(phase);
  const signs = names.filter(([phase]) => isShown(phase)).map(([phase, words]) => {
    const sign = (g, w, h) => {
      g.fillStyle = theme.phases[phase];
      const dash = phase === "lost" ? 4 : w; // as in the rows
      for (let x = 0; x < w; x += dash + 2) g.fillRect(x, 1, dash, h - 2);
      if (phase === "recompute") recomputeGaps(g, theme, [[0, 1, w, h - 2]]);
    };
    return [words, sign, 18];
  });
  return has.others ? [...signs, othersSign(theme.otherPhases.decode)] : signs;
}

function shapeLegend(head, theme, has) {
  const colour = theme.sample();
  const share = head.token_budget ? "share of budget" : "share of the fullest step";
  const items = [
    ["waiting", (g, w, h) => waitingLine(g, theme, 0, w, h / 2), 26],
    [`prefill, fill = ${share}`, (g) => {
      prefillBox(g, theme, 0, 0, 9, 14, colour, 0.4);
      prefillBox(g, theme, 10, 0, 9, 14, colour, 1);
    }, 20],
    ["decode, one token", (g, w, h) => decodeBar(g, 0, w, h / 2, colour, theme.edge(colour)), 24],
  ];
  if (has.preempted) {
    items.push(["recompute", (g, w, h) => recomputeBox(g, theme, 0, 0, w, h), 18]);
    items.push(["preempted", (g, w, h) => {
      MARKS.preempted(g, 5, h / 2 + 0.5, theme);
      lostLine(g, theme, 12, w + 2, h / 2);
    }, 28]);
  }
  if (head.prefix_caching) items.push(["prefix hit", (g, w, h) => MARKS.hit(g, w / 2, h / 2 + 0.5, theme), 12]);
  items.push(["finished, tokens out", (g, w, h) => endMark(g, theme, "finished", w / 2, h / 2), 8]);
  if (has.others) items.push(othersSign(theme.greys[0]));
  if (has.cut) items.push(["stopped, failed", (g, w, h) => {
    endMark(g, theme, "aborted", 5, h / 2);
    endMark(g, theme, "failed", 17, h / 2);
  }, 22]);
  return items;
}

/** The parts below the picture: legend, a line for what is to be said, and the choice of the axis. */
export function timelineFoot(el, choose) {
  const foot = element("div", "llmlab-timeline-foot", null, el);
  const signs = element("div", "llmlab-timeline-signs", null, foot);
  const choice = element("label", "llmlab-timeline-axis", "x axis ", foot);
  choice.title = "What a step's width means (key t)";
  const select = element("select", "", null, choice);
  for (const [kind, words] of TIMELINE_AXES) element("option", "", words, select).value = kind;
  select.onchange = () => choose(select.value);
  const note = element("div", "llmlab-timeline-note", null, el);
  return {
    drawLegend(head, layout, theme, has) {
      signs.replaceChildren();
      const line = legend(signs, timelineLegendItems(head, layout, theme, has));
      if (!head.prefix_caching) element("span", "", "no prefix cache in this engine", line);
      if (head.kind === "none") element("span", "", "this engine does not show its KV cache", line);
    },
    show(kind, words) {
      if (select.value !== kind) select.value = kind;
      if (note.textContent !== words) note.textContent = words;
    },
  };
}

/** The axis that key t takes after `kind`. */
export function timelineNextAxis(kind) {
  const at = TIMELINE_AXES.findIndex(([name]) => name === kind);
  return TIMELINE_AXES[(at + 1) % TIMELINE_AXES.length][0];
}

/** A tooltip below the pointer: a title and lines. */
export function timelineTip(el) {
  const tip = element("div", "llmlab-tip", null, el);
  tip.hidden = true;
  return {
    show(x, y, title, lines) {
      tip.hidden = false;
      tip.replaceChildren(element("b", "", title));
      for (const line of lines) element("div", "", line, tip);
      tip.style.left = `${Math.max(0, Math.min(x + 12, el.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${y + 18}px`;
    },
    hide() {
      tip.hidden = true;
    },
  };
}
