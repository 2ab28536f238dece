/** What the cells picture says in words: figures beside it, tooltip, text twin. Pure; figures come from step.fig. */

import { percent, thousands } from "./draw.js";
import { cellKind } from "./kv_cells_geometry.js";
import { eachText } from "./story.js";

const cellNumber = (n) => (n == null ? "–" : thousands(n));

/** Names as "r0, r1 and r2"; of more than `most`, the first ones and a count. */
export function cellNames(names, most = 6) {
  const shown = names.length > most ? [...names.slice(0, most), `${names.length - most} more`] : names;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown[shown.length - 1]}`;
}

/** The word beside each figure about cells: who says so. Cells that nobody read from the engine are not measured. */
export const cellSource = (head) => (head.cell_source === "predicted" ? "predicted" : head.source);

/** Rows of the panel: {attention, sharing}; `selected`: {name, runs} or null. Without prefix cache nothing is shared. */
export function cellPanelRows(fig, head, selected) {
  const source = cellSource(head);
  const masked = fig.read ? ` (${percent(fig.masked == null ? null : fig.masked / fig.read, 0)})` : "";
  const attention = [
    ["cells read each step", cellNumber(fig.read), source],
    ["of them masked", cellNumber(fig.masked) + masked, source],
    ["holes", cellNumber(fig.holes), source],
  ];
  if (selected) attention.push([`runs of ${selected.name}`, cellNumber(selected.runs), source]);
  const sharing = [
    ["shared cells", cellNumber(fig.shared), source],
    ["cells saved", cellNumber(fig.saved), source],
    ["prefix-hit tokens so far", cellNumber(fig.hits), head.source],
  ];
  return { attention, sharing: head.prefix_caching ? sharing : [] };
}

/** Parts of the stacked bar, [cells, words], in the order of the bar. */
export const cellBarParts = (fig) => [
  [fig.used, "used"], [fig.holes, fig.holes === 1 ? "hole" : "holes"], [fig.padding, "padding"], [fig.unread, "not read"],
];

/** The picture for those who cannot see it, in two lines. */
export function cellsTwin(head, step, lastStep) {
  const fig = step.fig ?? {};
  const shared = head.prefix_caching ? ` (${cellNumber(fig.shared)} shared)` : "";
  const used = `${cellNumber(fig.used)} of ${cellNumber(head.num_cells)} cells used${shared}`;
  const empty = cellBarParts(fig).slice(1).map(([n, words]) => `${cellNumber(n)} ${words}`).join(", ");
  const read = `attention reads ${cellNumber(fig.read)}`;
  return `KV cache · ${head.engine} · step ${step.n} of ${lastStep.n}\n${used}, ${empty}; ${read}`;
}

/** A chip: a request and the cells it holds. `held`: of cellsByRequest(), or undefined; then `otherwise` says why. */
export function cellChipWords(name, held, isRunning, otherwise) {
  if (held) return `${name} · ${thousands(held.cells)}${isRunning ? "" : " kept"}`;
  return `${name} · ${isRunning ? 0 : otherwise}`;
}

const EMPTY_CELLS = {
  hole: ["hole", "Empty. Attention reads it and masks it."],
  padding: ["padding", "Empty. The cells that are read are rounded up to a multiple of 256."],
  unread: ["not read", "Empty, and beyond the cells that attention reads."],
};

/** Lines of the tooltip of a cell; the first one stands out. `text`: (request, position) -> text or null. */
export function cellTip(state, cell, end, { name, isKept, text }) {
  const head = state.ringHead === cell ? ["The search for free cells starts here."] : [];
  const kind = cellKind(state, cell, end);
  if (kind !== "used") return [`Cell ${cell}: ${EMPTY_CELLS[kind][0]}`, EMPTY_CELLS[kind][1], ...head];
  const holders = state.holders[cell];
  const position = state.position[cell];
  const who = holders.length > 1 ? `×${holders.length}: ${cellNames(holders.map(name))}` : name(holders[0]);
  const lines = [`Cell ${cell}`, `${who}, position ${position}`];
  const piece = holders.map((request) => text(request, position)).find((found) => found != null);
  if (piece != null) lines.push(`“${cellPiece(piece)}”`);
  const kept = holders.filter(isKept).map(name);
  if (kept.length) lines.push(`kept: ${cellNames(kept)} ended, the KV can still be shared`);
  if (state.written.has(cell)) lines.push("written in this step");
  return [...lines, ...head];
}

/** A line feed as a sign: a piece of text stays on one line. */
const cellPiece = (piece) => piece.replaceAll("\n", "↵");

/** Texts of tokens by place in the sequence: those of the prompt, then those that came out. Grows with the story. */
export class CellTexts {
  constructor(story) {
    this.story = story;
    this._out = new Map(); // request -> texts that came out
    this._seen = 0;
    // How much came out of these before the first step, nobody told.
    const { s = [], w = [] } = story.head.start ?? {};
    this._early = new Set([...s, ...w].map(([request]) => request));
  }

  /** The text at a position, or null when nobody told it. */
  at(request, position) {
    const { prompt, pieces } = this.story.requests[request];
    if (prompt == null) return null;
    if (position < prompt) return pieces?.[position] ?? null;
    if (this._early.has(request)) return null;
    this._read();
    return this._out.get(request)?.[position - prompt] ?? null;
  }

  _read() {
    for (; this._seen < this.story.length; this._seen++) {
      eachText(this.story.steps[this._seen], (request, text) => {
        const texts = this._out.get(request) ?? [];
        texts.push(text);
        this._out.set(request, texts);
      });
    }
  }
}
