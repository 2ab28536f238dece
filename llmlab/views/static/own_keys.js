/** Keys that are pressed in a view are the view's: JupyterLab would cut the cell at x. This file must not draw. */

/**
 * JupyterLab looks at keys before any element does, but not below one with this attribute. With Ctrl or Cmd it may: it
 * saves the notebook. Returns what ends that.
 */
export function ownKeys(root) {
  const choose = (event) => root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  root.setAttribute("data-lm-suppress-shortcuts", "");
  window.addEventListener("keydown", choose, true); // before JupyterLab, which listens to the document
  return () => window.removeEventListener("keydown", choose, true);
}

/** Give the keys of a view to the first of `takers` that handles one: take(event) -> handled. */
export function viewKeys(root, takers) {
  root.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea")) return;
    if (event.target.matches("button") && (event.key === " " || event.key === "Enter")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!takers.some((take) => take(event))) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has shortcuts of its own
  });
}
