/** When the kernel behind a widget goes away: that is noticed once, and said in a box. This file must not draw pictures. */

import { goneNotice, notice } from "./notice.js";

/**
 * Call act() when the channel to the kernel is cut; returns what ends that. Jupyter's widgets tell it at each restart, also
 * of a kernel that was gone before. Of a kernel that is shut down or changed for another they tell nothing: there the
 * connection itself does, where the front end has one. A channel never comes back: what runs again makes a widget of its own.
 */
export function whenGone(model, act) {
  let isGone = false;
  const tell = () => {
    if (isGone) return;
    isGone = true;
    act();
  };
  const disposed = model.widget_manager?.kernel?.disposed;
  model.on("comm_live_update", tell);
  disposed?.connect?.(tell);
  return () => {
    model.off("comm_live_update", tell);
    disposed?.disconnect?.(tell);
  };
}

/** The box that says so, below the head of a view. `last`: words for the last that came, see goneNotice(). */
export function goneBox(root, last) {
  const box = notice(root, goneNotice(last));
  box.classList.add("llmlab-line");
  root.querySelector(".llmlab-waiting")?.remove();
  const head = root.querySelector(".llmlab-head, h3");
  if (head) head.after(box);
  return box;
}
