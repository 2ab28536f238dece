/** The pointer over a KV picture: hover, click, the window of an overview, pan and zoom. This file must not draw. */

const WHEEL_NOTCH = 60; // px of the wheel for one level of zoom

/**
 * `on`, all in px of the canvas: isOverview(x, y), dragOverview(x, y), grab() -> where a pan starts, or null when nothing
 * is zoomed, pan(start, dy) -> whether it moved, hover(x, y), leave(), click(x, y), zoom(1 or -1, x, y), all().
 */
export function listenToKv(canvas, on) {
  let held = null; // {y, start}; start is null for the window of an overview
  let isFar = false; // the pointer panned: what follows is no click
  let turned = 0;
  const at = (event) => [event.offsetX, event.offsetY];
  canvas.onpointerdown = (event) => {
    const isOverview = on.isOverview(...at(event));
    const start = isOverview ? null : on.grab();
    isFar = false;
    held = isOverview || start !== null ? { y: event.offsetY, start } : null;
    if (!held) return;
    canvas.setPointerCapture(event.pointerId);
    if (isOverview) on.dragOverview(...at(event));
  };
  canvas.onpointermove = (event) => {
    if (!held) on.hover(...at(event));
    else if (held.start === null) on.dragOverview(...at(event));
    else isFar = on.pan(held.start, held.y - event.offsetY) || isFar;
  };
  canvas.onpointerup = canvas.onpointercancel = () => (held = null);
  canvas.onpointerleave = () => on.leave();
  // A click must not take Left and Right from the view: they move the step until the canvas is reached by Tab.
  canvas.onmousedown = (event) => {
    event.preventDefault();
    canvas.closest(".llmlab-view")?.focus({ preventScroll: true, focusVisible: false });
  };
  canvas.onclick = (event) => {
    if (!isFar && !on.isOverview(...at(event))) on.click(...at(event));
  };
  canvas.ondblclick = () => on.all();
  const wheel = (event) => {
    if (!event.ctrlKey) return; // without Ctrl the wheel is the notebook's
    event.preventDefault();
    turned += event.deltaY;
    if (Math.abs(turned) < WHEEL_NOTCH) return;
    on.zoom(-Math.sign(turned), ...at(event));
    turned = 0;
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
}

/** What a key zooms by: 1, -1, 0 for all; undefined for any other key. */
export const zoomOfKey = (key) => ({ "+": 1, "=": 1, "-": -1, 0: 0 })[key];

/** Keys zoom this picture: it has the focus, or there is no timeline beside it, which zooms by the same keys. */
export const isZoomed = (event, canvas) =>
  event.target === canvas || !canvas.closest(".llmlab-view")?.querySelector(".llmlab-timeline");
