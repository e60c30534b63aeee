// What the model does, in a sentence.

import { el, plain } from "./dom.js";

const FEW = 12;
// By task: what the model does.
const PURPOSES = {
  classes: ({ classes }) => ["Tells ", ...named(classes, "classes", " apart")],
  labels: ({ labels }) => ["Finds which of ", ...named(labels.map(each => each.label), "labels", " apply")],
  number: ({ number }) => ["Estimates ", el("bdi", {}, plain(number.column || "a number")), number.unit ? ` in ${number.unit}` : ""],
};

/** Say what the model does: nodes of a sentence. */
export function purposeOf(model) {
  return [...PURPOSES[model.task](model), "."];
}

/** Name a few, or count many and name the first ones. Args: end, what follows. */
function named(names, what, end) {
  const few = names.length <= FEW;
  const shown = names.slice(0, few ? FEW : 3).map(each => el("bdi", {}, each));
  const parted = shown.flatMap((name, i) => [i === 0 ? "" : i === shown.length - 1 ? " and " : ", ", name]);
  return few ? [...parted, end] : [`${names.length.toLocaleString("en")} ${what}${end}, such as `, ...parted];
}
