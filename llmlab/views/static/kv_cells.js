/** The KV cache of llama.cpp: all cells in physical order, who holds them, and what attention reads of them. */

import { element, paper } from "./draw.js";
import {
  CELLS_WINDOW_ROWS, cellBeside, cellCorner, cellUnder, cellsByRequest, cellsEnd, cellsGrid, cellsLevel,
  cellsOverview, cellsOverviewCell, cellsWindow, holderAfter,
} from "./kv_cells_geometry.js";
import { cellsLegend } from "./kv_cells_legend.js";
import { paintCellsOverview } from "./kv_cells_overview.js";
import { paintCells } from "./kv_cells_paint.js";
import { CellsPanel } from "./kv_cells_panel.js";
import { CellTexts, cellTip, cellsTwin } from "./kv_cells_words.js";
import { noKvNotice, nothingRanNotice, notice } from "./notice.js";
import { OWNERS } from "./theme.js";

const CELLS_OVERVIEW_GAP = 52; // px between overview and window: words, and the triangle of the ring head

/** See view.js for what a picture is. On the canvas, `llmlabShown()` tells what is drawn, for tests. */
export function cellsPicture(el, story, clock) {
  if (story.head.num_cells) return new CellsPicture(el, story, clock);
  const box = notice(el, noKvNotice(story.head));
  return { draw() {}, key: () => false, destroy: () => box.remove() };
}

class CellsPicture {
  constructor(el, story, clock) {
    Object.assign(this, { story, clock, numCells: story.head.num_cells });
    this.empty = story.length ? null : notice(el, nothingRanNotice(story.head));
    this.columns = element("div", "llmlab-columns", null, el);
    this.columns.hidden = this.empty !== null;
    this.main = element("div", "llmlab-picture", null, this.columns);
    this.sheet = paper(this.main, 1, 1, "KV cache");
    this.canvas = this.sheet.canvas;
    this.canvas.tabIndex = 0;
    this.below = element("div", "", null, this.main);
    this.tip = element("div", "llmlab-tip", null, this.main);
    this.tip.hidden = true;
    this.spoken = element("div", "llmlab-sr", null, this.main);
    this.spoken.setAttribute("aria-live", "polite");
    this.panel = new CellsPanel(this.columns, story, clock);
    this.texts = new CellTexts(story);
    this.theme = null;
    this.grid = null;
    this.overview = null; // of very many cells
    this.windowFirst = null; // first cell of the grid below an overview
    this.isWindowMine = false; // the user put it there
    this.focus = null; // cell with the keyboard focus
    this.pointed = null; // cell under the pointer
    this.isDragging = false;
    // How far into the pool attention read or the search for free cells went, in the first `seen` steps.
    this.reach = story.head.start?.att ?? 0;
    this.seen = 0;
    this.isKept = (request) => !this.state.tokens.has(request);
    this.name = (request) => story.requests[request].name;
    this.listen();
  }

  /** Of the cursor. Not to be kept: another view of the story may move it on. */
  get state() {
    return this.story.stateAt(this.clock.i);
  }

  get hasFocus() {
    return document.activeElement === this.canvas;
  }

  draw(theme) {
    if (!this.story.length) return;
    this.empty?.remove();
    this.columns.hidden = false;
    if (theme !== this.theme) {
      this.theme = theme;
      this.below.replaceChildren();
      cellsLegend(this.below, this.story.head, theme);
    }
    const scene = this.paint();
    const step = this.story.steps[this.clock.i];
    this.canvas.setAttribute("aria-label", cellsTwin(this.story.head, step, this.story.steps[this.clock.n - 1]));
    this.panel.draw(scene, step, cellsByRequest(scene.state, scene.end));
  }

  destroy() {
    this.empty?.remove();
    this.columns.remove();
  }

  /** The canvas alone: what a moved focus or window needs. */
  paint() {
    const { state, theme, sheet } = this;
    const count = this.story.requests.length;
    this.resize(this.main.clientWidth, this.layout(this.main.clientWidth, state));
    const scene = {
      state, theme, name: this.name, isKept: this.isKept, end: cellsEnd(state), selected: this.clock.selected,
      focus: this.hasFocus ? this.focus : null,
      owner: (request) => theme.owner(request, count),
      isCrowd: count > OWNERS.length,
    };
    sheet.g.clearRect(0, 0, sheet.w, sheet.h);
    paintCells(sheet.g, this.grid, scene);
    if (this.overview) paintCellsOverview(sheet.g, this.overview, scene, [this.grid.first, this.grid.last]);
    this.showTip();
    return scene;
  }

  /** Height of the picture. */
  layout(width, state) {
    if (cellsLevel(this.numCells) !== "overview") {
      this.grid = cellsGrid(this.numCells, width, { reach: this.reachNow() });
      return this.grid.height;
    }
    this.overview = cellsOverview(this.numCells, width);
    const { columns } = cellsGrid(this.numCells, width, { rows: CELLS_WINDOW_ROWS });
    const [written = state.ringHead ?? 0] = state.written;
    const isInside = this.grid && written >= this.grid.first && written < this.grid.last;
    if (this.windowFirst === null || !(this.isWindowMine || isInside)) {
      this.windowFirst = cellsWindow(written, this.numCells, columns);
    }
    this.windowFirst -= this.windowFirst % columns; // of another width, maybe
    this.grid = cellsGrid(this.numCells, width, { first: this.windowFirst, rows: CELLS_WINDOW_ROWS });
    const above = this.overview.height + CELLS_OVERVIEW_GAP;
    this.grid.top += above;
    return this.grid.height + above;
  }

  reachNow() {
    for (; this.seen < this.story.length; this.seen++) {
      const { kv } = this.story.steps[this.seen];
      if (kv) this.reach = Math.max(this.reach, kv.att, (kv.head ?? -1) + 1);
    }
    return this.reach;
  }

  /** The same canvas in another size: a new one would lose the keyboard focus. */
  resize(width, height) {
    const { sheet, canvas } = this;
    if (sheet.w === width && sheet.h === height) return;
    const scale = Math.max(1, globalThis.devicePixelRatio || 1);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    sheet.g.setTransform(scale, 0, 0, scale, 0, 0);
    [sheet.w, sheet.h] = [width, height];
  }

  // ---- tooltip, pointer, keys

  /** The tooltip of the cell that is pointed at, else of the one with the focus. Returns its lines. */
  showTip() {
    const { grid, tip, state } = this;
    const cell = this.pointed ?? (this.hasFocus ? this.focus : null);
    tip.hidden = cell === null || cell < grid.first || cell >= grid.last;
    if (tip.hidden) return [];
    const lines = cellTip(state, cell, cellsEnd(state), {
      name: this.name, isKept: this.isKept, text: (request, position) => this.texts.at(request, position),
    });
    tip.replaceChildren();
    lines.forEach((line, i) => element(i ? "div" : "b", "", line, tip));
    const [x, y] = cellCorner(grid, cell);
    tip.style.left = "0"; // its width is not to be squeezed by where it stood
    tip.style.left = `${Math.max(0, Math.min(x, this.sheet.w - tip.offsetWidth))}px`;
    tip.style.top = `${y + grid.cellHeight + 12}px`;
    return lines;
  }

  closeTip() {
    const wasOpen = !this.tip.hidden;
    this.pointed = this.focus = null;
    if (wasOpen) this.paint();
    return wasOpen;
  }

  select(cell) {
    const holders = this.state.holders[cell];
    if (holders) this.clock.select(holderAfter(holders, this.clock.selected) ?? this.clock.selected);
  }

  moveWindow(cell) {
    this.windowFirst = cellsWindow(cell, this.numCells, this.grid.columns);
    this.isWindowMine = true;
    this.paint();
  }

  listen() {
    const { canvas } = this;
    const overviewAt = ({ offsetX: x, offsetY: y }) => {
      const { overview } = this;
      return overview && y < overview.top + overview.height + 4 ? cellsOverviewCell(overview, x, y) : null;
    };
    const cellAt = ({ offsetX: x, offsetY: y }) => (this.grid ? cellUnder(this.grid, x, y) : null);
    canvas.onpointerdown = (event) => {
      const cell = overviewAt(event);
      if (cell === null) return;
      this.isDragging = true;
      canvas.setPointerCapture(event.pointerId);
      this.moveWindow(cell);
    };
    canvas.onpointermove = (event) => {
      if (this.isDragging) return this.moveWindow(cellsOverviewCell(this.overview, event.offsetX, event.offsetY));
      this.pointed = cellAt(event);
      if (this.grid) this.showTip();
    };
    canvas.onpointerup = canvas.onpointercancel = () => (this.isDragging = false);
    canvas.onpointerleave = () => {
      this.pointed = null;
      if (this.grid) this.showTip();
    };
    canvas.onclick = (event) => {
      const cell = overviewAt(event) === null ? cellAt(event) : null;
      if (cell !== null) this.select(cell);
    };
    canvas.onblur = () => this.grid && canvas.isConnected && this.paint();
    canvas.llmlabShown = () => {
      const { position, holders } = this.state;
      const cells = Array.from(position, (p, cell) => ({ cell, position: p, holders: holders[cell] }));
      return cells.filter((cell) => cell.holders);
    };
  }

  key(event) {
    const { grid } = this;
    if (event.target !== this.canvas || event.shiftKey || !grid) return false;
    if (event.key === "Escape") return this.closeTip();
    if (event.key === "Enter" && this.focus !== null) {
      this.select(this.focus);
      return true;
    }
    if (!event.key.startsWith("Arrow")) return false;
    this.focus = this.focus === null ? (this.state.ringHead ?? grid.first) : cellBeside(grid, this.focus, event.key);
    this.pointed = null;
    if (this.overview && (this.focus < grid.first || this.focus >= grid.last)) this.moveWindow(this.focus);
    else this.paint();
    this.spoken.textContent = this.showTip().map((line) => line.replace(/\.$/, "")).join(". ");
    return true;
  }
}
