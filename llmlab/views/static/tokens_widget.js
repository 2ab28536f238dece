/** The widget of one answer, or of one distribution to sample from: its data come all at once. */

import { decode, placed } from "./place.js";
import { showSampler } from "./sampler_view.js";
import { showTokens } from "./tokens.js";

function render({ model, el }) {
  const data = decode(model.get("data"));
  const shown = data.tokens ? showTokens(el, data) : showSampler(el, data);
  return () => shown.destroy();
}

export default placed(render);
