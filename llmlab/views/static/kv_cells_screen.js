/** Which cells of a pool are on screen: all of them, a window below an overview, or fewer and larger ones. Draws nothing. */

import {
  CELLS_WINDOW_ROWS, CELLS_ZOOM_ROWS, cellsGrid, cellsLevel, cellsMostZoom, cellsOverview, cellsWindow, cellsWindowFrom,
} from "./kv_cells_geometry.js";

const CELLS_OVERVIEW_GAP = 52; // px between overview and window: words, and the triangle of the ring head

export class CellsScreen {
  constructor(numCells) {
    this.numCells = numCells;
    this.grid = null; // see cellsGrid()
    this.overview = null; // of very many cells
    this.zoom = 0; // each level halves the cells in a row
    this._first = null; // first cell of a window
    this._isMine = false; // the user put it there
    this._width = 0;
  }

  /** Lay it out on `width` px; `reach`: see cellsGrid(). Returns the height of the picture. */
  layout(width, state, reach) {
    this._width = width;
    const { numCells, zoom } = this;
    if (cellsLevel(numCells) === "overview") return this._layoutBelow(width, state);
    if (zoom) this._place(CELLS_ZOOM_ROWS, this._first ?? 0);
    else this.grid = cellsGrid(numCells, width, { reach });
    return this.grid.height;
  }

  _layoutBelow(width, state) {
    const { numCells, grid } = this;
    this.overview = cellsOverview(numCells, width);
    const [written = state.ringHead ?? 0] = state.written;
    const isInside = grid && written >= grid.first && written < grid.last;
    if (this._first === null || !(this._isMine || isInside)) {
      this._first = cellsWindow(written, numCells, this._columns());
    }
    this._place(CELLS_WINDOW_ROWS, this._first);
    const above = this.overview.height + CELLS_OVERVIEW_GAP;
    this.grid.top += above;
    return this.grid.height + above;
  }

  _columns() {
    return cellsGrid(this.numCells, this._width, { rows: 1, zoom: this.zoom }).columns;
  }

  /** A window of at most `most` rows, with its first cell near `first`. */
  _place(most, first) {
    const columns = this._columns();
    const rows = Math.min(most, Math.ceil(this.numCells / columns));
    this._first = cellsWindowFrom(first, this.numCells, columns, rows);
    this.grid = cellsGrid(this.numCells, this._width, { first: this._first, rows, zoom: this.zoom });
  }

  /** One level in (1) or out (-1), with `cell` in the same row of the picture or the last; 0: all. Lay it out again after it. */
  zoomBy(direction, cell) {
    const most = this.overview ? CELLS_WINDOW_ROWS : CELLS_ZOOM_ROWS;
    const row = Math.min(most - 1, Math.floor((cell - this.grid.first) / this.grid.columns));
    this.zoom = direction ? Math.max(0, Math.min(cellsMostZoom(this.numCells), this.zoom + direction)) : 0;
    const columns = this._columns();
    this._first = Math.max(0, Math.floor(cell / columns) - row) * columns;
    this._isMine = this.zoom > 0;
  }

  /** Move the window by `rows` from where it began with cell `first`; whether that is another place. */
  pan(first, rows) {
    const before = this._first;
    this._first = cellsWindowFrom(first + rows * this.grid.columns, this.numCells, this.grid.columns, this.grid.rows);
    this._isMine = true;
    return this._first !== before;
  }

  /** The window with a cell in its middle. */
  moveTo(cell) {
    this._first = cellsWindow(cell, this.numCells, this.grid.columns);
    this._isMine = true;
  }
}
