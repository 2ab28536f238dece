/** The pointer over the timeline: click, drag, hover, wheel with Ctrl, double click. This file must not draw. */

const TIMELINE_DRAG_FROM = 4; // px; less is a click

/** Call `on.click(x, y)`, `on.drag(on.grab(), dx, dy)`, ... in px of the canvas. */
export function listenToTimeline(canvas, on) {
  let held = null; // {x, y, start, isDrag}
  const place = (event) => {
    const edge = canvas.getBoundingClientRect();
    const zoom = canvas.currentCSSZoom ?? 1;
    return [(event.clientX - edge.left) / zoom, (event.clientY - edge.top) / zoom];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x, y] = place(event);
    held = { x, y, start: on.grab(), isDrag: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (!held) {
      on.hover(x, y);
      return;
    }
    held.isDrag ||= Math.hypot(x - held.x, y - held.y) >= TIMELINE_DRAG_FROM;
    if (held.isDrag) on.drag(held.start, x - held.x, y - held.y);
  });
  canvas.addEventListener("pointerup", () => {
    if (held && !held.isDrag) on.click(held.x, held.y);
    held = null;
  });
  canvas.addEventListener("pointercancel", () => (held = null));
  canvas.addEventListener("pointerleave", () => on.leave());
  canvas.addEventListener("dblclick", () => on.all());
  canvas.addEventListener(
    "wheel",
    (event) => {
      // Without Ctrl the wheel belongs to the notebook, unless the rows scroll and have the focus.
      if (event.ctrlKey) on.zoom(Math.exp(-event.deltaY / 300), place(event)[0]);
      else if (document.activeElement !== canvas || !on.scroll(event.deltaY)) return;
      event.preventDefault();
    },
    { passive: false },
  );
}
