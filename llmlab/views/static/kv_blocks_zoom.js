/**
 * Zoom of a paged KV picture: fewer blocks at once, so that each is drawn with more detail. Pure but for what it is
 * asked to remember. This file must not draw.
 */

import { thousands } from "./draw.js";

const BLOCK_ZOOMS = [4000, 2000, 1200, 600, 300, 150, 64, 32, 16]; // blocks shown: each level of detail, and between them

export class BlocksZoom {
  /** Of `count` blocks, the first with id `first`. */
  constructor(first, count) {
    this.all = { first, count };
    this.shown = this.all; // {first, count}
  }

  get isOn() {
    return this.shown !== this.all;
  }

  /** One level in (1) or out (-1); `block` stays where it is, at the share `at` (0 to 1) of the picture. */
  by(direction, block, at = 0.5) {
    const counts = [this.all.count, ...BLOCK_ZOOMS.filter((n) => n < this.all.count)];
    const to = counts.indexOf(this.shown.count) + direction;
    if (to === 0) this.off();
    if (to > 0 && to < counts.length) this._put(Math.round(block - at * counts[to]), counts[to]);
  }

  off() {
    this.shown = this.all;
  }

  /** The first block on screen, as near as can be. */
  moveTo(first) {
    if (this.isOn) this._put(first, this.shown.count);
  }

  /** Move as little as brings `block` on screen, by whole rows of `columns`. */
  reach(block, columns) {
    const { first, count } = this.shown;
    if (block < first) this.moveTo(first - columns * Math.ceil((first - block) / columns));
    if (block >= first + count) this.moveTo(first + columns * Math.ceil((block - first - count + 1) / columns));
  }

  _put(first, count) {
    const last = this.all.first + this.all.count - count;
    this.shown = { first: Math.max(this.all.first, Math.min(last, first)), count };
  }

  /** What is left out, and how to see it; "" when nothing is. */
  words() {
    if (!this.isOn) return "";
    const { first, count } = this.shown;
    const range = `Blocks #${thousands(first)}–#${thousands(first + count - 1)} of ${thousands(this.all.count)}`;
    return `${range}: drag to move, Ctrl and wheel or + and − to zoom, 0 or a double click shows all.`;
  }
}
