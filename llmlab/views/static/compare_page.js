/** A saved page with a comparison: it can be looked through, and needs no kernel. */

import { showCompare } from "./compare.js";

const data = JSON.parse(document.getElementById("llmlab-data").textContent);
globalThis.llmlabView = showCompare(document.getElementById("llmlab-root"), data);
