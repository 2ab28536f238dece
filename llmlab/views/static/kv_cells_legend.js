/** The line of signs below the cells picture. */

import { box, element, legend, othersSign } from "./draw.js";

/** Signs: (theme) -> (g) => draws it in a box of 14 px height. */
const capsuleSign = (isKept) => (theme) => (g) => {
  const owner = theme.sample();
  g.fillStyle = isKept ? theme.dim(owner) : owner;
  g.strokeStyle = theme.edge(owner);
  if (isKept) g.setLineDash([2, 2]);
  box(g, 0.5, 0.5, 24, 13);
  g.fill();
  g.stroke();
};

const sharedSign = (theme) => (g) => {
  for (const band of [0, 1, 2]) {
    g.fillStyle = theme.sample(band);
    g.fillRect(0.5, 0.5 + (band * 13) / 3, 24, 13 / 3);
  }
  g.strokeStyle = theme.ink;
  g.strokeRect(0.5, 0.5, 24, 13);
};

const writtenSign = (theme) => (g) => {
  g.fillStyle = theme.sample();
  g.fillRect(2, 0, 10, 14);
  g.fillStyle = "#ffffff"; // the text colour on owner 0
  g.fillRect(5.5, 9, 3, 3);
};

const emptySign = (isHole) => (theme) => (g) => {
  g.strokeStyle = theme.ghost;
  g.beginPath();
  for (const x of [0, 9]) {
    g.rect(x + 0.5, 0.5, 8, 13);
    if (!isHole) continue;
    g.moveTo(x + 2, 11);
    g.lineTo(x + 7, 3);
  }
  g.stroke();
};

const unreadSign = (theme) => (g) => {
  g.fillStyle = theme.ghost;
  for (const x of [3, 11]) g.fillRect(x, 6, 1.5, 1.5);
};

const ringHeadSign = (theme) => (g) => {
  g.fillStyle = theme.ink;
  g.beginPath();
  g.moveTo(1, 3);
  g.lineTo(13, 3);
  g.lineTo(7, 12);
  g.fill();
};

/** Words that need no sign stand at the end: where the cells come from, and what this engine lacks. */
export function cellsLegend(parent, head, theme) {
  const sharing = [
    ["shared cells, one band a sequence", sharedSign, 26],
    ["kept for prefix sharing after its request ended", capsuleSign(true), 26],
  ];
  const items = [
    ["run of one sequence", capsuleSign(false), 26],
    ...(head.prefix_caching ? sharing : []),
    ["written this step", writtenSign, 14],
    ["hole: masked, still read", emptySign(true), 20],
    ["padding to a multiple of 256", emptySign(false), 20],
    ["not read", unreadSign, 16],
    ["ring head", ringHeadSign, 14],
  ];
  const signs = items.map(([words, sign, w]) => [words, sign(theme), w]);
  const line = legend(parent, theme.others?.size ? [...signs, othersSign(theme.greys[0])] : signs);
  if (!head.prefix_caching) element("span", "", "no prefix cache in this engine", line);
  if (head.cell_source === "predicted") element("span", "", "cells as our pool predicts them", line);
}
