// How good the model is with each combination of inputs: a row each, with a point and its interval on one axis.

import { measuredOn, measureOf } from "./measure.js";
import { section } from "./shell.js";
import { el, hueOf, title } from "../dom.js";

const SHOWN = 10; // the others are folded
const MOST_GHOSTS = 4; // inputs up to which those that are not sent are shown too
const TICKS = 5;
const LEAST_SPAN = 3; // tenths that the axis of shares has at least

/** Make the chart, or say that nothing was measured. */
export function combinations(model) {
  const measure = measureOf(model);
  const found = measured(model, measure);
  if (!found.length) return section(measure.heading, el("p", { class: "hint" }, "This was not measured: the rows for it were not there when the model was exported."));
  const axis = axisOf(found, measure);
  const list = rows => el("ol", { class: "combinations" }, ...rows.map(row => rowOf(row, model, measure, axis)), ticksOf(axis, measure));
  const others = found.slice(SHOWN);
  const band = found.some(row => row.likely) ? " The band around it: where it likely lies for other rows like these, 95 % sure." : "";
  const start = axis.low > 0 ? ` The axis starts at ${Math.round(100 * axis.low)} %, not at 0.` : "";
  return section(
    measure.heading,
    el("p", { class: "hint" }, `${measuredOn(model)} ${measure.meaning}${band}${start}`),
    list(found.slice(0, SHOWN)),
    others.length > 0 && el("details", {}, el("summary", {}, `${others.length} more combinations, from ${write(others[0], measure)} on`), list(others)),
  );
}

/** List what was measured, the best first: {names, value, likely, rows}. */
function measured({ metrics, modalities, fusion }, { score, best }) {
  const inOrder = Object.entries(metrics.conditions ?? {}).map(([condition, rules]) => ({ condition, names: condition.split("+"), value: rules[fusion.default]?.[score] }));
  return inOrder
    .filter(({ names, value }) => names.every(name => name in modalities) && typeof value === "number")
    .map(({ condition, names, value }) => ({ names, value, likely: known(metrics.intervals?.[condition]?.[score]), rows: metrics.condition_rows?.[condition] ?? null }))
    .sort((a, b) => best * (b.value - a.value) || b.names.length - a.names.length);
}

/** Leave out an interval without a width: bundles of older versions have it where all rows were right. */
function known(likely) {
  return likely && likely[0] < likely[1] ? likely : null;
}

/** Choose the ends of the axis: of shares whole tenths, else from 0 to a round number. */
function axisOf(found, { share }) {
  const ends = found.flatMap(({ value, likely }) => [value, ...(likely ?? [])]);
  if (share) {
    const low = Math.floor(10 * Math.min(...ends) + 1e-9);
    const high = Math.min(Math.max(Math.ceil(10 * Math.max(...ends) - 1e-9), low + LEAST_SPAN), 10);
    return { low: Math.max(0, Math.min(low, high - LEAST_SPAN)) / 10, high: high / 10 };
  }
  const most = Math.max(...ends) || 1;
  const step = 10 ** Math.floor(Math.log10(most));
  return { low: 0, high: Math.ceil(most / step) * step };
}

function rowOf(row, model, measure, axis) {
  const at = value => `${(100 * (Math.min(Math.max(value, axis.low), axis.high) - axis.low)) / (axis.high - axis.low)}%`;
  const band = row.likely && el("span", { class: "band" });
  if (band) Object.assign(band.style, { left: at(row.likely[0]), right: `calc(100% - ${at(row.likely[1])})` });
  const point = el("span", { class: "point" });
  point.style.left = at(row.value);
  const count = row.rows !== null && row.rows !== model.metrics.rows && el("small", {}, `of ${row.rows.toLocaleString("en")} rows`);
  return el("li", {}, chips(row.names, model), el("span", { class: "plot", "aria-hidden": "true" }, el("span", { class: "track" }, band, point)), el("span", { class: "value" }, el("b", {}, write(row, measure)), " ", count, likelyText(row, measure)));
}

function write({ value, rows }, measure) {
  return measure.write(value, rows);
}

/** Tell the interval to those who do not see it, and to a pointer that rests on the number. */
function likelyText({ likely }, measure) {
  return likely && el("span", { class: "unseen" }, `, likely ${measure.write(likely[0])} to ${measure.write(likely[1])}`);
}

function chips(sent, model) {
  const all = Object.keys(model.modalities);
  const shown = all.length > MOST_GHOSTS ? sent : all;
  const chip = name => el("span", { class: `chip ${hueOf(model, name)}${sent.includes(name) ? "" : " ghost"}`, dir: "auto" }, !sent.includes(name) && el("span", { class: "unseen" }, "not "), title(name));
  return el("span", { class: "chips" }, ...shown.flatMap((name, i) => (i ? [" ", chip(name)] : [chip(name)])));
}

function ticksOf(axis, measure) {
  const steps = measure.share ? Math.round(10 * (axis.high - axis.low)) : TICKS;
  const every = steps > TICKS ? 2 : 1;
  const ticks = Array.from({ length: steps + 1 }, (_, i) => i).filter(i => (steps - i) % every === 0).map(i => {
    const tick = el("span", {}, measure.share ? `${Math.round(100 * axis.low + 10 * i)} %` : measure.write((axis.high * i) / steps));
    tick.style.left = `${(100 * i) / steps}%`;
    return tick;
  });
  return el("li", { class: "ticks", "aria-hidden": "true" }, el("span", { class: "plot" }, el("span", { class: "track" }, ...ticks)));
}
