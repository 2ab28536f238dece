/**
 * Tellings: the stories of a page, one for each run, whatever views show it. Messages of the kernel make them grow (see
 * llmlab/views/live.py). This file must not draw.
 */

import { clockOf } from "./clock.js";
import { Story } from "./story.js";

/** A story that grows. `from`: which step of the run is its first, when the view came late; `isLive`: the run goes on. */
export class Telling {
  constructor(id, isLive = false) {
    this.id = id;
    this.isLive = isLive;
    this.story = null;
    this.from = 0;
    this.clock = null;
    this.listeners = new Set(); // {changed(), rebuilt()}
  }

  /** Steps of the run that are here or came before this telling began. */
  get end() {
    return this.story ? this.from + this.story.length : 0;
  }

  /** All of a finished story, or the beginning of one: {head, requests, steps}. */
  open({ head, requests, steps }) {
    this.take({ t: "k", from: 0, head, requests: requests.map((request, i) => [i, request]), steps });
  }

  /** What came from the kernel. Returns from which step on the history is missing: ask for it; null when nothing is. */
  take(message) {
    const { t, from, requests, steps, anew } = message;
    if (t === "k" && (anew || !this.story || from < this.from || from > this.end)) {
      this._build(message);
      return from > 0 ? 0 : null;
    }
    if (!this.story || from > this.end) return this.end;
    this._name(requests);
    const news = steps.slice(Math.max(0, this.end - from));
    if (news.length) {
      this.story.addSteps(news);
      this.clock.grow(this.story.length);
    }
    if (news.length || requests.length) for (const listener of this.listeners) listener.changed();
    return null;
  }

  _build({ from, head, requests, steps }) {
    const before = this.story ? this.from : from;
    this.story = new Story(head);
    this._name(requests);
    this.story.addSteps(steps);
    this.from = from;
    const n = this.story.length;
    const clock = (this.clock ??= clockOf(this.id, n, { following: this.isLive }));
    clock.n = n;
    clock.i = Math.max(0, Math.min(n - 1, clock.following ? n - 1 : clock.i + before - from));
    for (const listener of this.listeners) listener.rebuilt();
  }

  _name(requests) {
    for (const [index, request] of requests) this.story.requests[index] = request;
  }
}

const tellings = (globalThis.llmlabTellings ??= new Map());

/** The telling of a story in this page; leave() it when the view goes. */
export function join(id, isLive, listener) {
  if (!tellings.has(id)) tellings.set(id, new Telling(id, isLive));
  const telling = tellings.get(id);
  telling.listeners.add(listener);
  return telling;
}

export function leave(telling, listener) {
  telling.listeners.delete(listener);
  if (!telling.listeners.size) tellings.delete(telling.id);
}
