/** What the timeline says in words: tooltips, and the text twin that screen readers get. This file must not draw. */

import { thousands } from "./draw.js";
import { PHASE_CODE } from "./timeline_phases.js";

const counted = (n, one, many = `${one}s`) => `${thousands(n)} ${n === 1 ? one : many}`;

/** What the KV cache of this engine is counted in. */
export const kvUnit = (head) => (head.kind === "cells" ? "cell" : "block");

/** Blocks or cells of the whole cache, or null. */
export const kvTotal = (head) => (head.kind === "cells" ? head.num_cells : head.num_blocks) ?? null;

/** What a request lost at its preemption, "lost 4 blocks"; "" when that is not known. */
export const lostWords = (head, lost) => (lost ? `lost ${counted(lost, kvUnit(head))}` : "");

/** Tokens, queue and KV cache of step i, one line each. */
export function stepLines(story, i) {
  const { u, nw, fig } = story.steps[i];
  const total = u[0] + u[1] + u[2];
  const parts = [["prefill", u[0]], ["decode", u[1]], ["recompute", u[2]]].filter(([, n]) => n);
  const budget = story.head.token_budget ? ` of ${thousands(story.head.token_budget)}` : "";
  const shares = parts.map(([name, n]) => `${thousands(n)} ${name}`).join(", ");
  const lines = [parts.length ? `${thousands(total)}${budget} tokens: ${shares}` : "no tokens"];
  lines.push(nw ? counted(nw, "request waits", "requests wait") : "queue empty");
  const used = fig?.held ?? fig?.used;
  if (used != null && kvTotal(story.head)) {
    const cached = fig.cached == null ? "" : `, ${thousands(fig.cached)} cached`;
    const verb = story.head.kind === "cells" ? "used" : "held";
    lines.push(`${thousands(used)} of ${counted(kvTotal(story.head), kvUnit(story.head))} ${verb}${cached}`);
  }
  return lines;
}

/** What happens to a request in step i, one line each. */
export function requestLines(story, phases, r, i) {
  const row = phases.rows[r];
  const lines = [timelinePhaseLine(story, row, r, i)];
  for (const [step, kind, n] of row.marks) {
    if (step !== i) continue;
    if (kind === "preempted") lines.push(`preempted${n ? `, ${lostWords(story.head, n)}` : ""}`);
    else if (kind === "hit") lines.push(`${counted(n, "token")} found in the prefix cache`);
    else lines.push(`${kind}, ${counted(n, "token")} out`);
  }
  return lines;
}

function timelinePhaseLine(story, row, r, i) {
  const code = row.at(i);
  const tokens = counted(row.tokensAt(i), "token");
  const { prompt } = story.requests[r];
  switch (code) {
    case PHASE_CODE.prefill:
      return `prefill, ${tokens}${prompt == null ? "" : ` (prompt: ${thousands(prompt)})`}`;
    case PHASE_CODE.decode:
      return `decode, ${tokens}`;
    case PHASE_CODE.grow:
      return `decode, ${tokens}, takes a new block`;
    case PHASE_CODE.recompute:
      return `recompute, ${tokens}`;
    case PHASE_CODE.waiting:
    case PHASE_CODE.lost: {
      let since = i;
      while (row.at(since - 1) === code) since--;
      const why = code === PHASE_CODE.lost ? "waits after preemption" : "waits";
      return `${why}, since step ${story.steps[since].n}`;
    }
  }
  if (!row.length || i < row.first) return "not there yet";
  return row.hasEnded && i >= row.first + row.length ? "has ended" : "gets no tokens in this step";
}

/** What is not drawn one by one, in words; `inOne`: steps that share a column, at most. */
export function timelineNotes(story, layout, scroll, { inOne, isLensOpen }) {
  const notes = [];
  if (inOne > 1) notes.push(`A column is up to ${inOne} steps: their rarest phase, their highest figures.`);
  if (layout.rowsShown < layout.numRequests) {
    const name = (r) => story.requests[r].name;
    const last = scroll + layout.rowsShown - 1;
    notes.push(`Rows ${name(scroll)} to ${name(last)} of ${layout.numRequests}: drag to see others.`);
  }
  if (layout.isPixels && !isLensOpen) notes.push("Key l opens the lens.");
  return notes.join(" ");
}

/** The timeline at step i as text, with the selected request. */
export function timelineSummary(story, phases, i, selected) {
  const { requests, steps } = story;
  const parts = [`Batching timeline: ${counted(requests.length, "request")}, ${counted(steps.length, "step")}`];
  if (steps[i]) parts.push(`Step ${steps[i].n}: ${stepLines(story, i).join("; ")}`);
  if (selected !== null && requests[selected]) {
    parts.push(`${requests[selected].name}: ${requestLines(story, phases, selected, i).join("; ")}`);
  }
  return `${parts.join(". ")}.`;
}
