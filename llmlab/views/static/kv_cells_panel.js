/** What stands beside the cells picture: figures and chips. Words come from kv_cells_words.js. */

import { element, figures, hatch, paper, text, textWidth, thousands } from "./draw.js";
import { cellBarParts, cellPanelRows, cellChipWords } from "./kv_cells_words.js";

const CELLS_MOST_CHIPS = 48;
const CELLS_NOTE =
  "A cell holds the KV of one token. There are no blocks here: a hole is masked, and read all the same. A paged " +
  "engine never reads what its block tables leave out.";

/** Used, holes, padding, not read: each has its pattern, in the bar and beside its words. */
const CELL_BAR_MARKS = [
  (g, x, y, w, h, theme) => {
    g.fillStyle = theme.ink2;
    g.fillRect(x, y, w, h);
  },
  (g, x, y, w, h, theme) => {
    hatch(g, x, y, w, h, theme.ink2, 5, 1.4);
    g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  },
  (g, x, y, w, h) => g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1),
  (g, x, y, w, h) => {
    g.setLineDash([2, 3]);
    g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    g.setLineDash([]);
  },
];

/** The stacked bar of all cells, and its words in one or two lines below. */
function cellsBar(parent, fig, numCells, theme) {
  const width = parent.clientWidth;
  const parts = cellBarParts(fig).map(([n, name]) => [n, `${n == null ? "–" : thousands(n)} ${name}`]);
  const { g } = paper(parent, width, width < 420 ? 56 : 40, parts.map(([, words]) => words).join(", "));
  g.strokeStyle = theme.ink3;
  g.lineWidth = 1;
  let x = 0;
  let [left, baseline] = [0, 33];
  parts.forEach(([n, words], i) => {
    const w = (width * (n ?? 0)) / numCells;
    if (n) CELL_BAR_MARKS[i](g, x, 0, Math.max(1.5, w - 1), 18, theme);
    x += w;
    const wide = 13 + textWidth(g, words);
    if (left + wide > width) [left, baseline] = [0, baseline + 17];
    CELL_BAR_MARKS[i](g, left, baseline - 9, 9, 9, theme);
    text(g, words, left + 13, baseline, { colour: theme.ink });
    left += wide + 10;
  });
}

/** Chips of the requests, one button each; they are changed, not made anew, so that the focus stays where it is. */
class CellChips {
  constructor(parent, select) {
    this.el = element("div", "llmlab-chips", null, parent);
    this.rest = element("span", "llmlab-cells-rest", null, this.el);
    this.select = select;
    this.buttons = new Map();
  }

  /** `shown`: [{request, words, colour, isGone, isSelected}]; `left`: how many more there are. */
  draw(shown, left) {
    const wanted = new Set(shown.map(({ request }) => request));
    for (const [request, button] of this.buttons) {
      if (!wanted.has(request)) {
        button.remove();
        this.buttons.delete(request);
      }
    }
    let after = null;
    for (const chip of shown) {
      const button = this.buttons.get(chip.request) ?? this._make(chip.request);
      if (button.llmlabWords !== chip.words) button.lastChild.textContent = button.llmlabWords = chip.words;
      button.firstChild.style.background = chip.colour;
      button.classList.toggle("llmlab-gone", chip.isGone);
      button.setAttribute("aria-pressed", String(chip.isSelected));
      const place = after ? after.nextSibling : this.el.firstChild;
      if (place !== button) this.el.insertBefore(button, place);
      after = button;
    }
    this.rest.textContent = left ? `${thousands(left)} more` : "";
  }

  _make(request) {
    const button = element("button", "llmlab-chip");
    button.type = "button";
    element("i", "", null, button);
    element("span", "", "", button);
    button.onclick = () => this.select(request);
    this.buttons.set(request, button);
    return button;
  }
}

/** Which requests get a chip: those that hold cells or run, else in order of arrival; the selected one always. */
export function cellChipRequests(count, held, isRunning, selected, most = CELLS_MOST_CHIPS) {
  const all = Array.from({ length: count }, (_, request) => request);
  if (count <= most) return all;
  const weight = (request) => (request === selected ? 0 : held.has(request) || isRunning(request) ? 1 : 2);
  return all.sort((a, b) => weight(a) - weight(b) || a - b).slice(0, most).sort((a, b) => a - b);
}

/** The panel beside the picture. */
export class CellsPanel {
  constructor(parent, story, clock) {
    this.story = story;
    const side = element("aside", "llmlab-panel llmlab-cells-panel", null, parent);
    this.numbers = element("div", "", null, side);
    this.heading = element("h4", "", null, side);
    this.chips = new CellChips(side, (request) => clock.select(request));
    element("p", "llmlab-cells-note", CELLS_NOTE, side);
  }

  /** `scene`: that of kv_cells_paint.js; `held`: cellsByRequest() of its state. */
  draw(scene, step, held) {
    const { requests } = this.story;
    const fig = step.fig ?? {};
    this.drawNumbers(scene, fig, held);
    this.heading.textContent = fig.running == null ? "Requests" : `Requests, ${thousands(fig.running)} running`;
    const runs = (request) => scene.state.tokens.has(request);
    const shown = cellChipRequests(requests.length, held, runs, scene.selected);
    this.chips.draw(shown.map((request) => this.chip(request, scene, step, held)), requests.length - shown.length);
  }

  drawNumbers(scene, fig, held) {
    const { head } = this.story;
    const { theme, selected, name } = scene;
    const chosen = selected === null ? null : { name: name(selected), runs: held.get(selected)?.runs ?? 0 };
    const { attention, sharing } = cellPanelRows(fig, head, chosen);
    this.numbers.replaceChildren();
    element("h4", "", `${thousands(head.num_cells)} cells`, this.numbers);
    cellsBar(this.numbers, fig, head.num_cells, theme);
    element("h4", "", "Attention span", this.numbers);
    figures(this.numbers, attention);
    if (!sharing.length) return;
    element("h4", "", "Sharing", this.numbers);
    figures(this.numbers, sharing);
  }

  chip(request, scene, step, held) {
    const { arrival } = this.story.requests[request];
    const hasCome = arrival == null || arrival <= step.t;
    const otherwise = step.w.includes(request) ? "waiting" : hasCome ? "done" : "not yet";
    const runs = scene.state.tokens.has(request);
    return {
      request,
      words: cellChipWords(scene.name(request), held.get(request), runs, otherwise),
      colour: runs ? scene.owner(request) : scene.theme.dim(scene.owner(request)),
      isGone: !runs && !held.has(request),
      isSelected: request === scene.selected,
    };
  }
}
