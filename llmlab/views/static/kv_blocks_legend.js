/** The legend of a paged KV cache: the marks of its level of detail. What the engine lacks is said, not drawn. */

import { MARKS, element, legend, othersSign, text } from "./draw.js";
import { paintOpenFrame, selectionColour } from "./kv_blocks_paint.js";
import { mix } from "./theme.js";

/** Of a scene, below `parent`. */
export function blocksLegend(parent, scene) {
  const { theme, story, layout } = scene;
  const [one, two] = [theme.sample(), theme.sample(1)];
  const square = (colour, hasDot) => (g) => {
    g.fillStyle = colour;
    g.fillRect(4, 2, 9, 9);
    g.fillStyle = "#ffffff";
    if (hasDot) g.fillRect(7, 5, 3, 3);
    g.strokeStyle = theme.edge(one); // on dark paper the tint of an empty slot is hardly seen
    g.lineWidth = 1;
    g.strokeRect(4.5, 2.5, 8, 8);
  };
  const shared = (g) => {
    [one, two].forEach((colour, k) => {
      g.fillStyle = colour;
      g.fillRect(12 * k, 1, 12, 12);
    });
    g.strokeStyle = theme.ink;
    g.strokeRect(0.5, 1.5, 23, 11);
    text(g, "×2", 27, 11, { size: 11, weight: 700, colour: theme.ink });
  };
  const level = (g) => {
    g.fillStyle = mix(one, theme.bg, 0.84);
    g.fillRect(2, 0, 14, 14);
    g.fillStyle = one;
    g.fillRect(2, 6, 14, 8);
    g.strokeStyle = theme.edge(one);
    g.strokeRect(2.5, 0.5, 13, 13);
  };
  const open = (isCached) => (g) => paintOpenFrame(g, theme, isCached, 0, 0, 18, 14, 5);
  const ring = (g) => {
    g.strokeStyle = selectionColour(scene);
    g.lineWidth = 2.5;
    g.strokeRect(2.5, 1.5, 12, 11);
  };
  const word = (value) => (g) => text(g, value, 1, 11, { size: 9.5, weight: 700, colour: theme.ink });
  const isSlots = layout.level === "slots";
  const held = isSlots
    ? [["token", square(one)], ["written in this step", square(one, true)], ["empty slot", square(theme.tint(one))]]
    : [["held, fill = tokens in the block", level]];
  const evicted = (g) => MARKS.evicted(g, 9, 7, theme);
  const prefix = [["shared, ref count", shared, 44], ["cached, free to take", open(true)]];
  if (isSlots) prefix.push(["taking this block evicted a cached prefix", evicted, 14]);
  const grid = [["name where a request begins or resumes", word(story.requests[0]?.name ?? "r0"), 20]];
  if (layout.level === "levels") grid.pop();
  const items = [...held, ...(story.head.prefix_caching ? prefix : []), ["free", open(false)], ...(isSlots ? [] : grid)];
  if (theme.others?.size) items.push(othersSign(theme.greys[0]));
  if (!isSlots) items.push(["next out", nextSign(theme), 12], ["selected request", ring]);
  const line = legend(parent, items);
  if (!story.head.prefix_caching) element("span", "", "no prefix cache in this engine", line);
  return line;
}

const nextSign = (theme) => (g) => {
  g.fillStyle = theme.ink;
  g.fillRect(1, 1, 9, 12);
  text(g, "1", 5.5, 11, { size: 9.5, weight: 700, align: "center", colour: theme.bg });
};
