/**
 * The right end of the transport while a run goes on: whether the view follows it, the engine's brake, Stop. Its elements
 * stay the same from draw to draw: one that was replaced between press and release would lose the click.
 */

import { element } from "./draw.js";

const SLOW = [[0, "full speed"], [0.1, "0.1 s a step"], [0.5, "0.5 s a step"], [2, "2 s a step"]];

/** What the button that leads back to the head says, `behind` steps from it. */
export const toLiveWords = (behind) => `→ Live, ${behind} step${behind === 1 ? "" : "s"} on`;

/**
 * `live`: {isRunning(), stop(), drive(order)}, isUnheard() when nobody answered Stop, and isPaused() where the engine can be
 * held; or null. Returns {draw(), stop()}.
 */
export function liveSide(parent, clock, live) {
  const side = element("span", "llmlab-live-side", null, parent);
  const sign = element("span", "llmlab-live", null, side);
  element("i", "", null, sign);
  sign.append("Live");
  const button = (className, words, act) => {
    const el = element("button", className, words, side);
    el.type = "button";
    el.onclick = act;
    return el;
  };
  const toLive = button("llmlab-to-live", "", () => clock.set(clock.n - 1));
  const hold = button("llmlab-hold", "", () => live.drive({ paused: !live.isPaused() }));
  const single = button("llmlab-single", "One step", () => live.drive({ steps: 1 }));
  single.title = "Let the paused engine take one step (.)";
  const slow = element("select", "llmlab-slow", null, side);
  slow.setAttribute("aria-label", "Speed of the engine");
  for (const [seconds, words] of SLOW) element("option", "", words, slow).value = seconds;
  slow.onchange = () => live.drive({ slow: Number(slow.value) });
  const stopButton = button("llmlab-stop", "■ Stop", stop);
  stopButton.title = "End these requests on the engine; what came stays (Shift + S)";

  function stop() {
    stopButton.disabled = true;
    stopButton.textContent = "stopping…";
    live.stop();
  }

  function askAgain() {
    stopButton.disabled = false;
    set(stopButton, "■ Stop");
  }

  const set = (el, words) => el.textContent !== words && (el.textContent = words);

  function draw() {
    side.hidden = !live?.isRunning();
    if (side.hidden) return;
    sign.hidden = !clock.following;
    toLive.hidden = clock.following;
    set(toLive, toLiveWords(clock.n - 1 - clock.i));
    if (live.isUnheard?.()) askAgain();
    const canDrive = Boolean(live.isPaused);
    const isPaused = canDrive && live.isPaused();
    hold.hidden = slow.hidden = !canDrive;
    single.hidden = !isPaused;
    set(hold, isPaused ? "Run engine" : "Pause engine");
    hold.title = isPaused ? "Let the engine run freely again" : "Hold the engine after its current step";
  }
  return { draw, stop };
}
