// By task: which score tells how good the model is, how it is written, and on which axis it is drawn.

import { percent } from "../dom.js";

/** One of what was counted: "500 of 500" where all were right, else a share. */
function right(share, rows) {
  return share === 1 && rows ? `${rows.toLocaleString("en")} of ${rows.toLocaleString("en")}` : percent(share);
}

/** Write a share that is not below: rounded down. */
export function atLeast(share) {
  return `${(Math.floor(1000 * share) / 10).toFixed(1)} %`;
}

// score: its key; best: 1 where more is better, -1 where less is; axis: from 0 to 1, or null for from 0 to the largest.
const MEASURES = {
  classes: () => ({ score: "accuracy", best: 1, share: true, write: right, heading: "How often it is right, by what you send", meaning: "The dot: the share of them that it got right." }),
  labels: () => ({ score: "micro_f1", best: 1, share: true, write: percent, heading: "How well its labels fit, by what you send", meaning: "The dot: how well the labels fit; 100 %: all the right ones and no others (F1)." }),
  number: ({ number }) => ({ score: "mae", best: -1, share: false, write: value => amount(value, number), heading: "How far off it is, by what you send", meaning: "The dot: the mean distance from the true value; less is better." }),
};

/** Return how this model's main score is told. */
export function measureOf(model) {
  return MEASURES[model.task](model);
}

/** Write an error or a width in the unit of the number, with three digits or as many as its values have. */
export function amount(value, { unit, decimals }) {
  const digits = Math.max(decimals, 2 - Math.floor(Math.log10(Math.abs(value) || 1)));
  const text = new Intl.NumberFormat("en", { maximumFractionDigits: Math.min(Math.max(digits, 0), 20) }).format(value);
  return unit ? `${text}\u00a0${unit}` : text;
}

/** Say on which rows it was measured, and what else they were used for. */
export function measuredOn({ metrics }) {
  const count = metrics.rows.toLocaleString("en");
  if (metrics.fitted) return `Measured on the ${count} rows that it was fitted to: expect less of others.`;
  if (metrics.held_out) return `Measured on ${count} rows that were held out of training, and steered it: expect somewhat less elsewhere.`;
  if (metrics.split === "val") return `Measured on ${count} validation rows, by which its training was steered: expect somewhat less elsewhere.`;
  return `Measured on ${count} ${metrics.split} rows that it did not learn from.`;
}
