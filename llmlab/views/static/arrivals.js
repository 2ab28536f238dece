/**
 * What arrived, and when, of an engine that is seen from outside: a row for each request, a tick where something came, on
 * wall time. Nothing is known of a batch, and none is drawn. It computes no figure.
 */

import { arrivalsBegin } from "./arrivals_begin.js";
import { MARKS, element, legend, paper, resizePaper, text, thousands } from "./draw.js";
import { mix } from "./theme.js";
import { timelineEvery } from "./timeline_geometry.js";
import { timelineTip } from "./timeline_legend.js";
import { endMark, rowName, waitingLine } from "./timeline_marks.js";
import { listenToTimeline } from "./timeline_pointer.js";

const ARRIVALS_TOP = 22, ARRIVALS_LEFT = 138, ARRIVALS_RIGHT = 54, ARRIVALS_AXIS = 20, ARRIVALS_MOST_PX = 420;
const ARRIVAL_ENDS = { stop: "finished", length: "finished", error: "failed" }; // any other reason: aborted

const arrivalsCounted = (n, noun) => `${thousands(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Sizes for `count` rows on `width` px. */
export function arrivalsLayout(width, count) {
  const rowHeight = count <= 16 ? 22 : count <= 48 ? 12 : Math.max(2, Math.floor(ARRIVALS_MOST_PX / count));
  const rowsShown = count <= 48 ? count : Math.min(count, Math.floor(ARRIVALS_MOST_PX / rowHeight));
  const plot = Math.max(40, width - ARRIVALS_LEFT - ARRIVALS_RIGHT);
  const bottom = ARRIVALS_TOP + rowsShown * rowHeight;
  return {
    width, left: ARRIVALS_LEFT, plot, right: ARRIVALS_LEFT + plot, top: ARRIVALS_TOP, bottom, rowHeight, rowsShown,
    height: bottom + ARRIVALS_AXIS,
  };
}

/** The rows of a story: {sent, came: [[seconds, tokens, step]], end: [seconds, kind, tokens] or null}. */
export class ArrivalRows {
  constructor() {
    this.rows = [];
    this.length = 0; // steps read
  }

  grow({ requests, steps }) {
    while (this.rows.length < requests.length) this.rows.push({ sent: null, came: [], end: null });
    this.rows.forEach((row, r) => (row.sent = requests[r]?.arrival ?? null));
    for (; this.length < steps.length; this.length++) {
      const { t, in: came, fin } = steps[this.length];
      for (const [r, n] of came ?? []) this.rows[r].came.push([t, n, this.length]);
      for (const [r, reason, n] of fin) this.rows[r].end = [t, ARRIVAL_ENDS[reason] ?? "aborted", n];
    }
  }

  /** [from, to] in seconds: from when the first was sent to the last that came. */
  span(story) {
    const to = story.steps.at(-1)?.t ?? 1;
    const from = arrivalsBegin(story);
    return [from, to > from ? to : from + 1];
  }

  /** Tokens of a request that had come by step i. */
  tokensBy(r, i) {
    return this.rows[r].came.reduce((sum, [, n, step]) => sum + (step <= i ? n : 0), 0);
  }
}

/** Ticks to draw, [px, tokens]: what came less than 2 px apart is one. */
export function arrivalTicks(came, x) {
  const ticks = [];
  for (const [t, n] of came) {
    if (ticks.length && x(t) - ticks.at(-1)[0] < 2) ticks.at(-1)[1] += n;
    else ticks.push([x(t), n]);
  }
  return ticks;
}

/** The last step that came by `t` seconds; the first when none had. */
export function arrivalAt(steps, t) {
  let [low, high] = [0, steps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle].t <= t) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

/** A request at step i in words, for tooltips and screen readers. */
export function arrivalLines({ requests, steps }, rows, r, i) {
  const row = rows.rows[r];
  const now = row.came.find(([, , step]) => step === i);
  const lines = [now ? `${arrivalsCounted(now[1], "token")} arrived` : "nothing arrived"];
  lines.push(`${arrivalsCounted(rows.tokensBy(r, i), "token")} so far`);
  const first = row.came[0];
  if (first && row.sent !== null) lines.push(`first token after ${(first[0] - row.sent).toFixed(2)} s`);
  if (row.end && row.end[0] <= steps[i].t) lines.push(row.end[1]);
  if (requests[r].prompt) lines.push(`prompt: ${arrivalsCounted(requests[r].prompt, "token")}`);
  return lines;
}

export function arrivalsPicture(el, story, clock) {
  el.classList.add("llmlab-arrivals");
  const sheet = paper(el, 100, 60);
  const { canvas, g } = sheet;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const tip = timelineTip(el);
  const foot = element("div", "llmlab-timeline-foot", null, el);
  const note = element("div", "llmlab-timeline-note", null, el);
  const rows = new ArrivalRows();
  let [layout, span, legendOf] = [null, [0, 1], null];
  const x = (t) => layout.left + (layout.plot * (t - span[0])) / (span[1] - span[0]);
  const secondsAt = (px) => span[0] + ((px - layout.left) * (span[1] - span[0])) / layout.plot;

  function draw(theme) {
    rows.grow(story);
    span = rows.span(story);
    layout = arrivalsLayout(el.clientWidth, rows.rows.length);
    resizePaper(sheet, layout.width, layout.height);
    g.clearRect(0, 0, layout.width, layout.height);
    text(g, "prompt", layout.left - 14, layout.top - 6, { size: 11, colour: theme.ink2, align: "right" });
    for (let r = 0; r < layout.rowsShown; r++) drawRow(theme, r);
    drawAxis(theme);
    drawCursor(theme);
    if (legendOf !== theme) drawLegend((legendOf = theme));
    const hidden = rows.rows.length - layout.rowsShown;
    note.textContent = hidden ? `${arrivalsCounted(hidden, "more request")} not shown.` : "";
    canvas.setAttribute("aria-label", summary());
  }

  function drawRow(theme, r) {
    const { left, plot, top, rowHeight } = layout;
    const [row, y] = [rows.rows[r], top + r * rowHeight];
    const middle = y + rowHeight / 2;
    g.fillStyle = r % 2 ? theme.bg : theme.sub;
    g.fillRect(left, y, plot, rowHeight);
    const colour = theme.owner(r, rows.rows.length);
    if (rowHeight >= 12) drawName(theme, r, middle, colour);
    const first = row.came[0]?.[0] ?? row.end?.[0] ?? span[1];
    if (row.sent !== null) waitingLine(g, theme, x(row.sent), x(first), middle);
    if (!row.came.length && !row.end) return;
    g.fillStyle = mix(colour, theme.bg, 0.55);
    if (row.came.length) g.fillRect(x(first), middle - 0.75, x(row.came.at(-1)[0]) - x(first), 1.5);
    g.fillStyle = theme.edge(colour); // a tick has no outline, and some owners are light
    for (const [at, n] of arrivalTicks(row.came, x)) {
      const high = Math.max(2, (n > 1 ? 0.82 : 0.5) * rowHeight);
      g.fillRect(at - 0.9, middle - high / 2, 1.8, high);
    }
    if (clock.selected === r) {
      g.strokeStyle = theme.ink;
      g.lineWidth = 1.5;
      g.strokeRect(1, y + 0.5, layout.width - 2, rowHeight - 1);
    }
    if (row.end) drawEnd(theme, row, middle);
  }

  function drawName(theme, r, middle, colour) {
    const right = rowName(g, theme, story.requests[r].name, colour, layout.rowHeight, middle);
    const prompt = story.requests[r].prompt;
    text(g, prompt ? thousands(prompt) : "–", layout.left - 14, middle + 4, right);
  }

  function drawEnd(theme, row, middle) {
    const [t, kind, n] = row.end;
    endMark(g, theme, kind, x(t) + 3, middle, Math.min(12, layout.rowHeight));
    if (layout.rowHeight >= 22) text(g, String(n), x(t) + 9, middle + 4, { size: 11.5, colour: theme.ink2, halo: theme.bg });
  }

  function drawAxis(theme) {
    const every = timelineEvery(span[1] - span[0], Math.max(1, layout.plot / 72));
    const digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
    const font = { size: 11, colour: theme.ink2, align: "center" };
    g.fillStyle = theme.line;
    g.fillRect(layout.left, layout.bottom, layout.plot, 1);
    for (let k = 0; k * every <= span[1] - span[0]; k++) {
      const at = x(span[0] + k * every);
      g.fillStyle = theme.line;
      g.fillRect(at, layout.bottom, 1, 4);
      text(g, (k * every).toFixed(digits), at, layout.bottom + 15, font);
    }
    text(g, "seconds", layout.left - 14, layout.bottom + 15, { ...font, align: "right" });
  }

  function drawCursor(theme) {
    const step = story.steps[clock.i];
    if (!step) return;
    g.fillStyle = theme.ink;
    g.fillRect(x(step.t) - 0.5, layout.top - 4, 1, layout.bottom - layout.top + 4);
    const at = Math.min(layout.right - 20, Math.max(layout.left + 20, x(step.t)));
    const words = `${(step.t - span[0]).toFixed(2)} s`;
    text(g, words, at, layout.top - 7, { size: 11.5, weight: 600, colour: theme.ink, align: "center" });
  }

  function drawLegend(theme) {
    foot.replaceChildren();
    const colour = theme.edge(theme.sample());
    const tick = (at, high) => (on, w, h) => {
      on.fillStyle = colour;
      on.fillRect(at, (h - high) / 2, 1.8, high);
    };
    legend(foot, [
      ["sent, nothing came yet", (on, w, h) => waitingLine(on, theme, 0, w, h / 2), 26],
      ["a token arrived", tick(4, 7), 10],
      ["several at once", tick(4, 13), 10],
      ["finished, tokens", (on, w, h) => endMark(on, theme, "finished", w / 2, h / 2), 8],
      ["stopped, failed", (on, w, h) => {
        MARKS.aborted(on, 5, h / 2, theme);
        MARKS.failed(on, 17, h / 2, theme);
      }, 22],
    ]);
  }

  function summary() {
    const parts = [`Arrivals: ${arrivalsCounted(rows.rows.length, "request")}`];
    if (clock.selected !== null && rows.rows[clock.selected]) {
      parts.push(`${story.requests[clock.selected].name}: ${arrivalLines(story, rows, clock.selected, clock.i).join("; ")}`);
    }
    return `${parts.join(". ")}.`;
  }

  const rowAt = (y) => {
    const r = Math.floor((y - layout.top) / layout.rowHeight);
    return r >= 0 && r < layout.rowsShown ? r : null;
  };
  listenToTimeline(canvas, {
    click(px, py) {
      if (!layout || !story.length) return;
      if (px >= layout.left) clock.set(arrivalAt(story.steps, secondsAt(px)));
      else if (rowAt(py) !== null) clock.select(rowAt(py));
    },
    hover(px, py) {
      const r = layout && story.length ? rowAt(py) : null;
      if (r === null || px < layout.left) return tip.hide();
      const i = arrivalAt(story.steps, secondsAt(px));
      tip.show(px, py, `${story.requests[r].name}, ${(story.steps[i].t - span[0]).toFixed(2)} s`, arrivalLines(story, rows, r, i));
    },
    leave: tip.hide,
    grab: () => null,
    drag() {},
    zoom() {},
    scroll: () => false,
    all() {},
  });
  return { draw, destroy: () => el.replaceChildren() };
}
