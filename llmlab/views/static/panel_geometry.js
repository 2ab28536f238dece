/** The panel: what can be run, what a form says, where a key leads among the tabs. Pure. */

export const PANEL_MIN = 2, PANEL_MAX = 4; // engines side by side

/** Why Run does nothing now; "" when it would. */
export function panelHindrance({ busy }, names, prompt) {
  if (busy) return busy;
  if (names.length < PANEL_MIN) return `Pick ${PANEL_MIN} to ${PANEL_MAX} engines; ${names.length} picked.`;
  if (names.length > PANEL_MAX) return `Pick ${PANEL_MAX} engines at most; ${names.length} picked.`;
  return prompt.trim() ? "" : "Type a prompt.";
}

/** The tab that a key leads to from tab `i` of `n`; null when it leads nowhere. */
export function panelTab(key, i, n) {
  const to = { ArrowRight: (i + 1) % n, ArrowLeft: (i - 1 + n) % n, Home: 0, End: n - 1 }[key];
  return to === undefined || n === 0 ? null : to;
}

/** The tab that stays selected when tabs come: the same model, else one of the same title, else the first. */
export function panelStay(tabs, selected) {
  const same = (name) => tabs.find((tab) => selected && tab[name] === selected[name]);
  return same("model") ?? same("title") ?? tabs[0] ?? null;
}
