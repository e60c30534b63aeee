// The forest plot: on one axis the values of training, each input's own value and range, and all together as a diamond.

import { makeAxis } from "./axis.js";
import { plain, short, withUnit, writer } from "./decimals.js";
import { ownRange } from "./ranges.js";
import { el, hueOf, percent, title } from "../dom.js";

const [SMALLEST, LARGEST] = [5, 22]; // squares, in pixels

/** Make the plot. Returns {element, show(reply)}. */
export function forestPlot(model) {
  const { number } = model;
  const rows = el("ul", { class: "rows", "aria-label": "Each input's own value, and all together" });
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" });
  const band = el("span", { class: "band" });
  const element = el("div", { class: "forest" }, el("div", { class: "behind", "aria-hidden": "true" }, band), rows, ticks);

  function show(answer) {
    const inputs = Object.keys(model.modalities).filter(name => name in answer.modalities || answer.missing.length <= 3);
    const own = new Map(Object.entries(answer.modalities).map(([name, each]) => [name, ownRange(each, answer, number)]));
    const whole = answer.interval ?? ownRange(answer, answer, number);
    const axis = makeAxis(ends(answer, whole, own, number), number.log);
    const lines = inputs.map(name => (own.has(name) ? inputRow(name, answer, own.get(name), axis, model) : ghostRow(name)));
    rows.replaceChildren(...[number.low !== null && trainingRow(number, axis), ...lines, wholeRow(answer, whole, axis, model)].filter(Boolean));
    stretch(band, whole, axis);
    ticks.replaceChildren(...axis.ticks.map(value => placed(el("span", {}, short(value)), axis.place(value))));
  }
  return { element, show };
}

/** List what the axis has to hold: every estimate, and of training as much again to both sides. */
function ends(answer, whole, own, number) {
  const values = [answer.value, ...Object.values(answer.modalities).map(each => each.value), ...[whole, ...own.values()].flatMap(({ low, high }) => [low, high])].filter(value => value !== null);
  if (number.low === null) return values;
  const [scale, back] = number.log ? [Math.log, Math.exp] : [value => value, value => value];
  const [low, high] = [scale(Math.min(...values)), scale(Math.max(...values))];
  const room = high - low;
  return [...values, back(Math.max(scale(number.low), low - room)), back(Math.min(scale(number.high), high + room))];
}

function trainingRow(number, axis) {
  const cut = [axis.place(number.low) < 0 && "cut-low", axis.place(number.high) > 1 && "cut-high"].filter(Boolean);
  const known = stretch(el("span", { class: ["known", ...cut].join(" ") }), number, axis);
  return row("training", "In training", [known], `${plain(number.low, number)} to ${withUnit(plain(number.high, number), number)}`, {});
}

function inputRow(name, answer, range, axis, model) {
  const { value, deviation, weight } = answer.modalities[name];
  const size = Math.max(SMALLEST, LARGEST * Math.sqrt(Math.min(weight, 1))); // the area is the weight
  const square = placed(el("span", { class: "square" }), axis.place(value));
  square.style.width = square.style.height = `${size}px`;
  const write = writer(model.number, deviation);
  const spoken = `weight ${percent(weight)}, range ${write(range.low)} to ${write(range.high)}`;
  return row(hueOf(model, name), title(name), [stretch(el("span", { class: "line" }), range, axis), square], withUnit(write(value), model.number), { "data-row": name, title: spoken }, spoken);
}

function ghostRow(name) {
  return row("ghost", title(name), [el("span", { class: "line" })], "not sent", { "data-row": name });
}

function wholeRow(answer, range, axis, { number }) {
  const open = [range.low === null && "open-low", range.high === null && "open-high"].filter(Boolean);
  const diamond = stretch(el("span", { class: ["diamond", ...open].join(" ") }), range, axis);
  const [from, to] = [range.low === null ? 0 : axis.place(range.low), range.high === null ? 1 : axis.place(range.high)];
  diamond.style.setProperty("--peak", `${(100 * (axis.place(answer.value) - from)) / (to - from || 1)}%`);
  const point = placed(el("span", { class: "point" }), axis.place(answer.value));
  return row("together", "All together", [diamond, point], withUnit(writer(number, answer.deviation)(answer.value), number), {});
}

function row(kind, name, marks, value, properties, spoken) {
  return el("li", { class: kind, ...properties }, el("span", { class: "name" }, name), el("span", { class: "plot", "aria-hidden": "true" }, ...marks), el("span", { class: "value" }, value, spoken && el("span", { class: "unseen" }, `, ${spoken}`)));
}

function placed(element, share) {
  element.style.left = `${100 * share}%`;
  return element;
}

/** Stretch an element over a range; to the border where an end is not known, or beyond it. */
function stretch(element, { low, high }, axis) {
  const [from, to] = [low === null ? 0 : Math.max(0, axis.place(low)), high === null ? 1 : Math.min(1, axis.place(high))];
  element.style.width = `${100 * (to - from)}%`;
  return placed(element, from);
}
