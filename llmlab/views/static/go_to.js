/** "Go to": a field that key g opens, for a step, a block or cell, a token by its number. This file must not draw. */

import { element } from "./draw.js";

/** What was typed: {step: 26}, {place: 12} for "#12", or null. */
export function goToAsked(typed) {
  const [, sign, digits] = typed.trim().match(/^(#?)\s*(\d+)$/) ?? [];
  return digits === undefined ? null : { [sign ? "place" : "step"]: Number(digits) };
}

/** The index of the step that the engine calls `n`: [index, null], or [null, why there is none]. */
export function goToStep(steps, n) {
  const index = steps.findIndex((step) => step.n === n);
  if (index >= 0) return [index, null];
  return [null, `No step ${n}: they go from ${steps[0]?.n ?? "–"} to ${steps.at(-1)?.n ?? "–"}.`];
}

/** The field, in `parent`. `go(typed)` goes there, or returns why it cannot. Returns {key(event)}, which opens it. */
export function goToField(parent, label, go) {
  const form = element("form", "llmlab-go", null, parent);
  form.hidden = true;
  const row = element("label", "", label, form);
  const input = element("input", "", null, row);
  input.autocomplete = "off";
  const said = element("span", "llmlab-go-said", "", form);
  said.setAttribute("role", "status");
  let before = null; // what had the focus
  const close = () => {
    form.hidden = true;
    before?.focus({ preventScroll: true });
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const problem = go(input.value);
    if (problem) said.textContent = problem;
    else if (form.contains(document.activeElement)) close();
    else form.hidden = true; // it went to a place that has the focus now
  };
  input.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Escape") close();
  };
  return {
    key(event) {
      if (event.key !== "g") return false;
      before = document.activeElement;
      said.textContent = input.value = "";
      form.hidden = false;
      input.focus({ preventScroll: true });
      return true;
    },
  };
}
