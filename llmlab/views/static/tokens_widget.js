/** The widget of one answer: its tokens come all at once. */

import { showTokens } from "./tokens.js";

function render({ model, el }) {
  const shown = showTokens(el, JSON.parse(new TextDecoder().decode(model.get("data"))));
  return () => shown.destroy();
}

export default { render };
