/** Marks on a canvas, and small pieces of a page. Everything takes the theme; text enters the page as text. */

export const UI = '"Liberation Sans", -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif';
export const MONO = '"DejaVu Sans Mono", ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';

/** An element with a class and a text, appended to `parent`. */
export function element(tag, className = "", text = null, parent = null) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  if (text !== null) el.textContent = unbroken(text);
  if (parent) parent.append(el);
  return el;
}

/** Pixels of the screen for one CSS pixel of an element: of the screen, times what a projector view is enlarged by. */
export const sharpness = (el) => Math.max(1, globalThis.devicePixelRatio || 1) * (el.currentCSSZoom ?? 1);

/** A canvas of w x h CSS pixels, sharp on any screen: {canvas, g, w, h, scale}. */
export function paper(parent, w, h, label = "") {
  const canvas = element("canvas", "", null, parent);
  describe(canvas, label);
  const sheet = { canvas, g: canvas.getContext("2d") };
  resizePaper(sheet, w, h);
  return sheet;
}

/** What a canvas shows, for who cannot see it; "" when others say it. */
export function describe(canvas, label) {
  if (canvas.llmlabLabel === label) return;
  canvas.llmlabLabel = label;
  if (label) {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    canvas.removeAttribute("aria-hidden");
  } else {
    canvas.setAttribute("aria-hidden", "true");
  }
}

/** The same paper in another size, empty: its canvas may have the keyboard focus. */
export function resizePaper(sheet, w, h, scale = sharpness(sheet.canvas)) {
  const { canvas, g } = sheet;
  if (sheet.w === w && sheet.h === h && sheet.scale === scale) return;
  canvas.width = Math.round(w * scale);
  canvas.height = Math.round(h * scale);
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  g.setTransform(scale, 0, 0, scale, 0, 0);
  Object.assign(sheet, { w, h, scale });
}

/** Text at (x, y). Options: size, weight, colour, align, mono, halo (a colour that is drawn around it). */
export function text(g, value, x, y, { size = 12, weight = 400, colour, align = "left", mono = false, halo = null } = {}) {
  g.font = `${weight} ${size}px ${mono ? MONO : UI}`;
  g.textAlign = align;
  g.textBaseline = "alphabetic";
  if (halo) {
    g.lineWidth = 3;
    g.lineJoin = "round";
    g.strokeStyle = halo;
    g.strokeText(value, x, y);
  }
  g.fillStyle = colour;
  g.fillText(value, x, y);
}

/** Width of a text in px. */
export function textWidth(g, value, { size = 12, weight = 400, mono = false } = {}) {
  g.font = `${weight} ${size}px ${mono ? MONO : UI}`;
  return g.measureText(value).width;
}

export function box(g, x, y, w, h, radius = 3) {
  g.beginPath();
  g.roundRect(x, y, w, h, radius);
}

/** Lines from lower left to upper right, `gap` px apart. */
export function hatch(g, x, y, w, h, colour, gap = 5, width = 1.2) {
  g.save();
  g.beginPath();
  g.rect(x, y, w, h);
  g.clip();
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.beginPath();
  for (let i = -h; i < w + h; i += gap) {
    g.moveTo(x + i, y + h);
    g.lineTo(x + i + h, y);
  }
  g.stroke();
  g.restore();
}

/** A small label in a box; the right edge is at `right`. */
export function pill(g, value, right, y, theme, { filled = false } = {}) {
  const w = textWidth(g, value, { size: 11, weight: 600 }) + 10;
  g.fillStyle = filled ? theme.ink : theme.bg;
  g.strokeStyle = theme.ink;
  g.lineWidth = 1;
  box(g, right - w, y, w, 15);
  g.fill();
  g.stroke();
  text(g, value, right - w / 2, y + 11, { size: 11, weight: 600, align: "center", colour: filled ? theme.bg : theme.ink });
}

/** Marks of events: preempted, finished, aborted, hit, evicted, diverged; centred on (x, y). */
export const MARKS = {
  preempted(g, x, y, theme) {
    g.fillStyle = theme.warn;
    g.beginPath();
    g.moveTo(x - 4, y - 4);
    g.lineTo(x + 4, y - 4);
    g.lineTo(x, y + 3);
    g.fill();
  },
  finished(g, x, y, theme) {
    g.fillStyle = theme.ink2;
    g.fillRect(x - 2.5, y - 3, 5, 5);
  },
  aborted(g, x, y, theme) {
    cross(g, x, y, theme.ink);
  },
  failed(g, x, y, theme) {
    cross(g, x, y, theme.warn);
  },
  evicted(g, x, y, theme) {
    cross(g, x, y, theme.warn);
  },
  hit(g, x, y, theme) {
    g.strokeStyle = theme.hit;
    g.lineWidth = 1.6;
    g.beginPath();
    g.moveTo(x, y - 4.5);
    g.lineTo(x + 4, y - 0.5);
    g.lineTo(x, y + 3.5);
    g.lineTo(x - 4, y - 0.5);
    g.closePath();
    g.stroke();
  },
};

function cross(g, x, y, colour) {
  g.strokeStyle = colour;
  g.lineWidth = 1.5;
  g.beginPath();
  g.moveTo(x - 3, y - 3);
  g.lineTo(x + 3, y + 3);
  g.moveTo(x + 3, y - 3);
  g.lineTo(x - 3, y + 3);
  g.stroke();
}

/** The sign of a legend for what is grey: it is not one's own. */
export const othersSign = (grey) => ["of other clients", (g, w, h) => {
  g.fillStyle = grey;
  g.fillRect(1, 1, w - 2, h - 2);
}, 14];

/** The line of signs below a picture: [[words, (g, w, h) => draws the sign, width]]. */
export function legend(parent, items) {
  const line = element("div", "llmlab-legend", null, parent);
  for (const [words, draw, w = 18] of items) {
    const item = element("span", "", null, line);
    const sign = paper(item, w, 14);
    draw(sign.g, w, 14);
    item.append(words);
  }
  return line;
}

/** Rows of [name, figure, source] as a table. */
export function figures(parent, rows) {
  const table = element("table", "llmlab-figures", null, parent);
  refigure(table, rows);
  return table;
}

/** Other figures in a table; cells that stay the same are left alone. */
export function refigure(table, rows) {
  while (table.rows.length > rows.length) table.deleteRow(-1);
  rows.forEach((row, i) => {
    const line = table.rows[i] ?? element("tr", "", null, table);
    row.forEach((words, k) => {
      reword(line.cells[k] ?? element("td", "", null, line), words);
    });
  });
}

/** Other words in an element that holds nothing else. Its text node stays: with another, the page is styled again. */
export function reword(el, words) {
  const said = unbroken(words);
  if (el.textContent === said) return;
  if (el.firstChild) el.firstChild.data = said;
  else el.textContent = said;
}

/** Sentences of a step: [[words, isBold]]. */
export function say(el, sentences) {
  el.replaceChildren();
  for (const [words, isBold] of sentences) isBold ? element("b", "", words, el) : el.append(unbroken(words));
}

/** In lines of text a number does not end with the line: its thin spaces are no place to break. */
export const unbroken = (words) => String(words).replaceAll("\u2009", "\u202f");

/** 34909 -> "34 909", with a thin space. */
export const thousands = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");

/** 0.1384 -> "13.8 %"; unknown -> "–". */
export const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`);
