/** Colours of a view: named by what they are for, resolved from JupyterLab's theme. This file must not draw. */

const LIGHT = {
  bg: "#ffffff", panel: "#ffffff", sub: "#f5f6f8", line: "#d5d9e0", ink: "#1b2027", ink2: "#4d5663", ink3: "#69727f",
  ghost: "#868f9d", warn: "#b3380b", hit: "#0b6b63", focus: "#0a58ca",
};
const DARK = {
  bg: "#17191c", panel: "#1f2226", sub: "#22252a", line: "#3d434c", ink: "#eef1f5", ink2: "#bac2cd", ink3: "#99a3b0",
  ghost: "#6b7480", warn: "#ff9466", hit: "#53d3c3", focus: "#78aefc",
};
// The same in both themes; request n takes colour n mod 12.
export const OWNERS = [
  "#405aba", "#ee9e30", "#9a377e", "#94c294", "#3b89c2", "#d4b4fc", "#858c16", "#7d97fb", "#a26676", "#b4e787",
  "#706238", "#b094af",
];
// More than 12 requests: order of admission on a ramp.
const RAMP = ["#46307e", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#d8e219"];
const GREYS = { light: ["#8d96a3", "#b3bac4"], dark: ["#6c7684", "#525b67"] };
// Phases as pixels, dark to light in order of what a step costs.
const PHASES = {
  light: { prefill: "#1f3f8f", grow: "#3f66b5", decode: "#8fabd9", waiting: "#d3d9e1", recompute: "#b3380b", lost: "#e8a585" },
  dark: { prefill: "#8fb4ff", grow: "#6e8bc4", decode: "#44597f", waiting: "#383e46", recompute: "#ff9466", lost: "#7a4a36" },
};

/** "#rrggbb" -> [r, g, b], 0 to 255. */
export const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** The colour `share` of the way from a to b. */
export function mix(a, b, share) {
  const [from, to] = [rgb(a), rgb(b)];
  return "#" + from.map((v, i) => Math.round(v + (to[i] - v) * share).toString(16).padStart(2, "0")).join("");
}

/** Relative luminance, 0 to 1. */
export function luminance(hex) {
  const [r, g, b] = rgb(hex).map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The text colour that can be read on a fill: a contrast of 4.5 at least, which on some greens only true black has. */
export const textOn = (hex) => (luminance(hex) > 0.179 ? "#000000" : "#ffffff");

/** The grey that is as light as a colour. */
export function greyOf(hex) {
  const light = luminance(hex);
  const v = light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
  return "#" + Math.round(255 * v).toString(16).padStart(2, "0").repeat(3);
}

/** Everything a view paints with. `background` is that of the page, "#rrggbb". */
export class Theme {
  constructor(isDark = false, background = null) {
    this.isDark = isDark;
    Object.assign(this, isDark ? DARK : LIGHT);
    if (background) this.bg = background;
    this.phases = PHASES[isDark ? "dark" : "light"];
    // What went wrong keeps its colour.
    const { prefill, grow, decode } = this.phases;
    this.otherPhases = { ...this.phases, prefill: greyOf(prefill), grow: greyOf(grow), decode: greyOf(decode) };
    this.greys = GREYS[isDark ? "dark" : "light"];
    this.scale = undefined; // pixels of the screen for one CSS pixel, where the view has asked for all of its papers
    this.others = null; // a Set of the requests of other clients, where there are some: they are grey
  }

  /** A colour that stands for those of requests, in a legend. */
  sample(k = 0) {
    return OWNERS[k];
  }

  /** Colour of request `index`, of `count` in the whole story. */
  owner(index, count = 1) {
    if (this.others?.has(index)) return this.greys[index % 2];
    if (count <= OWNERS.length) return OWNERS[index % OWNERS.length];
    const at = (index / Math.max(1, count - 1)) * (RAMP.length - 1);
    const low = Math.min(RAMP.length - 2, Math.floor(at));
    const colour = mix(RAMP[low], RAMP[low + 1], at - low);
    return index % 2 ? colour : mix(colour, "#000000", 0.14);
  }

  /** Colours of the phases of a request, by their names. */
  phasesOf(index) {
    return this.others?.has(index) ? this.otherPhases : this.phases;
  }

  /** The outline of a fill: it can be told from the paper even where the fill cannot. */
  edge(colour) {
    return this.isDark ? mix(colour, "#ffffff", 0.35) : mix(colour, "#000000", 0.42);
  }

  /** A slot that nothing was written to. */
  tint(colour) {
    return mix(colour, this.bg, this.isDark ? 0.86 : 0.84);
  }

  /** What is not selected while something is. */
  dim(colour) {
    return mix(colour, this.bg, 0.7);
  }
}

/** The theme of the page now; a canvas turns whatever JupyterLab's variable holds into "#rrggbb". */
export function themeOf(el) {
  const isDark = document.body.dataset.jpThemeLight === "false";
  const variable = getComputedStyle(el).getPropertyValue("--jp-layout-color0").trim();
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = isDark ? "#17191c" : "#ffffff";
  if (variable) canvas.fillStyle = variable;
  return new Theme(isDark, canvas.fillStyle.startsWith("#") ? canvas.fillStyle : null);
}
