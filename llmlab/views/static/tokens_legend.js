/** The line that says what the grounds of tokens mean. */

import { element } from "./draw.js";
import { TOKENS_CLASS_NAMES } from "./tokens_geometry.js";

export function tokensLegend(parent) {
  const line = element("div", "llmlab-legend", null, parent);
  TOKENS_CLASS_NAMES.forEach((name, kind) => {
    const item = element("span", "", null, line);
    element("i", `llmlab-token-swatch llmlab-token-p${kind}`, null, item);
    item.append(name);
  });
  return line;
}
