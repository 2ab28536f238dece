/** When a view must be drawn again: its size, the theme, or what it shows has changed. This file must not draw. */

import { themeOf } from "./theme.js";

/** Call draw(theme) after each change, once a frame. Returns {changed(), destroy()}. */
export function redrawing(root, draw) {
  let theme = themeOf(root);
  let frame = null;
  let isAway = false; // not in the page, in the last frame that was to draw it
  const changed = () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      const wasAway = isAway;
      isAway = !root.clientWidth;
      if (!isAway) draw(theme);
      // JupyterLab hides all of itself for one frame when its theme changes: no size has changed in the next one.
      else if (!wasAway) changed();
    });
  };
  let width = null; // of the view, as the observer saw it last: in another height alone it looks the same
  const resized = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    changed();
  });
  resized.observe(root);
  const themed = new MutationObserver(() => {
    theme = themeOf(root);
    changed();
  });
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  changed();
  return {
    changed,
    destroy() {
      if (frame !== null) cancelAnimationFrame(frame);
      resized.disconnect();
      themed.disconnect();
    },
  };
}
