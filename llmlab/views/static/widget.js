/** The widget of all pictures of a run: messages of the kernel in, orders of the user out. view.js draws. */

import { element, say } from "./draw.js";
import { decode, placed } from "./place.js";
import { frozenWords, join, leave } from "./telling.js";
import { show } from "./view.js";

const FALLBACK_MS = 700; // a kernel that takes messages has answered Stop by then
const TELL_CURSOR_MS = 150;

/** What the transport drives: the run behind a widget, until it has ended or the kernel is gone. */
function liveOf(model, isCut) {
  const isHere = () => model.get("state") !== "ended" && !isCut();
  return {
    isRunning: isHere,
    ...(model.get("options").is_shared ? {} : { isPaused: () => model.get("state") === "paused" }),
    drive: (order) => model.send({ t: "drive", ...order }),
    stop: () => {
      model.send({ t: "stop" });
      setTimeout(() => {
        // Not even noticed: a cell keeps the kernel busy. If it waits for this run, interrupting the cell ends the run.
        const isUnheard = isHere() && model.get("state") !== "stopping";
        if (isUnheard && model.get("is_awaited")) interruptKernel(model.get("options").kernel);
      }, FALLBACK_MS);
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
  const live = isComing && model.get("state") !== "telling" ? liveOf(model, () => isCut) : null;
  const root = element("div", "", null, el);
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
    say(note, live && isCut ? frozenWords(telling.story) : model.get("note"));
    if (telling.clock && (model.get("state") === "ended" || isCut)) telling.clock.isLive = false;
    shown?.changed();
  };
  const onComm = () => {
    isCut = !isCut; // the channel to the kernel was there when this was drawn
    onState();
  };
  model.on("comm_live_update", onComm);
  model.on("msg:custom", onMessage);
  model.on("change:state", onState);
  model.on("change:note", onState);
  onState();
  const forget = live ? tellCursor(model, telling) : () => {};
  return () => {
    forget();
    model.off("comm_live_update", onComm);
    model.off("msg:custom", onMessage);
    model.off("change:state", onState);
    model.off("change:note", onState);
    shown?.destroy();
    leave(telling, listener);
  };
}

/** Tell the kernel where a user stopped to look: the frozen twin shows that step. */
function tellCursor(model, telling) {
  let told = null;
  const timer = setInterval(() => {
    const clock = telling.clock;
    const at = !clock || clock.following ? null : telling.from + clock.i;
    if (at === told || model.get("state") === "ended") return;
    told = at;
    model.send({ t: "at", i: at });
  }, TELL_CURSOR_MS);
  return () => clearInterval(timer);
}

export default placed(render);
