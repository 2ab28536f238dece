/** Projector mode: a view that can be read from the last row, everything larger and the panel below the picture. */

/** Key z switches it. `isOn`: at first. Returns key(event) -> handled. */
export function projectorMode(root, isOn = false) {
  root.classList.toggle("llmlab-projector", isOn);
  return (event) => {
    if (event.key !== "z") return false;
    root.classList.toggle("llmlab-projector");
    return true;
  };
}
