// Who was listened to: one bar of the weights, in the hues of the inputs; a bar for each where they do not sum to 1.

import { el, hueOf, percent, title } from "../dom.js";

const LETTERS = 44; // that fit into the whole bar on a phone
const MARGINS = 2; // beside a text, in letters
const OFF = 0.005; // of a sum of weights that is still 1

/** Make the bar. */
export function sharesBar(model) {
  const caption = el("h3", {});
  const bar = el("ul", { class: "shares" });

  function show({ modalities }) {
    const weights = Object.entries(modalities).map(([name, own]) => [name, own.weight]);
    const sum = sumOf(modalities);
    const parted = Math.abs(sum - 1) < OFF;
    caption.textContent = parted ? "Who was listened to" : `Weights, ${percent(sum)} in all: this rule does not divide 100 %`;
    bar.classList.toggle("apart", !parted);
    const most = Math.max(...weights.map(([, weight]) => weight));
    bar.replaceChildren(...weights.map(([name, weight]) => (parted ? part(name, weight, model) : lone(name, weight, most, model))));
  }
  return { element: el("section", { hidden: Object.keys(model.modalities).length === 1 }, caption, bar), show };
}

function sumOf(modalities) {
  return Object.values(modalities).reduce((total, { weight }) => total + weight, 0);
}

/** Whether the part of an input is too small to have its weight written in it. */
export function isUnwritten(name, modalities) {
  return Math.abs(sumOf(modalities) - 1) < OFF && !written(name, modalities[name].weight);
}

/** Write as much as the part of an input holds. */
function written(name, weight) {
  const fits = text => text.length + MARGINS <= weight * LETTERS;
  return [`${title(name)} ${percent(weight)}`, percent(weight)].find(fits) ?? "";
}

function part(name, weight, model) {
  const [long, shown] = [`${title(name)} ${percent(weight)}`, written(name, weight)];
  const element = el("li", { class: hueOf(model, name), title: long, "data-share": name }, el("span", { "aria-hidden": "true" }, shown), el("span", { class: "unseen" }, long));
  element.style.flexGrow = weight;
  return element;
}

function lone(name, weight, most, model) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${(100 * weight) / most}%`;
  return el("li", { class: hueOf(model, name), "data-share": name }, el("span", { class: "name" }, title(name)), el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", {}, percent(weight)));
}
