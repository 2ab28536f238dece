/** The picture of a paged KV cache: canvas, tooltip, keys, pointer. What is drawn and said comes from kv_blocks_*.js. */

import { element, paper, resizePaper } from "./draw.js";
import {
  blockCorner, blockLooks, blockNear, blockUnder, blockWindow, blockWindowFor, blocksLayout, overviewBlock,
} from "./kv_blocks_geometry.js";
import { paintBlockGrid, paintOverview, rowsOfCells } from "./kv_blocks_grid.js";
import { blocksLegend } from "./kv_blocks_legend.js";
import { paintSlots } from "./kv_blocks_paint.js";
import { blockChips, blocksPanel } from "./kv_blocks_panel.js";
import { pulseBlocks } from "./kv_blocks_pulse.js";
import { blockTip, blocksLabel } from "./kv_blocks_text.js";
import { BlocksZoom } from "./kv_blocks_zoom.js";
import { holderAfter } from "./kv_cells_geometry.js";
import { isZoomed, listenToKv, zoomOfKey } from "./kv_pointer.js";
import { noKvNotice, nothingRanNotice, notice } from "./notice.js";
import { OWNERS } from "./theme.js";

/** See view.js for what a picture is. On the canvas, `llmlabShown()` tells what is drawn, for tests. */
export function blocksPicture(el, story, clock) {
  const { head } = story;
  if (head.kind !== "blocks" || !head.num_blocks || !head.block_size) {
    const box = notice(el, noKvNotice(head));
    return { draw() {}, key: () => false, destroy: () => box.remove() };
  }
  const empty = story.length ? null : notice(el, nothingRanNotice(head));
  const columns = element("div", "llmlab-columns llmlab-blocks", null, empty ? null : el);
  const main = element("div", "llmlab-picture", null, columns);
  const panel = blocksPanel(element("aside", "llmlab-panel", null, columns));
  const sheet = paper(main, 1, 1, "KV cache");
  const { canvas } = sheet;
  canvas.tabIndex = 0;
  const zoomNote = element("div", "llmlab-blocks-note", null, main);
  const legendBox = element("div", "", null, main);
  const chips = blockChips(main, clock);
  const tip = element("div", "llmlab-tip", null, main);
  tip.hidden = true;
  const spoken = element("div", "llmlab-sr", null, main); // the tooltip of the keyboard, read aloud
  spoken.setAttribute("aria-live", "polite");

  let scene = null; // what is drawn
  let from = null; // first block of the window, of very many
  let followed = null; // the selection that the window was moved for
  let focused = null; // block with the keyboard focus
  let pointed = null; // block under the pointer
  const zoom = new BlocksZoom(head.first_block, head.num_blocks);
  const buffers = {};

  function draw(theme) {
    if (!story.length) return;
    empty?.remove();
    if (!columns.parentNode) el.append(columns);
    const [width, side] = [main.clientWidth, panel.width()];
    if (!width) return;
    const i = clock.i;
    const state = story.stateAt(i);
    const table = clock.selected === null ? undefined : state.tables.get(clock.selected);
    if (zoom.isOn && clock.selected !== followed && table) {
      const { first, count } = zoom.shown;
      if (!table.some((b) => b >= first && b < first + count)) zoom.moveTo(table.at(-1) - (count >> 1));
      followed = clock.selected;
    }
    const layout = blocksLayout(width, zoom.shown.count, zoom.shown.first);
    placeWindow(layout, state);
    const last = Math.min(layout.last, from + layout.columns * layout.rows - 1);
    const looks = blockLooks(state, from, last);
    const before = scene;
    const isRamp = story.requests.length > OWNERS.length;
    const focus = focusShown();
    const { selected, following: isFollowing } = clock;
    scene = { theme, story, state, i, layout, side, from, looks, selected, focused: focus, isRamp, buffers, isFollowing };
    const isSameRow = before?.layout.cell === layout.cell && before.layout.columns === layout.columns;
    if (before?.theme !== theme || !isSameRow) {
      buffers.rowsOfCells = rowsOfCells(theme, layout);
    }
    scene.rowsOfCells = buffers.rowsOfCells;
    paint();
    if (before?.i === i - 1) pulseBlocks(main, scene);
    if (before?.theme !== theme || before.layout.level !== layout.level || before.isRamp !== isRamp) {
      legendBox.replaceChildren();
      blocksLegend(legendBox, scene);
    }
  }

  /** What is said beside the picture that was drawn. */
  function tell() {
    if (!scene) return;
    panel.draw(scene);
    const label = blocksLabel(story, scene.i);
    if (canvas.ariaLabel !== label) canvas.setAttribute("aria-label", label);
    chips.draw(scene);
    if (zoomNote.textContent !== zoom.words()) zoomNote.textContent = zoom.words();
    showTip();
  }

  /** The whole grid, or a window: at the selected request when that is new, else where it was put. */
  function placeWindow(layout, state) {
    if (layout.level !== "overview") {
      from = layout.first;
      return;
    }
    const table = clock.selected === null ? undefined : state.tables.get(clock.selected);
    if (from === null) from = blockWindow(layout, state.nextOut[0] ?? [...state.fresh].pop() ?? layout.first);
    if (clock.selected !== followed && table) {
      const size = layout.columns * layout.rows;
      if (!table.some((block) => block >= from && block < from + size)) from = blockWindow(layout, table[table.length - 1]);
      followed = clock.selected;
    }
    if (clock.selected === null) followed = null;
    from = blockWindowFor(layout, from, from); // of another width
  }

  function paint() {
    const { layout } = scene;
    resizePaper(sheet, layout.width, layout.height, scene.theme.scale);
    sheet.g.clearRect(0, 0, layout.width, layout.height);
    if (layout.level === "slots") paintSlots(sheet.g, scene);
    else paintBlockGrid(sheet.g, scene);
    if (layout.level === "overview") paintOverview(sheet.g, scene);
    canvas.dataset.step = story.steps[scene.i].n;
  }

  canvas.llmlabShown = () => {
    const { first_block: first, num_blocks: count } = head;
    return blockLooks(story.stateAt(scene.i), first, first + count - 1).map(({ id, holders, cached, fill }) => ({ id, holders: holders.map(([r]) => r), cached, fill }));
  };

  // ---- one block

  const focusShown = () => (document.activeElement === canvas ? focused : null);

  function showTip() {
    const block = pointed ?? focusShown();
    const corner = block === null ? null : blockCorner(scene.layout, block, from);
    tip.hidden = !corner;
    if (!corner) return;
    tip.replaceChildren();
    for (const line of blockTip(story, clock.i, block)) {
      if (tip.lastChild) tip.append("\n");
      const row = element("div", "", null, tip);
      for (const [words, isBold] of line) element(isBold ? "b" : "span", "", words, row);
    }
    tip.style.left = `${Math.max(0, Math.min(corner[0], scene.layout.width - tip.offsetWidth))}px`;
    tip.style.top = `${corner[1] + scene.layout.cellHeight + 9}px`;
  }

  function select(block) {
    const [look] = blockLooks(story.stateAt(clock.i), block, block);
    const next = holderAfter(look.holders.map(([r]) => r), clock.selected);
    if (next !== null) clock.select(next);
    else if (clock.selected !== null && look.holders.length) clock.select(clock.selected);
  }

  /** Draw with the same step again: the focus or the window has moved. */
  function redraw() {
    if (!scene) return;
    draw(scene.theme);
    tell();
  }

  function moveFocus(by) {
    const { looks } = scene;
    const start = looks.find((look) => look.holders.some(([r]) => r === clock.selected))?.id ?? from;
    focusOn(focused === null ? start : focused + by);
  }

  function focusOn(block) {
    const { layout } = scene;
    const { first, count } = zoom.all;
    focused = Math.max(first, Math.min(first + count - 1, block));
    pointed = null;
    if (zoom.isOn) zoom.reach(focused, layout.columns);
    else if (layout.level === "overview") from = blockWindowFor(layout, focused, from);
    redraw();
    spoken.textContent = tip.textContent;
  }

  /** To a block by its id; why not, when there is none. */
  function goTo(block) {
    const { first, count } = zoom.all;
    if (block < first || block >= first + count) return `No block #${block}: they go from #${first} to #${first + count - 1}.`;
    canvas.focus({ preventScroll: true });
    focusOn(block);
    return null;
  }

  function key(event) {
    if (event.key === "Escape" && !tip.hidden) {
      focused = pointed = null;
      redraw();
      return clock.selected === null; // what is selected is cleared by the same key
    }
    if (!scene) return false;
    const direction = zoomOfKey(event.key);
    if (direction !== undefined && isZoomed(event, canvas)) {
      if (direction) zoom.by(direction, focused ?? blockNear(scene.layout, 0, scene.layout.height / 2, from));
      else zoom.off();
      redraw();
      return true;
    }
    if (event.target !== canvas || event.shiftKey) return false;
    const { columns: perRow } = scene.layout;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[event.key];
    if (by) moveFocus(by);
    else if (event.key === "Enter" && focused !== null) select(focused);
    else return false;
    return true;
  }

  // ---- pointer

  const overviewUnder = (x, y, clamp) => (scene?.layout.level === "overview" ? overviewBlock(scene.layout, x, y, clamp) : null);
  listenToKv(canvas, {
    isOverview: (x, y) => overviewUnder(x, y) !== null,
    dragOverview(x, y) {
      from = blockWindow(scene.layout, overviewUnder(x, y, true));
      pointed = null;
      redraw();
    },
    grab: () => (zoom.isOn ? zoom.shown.first : null),
    pan(first, dy) {
      const rows = Math.round(dy / scene.layout.pitchY);
      if (zoom.shown.first === first + rows * scene.layout.columns) return false;
      zoom.moveTo(first + rows * scene.layout.columns);
      pointed = null;
      redraw();
      return true;
    },
    hover(x, y) {
      if (!scene) return;
      const block = blockUnder(scene.layout, x, y, from);
      canvas.style.cursor = overviewUnder(x, y) === null ? (block === null ? "" : "pointer") : "move";
      if (block === pointed) return;
      pointed = block;
      showTip();
    },
    leave() {
      pointed = null;
      if (scene) showTip();
    },
    click(x, y) {
      const block = scene && blockUnder(scene.layout, x, y, from);
      if (block !== null) select(block);
    },
    zoom(direction, x, y) {
      if (!scene) return;
      zoom.by(direction, overviewUnder(x, y) ?? blockNear(scene.layout, x, y, from), y / scene.layout.height);
      redraw();
    },
    all() {
      zoom.off();
      redraw();
    },
  });
  canvas.onfocus = () => {
    if (scene && focused === null) moveFocus(0);
    else redraw();
  };
  canvas.onblur = redraw;

  return { draw, tell, key, goTo, destroy: () => columns.remove() };
}
