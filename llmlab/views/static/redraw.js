/** When a view must be drawn again: its size, the theme, or what it shows has changed. This file must not draw. */

import { themeOf } from "./theme.js";

/** Call draw(theme) after each change, once a frame. Returns {changed(), destroy()}. */
export function redrawing(root, draw) {
  let theme = themeOf(root);
  let frame = null;
  const changed = () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      if (root.clientWidth) draw(theme); // else it is not in the page (yet)
    });
  };
  const resized = new ResizeObserver(changed);
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
