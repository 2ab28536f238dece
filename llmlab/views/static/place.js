/**
 * Where a view stands in a notebook that can be read without it: in front of its frozen twin, for as long as the kernel
 * has it. The twin is the output of the cell, an element with data-llmlab-place. This file must not draw.
 */

// JupyterLab's style of HTML outputs, which is that of Markdown: grounds under code, bands in tables.
const MARKDOWN_STYLE = "jp-RenderedHTMLCommon";
const PLACE_SETTLE_MS = 30; // outputs come and go several at a time

/** Call mount(el) -> unmount for each place of this id, now and when one comes. Returns what ends that. */
export function standIn(id, mount) {
  const stands = new Map(); // twin -> {el, unmount, output, focus}
  let timer = null;
  const leave = (twin) => {
    const { el, unmount, output } = stands.get(twin);
    stands.delete(twin);
    unmount();
    el.remove();
    output?.classList.add(MARKDOWN_STYLE);
    twin.style.display = "";
  };
  const stand = (twin, { el, unmount, focus }) => {
    const output = twin.closest(`.${MARKDOWN_STYLE}`);
    output?.classList.remove(MARKDOWN_STYLE);
    twin.before(el);
    twin.style.display = "none";
    stands.set(twin, { el, unmount, output, focus });
    focus.restore();
  };
  const begin = (twin) => {
    const el = document.createElement("div");
    stand(twin, { el, unmount: mount(el), focus: focusIn(el) });
  };
  const settle = () => {
    timer = null;
    const gone = [...stands.keys()].filter((twin) => !twin.isConnected);
    for (const twin of document.querySelectorAll(`[data-llmlab-place="${id}"]`)) {
      if (stands.has(twin)) continue;
      const before = gone.shift(); // its output was made anew: what stands there moves
      if (!before) {
        begin(twin);
        continue;
      }
      const moved = stands.get(before);
      stands.delete(before);
      stand(twin, moved);
    }
    for (const twin of gone) leave(twin);
  };
  // What a view does to itself, many times a second while a run goes on, moves no output.
  const isOutside = ({ target }) => !target.closest(".llmlab-view");
  const observer = new MutationObserver((changes) => {
    if (timer === null && changes.some(isOutside)) timer = setTimeout(settle, PLACE_SETTLE_MS);
  });
  observer.observe(document.body, { childList: true, subtree: true });
  settle();
  return () => {
    observer.disconnect();
    clearTimeout(timer);
    for (const twin of [...stands.keys()]) leave(twin);
  };
}

/** The keyboard's focus in an element: restore() gives it back after the element was out of the page for a moment. */
function focusIn(el) {
  let last = null;
  let lost = -Infinity;
  el.addEventListener("focusin", ({ target }) => ([last, lost] = [target, Infinity]));
  el.addEventListener("focusout", () => (lost = performance.now()));
  return {
    restore() {
      const isNobodys = !document.activeElement || document.activeElement === document.body;
      if (last && isNobodys && performance.now() - lost < 10 * PLACE_SETTLE_MS) last.focus({ preventScroll: true });
    },
  };
}

/** What the kernel says to a widget: JSON as bytes. */
export const decode = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** What a widget exports: its render(), and the place in which it appears by itself. */
export function placed(render) {
  return {
    initialize({ model }) {
      const settle = () => {
        stop();
        const id = model.get("place");
        stop = id ? standIn(id, (el) => render({ model, el })) : () => {};
      };
      let stop = () => {};
      settle();
      model.on("change:place", settle);
      return () => stop();
    },
    render,
  };
}
