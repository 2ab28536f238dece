/** A saved page with the tokens of an answer, or with one distribution to sample from. */

import { Clock } from "./clock.js";
import { showSampler } from "./sampler_view.js";
import { showTokens } from "./tokens.js";

const data = JSON.parse(document.getElementById("llmlab-data").textContent);
const root = document.getElementById("llmlab-root");
if (data.tokens) {
  const clock = new Clock(data.tokens.length);
  const asked = new URLSearchParams(location.search); // ?token=35
  clock.set(Number(asked.get("token") ?? 0));
  globalThis.llmlabView = showTokens(root, data, { clock });
} else {
  globalThis.llmlabView = showSampler(root, data);
}
