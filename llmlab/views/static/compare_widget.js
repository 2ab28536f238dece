/** The widget of a comparison: messages of the kernel in, what a user wants out. */

import { compareTake } from "./compare_geometry.js";
import { showCompare } from "./compare.js";
import { goneBox, whenGone } from "./gone.js";
import { sayingHere } from "./here.js";
import { decode, placed } from "./place.js";

function render({ model, el }) {
  const data = decode(model.get("opening"));
  const root = document.createElement("div");
  el.append(root);
  let isCut = false;
  const shown = showCompare(root, data, { send: (message) => model.send(message), isCut: () => isCut });
  let isAsked = false;
  const onMessage = (_, [message]) => {
    const news = decode(message);
    const isWhole = compareTake(data, news);
    if (news.t === "k") isAsked = false;
    if (!isWhole && !isAsked) {
      isAsked = true;
      model.send({ t: "need" });
    }
    shown.changed();
  };
  const stopHoping = whenGone(model, () => {
    isCut = true;
    if (data.head.state !== "ended") goneBox(root, "the tokens that arrived");
    shown.changed();
  });
  model.on("msg:custom", onMessage);
  model.send({ t: "need" }); // what came between the opening and now
  return () => {
    stopHoping();
    model.off("msg:custom", onMessage);
    shown.destroy();
  };
}

export default sayingHere(placed(render), (model) => model.get("is_live"));
