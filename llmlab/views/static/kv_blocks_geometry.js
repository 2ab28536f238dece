/**
 * The paged KV picture as numbers: where each block stands and what is to be seen in it. Nothing is drawn here.
 *
 * Blocks go by the engine's ids, in physical order. The number of blocks decides the level of detail: "slots" (each
 * token), "levels" (fill level and name), "small" (fill level), "overview" (pixels, and a window of cells below them).
 */

const BLOCK_LEVELS = { slots: 64, levels: 600, small: 4000 }; // most blocks of each level
const BLOCK_STRIP = 100; // px above the slots view: the block table and its arrows
// px left of a grid, for the id of each row's first block
const blockGutter = (last) => (last < 10000 ? 40 : last < 100000 ? 48 : 54);
const BLOCK_GRID_HEIGHT = 440; // px that a grid tries to stay below
const BLOCK_OVERVIEW_HEIGHT = 260;
const BLOCK_WINDOW = { columns: 40, rows: 9 };
const NOBODY = Object.freeze([]); // one for all: of most blocks a list of their own would be work to collect

/** Layout of `count` blocks, the first of them with id `first`, on `width` px. */
export function blocksLayout(width, count, first = 0) {
  const base = { width, count, first, last: first + count - 1 };
  if (count <= BLOCK_LEVELS.slots) return blockSlotsLayout(base);
  if (count <= BLOCK_LEVELS.levels) return blockGridLayout(base, "levels", 40, 22);
  if (count <= BLOCK_LEVELS.small) return blockGridLayout(base, "small", 18, 10);
  return blockOverviewLayout(base);
}

function blockSlotsLayout(base) {
  const gap = 10;
  const cellIn = (columns) => Math.min(104, Math.floor((base.width - gap * (columns - 1) - 18) / columns));
  let columns = base.width >= 980 ? 10 : base.width >= 560 ? 7 : 5;
  while (columns > 1 && cellIn(columns) < 56) columns--;
  const cell = cellIn(columns);
  const cellHeight = Math.round(17 + cell / 2);
  const pitchY = cellHeight + 28;
  const rows = Math.ceil(base.count / columns);
  const grid = { columns, rows, cell, cellHeight, pitchX: cell + gap, pitchY, left: 8, top: BLOCK_STRIP + 18 };
  return { ...base, ...grid, level: "slots", height: BLOCK_STRIP + rows * pitchY + 2 };
}

function blockGridLayout(base, level, most, least) {
  let found = null;
  for (let cell = most; cell >= least; cell--) {
    const pitch = cell + (level === "levels" ? 4 : cell >= 14 ? 2 : 1);
    const columns = Math.max(1, Math.floor((base.width - blockGutter(base.last) - 4) / pitch));
    const rows = Math.ceil(base.count / columns);
    found = { columns, rows, cell, cellHeight: cell, pitchX: pitch, pitchY: pitch, left: blockGutter(base.last), top: 6 };
    if (rows * pitch <= BLOCK_GRID_HEIGHT) break;
  }
  return { ...base, ...found, level, height: found.rows * found.pitchY + 10 };
}

function blockOverviewLayout(base) {
  const overview = blockOverviewScale(base.width, base.count);
  const pitch = Math.max(17, Math.min(20, Math.floor((base.width - 4) / BLOCK_WINDOW.columns)));
  const columns = Math.max(1, Math.min(BLOCK_WINDOW.columns, Math.floor((base.width - 4) / pitch)));
  const top = overview.top + overview.height + 58;
  const { rows } = BLOCK_WINDOW;
  const grid = { columns, rows, cell: pitch - 2, cellHeight: pitch - 2, pitchX: pitch, pitchY: pitch, left: 2, top };
  return { ...base, ...grid, level: "overview", overview, height: top + rows * pitch + 4 };
}

/** Pixels of the overview: 2 px a block, else 1 px, else `per` blocks a pixel, whatever keeps it 260 px high. */
export function blockOverviewScale(width, count) {
  const inside = Math.max(1, width - 2);
  const at = (px, per) => {
    const columns = Math.floor(inside / px);
    const rows = Math.ceil(Math.ceil(count / per) / columns);
    return { px, per, columns, rows, height: rows * px, top: 20, left: 1 };
  };
  for (const px of [2, 1]) if (at(px, 1).height <= BLOCK_OVERVIEW_HEIGHT) return at(px, 1);
  return at(1, Math.ceil(count / (inside * BLOCK_OVERVIEW_HEIGHT)));
}

/** Upper left corner of a block's cell, or null outside the window that begins with block `from`. */
export function blockCorner(layout, block, from = layout.first) {
  const k = block - from;
  if (k < 0 || block > layout.last || k >= layout.columns * layout.rows) return null;
  const column = k % layout.columns;
  return [layout.left + column * layout.pitchX, layout.top + ((k - column) / layout.columns) * layout.pitchY];
}

/** The block whose cell is at (x, y), or null. */
export function blockUnder(layout, x, y, from = layout.first) {
  const column = Math.floor((x - layout.left) / layout.pitchX);
  const row = Math.floor((y - layout.top) / layout.pitchY);
  if (column < 0 || column >= layout.columns || row < 0 || row >= layout.rows) return null;
  if (x - layout.left - column * layout.pitchX >= layout.cell) return null;
  if (y - layout.top - row * layout.pitchY >= layout.cellHeight) return null;
  const block = from + row * layout.columns + column;
  return block <= layout.last ? block : null;
}

/** The block nearest to (x, y). */
export function blockNear(layout, x, y, from = layout.first) {
  const within = (value, n) => Math.max(0, Math.min(n - 1, Math.floor(value)));
  const column = within((x - layout.left) / layout.pitchX, layout.columns);
  const row = within((y - layout.top) / layout.pitchY, layout.rows);
  return Math.min(layout.last, from + row * layout.columns + column);
}

/** The block at (x, y) of the overview, or null; `clamp`: the nearest one when the pointer has left it. */
export function overviewBlock(layout, x, y, clamp = false) {
  const { px, per, columns, rows, left, top } = layout.overview;
  let [column, row] = [Math.floor((x - left) / px), Math.floor((y - top) / px)];
  if (clamp) [column, row] = [Math.max(0, Math.min(columns - 1, column)), Math.max(0, Math.min(rows - 1, row))];
  if (column < 0 || column >= columns || row < 0 || row >= rows) return null;
  const block = layout.first + (row * columns + column) * per;
  return block <= layout.last ? block : clamp ? layout.last : null;
}

/** First block of a window with `block` in its middle row. */
export function blockWindow(layout, block) {
  const size = layout.columns * layout.rows;
  const row = Math.floor((block - layout.first) / layout.columns) - Math.floor(layout.rows / 2);
  return Math.max(layout.first, Math.min(layout.last - size + 1, layout.first + row * layout.columns));
}

/** First block of the window after the keyboard went to `block`: moved by as few rows as will do. */
export function blockWindowFor(layout, block, from) {
  const size = layout.columns * layout.rows;
  const at = Math.floor((block - from) / layout.columns);
  const by = at < 0 ? at : Math.max(0, at - layout.rows + 1);
  return Math.max(layout.first, Math.min(layout.last - size + 1, from + by * layout.columns));
}

/** Corners of the line around blocks `from` to `to` in the overview. */
export function blockWindowOutline({ first, overview }, from, to) {
  const { px, per, columns, left, top } = overview;
  const at = (block) => {
    const k = Math.floor((block - first) / per);
    return [left + (k % columns) * px, top + Math.floor(k / columns) * px];
  };
  const [[ax, ay], [bx, by]] = [at(from), at(to)];
  const right = left + columns * px;
  if (ay === by) return [[ax, ay], [bx + px, ay], [bx + px, ay + px], [ax, ay + px]];
  const end = [[right, by], [bx + px, by], [bx + px, by + px], [left, by + px]];
  return [[ax, ay], [right, ay], ...end, [left, ay + px], [ax, ay + px]];
}

/** What is to be seen in blocks `from` to `to`: [{id, holders: [[request, logical]], cached, fill, writtenFrom}]. */
export function blockLooks(state, from, to) {
  const size = state.head.block_size;
  const looks = [];
  for (let id = from; id <= to; id++) {
    looks.push({ id, holders: NOBODY, cached: state.cached[id] === 1, fill: 0, writtenFrom: Infinity });
  }
  const before = new Map(state.rows.map(([r, , , computed]) => [r, computed]));
  for (const [r, table] of state.tables) {
    const tokens = state.tokens.get(r) ?? 0;
    const computed = before.get(r) ?? tokens;
    const logicals = state.groups ? state.logicals(table) : null;
    for (let k = 0; k < table.length; k++) {
      const id = table[k];
      const logical = logicals ? logicals[k] : k;
      if (id < from || id > to) continue; // of very many blocks only a window is looked at
      const look = looks[id - from];
      if (look.holders === NOBODY) look.holders = [[r, logical]];
      else look.holders.push([r, logical]);
      const fill = Math.max(0, Math.min(size, tokens - logical * size));
      const old = Math.max(0, Math.min(size, computed - logical * size));
      look.fill = Math.max(look.fill, fill);
      if (fill > old) look.writtenFrom = Math.min(look.writtenFrom, old); // slots from here on: written in this step
    }
  }
  for (const look of looks) if (look.holders.length > 1) look.holders.sort((a, b) => a[0] - b[0]);
  return looks;
}

/** Bands of a held block: up to 4 requests; of more the first 3, and null for the rest. */
export const blockBands = (holders) =>
  holders.length <= 4 ? holders.map(([r]) => r) : [...holders.slice(0, 3).map(([r]) => r), null];

/** Slots a row: 8, fewer in a block of fewer, more where a block is so large that its slots would be under 3 px high. */
export const slotColumns = (size) => (size <= 64 ? Math.min(8, size) : size <= 256 ? 16 : 32);

/** Where names go when only some fit: [block, blocks to the right that show the same request], 2 or more in a row. */
export function blockNameRuns(looks, columns) {
  const owner = (look) => (look && look.holders.length === 1 ? look.holders[0][0] : null);
  const found = [];
  for (let k = 0; k < looks.length; ) {
    let end = k + 1;
    while (end % columns !== 0 && end < looks.length && owner(looks[end]) === owner(looks[k])) end++;
    if (owner(looks[k]) !== null && end - k > 1) found.push([looks[k].id, end - k]);
    k = end;
  }
  return found;
}

/** Pixels of the overview, 0xAABBGGRR, into `pixels`. `colours`: {owners: Uint32Array by request, mark, dot, paper}. */
export function overviewPixels(state, { first, count, overview }, colours, pixels = null) {
  const { px, per, columns, rows } = overview;
  const width = columns * px;
  pixels ??= new Uint32Array(width * rows * px);
  const { owner, cached } = state;
  for (let k = 0, n = Math.ceil(count / per); k < n; k++) {
    const from = first + k * per;
    let holder = owner[from];
    let hash = cached[from];
    // held wins over cached wins over free
    for (let b = from + 1, end = Math.min(from + per, first + count); b < end && holder < 0; b++) {
      holder = owner[b];
      hash |= cached[b];
    }
    const column = k % columns;
    const row = (k - column) / columns;
    const held = holder >= 0 ? colours.owners[holder] : 0;
    for (let dy = 0; dy < px; dy++) {
      const y = row * px + dy;
      for (let dx = 0; dx < px; dx++) {
        const x = column * px + dx;
        const isMark = hash ? ((x + y) & 1) === 0 : !(x & 1 || y & 1); // cached: a checker; free: dots
        pixels[y * width + x] = held || (isMark ? (hash ? colours.mark : colours.dot) : colours.paper);
      }
    }
  }
  return pixels;
}
