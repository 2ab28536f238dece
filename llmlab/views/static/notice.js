/**
 * The box that stands where a picture would be when there is nothing to draw, or when something broke: what is the case,
 * why, and the line to type next. This file must not know what pictures draw.
 */

import { element, thousands } from "./draw.js";

/** The first line of a box. An error begins with a cross: it must not be told by its colour alone. */
export const noticeTitle = (title, isError) => (isError ? `✕ ${title}` : title);

/** Nothing has run: the KV cache of `head` is there and free, unless requests held some of it before. */
export function nothingRanNotice(head) {
  const room = { blocks: head.num_blocks, cells: head.num_cells }[head.kind];
  const state = head.start ? "no step was recorded yet" : `its ${thousands(room ?? 0)} ${head.kind} are free`;
  return {
    title: "Nothing has run yet",
    why: room ? `The engine is loaded; ${state}.` : "The engine is loaded; no step was recorded yet.",
    command: "%llm Why is the sky blue?",
  };
}

/** The engine tells no KV cache, step by step (head.kind is "none"): a picture of it would be made up. */
export function noKvNotice(head) {
  return {
    title: "This engine shows no KV cache",
    why: `${head.engine || "The engine"} tells tokens and times, but not which request holds which part of its KV cache.`,
    command: "%llm load smollm2-135m -e vllm",
  };
}

/** What ended the trace, when it was no end of the run: the host died, or its file broke off. Null: nothing did. */
export function endNotice({ head, steps }) {
  if (!head.incident || !steps.length) return null;
  const { n } = steps[steps.length - 1];
  const { kind, cause } = head.incident;
  if (kind === "died") {
    const why = `${cause ? `${cause}. ` : ""}The trace up to step ${n} is kept; answers that had not ended are partial.`;
    return { title: `${head.engine || "The engine"} died at step ${n + 1}`, why, command: "%llm logs", isError: true };
  }
  return null;
}

/** The kernel went away in the middle of something. `last`: "step 115", or "" when nothing had come. */
export function goneNotice(last) {
  const why = last ? "This is the last that came; it can still be looked through." : "Nothing had come.";
  return {
    title: last ? `The kernel is gone: frozen at ${last}` : "The kernel is gone",
    why: `${why} Restart the kernel and run the cells again; a saved trace replays without an engine.`,
    isError: true,
  };
}

/**
 * Put a box into `el`. `command`: the line to type, or several, or null. Returns the box; remove() it when there is
 * something to draw.
 */
export function notice(el, { title, why, command = null, isError = false }) {
  const box = element("div", isError ? "llmlab-notice llmlab-error" : "llmlab-notice", null, el);
  box.setAttribute("role", isError ? "alert" : "note");
  element("b", "", noticeTitle(title, isError), box);
  if (why) element("p", "", why, box);
  for (const line of [command ?? []].flat()) element("code", "", line, box);
  return box;
}
