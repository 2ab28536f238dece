/** Where the lens of the timeline stands, and what it shows. Pure. This file must not draw. */

const LENS_ROWS = 5, LENS_STEPS = 60;

/** The lens: five rows around `row` and sixty steps around step i, on the side of the plot where `x` is not. */
export function timelineLens(layout, row, i, numSteps, x, rowY) {
  const numRows = Math.min(LENS_ROWS, layout.numRequests);
  const numStepsShown = Math.min(LENS_STEPS, numSteps);
  const firstRow = Math.max(0, Math.min(layout.numRequests - numRows, row - 2));
  const firstStep = Math.max(0, Math.min(numSteps - numStepsShown, i - LENS_STEPS / 2));
  const rowHeight = Math.min(17, Math.floor((layout.bottom - layout.top - 28) / numRows));
  const w = Math.min(430, Math.round(layout.plot / 2) - 24); // beside a cursor in the middle of the plot
  const h = numRows * rowHeight + 24;
  const y = Math.max(layout.top + 3, Math.min(layout.bottom - h - 3, rowY - h / 2));
  const isLeft = x > layout.left + layout.plot / 2;
  return {
    firstRow, numRows, firstStep, numSteps: numStepsShown, rowHeight, w, h,
    x: isLeft ? layout.left + 14 : layout.right - w - 14, y: Math.round(y),
    labels: 50, stepWidth: (w - 58) / LENS_STEPS, rowsY: Math.round(y) + 20,
  };
}

/** [request, step] under (x, y) inside the lens; each null beside its rows or steps; null outside the lens. */
export function timelineLensAt(lens, x, y) {
  if (!lens || x < lens.x || x > lens.x + lens.w || y < lens.y || y > lens.y + lens.h) return null;
  const row = Math.floor((y - lens.rowsY) / lens.rowHeight);
  const step = Math.floor((x - lens.x - lens.labels) / lens.stepWidth);
  const within = (k, n) => k >= 0 && k < n;
  return {
    request: within(row, lens.numRows) ? lens.firstRow + row : null,
    step: within(step, lens.numSteps) ? lens.firstStep + step : null,
  };
}

/** The selected row; without one, a row on screen that computes in this step, `before` if it still does. */
export function timelineLensRow({ phases, scroll, layout }, { i, selected }, before) {
  if (selected !== null && selected < phases.rows.length) return selected;
  const isOnScreen = (r) => r >= scroll && r < scroll + layout.rowsShown;
  if (isOnScreen(before) && phases.rows[before].isComputing(i)) return before;
  const rows = phases.active(i).filter(isOnScreen);
  return rows[rows.length >> 1] ?? (isOnScreen(before) ? before : scroll);
}
