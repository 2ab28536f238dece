/** The columns of a comparison: name, state, text, figures. Text enters the page as text. */

import {
  compareEnd, compareFigures, compareHeat, compareIsRunning, compareMarks, comparePieces, compareShare,
  compareSpans,
} from "./compare_geometry.js";
import { element } from "./draw.js";

/** Columns below `root`; `stop(j)` ends one. Returns {draw(head, cells, mode, changed, canStop)}. */
export function compareColumns(root, stop) {
  const grid = element("div", "llmlab-compare-columns", null, root);
  let parts = [];

  function build(count) {
    grid.replaceChildren();
    grid.style.setProperty("--ll-count", String(Math.min(count, 4)));
    grid.dataset.count = String(Math.min(count, 4));
    parts = Array.from({ length: count }, (_, j) => {
      const section = element("section", "llmlab-compare-column", null, grid);
      const top = element("div", "llmlab-compare-name", null, section);
      const names = element("div", "", null, top);
      const name = element("b", "", "", names);
      const detail = element("span", "", "", names);
      const end = element("span", "llmlab-compare-end", "", top);
      const button = element("button", "llmlab-chip llmlab-stop", "■ Stop", top);
      button.type = "button";
      button.title = "Abort on the engine, this column only; what arrived stays";
      button.onclick = () => stop(j);
      const text = element("div", "llmlab-compare-text", null, section);
      const error = element("p", "llmlab-compare-error", "", section);
      const figures = element("div", "llmlab-compare-figures", null, section);
      const memory = element("div", "llmlab-compare-memory", "", section);
      return { section, name, detail, end, button, text, error, figures, memory, key: "" };
    });
  }

  function draw(head, cells, mode, changed, canStop) {
    if (parts.length !== head.columns.length) build(head.columns.length);
    parts.forEach((part, j) => {
      const [column, cell] = [head.columns[j], cells[j]];
      const isRunning = compareIsRunning(cell.state) && head.state === "running" && !column.stopped;
      part.section.setAttribute("aria-label", column.name);
      part.text.classList.toggle("llmlab-compare-plain", head.blind); // nothing is said of what is equal
      part.name.textContent = column.name;
      part.detail.textContent = column.detail;
      part.end.textContent = isRunning ? "" : compareEnd(cell.state, cell.tokens.length);
      part.button.hidden = !(isRunning && canStop && !head.blind);
      part.button.setAttribute("aria-label", `Stop ${column.name}`);
      const error = column.error ?? cell.error;
      part.error.textContent = error ? `✕ ${error}` : "";
      part.memory.textContent = column.memory ? `${column.memory} in memory, measured` : "";
      const marks = head.blind ? [] : compareMarks(cells, j);
      const spans = changed?.(j) ?? null;
      const key = JSON.stringify([cell.tokens.length, cell.state, marks, mode, spans, isRunning, cells[0].tokens.length > 0]);
      if (part.key !== key || part.cell !== cell) {
        part.key = key;
        part.cell = cell;
        drawCompareText(part.text, cell, { mode, marks, spans, isRunning: isRunning && cell.state === "streaming" });
        part.figures.replaceChildren();
        for (const [figure, what] of compareFigures(cell, { isBlind: head.blind })) {
          const item = element("div", "", null, part.figures);
          element("b", "", figure, item);
          element("span", "", what, item);
        }
      }
    });
  }
  return { draw };
}

function drawCompareText(el, cell, { mode, marks, spans, isRunning }) {
  el.replaceChildren();
  if (mode === "logprobs") drawCompareHeat(el, cell.tokens);
  else if (spans) drawCompareSpans(el, cell.tokens.map(([text]) => text).join(""), spans);
  else drawCompareMarked(el, cell.tokens, marks);
  if (isRunning) element("span", "llmlab-compare-cursor", null, el);
}

function drawCompareMarked(el, tokens, marks) {
  for (const { text, kind, index } of comparePieces(tokens, marks)) {
    const span = element("span", `llmlab-compare-${kind}`, text, el);
    if (kind !== "parts") continue;
    span.title = `first different token, index ${index}`;
    span.tabIndex = 0;
  }
}

function drawCompareSpans(el, text, spans) {
  for (const piece of compareSpans(text, spans)) {
    element(piece.isChanged ? "mark" : "span", piece.isChanged ? "" : "llmlab-compare-same", piece.text, el);
  }
}

function drawCompareHeat(el, tokens) {
  for (const { text, kind, share } of compareHeat(tokens)) {
    const words = text.trimStart();
    if (words && words !== text) el.append(text.slice(0, -words.length)); // a space at the end of a line is no token to see
    const span = element("span", `llmlab-token llmlab-token-p${kind ?? ""}`, words || text, el);
    if (kind !== null) span.title = `probability ${compareShare(share)}`;
  }
}
