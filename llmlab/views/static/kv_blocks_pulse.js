/** Blocks that were handed out in this step pulse once: outlines over the canvas, which itself changes at once. */

import { element } from "./draw.js";
import { blockCorner } from "./kv_blocks_geometry.js";

const PULSE_MOST = 64; // blocks; more at once would be a flash

/** The outlines go by themselves; under prefers-reduced-motion the style keeps them hidden. */
export function pulseBlocks(parent, { layout, state, from }) {
  if (layout.level !== "slots" && layout.level !== "levels") return;
  if (!state.fresh.size || state.fresh.size > PULSE_MOST) return;
  for (const block of state.fresh) {
    const corner = blockCorner(layout, block, from);
    if (!corner) continue;
    const ring = element("i", "llmlab-pulse", null, parent);
    const [left, top] = corner.map((v) => `${v - 3}px`);
    Object.assign(ring.style, { left, top, width: `${layout.cell + 6}px`, height: `${layout.cellHeight + 6}px` });
    ring.onanimationend = () => ring.remove();
    setTimeout(() => ring.remove(), 400); // where nothing moves, no animation ends
  }
}
