/** A comparison: which texts stand where, what is marked, how long bars are, what is to be said. Pure. */

import { tokensClass } from "./tokens_geometry.js";

const COMPARE_RUNNING = new Set(["waiting", "held", "streaming"]);
const COMPARE_ENDS = {
  waiting: "waiting", held: "shown when all have answered", streaming: "", stop: "finished: stop", interrupted: "stopped",
  abort: "stopped", stopped: "stopped", error: "✕ failed",
};
const COMPARE_ROWS = 6; // bars of either side

/** How a column stands, in words; `numTokens` belongs to an answer that was cut. */
export function compareEnd(state, numTokens) {
  return state === "length" ? `finished: length ${numTokens}` : (COMPARE_ENDS[state] ?? state);
}

export const compareIsRunning = (state) => COMPARE_RUNNING.has(state);

/** Take a message into `data` ({head, cells}). False when something before it was missed: ask for all of it. */
export function compareTake(data, message) {
  if (message.t === "k") {
    data.head = message.head;
    data.cells = message.cells;
    return true;
  }
  if (message.head) data.head = message.head;
  let isWhole = true;
  for (const news of message.cells) {
    const old = data.cells[news.i]?.[news.j];
    if (!old || news.from > old.tokens.length) {
      isWhole = false;
      continue;
    }
    const tokens = [...old.tokens.slice(0, news.from), ...news.tokens];
    data.cells[news.i][news.j] = { ...news, from: 0, tokens };
  }
  return isWhole;
}

/** Token indices to mark in column j of one prompt: where it parts from the first; in the first, where each other does. */
export function compareMarks(cells, j) {
  const at = (k) => cells[k].differs_at ?? null;
  const found = j > 0 ? [at(j)] : cells.slice(1).map((_, k) => at(k + 1));
  return [...new Set(found.filter((index) => index !== null))].sort((a, b) => a - b);
}

/**
 * The text of an answer in pieces: {text, kind, index}. kind: "same" before the first mark, "parts" for a marked token,
 * "own" after it; "end" where an answer ended and another went on. The leading space of a marked token stands outside.
 */
export function comparePieces(tokens, marks) {
  const pieces = [];
  const first = marks.length ? marks[0] : Infinity;
  let run = "";
  const flush = (kind) => {
    if (run) pieces.push({ text: run, kind });
    run = "";
  };
  tokens.forEach(([text], index) => {
    if (!marks.includes(index)) {
      if (index === first) flush("same");
      run += text;
      return;
    }
    const lead = text.match(/^ */)[0];
    run += lead;
    flush(index <= first ? "same" : "own");
    pieces.push({ text: compareVisible(text.slice(lead.length)), kind: "parts", index });
  });
  flush(tokens.length <= first ? "same" : "own");
  if (marks.includes(tokens.length)) pieces.push({ text: "end", kind: "parts", index: tokens.length });
  return pieces;
}

/** A token that is marked must be seen: a line feed is an arrow, nothing at all a square. */
export const compareVisible = (text) => text.replace(/\n/g, "↵").replace(/\t/g, "⇥") || "□";

/** A text in pieces {text, isChanged} by character spans [[first, end]], in order. */
export function compareSpans(text, spans) {
  const pieces = [];
  let at = 0;
  for (const [first, end] of spans) {
    if (first > at) pieces.push({ text: text.slice(at, first), isChanged: false });
    pieces.push({ text: text.slice(first, end), isChanged: true });
    at = end;
  }
  if (at < text.length) pieces.push({ text: text.slice(at), isChanged: false });
  return pieces;
}

/** Which spans of column j are changed, when it is held against the pair `b`: the first column has spans for each other. */
export function compareChanged(cells, j, b) {
  const [first = [], second = []] = cells[j === 0 ? b : j]?.changed ?? [];
  return j === 0 ? first : second;
}

/** Tokens with their probability and its class: {text, kind, share}; null where it is not known. */
export const compareHeat = (tokens) =>
  tokens.map(([text, logprob]) => ({ text, kind: tokensClass(logprob), share: logprob == null ? null : Math.exp(logprob) }));

/** Back-to-back bars: {text, a, b, isA, isB, wa, wb}, widths as shares of the longest bar of either side. */
export function compareBars(rows) {
  const shown = rows.slice(0, COMPARE_ROWS);
  const most = Math.max(...shown.flatMap(([, a, b]) => [a ?? 0, b ?? 0]), 1e-9);
  return shown.map(([text, a, b, isA, isB]) => ({ text, a, b, isA, isB, wa: (a ?? 0) / most, wb: (b ?? 0) / most }));
}

/** The figures below an answer: [[figure, what it is]]; an unknown one is a dash. */
export function compareFigures(cell, { isBlind = false } = {}) {
  if (isBlind) return [[String(cell.tokens.length), "tokens"]];
  const ms = cell.ttft_s == null ? "–" : cell.ttft_s >= 1 ? `${cell.ttft_s.toFixed(2)} s` : `${(1000 * cell.ttft_s).toFixed(0)} ms`;
  const speed = cell.tokens_per_s == null ? "–" : cell.tokens_per_s.toFixed(cell.tokens_per_s < 100 ? 1 : 0);
  const rows = [[ms, "first token"], [speed, "tok/s"], [String(cell.tokens.length), "tokens"]];
  if (cell.differs_at != null) rows.push([`◆ ${cell.differs_at}`, "differs at token"]);
  return rows;
}

/** What the list of prompts says of one answer. */
export function compareStanding(cell, j) {
  if (compareIsRunning(cell.state)) return cell.tokens.length ? `${cell.tokens.length} …` : "…";
  if (cell.state === "error") return "✕";
  if (j === 0) return `${cell.tokens.length}`;
  return cell.differs_at != null ? `◆ ${cell.differs_at}` : cell.differs_at === null ? "equal" : `${cell.tokens.length}`;
}

/** The evidence on a pair, or null when nobody asked for it yet. */
export const comparePartingOf = (head, prompt, b) =>
  head.partings.find((parting) => parting.prompt === prompt && parting.b === b) ?? null;

/** Columns that part from the first one on this prompt. */
export const compareParted = (cells) => cells.map((cell, j) => (j > 0 && cell.differs_at != null ? j : 0)).filter(Boolean);

/** 0.287 -> "28.7 %". */
export const compareShare = (share) => (share == null ? "–" : share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

/** One sentence for a screen reader: how each column stands. */
export function compareSaid(head, cells) {
  return head.columns
    .map((column, j) => {
      const end = compareEnd(cells[j].state, cells[j].tokens.length) || "writing";
      const parts = cells[j].differs_at == null ? "" : `, differs at token ${cells[j].differs_at}`;
      return `${column.name}: ${end}${parts}`;
    })
    .join(". ");
}

/** Of a win rate: "A wins 8 of 10 (49–94 %)". */
export function compareRate({ name, wins, of, ties, low, high }) {
  const between = low == null ? "" : ` (${Math.round(100 * low)}–${Math.round(100 * high)} %)`;
  return `${name} wins ${wins} of ${of}${between}${ties ? `, ${ties} ${ties === 1 ? "tie" : "ties"}` : ""}`;
}
