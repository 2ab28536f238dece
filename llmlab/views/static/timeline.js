/**
 * The batching timeline: rows are requests in order of arrival, columns are steps. What costs time (rows, strips) is
 * painted once into a layer; cursor, selection and lens are painted over it. It computes no figure.
 */

import { element, sharpness } from "./draw.js";
import { TimelineAxis, timelineLayout, timelinePan, timelineSlots, timelineZoom } from "./timeline_geometry.js";
import { timelineFoot, timelineNextAxis, timelineTip } from "./timeline_legend.js";
import { timelineLensAt, timelineLensRow } from "./timeline_lens.js";
import {
  paintTimelineCursor, paintTimelineLens, paintTimelineNames, paintTimelineSelection,
} from "./timeline_overlay.js";
import { TimelineMost } from "./timeline_most.js";
import { paintTimelinePixels, paintTimelineRows } from "./timeline_paint.js";
import { TimelinePhases, timelineShown } from "./timeline_phases.js";
import { listenToTimeline } from "./timeline_pointer.js";
import { RANGE_FROM, rangeAround, rangeShown, timelineRange } from "./timeline_range.js";
import { paintTimelineStrips } from "./timeline_strips.js";
import { requestLines, stepLines, timelineNotes, timelineSummary } from "./timeline_words.js";

const TIMELINE_LEAST_STEPS = 5; // zoomed in as far as it goes

export function timelinePicture(el, story, clock) {
  const range = timelineRange(el, ([first, last]) => {
    view = [axis.starts[first], axis.ends[last - 1]];
    again();
  });
  const canvas = element("canvas", "llmlab-timeline-canvas", null, el);
  canvas.setAttribute("role", "img");
  canvas.tabIndex = 0;
  const tip = timelineTip(el);
  const foot = timelineFoot(el, chooseAxis);
  const layer = document.createElement("canvas");
  const phases = new TimelinePhases();
  const most = new TimelineMost();
  const buffers = {};
  let axis = new TimelineAxis();
  let view = null; // [from, to] on the axis; null: all
  let isWhole = false; // somebody asked for all of a very long run
  let scroll = 0; // first row on screen
  let scene = null;
  let lens = null;
  let [isLensOpen, lensRow] = [true, -1];
  let [theme, layerKey, legendKey, shown] = [null, "", "", { i: -1, selected: null }];
  let frame = null;

  canvas.llmlabShown = (i) => timelineShown(phases, i);

  /** `width`: of its element, when somebody has asked before other elements of the page changed. */
  function draw(newTheme, width = el.clientWidth) {
    theme = newTheme;
    read();
    const layout = timelineLayout(width, phases.rows.length, { hasKv: story.head.kind !== "none" });
    const isLong = axis.length > RANGE_FROM;
    if (isLong && !view && !isWhole) {
      const [first, last] = rangeAround(clock.i, axis.length);
      view = [axis.starts[first], axis.ends[last - 1]];
    }
    follow(layout);
    if (isLong) range.draw(theme, layout, story.steps, rangeShown(axis, view), clock.i);
    else range.hide();
    if (!scene) listen();
    paintLayer(layout);
    const g = canvas.getContext("2d");
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, canvas.width, canvas.height);
    g.drawImage(layer, 0, 0);
    g.setTransform(scene.scale, 0, 0, scene.scale, 0, 0);
    lens = null;
    if (!axis.length) return;
    if (layout.isPixels) paintTimelineNames(g, scene, clock.selected);
    paintTimelineSelection(g, scene, clock.selected);
    paintTimelineCursor(g, scene, clock.i);
    if (layout.isPixels && isLensOpen) lens = paintTimelineLens(g, scene, (lensRow = timelineLensRow(scene, clock, lensRow)), clock.i);
  }

  /** What is said beside the picture that was drawn. */
  function tell() {
    if (!scene) return;
    drawFoot(scene.layout, scene.slots);
    if (axis.length) canvas.setAttribute("aria-label", timelineSummary(story, phases, clock.i, clock.selected));
  }

  /** Requests and steps that have come. */
  function read() {
    phases.grow(story);
    axis.grow(story.steps);
    most.grow(story.steps);
  }

  /** The cursor and the selected row stay on screen when they move. */
  function follow(layout) {
    const { i, selected } = clock;
    const hasMoved = i !== shown.i;
    if (view && hasMoved && (axis.starts[i] < view[0] || axis.ends[i] > view[1])) {
      view = timelinePan(view, axis.all, (axis.starts[i] + axis.ends[i] - view[0] - view[1]) / 2);
    }
    const rows = selected !== null ? [selected] : phases.active(i);
    const isAway = rows.length && (rows.at(-1) < scroll || rows[0] >= scroll + layout.rowsShown);
    if (isAway && (hasMoved || selected !== shown.selected)) {
      scroll = Math.round((rows[0] + rows.at(-1) - layout.rowsShown) / 2);
    }
    scroll = Math.max(0, Math.min(layout.numRequests - layout.rowsShown, scroll));
    shown = { i, selected };
  }

  /** What the layer does not have yet: all of it, or other rows between the strips that stay. */
  function paintLayer(layout) {
    const scale = theme.scale ?? sharpness(canvas);
    const [from, to] = view ?? axis.all;
    const key = [layout.width, layout.numRequests, axis.length, axis.kind, from, to, scale].join(" ");
    const isSame = key === layerKey && scene.theme === theme;
    if (isSame && scene.scroll === scroll) return;
    const g = layer.getContext("2d");
    if (isSame) {
      scene = { ...scene, scroll };
      g.clearRect(0, layout.top - 2, layout.width, layout.bottom - layout.top + 4);
    } else {
      for (const sheet of [canvas, layer]) {
        if (sheet.width !== Math.round(layout.width * scale)) sheet.width = Math.round(layout.width * scale);
        if (sheet.height !== Math.round(layout.height * scale)) sheet.height = Math.round(layout.height * scale);
      }
      canvas.style.width = `${layout.width}px`;
      canvas.style.height = `${layout.height}px`;
      scene = {
        theme, story, phases, axis, layout, scroll, scale, buffers, view: [from, to],
        slots: timelineSlots(axis, [from, to], layout.left, layout.plot, layout.isPixels),
        budget: story.head.token_budget || most.tokens, mostWaiting: most.waiting, mostKv: most.kv,
        x: (value) => layout.left + (layout.plot * (value - from)) / (to - from),
      };
      layerKey = key;
      g.setTransform(scale, 0, 0, scale, 0, 0);
      g.clearRect(0, 0, layout.width, layout.height);
      paintTimelineStrips(g, scene);
    }
    tip.hide();
    (layout.isPixels ? paintTimelinePixels : paintTimelineRows)(g, scene);
  }

  function drawFoot(layout, slots) {
    const has = { preempted: story.head.kind !== "cells" || most.preempted > 0, cut: most.cut > 0, others: Boolean(theme.others?.size) };
    const key = `${layout.isPixels} ${has.preempted} ${has.cut} ${has.others}`;
    if (key !== legendKey || foot.theme !== theme) foot.drawLegend(story.head, layout, theme, has);
    legendKey = key;
    foot.theme = theme;
    const inOne = slots.reduce((n, { first, last }) => Math.max(n, last - first), 1);
    foot.show(axis.kind, timelineNotes(story, layout, scroll, { inOne, isLensOpen }));
  }

  const again = () => theme && (frame ??= requestAnimationFrame(() => ((frame = null), draw(theme), tell())));

  function chooseAxis(kind) {
    const steps = view && [axis.stepAt(view[0]), axis.stepAt(view[1])];
    axis = new TimelineAxis(kind);
    axis.grow(story.steps);
    view = steps && [axis.starts[steps[0]], axis.ends[steps[1]]];
    again();
  }

  function zoom(factor, at = (axis.starts[clock.i] + axis.ends[clock.i]) / 2) {
    const least = ((axis.all[1] - axis.all[0]) * TIMELINE_LEAST_STEPS) / Math.max(1, axis.length);
    view = timelineZoom(view, axis.all, factor, at, least);
    isWhole = view === null;
    again();
  }

  /** {request, step} under a pointer; a part is null where there is none. */
  function under(x, y) {
    const inLens = timelineLensAt(lens, x, y);
    if (inLens) return inLens;
    const { layout } = scene;
    const row = Math.floor((y - layout.top) / layout.rowHeight);
    const isStep = x >= layout.left && x <= layout.right && axis.length;
    return {
      request: row >= 0 && row < layout.rowsShown ? scroll + row : null,
      step: isStep ? axis.stepAt(valueAt(x)) : null,
    };
  }
  function valueAt(x) {
    const { layout, view: [from, to] } = scene;
    return from + ((x - layout.left) * (to - from)) / layout.plot;
  }

  function click(x, y) {
    if (lens && x > lens.x + lens.w - 22 && x < lens.x + lens.w && y > lens.y && y < lens.y + 20) {
      toggleLens();
      return;
    }
    const { request, step } = under(x, y);
    const hasMoved = step !== null && step !== clock.i;
    if (step !== null) clock.set(step);
    // A second click on a row ends its selection; one at another step only moves the cursor.
    if (request !== null && !(hasMoved && clock.selected === request)) clock.select(request);
  }

  function toggleLens() {
    isLensOpen = !isLensOpen;
    layerKey = "";
    again();
  }

  function hover(x, y) {
    const { request, step } = under(x, y);
    if (step === null) return tip.hide();
    const number = `step ${story.steps[step].n}`;
    if (request === null) tip.show(x, y, number, stepLines(story, step));
    else tip.show(x, y, `${story.requests[request].name}, ${number}`, requestLines(story, phases, request, step));
  }

  const listen = () => listenToTimeline(canvas, {
    click,
    hover,
    leave: tip.hide,
    grab: () => ({ view, scroll }),
    drag(start, dx, dy) {
      const { layout } = scene;
      if (start.view) view = timelinePan(start.view, axis.all, (-dx * (start.view[1] - start.view[0])) / layout.plot);
      scroll = start.scroll - Math.round(dy / layout.rowHeight);
      again();
    },
    zoom: (factor, x) => zoom(factor, valueAt(x)),
    scroll(by) {
      if (scene.layout.rowsShown === scene.layout.numRequests) return false;
      scroll += Math.round(by / scene.layout.rowHeight);
      again();
      return true;
    },
    all: () => zoom(0),
  });

  function key(event) {
    const isElsewhere = event.target !== canvas && event.target.closest?.("canvas");
    if (isElsewhere || !axis.length) return false;
    if (event.key === "Escape") tip.hide(); // the selection is cleared by others
    const row = (by) => {
      const at = clock.selected === null ? (by > 0 ? 0 : phases.rows.length - 1) : clock.selected + by;
      if (at >= 0 && at < phases.rows.length && at !== clock.selected) clock.select(at);
    };
    const onCanvas = event.target === canvas ? { ArrowUp: () => row(-1), ArrowDown: () => row(1) } : {};
    const act = {
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
      t: () => chooseAxis(timelineNextAxis(axis.kind)),
      l: scene?.layout.isPixels ? toggleLens : undefined, ...onCanvas,
    }[event.key];
    act?.();
    return Boolean(act);
  }

  function destroy() {
    if (frame !== null) cancelAnimationFrame(frame);
    el.replaceChildren();
  }
  return { draw, tell, key, destroy, width: () => el.clientWidth };
}
