/** Where two columns part: both distributions back to back, and why. */

import { compareBars, comparePartingOf, compareShare } from "./compare_geometry.js";
import { element, figures } from "./draw.js";
import { tokensVisible } from "./tokens_geometry.js";

/** Below `root`. `choose(b)`: another pair; `ask(b)`: test its causes now, null where no kernel is. */
export function compareEvidence(root, { choose, ask }) {
  const el = element("div", "llmlab-compare-evidence", null, root);
  let key = "";

  function draw(head, cells, prompt, b, parted) {
    const parting = comparePartingOf(head, prompt, b);
    const now = JSON.stringify([prompt, b, parted, parting, head.state, cells[b]?.differs_at, head.columns.map((c) => c.name)]);
    if (now === key) return;
    key = now;
    const hadFocus = el.contains(document.activeElement);
    el.replaceChildren();
    el.hidden = head.blind || !parted.length;
    if (el.hidden) return;
    const left = element("div", "", null, el);
    const top = element("div", "llmlab-head", null, left);
    element("h3", "", `First difference: token ${parting?.index ?? cells[b].differs_at}`, top);
    if (parted.length > 1) {
      for (const other of parted) {
        const chip = element("button", "llmlab-chip", `${head.columns[0].name} and ${head.columns[other].name}`, top);
        chip.type = "button";
        chip.setAttribute("aria-pressed", String(other === b));
        chip.onclick = () => choose(other);
        if (hadFocus && other === b) chip.focus();
      }
    }
    if (parting?.rows.length) drawCompareBars(left, parting);
    else drawCompareTokens(left, head, cells, b);
    drawCompareWhy(element("div", "llmlab-panel", null, el), head, parting, b, ask);
  }
  return { draw };
}

function drawCompareBars(parent, parting) {
  const grid = element("div", "llmlab-compare-bars", null, parent);
  grid.setAttribute("role", "img");
  grid.setAttribute("aria-label", `Most likely tokens of ${parting.names.join(" and ")} at token ${parting.index}`);
  element("b", "", parting.names[0], grid);
  element("span", "", "", grid);
  element("b", "", parting.names[1], grid);
  for (const row of compareBars(parting.rows)) {
    compareBar(element("div", "", null, grid), row.wa, row.a, row.isA);
    element("code", row.isA || row.isB ? "llmlab-chosen" : "", tokensVisible(row.text) || "□", grid);
    compareBar(element("div", "", null, grid), row.wb, row.b, row.isB);
  }
}

function compareBar(parent, width, share, isOwn) {
  const line = element("i", isOwn ? "llmlab-chosen" : "", isOwn ? "◆" : null, parent);
  line.style.width = `calc((100% - 60px) * ${width.toFixed(4)})`;
  element("span", isOwn ? "llmlab-chosen" : "", compareShare(share), parent);
}

/** Before the distributions are known: the two tokens. */
function drawCompareTokens(parent, head, cells, b) {
  const index = cells[b].differs_at;
  const line = element("p", "", null, parent);
  [0, b].forEach((j, n) => {
    line.append(`${n ? ", " : ""}${head.columns[j].name} says `);
    element("code", "", tokensVisible(cells[j].tokens[index]?.[0] ?? "(end)"), line);
  });
}

function drawCompareWhy(panel, head, parting, b, ask) {
  element("h4", "", "Why they part", panel);
  if (!parting) {
    if (head.state === "ended" && ask) {
      const button = element("button", "llmlab-chip", "Test the causes", panel);
      button.type = "button";
      button.onclick = () => {
        button.disabled = true;
        button.textContent = "testing …";
        ask(b);
      };
    } else element("p", "", head.state === "ended" ? "Not tested." : "Tested when all have answered.", panel);
    return;
  }
  const gap = parting.gap === null ? "–" : `${(100 * parting.gap).toFixed(1)} points`;
  figures(panel, [
    ["cause", parting.cause ?? "none found", parting.causes.length ? "tested" : ""],
    ["KL, at least", parting.kl === null ? "–" : parting.kl.toFixed(3), "measured"],
    [`gap in ${parting.names[0]}`, gap, "measured"],
    ["equal before", String(parting.index), "measured"],
  ]);
  const excluded = parting.excluded.length ? `Excluded by test: ${parting.excluded.join(", ")}.` : "";
  const verdict = element("p", "", [parting.verdict, parting.note, excluded].filter(Boolean).join(" "), panel);
  verdict.hidden = !verdict.textContent;
  if (!parting.causes.length) return;
  const more = element("details", "", null, panel);
  element("summary", "", `All ${parting.causes.length} causes, as tested`, more);
  const list = element("ul", "", null, more);
  for (const [name, told, finding] of parting.causes) {
    const item = element("li", "", null, list);
    element("b", "", `${{ confirmed: "◆", possible: "◇" }[told] ?? "○"} ${name}: ${told}`, item);
    element("span", "", ` ${finding}`, item);
  }
}
