/**
 * llama.cpp's cells: where each one is drawn, and which of them make one capsule. A cell holds the KV of one token.
 *
 * Everything here is pure: cells and sizes in px go in, boxes and words come out. This file must not draw.
 */

export const LABEL_CELLS = 4096; // more cells than this: small ones without labels
export const GRID_CELLS = 16384; // more than this: an overview, and a window that shows each cell
export const CELLS_WINDOW_ROWS = 8;
export const CELLS_ZOOM_ROWS = 14;
const CELLS_LEAST_COLUMNS = 16; // zoomed in as far as it goes
const cellsGutter = (numCells) => (numCells > 10000 ? 42 : 34); // row numbers, left
const CELLS_MARGIN = 16;
const CELLS_TOP = 26; // the sentence about the ring head, and its triangle
const CELLS_FOOT = 22; // the words about the attended span, when it ends with the last row
const CELLS_OVERVIEW_HEIGHT = 260;
const CELLS_ROWS_ALWAYS = 16; // rows that nothing ever read are cut beyond these

/** How many cells there are, and which marks they get: "labels", "bars" or "overview". */
export const cellsLevel = (numCells) =>
  numCells <= LABEL_CELLS ? "labels" : numCells <= GRID_CELLS ? "bars" : "overview";

/**
 * The grid: cells [first, first + rows * columns) of numCells, in a picture `width` px wide. `reach`: cells that were
 * read or searched at any time; rows beyond are left out (`cut`), as far as the picture would get long. `zoom`: each level
 * halves the cells in a row; then they have labels, however many there are.
 */
export function cellsGrid(numCells, width, { first = 0, rows = null, reach = numCells, zoom = 0 } = {}) {
  const level = zoom ? "labels" : cellsLevel(numCells);
  const isSmall = level === "bars";
  const wide = cellsLevel(numCells) === "bars" ? 128 : 64;
  const most = Math.max(CELLS_LEAST_COLUMNS, (width < 600 ? wide / 2 : wide) >> zoom);
  const columns = Math.max(1, Math.min(most, numCells));
  const cellWidth = Math.min(zoom ? 60 : 36, (width - cellsGutter(numCells) - CELLS_MARGIN) / columns);
  const cellHeight = isSmall ? 8 : Math.max(20, Math.min(26, cellWidth));
  const pitch = cellHeight + (isSmall ? 2 : 6);
  const all = Math.ceil(numCells / columns);
  const needed = Math.max(CELLS_ROWS_ALWAYS, Math.ceil(reach / columns) + 2);
  const shown = rows ?? (needed + 4 < all ? needed : all);
  const cut = rows === null ? numCells - Math.min(numCells, shown * columns) : 0;
  return {
    numCells, first, rows: shown, columns, cellWidth, cellHeight, pitch, cut, level,
    left: cellsGutter(numCells), top: CELLS_TOP, height: CELLS_TOP + shown * pitch + CELLS_FOOT,
    last: Math.min(numCells, first + shown * columns), // after the last cell that is shown
  };
}

/** Upper left corner of a cell in the grid: [x, y]. */
export function cellCorner(grid, cell) {
  const at = cell - grid.first;
  return [grid.left + (at % grid.columns) * grid.cellWidth, grid.top + Math.floor(at / grid.columns) * grid.pitch];
}

/** The cell under a point, or null. The gap below a row belongs to the row. */
export function cellUnder(grid, x, y) {
  const column = Math.floor((x - grid.left) / grid.cellWidth);
  const row = Math.floor((y - grid.top) / grid.pitch);
  if (column < 0 || column >= grid.columns || row < 0 || row >= grid.rows) return null;
  const cell = grid.first + row * grid.columns + column;
  return cell < grid.last ? cell : null;
}

/** The cell that an arrow key leads to; the same one at an edge. */
export function cellBeside(grid, cell, key) {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[key];
  const to = cell + by;
  return to < 0 || to >= grid.numCells - grid.cut ? cell : to;
}

/**
 * Runs of cells [from, to): consecutive cells of the same sequences at consecutive positions, as
 * {first, n, position, holders}. Empty cells are in none.
 */
export function cellRuns(state, from = 0, to = state.position.length) {
  const { position, holders } = state;
  const runs = [];
  let run = null;
  for (let c = from; c < to; c++) {
    if (!holders[c]) run = null;
    else if (run && position[c] === position[c - 1] + 1 && areSameHolders(holders[c], run.holders)) run.n++;
    else runs.push((run = { first: c, n: 1, position: position[c], holders: holders[c] }));
  }
  return runs;
}

const areSameHolders = (a, b) => a === b || (a.length === b.length && a.every((request, i) => request === b[i]));

/** Runs cut at row ends: {first, n, position, holders, from, on}; from, on: it comes from, goes on in another row. */
export function cellCapsules(runs, columns, first = 0) {
  const capsules = [];
  for (const run of runs) {
    const end = run.first + run.n;
    for (let c = run.first; c < end; ) {
      const rowEnd = c + columns - ((c - first) % columns);
      const n = Math.min(end, rowEnd) - c;
      const position = run.position + c - run.first;
      capsules.push({ first: c, n, position, holders: run.holders, from: c > run.first, on: c + n < end });
      c += n;
    }
  }
  return capsules;
}

/** The cell after the last one that is used; empty cells before it are holes, empty ones after it padding. */
export function cellsEnd(state) {
  let end = state.position.length;
  while (end > 0 && !state.holders[end - 1]) end--;
  return end;
}

/** What a cell is: "used", "hole", "padding" or "unread". `end`: cellsEnd(state). */
export function cellKind(state, cell, end) {
  if (state.holders[cell]) return "used";
  if (cell >= state.attended) return "unread";
  return cell < end ? "hole" : "padding";
}

/** Cells that each request holds, as {cells, runs}: runs of neighbouring cells, whatever their positions. */
export function cellsByRequest(state, end) {
  const found = new Map();
  for (let c = 0; c < end; c++) {
    for (const request of state.holders[c] ?? []) {
      const held = found.get(request) ?? { cells: 0, runs: 0, last: -2 };
      if (held.last !== c - 1) held.runs++;
      held.cells++;
      held.last = c;
      found.set(request, held);
    }
  }
  return found;
}

/**
 * Words for a capsule, longest first; the painter takes the first that fits. `name`: request -> its name; `isKept`:
 * request -> it has ended, its cells stay for prefix sharing.
 */
export function capsuleLabels({ holders, position, n }, name, isKept) {
  const where = n > 1 ? `${position}–${position + n - 1}` : `${position}`;
  if (holders.length === 1) {
    const who = name(holders[0]);
    return isKept(holders[0]) ? [`${who} kept ${where}`, `${who} kept`, who] : [`${who} ${where}`, who];
  }
  const kept = holders.filter(isKept).length;
  const note = kept ? `, ${kept} kept` : "";
  const times = `×${holders.length}`;
  const long = `${times} sequences${note}, position${n > 1 ? "s" : ""} ${where}`;
  return kept ? [long, `${times}${note}`, times] : [long, times];
}

/** Bands of a capsule, one a sequence, as [request, y, h]; what does not fit is one last band of request null. */
export function capsuleBands(holders, height) {
  const most = Math.max(1, Math.floor(height / 3));
  const shown = holders.length <= most ? [...holders] : [...holders.slice(0, most - 1), null];
  const h = height / shown.length;
  return shown.map((request, i) => [request, i * h, h]);
}

/** Whom a click selects: the first of the cell's sequences, with each click the next one, after the last none (null). */
export function holderAfter(holders, selected) {
  if (!holders?.length) return null;
  return holders[holders.indexOf(selected) + 1] ?? null;
}

/** The overview: `size` px a dot, `each` cells a dot, in rows of `columns` dots. */
export function cellsOverview(numCells, width) {
  const inner = Math.max(1, Math.floor(width - cellsGutter(numCells) - CELLS_MARGIN));
  const heightOf = (size) => Math.ceil(numCells / Math.floor(inner / size)) * size;
  const size = heightOf(2) <= CELLS_OVERVIEW_HEIGHT ? 2 : 1;
  const each = heightOf(size) <= CELLS_OVERVIEW_HEIGHT ? 1 : Math.ceil(numCells / (inner * CELLS_OVERVIEW_HEIGHT));
  const columns = Math.floor(inner / size);
  const rows = Math.ceil(Math.ceil(numCells / each) / columns);
  return { numCells, size, each, columns, rows, left: cellsGutter(numCells), top: CELLS_TOP, height: rows * size };
}

/** The first cell of a window of `grid` rows around a cell: a whole row, and the window stays inside the pool. */
export function cellsWindow(cell, numCells, columns) {
  const lastRow = Math.max(0, Math.ceil(numCells / columns) - CELLS_WINDOW_ROWS);
  const row = Math.floor(cell / columns) - Math.floor(CELLS_WINDOW_ROWS / 2);
  return Math.max(0, Math.min(lastRow, row)) * columns;
}

/** Levels of zoom. */
export const cellsMostZoom = (numCells) => (cellsLevel(numCells) === "bars" ? 3 : 2);

/** The first cell of a window of `rows` rows: a whole row, and the window stays inside the pool. */
export function cellsWindowFrom(first, numCells, columns, rows) {
  const lastRow = Math.max(0, Math.ceil(numCells / columns) - rows);
  return Math.max(0, Math.min(lastRow, Math.round(first / columns))) * columns;
}

/** What a zoomed grid leaves out, and how to see it. */
export const cellsZoomWords = ({ first, last, numCells }) =>
  `Cells ${first}–${last - 1} of ${numCells}: drag to move, Ctrl and wheel or + and − to zoom, 0 or a double click shows all.`;

/** The cell under a point of the overview, drawn at (left, top); points outside count as the nearest inside. */
export function cellsOverviewCell(overview, x, y) {
  const { columns, rows, size, each, left, top, numCells } = overview;
  const column = Math.max(0, Math.min(columns - 1, Math.floor((x - left) / size)));
  const row = Math.max(0, Math.min(rows - 1, Math.floor((y - top) / size)));
  return Math.min(numCells - 1, (row * columns + column) * each);
}

/** What each dot of the overview shows: the most telling of its cells, as one cell index. Used wins over empty. */
export function dotCells(state, overview) {
  const { numCells, each } = overview;
  const cells = new Int32Array(Math.ceil(numCells / each));
  for (let dot = 0; dot < cells.length; dot++) {
    let cell = dot * each;
    const end = Math.min(numCells, cell + each);
    while (cell < end && !state.holders[cell]) cell++;
    cells[dot] = cell < end ? cell : dot * each;
  }
  return cells;
}
