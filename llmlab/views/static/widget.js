/** The widget of all pictures of a run: messages of the kernel in, orders of the user out. view.js draws. */

import { element, say } from "./draw.js";
import { goneBox, whenGone } from "./gone.js";
import { sayingHere } from "./here.js";
import { decode, placed } from "./place.js";
import { join, leave } from "./telling.js";
import { show } from "./view.js";

const FALLBACK_MS = 700; // a kernel that takes messages has answered Stop by then
const UNHEARD_MS = 3000; // and now it is to be said that it has not
const UNHEARD = "Stop was not heard: the kernel does not answer. It is busy, cut off or gone; Stop asks it again.";
const TELL_CURSOR_MS = 150;

/** What the transport drives: the run behind a widget, until it has ended or the kernel is gone. `changed`: how it is heard. */
function liveOf(model, isCut, changed) {
  const isHere = () => model.get("state") !== "ended" && !isCut();
  const isWaiting = () => isHere() && model.get("state") !== "stopping";
  let [isUnheard, timers] = [false, []];
  const hear = (value) => {
    isUnheard = value;
    changed();
  };
  return {
    isRunning: isHere,
    isUnheard: () => isUnheard && isWaiting(),
    ...(model.get("options").is_shared ? {} : { isPaused: () => model.get("state") === "paused" }),
    drive: (order) => model.send({ t: "drive", ...order }),
    stop: () => {
      hear(false);
      timers.forEach(clearTimeout);
      // Not even noticed: a cell keeps the kernel busy. If it waits for this run, interrupting the cell ends the run.
      const interrupt = () => isWaiting() && model.get("is_awaited") && interruptKernel(model.get("options").kernel);
      timers = [setTimeout(interrupt, FALLBACK_MS), setTimeout(() => hear(isWaiting()), UNHEARD_MS)];
      model.send({ t: "stop" });
    },
  };
}

/** What the square in the toolbar does, over Jupyter's REST API. */
function interruptKernel(kernel) {
  const config = document.getElementById("jupyter-config-data");
  if (!config || !kernel) return;
  const token = document.cookie.match(/_xsrf=([^;]+)/)?.[1] ?? "";
  const url = `${JSON.parse(config.textContent).baseUrl}api/kernels/${kernel}/interrupt`;
  fetch(url, { method: "POST", headers: { "X-XSRFToken": token } });
}

function render({ model, el }) {
  const options = model.get("options");
  let isCut = false;
  const isComing = model.get("state") !== "ended";
  const live = isComing && model.get("state") !== "telling" ? liveOf(model, () => isCut, () => onState()) : null;
  const root = element("div", "llmlab-view", null, el);
  const note = element("p", "llmlab-note");
  let shown = null;
  const draw = () => {
    shown?.destroy();
    root.replaceChildren();
    shown = show(root, telling.story, telling.clock, { ...options, live });
    root.append(note);
  };
  const listener = { changed: () => shown?.changed(), rebuilt: draw };
  const telling = join(options.id, isComing, listener);
  const opening = model.get("opening");
  if (opening?.byteLength) {
    const begun = decode(opening);
    telling.open(begun);
    const isCutShort = !isComing && telling.end < begun.steps.length + begun.num_left; // this page came late
    if (isCutShort) {
      telling.clock.following = true; // to the end, which is on its way
      model.send({ t: "need", have: telling.end });
    }
  }
  if (telling.story && !shown) draw();
  if (!telling.story) element("p", "llmlab-waiting", "Waiting for the first step …", root);

  let asked = null; // the steps we have, when we asked for more
  const onMessage = (_, [message]) => {
    const have = telling.take(decode(message));
    if (have === null || have === asked) return; // once is enough: if the kernel cannot answer now, a key message comes
    asked = have;
    model.send({ t: "need", have });
  };
  const onState = () => {
    const isBoxed = (live && isCut) || telling.story?.head.incident;
    say(note, live?.isUnheard() ? [[UNHEARD, 0]] : isBoxed ? [] : model.get("note"));
    if (telling.clock && (model.get("state") === "ended" || isCut)) telling.clock.isLive = false;
    shown?.changed();
  };
  const onOpening = () => {
    const { incident } = decode(model.get("opening")).head;
    if (!telling.story || !incident) return;
    telling.story.head.incident = incident; // the engine died, and the view stays
    draw();
    onState();
  };
  const stopHoping = whenGone(model, () => {
    isCut = true;
    const last = telling.story?.steps.at(-1);
    if (live) goneBox(root, last ? `step ${last.n}` : "");
    onState();
  });
  model.on("msg:custom", onMessage);
  model.on("change:state", onState);
  model.on("change:note", onState);
  model.on("change:opening", onOpening);
  onState();
  const forget = live ? tellCursor(model, telling, () => isCut) : () => {};
  return () => {
    forget();
    stopHoping();
    model.off("msg:custom", onMessage);
    model.off("change:state", onState);
    model.off("change:note", onState);
    model.off("change:opening", onOpening);
    shown?.destroy();
    leave(telling, listener);
  };
}

/** Tell the kernel where a user stopped to look: the frozen twin shows that step. */
function tellCursor(model, telling, isCut) {
  let told = null;
  const timer = setInterval(() => {
    const clock = telling.clock;
    const at = !clock || clock.following ? null : telling.from + clock.i;
    if (at === told || model.get("state") === "ended" || isCut()) return;
    told = at;
    model.send({ t: "at", i: at });
  }, TELL_CURSOR_MS);
  return () => clearInterval(timer);
}

export default sayingHere(placed(render), (model) => model.get("state") !== "ended");
