/** A whole view: title, pictures, narration, transport, one clock. Pictures draw; this file only puts them together. */

import { arrivalsPicture } from "./arrivals.js";
import { blocksPicture } from "./kv_blocks.js";
import { cellsPicture } from "./kv_cells.js";
import { element, say, sharpness, thousands } from "./draw.js";
import { goToAsked, goToField, goToStep } from "./go_to.js";
import { endNotice, nothingRanNotice, notice } from "./notice.js";
import { ownKeys, viewKeys } from "./own_keys.js";
import { projectorMode } from "./projector.js";
import { redrawing } from "./redraw.js";
import { timelinePicture } from "./timeline.js";
import { transport } from "./transport.js";

/** What stands beside the title. */
export function subtitle(head) {
  const blocks = head.kind === "blocks" && head.num_blocks;
  const cells = head.kind === "cells" && head.num_cells;
  const room = blocks ? `${thousands(blocks)} blocks of ${head.block_size} tokens` : cells ? `${thousands(cells)} cells` : "";
  const source = head.source === "measured" ? "" : head.source;
  return [head.engine, head.model, head.dtype, head.device, room, source].filter(Boolean).join(" · ");
}

/** Which requests are those of other clients. */
const othersOf = (requests) => new Set(requests.flatMap((request, r) => (request?.other ? [r] : [])));

/**
 * Draw a story. `parts`: ["kv"], ["timeline"] or both. `live`: see transport(). `presentation`: for a projector. Returns
 * {changed(), destroy()}: call changed() when steps or requests have come.
 */
export function show(root, story, clock, { parts = ["kv", "timeline"], title = "", live = null, presentation = false } = {}) {
  root.classList.add("llmlab-view");
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", title);
  const head = element("div", "llmlab-head", null, root);
  element("h3", "", title, head);
  element("span", "", subtitle(story.head), head);
  const incident = endNotice(story);
  if (incident) notice(root, incident).classList.add("llmlab-line");
  const empty = story.length || parts.includes("kv") ? null : notice(root, nothingRanNotice(story.head));
  const markEmpty = () => root.classList.toggle("llmlab-empty", !story.length);
  markEmpty();
  const { unseen, kind } = story.head;
  if (unseen) element("p", "llmlab-unseen", unseen, root);
  const kinds = { kv: kind === "cells" ? cellsPicture : blocksPicture, timeline: unseen ? arrivalsPicture : timelinePicture };
  // of an engine that is seen from outside there is one picture
  const pictures = (unseen ? ["timeline"] : parts).map((part) => kinds[part](element("div", `llmlab-${part}`, null, root), story, clock));
  const words = element("p", "llmlab-say", null, root);
  words.setAttribute("aria-live", "polite");
  const buttons = transport(root, story, clock, live);
  const place = !unseen && parts.includes("kv") && { blocks: "block", cells: "cell" }[story.head.kind];
  const field = goToField(root, place ? `Go to step, or #${place} ` : `Go to ${unseen ? "arrival" : "step"} `, go);
  const switchMode = projectorMode(root, presentation);

  const { changed, destroy } = redrawing(root, (theme) => {
    markEmpty();
    if (!story.length) return;
    empty?.remove();
    theme.others = othersOf(story.requests);
    // Before anything changes: to ask for a size later is to lay out the page again.
    theme.scale = sharpness(root);
    const widths = [...pictures, buttons].map((part) => part.width?.() || undefined);
    pictures.forEach((picture, k) => picture.draw(theme, widths[k]));
    // When all are painted: to paint a text after the page has changed is to lay it out again.
    for (const picture of pictures) picture.tell?.();
    // What changes ten times a second is not to be read aloud.
    words.setAttribute("aria-live", clock.isPlaying || clock.following ? "off" : "polite");
    say(words, story.steps[clock.i].say);
    buttons.draw(theme, widths.at(-1));
  });
  const stopListening = clock.on(changed);
  const leaveKeys = ownKeys(root);

  function go(typed) {
    const asked = goToAsked(typed);
    if (asked?.place !== undefined && place) return pictures.find((picture) => picture.goTo).goTo(asked.place);
    if (asked?.step === undefined) return place ? `Type a number, or # and a ${place}: 26 or #12.` : "Type a number.";
    const [index, problem] = goToStep(story.steps, asked.step);
    if (index !== null) clock.set(index);
    return problem;
  }

  viewKeys(root, [...pictures.map((picture) => (event) => picture.key?.(event)), buttons.key, switchMode, field.key]);
  return {
    changed,
    destroy() {
      destroy();
      stopListening();
      leaveKeys();
      for (const picture of pictures) picture.destroy?.();
      buttons.destroy();
    },
  };
}
