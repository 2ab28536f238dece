/** Play, step, scrub, speed, live, Stop: the row of buttons that moves the clock, and the keys of a view. */

import { arrivalsBegin } from "./arrivals_begin.js";
import { MARKS, element, paper, resizePaper, reword, thousands } from "./draw.js";
import { liveSide } from "./live_side.js";

const ICONS = {
  first: "M3 2v10M12 2L5 7l7 5z", back: "M11 2L4 7l7 5z", forward: "M3 2l7 5-7 5z", last: "M11 2v10M2 2l7 5-7 5z",
  play: "M3 1.5l9 5.5-9 5.5z", pause: "M4 2v10M10 2v10",
};
const SPEEDS = [0.25, 0.5, 1, 4, 16];
const EDGE = 6; // px left and right of the scrub bar

/** Events of a story as [step, kind], for the marks on the scrub bar. */
export function eventsOf(steps, from = 0) {
  const found = [];
  for (let i = from; i < steps.length; i++) {
    if (steps[i].pre.length) found.push([i, "preempted"]);
    if (steps[i].hit.length) found.push([i, "hit"]);
    if (steps[i].fin.length) found.push([i, "finished"]);
  }
  return found;
}

/** The next event after step i, or before it; i itself when there is none. */
export function nextEvent(events, i, direction) {
  const steps = events.map(([step]) => step);
  const found = direction > 0 ? steps.find((step) => step > i) : steps.filter((step) => step < i).pop();
  return found ?? i;
}

/** Marks to draw, [x, kind]: of one kind, those closer than 5 px become one. */
export function marksAt(events, n, width) {
  const seen = new Set();
  const found = [];
  for (const [step, kind] of events) {
    const x = EDGE + ((width - 2 * EDGE) * step) / Math.max(1, n - 1);
    const key = `${kind}${Math.round(x / 5)}`;
    if (!seen.has(key)) found.push([x, kind]);
    seen.add(key);
  }
  return found;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 14);
  svg.setAttribute("height", 14);
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", ICONS[name]);
  path.setAttribute("fill", name === "pause" ? "none" : "currentColor");
  path.setAttribute("stroke", "currentColor");
  path.setAttribute("stroke-width", name === "pause" ? 3 : 1.5);
  svg.append(path);
  return svg;
}

/**
 * The row of buttons. `live`: {isRunning(), stop(), drive(order)} of a run whose engine can be driven from here, or null.
 * Returns {draw(theme, width), key(event) -> handled, destroy(), width()}.
 */
export function transport(root, story, clock, live = null) {
  const bar = element("div", "llmlab-transport", null, root);
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Playback");
  const button = (name, label, act) => {
    const el = element("button", "", null, bar);
    el.type = "button";
    el.append(icon(name));
    el.title = label;
    el.setAttribute("aria-label", label);
    el.onclick = act;
    return el;
  };
  const togglePlay = () => (clock.isPlaying ? clock.pause() : clock.play());
  button("first", "First step (Home)", () => clock.set(0));
  button("back", "One step back (Left)", () => clock.set(clock.i - 1));
  const play = button("play", "Play or pause (Space)", togglePlay);
  play.classList.add("llmlab-primary");
  button("forward", "One step on (Right)", () => clock.set(clock.i + 1));
  button("last", "Last step (End)", () => clock.set(clock.n - 1));

  const scrub = element("div", "llmlab-scrub", null, bar);
  const sheet = paper(scrub, 1, 34);
  const range = element("input", "", null, scrub);
  range.type = "range";
  range.min = 0;
  range.setAttribute("aria-label", "Step");
  range.oninput = () => clock.set(Number(range.value));
  const state = element("div", "llmlab-state", null, bar);
  const [now, rest] = [element("span", "", null, state), element("small", "", null, state)];
  const speed = element("select", "", null, bar);
  speed.setAttribute("aria-label", "Speed");
  for (const factor of SPEEDS) {
    const option = element("option", "", `${factor}\u00d7`, speed);
    option.value = factor;
    option.selected = factor === clock.speed;
  }
  speed.onchange = () => clock.setSpeed(Number(speed.value));
  const side = liveSide(bar, clock, live);

  // Of an engine that is seen from outside: what came, in seconds after the first request was sent.
  const noun = story.head.unseen ? "arrival" : "step";
  const begin = () => (story.head.unseen ? arrivalsBegin(story) : 0);
  let events = [];
  let marks = { key: "", at: [] };
  let seen = 0;
  function draw(theme, width = scrub.clientWidth) {
    events.push(...eventsOf(story.steps, seen));
    seen = story.length;
    resizePaper(sheet, width, 34, theme.scale);
    const { g } = sheet;
    const x = (i) => EDGE + ((width - 2 * EDGE) * i) / Math.max(1, clock.n - 1);
    g.clearRect(0, 0, width, 34);
    g.fillStyle = theme.line;
    g.fillRect(EDGE, 22, width - 2 * EDGE, 4);
    g.fillStyle = theme.ink2;
    g.fillRect(EDGE, 22, x(clock.i) - EDGE, 4);
    const key = `${events.length} ${clock.n} ${width}`;
    if (key !== marks.key) marks = { key, at: marksAt(events, clock.n, width) };
    for (const [at, kind] of marks.at) MARKS[kind](g, at, kind === "finished" ? 13 : 7, theme);
    range.max = Math.max(0, clock.n - 1);
    range.value = clock.i;
    const step = story.steps[clock.i];
    range.setAttribute("aria-valuetext", `${noun} ${step?.n ?? 0}`);
    const number = (n) => (n == null ? "–" : thousands(n));
    reword(now, `${noun} ${number(step?.n)} `);
    const lastStep = story.steps[clock.n - 1];
    const after = (at) => `of ${number(lastStep?.n)}${at ? ` · ${(at.t - begin()).toFixed(2)} s` : ""}`;
    reword(rest, after(step));
    // The room that its longest words take: with each other room the bar beside it would be laid out again.
    const longest = `${noun} ${number(lastStep?.n)} ${after(lastStep)}`.replace(/\d/g, "0");
    if (state.dataset.longest !== longest) state.dataset.longest = longest;
    const sign = clock.isPlaying ? "pause" : "play";
    if (play.dataset.sign !== sign) play.replaceChildren(icon(sign)); // replaced while it is pressed, it would lose the click
    play.dataset.sign = sign;
    side.draw();
  }

  const jump = (direction) => clock.set(nextEvent(events, clock.i, direction));
  function key(event) {
    const act = {
      " ": togglePlay,
      ArrowLeft: () => (event.shiftKey ? jump(-1) : clock.set(clock.i - 1)),
      ArrowRight: () => (event.shiftKey ? jump(1) : clock.set(clock.i + 1)),
      PageUp: () => clock.set(clock.i - 10),
      PageDown: () => clock.set(clock.i + 10),
      Home: () => clock.set(0),
      End: () => clock.set(clock.n - 1),
      "[": () => selectNext(-1),
      "]": () => selectNext(1),
      Escape: () => clock.selected !== null && clock.select(clock.selected),
      ".": () => live?.isPaused && live.isRunning() && live.drive({ steps: 1 }),
      S: () => event.shiftKey && live?.isRunning() && side.stop(),
    }[event.key];
    if (act) act();
    return Boolean(act);
  }
  function selectNext(by) {
    const count = story.requests.length;
    if (!count) return;
    clock.selected = ((clock.selected ?? (by > 0 ? -1 : count)) + by + count) % count;
    clock.changed();
  }
  return { draw, key, destroy: () => bar.remove(), width: () => scrub.clientWidth };
}
