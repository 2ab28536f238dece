/** The KV cache of llama.cpp: all cells in physical order, who holds them, and what attention reads of them. */

import { element, paper, resizePaper } from "./draw.js";
import {
  cellBeside, cellCorner, cellUnder, cellsByRequest, cellsEnd, cellsOverviewCell, cellsZoomWords, holderAfter,
} from "./kv_cells_geometry.js";
import { cellsLegend } from "./kv_cells_legend.js";
import { paintCellsOverview } from "./kv_cells_overview.js";
import { paintCells } from "./kv_cells_paint.js";
import { CellsPanel } from "./kv_cells_panel.js";
import { CellsScreen } from "./kv_cells_screen.js";
import { CellTexts, cellTip, cellsTwin } from "./kv_cells_words.js";
import { isZoomed, listenToKv, zoomOfKey } from "./kv_pointer.js";
import { noKvNotice, nothingRanNotice, notice } from "./notice.js";
import { OWNERS } from "./theme.js";


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
    this.zoomNote = element("div", "llmlab-blocks-note", null, this.main);
    this.below = element("div", "", null, this.main);
    this.tip = element("div", "llmlab-tip", null, this.main);
    this.tip.hidden = true;
    this.spoken = element("div", "llmlab-sr", null, this.main);
    this.spoken.setAttribute("aria-live", "polite");
    this.panel = new CellsPanel(this.columns, story, clock);
    this.texts = new CellTexts(story);
    this.theme = null;
    this.screen = new CellsScreen(this.numCells);
    this.focus = null; // cell with the keyboard focus
    this.pointed = null; // cell under the pointer
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
    const width = this.main.clientWidth;
    resizePaper(sheet, width, this.screen.layout(width, state, this.reachNow()), theme.scale);
    const scene = {
      state, theme, name: this.name, isKept: this.isKept, end: cellsEnd(state), selected: this.clock.selected,
      focus: this.hasFocus ? this.focus : null,
      owner: (request) => theme.owner(request, count),
      isCrowd: count > OWNERS.length,
    };
    sheet.g.clearRect(0, 0, sheet.w, sheet.h);
    paintCells(sheet.g, this.grid, scene);
    if (this.overview) paintCellsOverview(sheet.g, this.overview, scene, [this.grid.first, this.grid.last]);
    const words = this.screen.zoom ? cellsZoomWords(this.grid) : "";
    if (this.zoomNote.textContent !== words) this.zoomNote.textContent = words;
    this.showTip();
    return scene;
  }

  get grid() {
    return this.screen.grid;
  }

  get overview() {
    return this.screen.overview;
  }

  /** To a cell by its number; why not, when there is none. */
  goTo(cell) {
    if (cell >= this.numCells) return `No cell ${cell}: they go from 0 to ${this.numCells - 1}.`;
    this.focus = cell;
    this.canvas.focus({ preventScroll: true });
    this.showFocus();
    return null;
  }

  reachNow() {
    for (; this.seen < this.story.length; this.seen++) {
      const { kv } = this.story.steps[this.seen];
      if (kv) this.reach = Math.max(this.reach, kv.att, (kv.head ?? -1) + 1);
    }
    return this.reach;
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
    this.moved(this.screen.moveTo(cell));
  }

  /** Other cells are on screen. Returns what the screen said about it. */
  moved(told) {
    this.pointed = null;
    this.paint();
    return told;
  }

  listen() {
    const { canvas } = this;
    const cellAt = (x, y) => (this.grid ? cellUnder(this.grid, x, y) : null);
    listenToKv(canvas, {
      isOverview: (x, y) => this.overview !== null && y < this.overview.top + this.overview.height + 4,
      dragOverview: (x, y) => this.moveWindow(cellsOverviewCell(this.overview, x, y)),
      grab: () => (this.screen.zoom ? this.grid.first : null),
      pan: (first, dy) => this.moved(this.screen.pan(first, Math.round(dy / this.grid.pitch))),
      hover: (x, y) => this.point(cellAt(x, y)),
      leave: () => this.point(null),
      click: (x, y) => cellAt(x, y) !== null && this.select(cellAt(x, y)),
      zoom: (direction, x, y) => this.grid && this.moved(this.screen.zoomBy(direction, cellAt(x, y) ?? this.grid.first)),
      all: () => this.grid && this.moved(this.screen.zoomBy(0, 0)),
    });
    canvas.onblur = () => this.grid && canvas.isConnected && this.paint();
    canvas.llmlabShown = () => {
      const { position, holders } = this.state;
      const cells = Array.from(position, (p, cell) => ({ cell, position: p, holders: holders[cell] }));
      return cells.filter((cell) => cell.holders);
    };
  }

  point(cell) {
    this.pointed = cell;
    if (this.grid) this.showTip();
  }

  /** The cell with the focus is on screen, and read aloud. */
  showFocus() {
    const { grid } = this;
    this.pointed = null;
    if ((this.overview || this.screen.zoom) && (this.focus < grid.first || this.focus >= grid.last)) this.moveWindow(this.focus);
    else this.paint();
    this.spoken.textContent = this.showTip().map((line) => line.replace(/\.$/, "")).join(". ");
  }

  key(event) {
    const { grid } = this;
    if (!grid) return false;
    const direction = zoomOfKey(event.key);
    if (direction !== undefined && isZoomed(event, this.canvas)) {
      this.moved(this.screen.zoomBy(direction, this.focus ?? grid.first));
      return true;
    }
    if (event.target !== this.canvas || event.shiftKey) return false;
    if (event.key === "Escape") return this.closeTip();
    if (event.key === "Enter" && this.focus !== null) {
      this.select(this.focus);
      return true;
    }
    if (!event.key.startsWith("Arrow")) return false;
    this.focus = this.focus === null ? (this.state.ringHead ?? grid.first) : cellBeside(grid, this.focus, event.key);
    this.showFocus();
    return true;
  }
}
