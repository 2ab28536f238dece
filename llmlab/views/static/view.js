/** A whole view: title, pictures, narration, transport, one clock. Pictures draw; this file only puts them together. */

import { blocksPicture } from "./kv_blocks.js";
import { cellsPicture } from "./kv_cells.js";
import { element, say } from "./draw.js";
import { redrawing } from "./redraw.js";
import { timelinePicture } from "./timeline.js";
import { transport } from "./transport.js";

/** What stands beside the title. */
export function subtitle(head) {
  const room = head.kind === "blocks" && head.num_blocks ? `${head.num_blocks} blocks of ${head.block_size} tokens` : "";
  const source = head.source === "measured" ? "" : head.source;
  return [head.engine, head.model, head.dtype, head.device, room, source].filter(Boolean).join(" · ");
}

/**
 * Draw a story. `parts`: ["kv"], ["timeline"] or both. `live`: see transport(). Returns {changed(), destroy()}: call
 * changed() when steps or requests have come.
 */
export function show(root, story, clock, { parts = ["kv", "timeline"], title = "", live = null } = {}) {
  root.classList.add("llmlab-view");
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", title);
  const head = element("div", "llmlab-head", null, root);
  element("h3", "", title, head);
  element("span", "", subtitle(story.head), head);
  const kinds = { kv: story.head.kind === "cells" ? cellsPicture : blocksPicture, timeline: timelinePicture };
  const pictures = parts.map((part) => kinds[part](element("div", `llmlab-${part}`, null, root), story, clock));
  const words = element("p", "llmlab-say", null, root);
  words.setAttribute("aria-live", "polite");
  const buttons = transport(root, story, clock, live);

  const { changed, destroy } = redrawing(root, (theme) => {
    if (!story.length) return;
    for (const picture of pictures) picture.draw(theme);
    // What changes ten times a second is not to be read aloud.
    words.setAttribute("aria-live", clock.isPlaying || clock.following ? "off" : "polite");
    say(words, story.steps[clock.i].say);
    buttons.draw(theme);
  });
  const stopListening = clock.on(changed);
  root.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea")) return;
    if (event.target.matches("button") && (event.key === " " || event.key === "Enter")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const handled = pictures.some((picture) => picture.key?.(event)) || buttons.key(event);
    if (handled) {
      event.preventDefault();
      event.stopPropagation(); // the notebook has shortcuts of its own
    }
  });
  return {
    changed,
    destroy() {
      destroy();
      stopListening();
      for (const picture of pictures) picture.destroy?.();
      buttons.destroy();
    },
  };
}
