/** A page says that it is there: to pages that are gone, the kernel sends nothing (llmlab/views/presence.py). */

import { whenGone } from "./gone.js";

const HERE_MS = 2000;
const UNANSWERED_MS = 20_000; // nothing comes: what is said may wait in the page until the line is there again

/** A widget whose page says so, while isLive(model). `widget`: what placed() returns. */
export function sayingHere(widget, isLive) {
  return {
    ...widget,
    initialize(context) {
      const ends = [widget.initialize(context), sayHere(context.model, () => isLive(context.model))];
      return () => ends.forEach((end) => end());
    },
  };
}

/** Say so now, every two seconds, and when the page is seen again. Returns what ends that. */
export function sayHere(model, isLive) {
  let [isAnswered, said] = [true, -Infinity];
  const say = () => {
    if (!isLive()) return;
    [isAnswered, said] = [false, Date.now()];
    model.send({ t: "here" });
  };
  const tick = () => (isAnswered || Date.now() - said >= UNANSWERED_MS) && say();
  const answered = () => (isAnswered = true);
  const shown = () => document.hidden || say();
  const timer = setInterval(tick, HERE_MS);
  model.on("msg:custom", answered);
  document.addEventListener("visibilitychange", shown);
  const stopHoping = whenGone(model, () => stop());
  function stop() {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", shown);
    model.off("msg:custom", answered);
    stopHoping();
  }
  say();
  return stop;
}
