// The answer of a model of a number: the value and its interval, on an axis with what each input says by itself.

import { el, title } from "../dom.js";
import { fittedLabel } from "./label.js";
import { certainty, signed } from "../words.js";

const GAUSSIAN_NATS = 0.5 * Math.log(2 * Math.PI * Math.E); // entropy of a standardised number before any input is known
const MOST_TICKS = 5;
const COMPACT_FROM = 10_000;
const TINY = 1e-4; // numbers below it are written with an exponent where they need more decimals than MOST_DECIMALS
const MOST_DECIMALS = 6;
const MOST_FORMATTED = 20; // decimals that every browser can format

/** Make the view of answers that are a number. */
export function numberView({ number }, { verdict }) {
  const range = el("p", { class: "probability" });
  const facts = el("div", { class: "range" }, range, verdict);
  const label = fittedLabel(facts);
  const estimates = estimateChart(number);

  function empty(heading) {
    label.show("?");
    range.textContent = heading;
  }
  function show(answer) {
    const write = writer(number, answer.deviation);
    label.show(withUnit(write(answer.value), number));
    const { interval } = answer;
    range.textContent = interval ? between(interval, write) : `± ${write(answer.deviation)}`;
    estimates.show(answer, write);
  }
  return {
    headline: [label.element, facts],
    body: estimates.element,
    empty,
    show,
    unsure: answer => {
      const outside = number.low !== null && (answer.value < number.low || answer.value > number.high);
      return `${certainty(Math.exp(answer.entropy - GAUSSIAN_NATS))}${outside ? ", beyond the training rows" : ""}`;
    },
    promised: "range",
    promise: ({ interval, deviation }) => interval && ["Range: ", el("b", {}, between(interval, writer(number, deviation)))],
    agrees: (own, answer) => Math.abs(own.value - answer.value) <= own.deviation,
    stays: () => false,
    without: (name, own, answer) => ["Without it, it would be ", el("b", {}, withUnit(writer(number, answer.deviation)(answer.value - own.influence), number)), "."],
    record: ({ mae }, { count, name }) => ["it was off by ", el("b", {}, withUnit(plain(mae, number), number)), name ? ` on average of ${count ?? ""} ${name}` : ""],
    merit: ({ mae }) => -mae,
    says: own => [el("strong", { class: "whole" }, withUnit(writer(number, own.deviation)(own.value), number)), " ", el("span", { class: "whole" }, `± ${writer(number, own.deviation)(own.deviation)}`)],
    counts: own => [["moves the value by", withUnit(signed(own.influence, writer(number, Math.abs(own.influence))), number), "How far the value is from what it would be without this input"]],
    short: answer => {
      const { interval } = answer;
      return [withUnit(writer(number, answer.deviation)(answer.value), number), interval ? between(interval, short) : `± ${short(answer.deviation)}`];
    },
  };
}

/** Make the function that writes values to the second digit of a deviation, with one decimal more than the training rows at most. */
function writer({ decimals }, deviation) {
  const digits = deviation > 0 ? 1 - Math.floor(Math.log10(deviation)) : decimals;
  const kept = Math.min(digits, decimals + 1);
  const step = 10 ** -kept;
  const shown = Math.min(Math.max(0, kept), MOST_FORMATTED);
  const format = new Intl.NumberFormat("en", { minimumFractionDigits: shown, maximumFractionDigits: shown });
  return value => isTiny(value, kept) ? exponential(value, kept) : format.format(Math.round(value / step) * step).replace("-", "−");
}

function isTiny(value, decimals) {
  return value !== 0 && Math.abs(value) < TINY && decimals > MOST_DECIMALS;
}

/** Write a tiny number to so many decimals: 3.14159e-9 with 11 as "3.14e−9". */
function exponential(value, decimals) {
  const digits = decimals + Math.floor(Math.log10(Math.abs(value)));
  return value.toExponential(Math.min(Math.max(0, digits), 3)).replaceAll("-", "−");
}

/** Write an interval. An end is null where too few rows are known to tell it. */
function between({ low, high }, write) {
  if (low === null) return high === null ? "any value" : `up to ${write(high)}`;
  return high === null ? `${write(low)} and more` : `${write(low)} to ${write(high)}`;
}

function withUnit(text, { unit }) {
  return unit ? `${text}\u00a0${unit}` : text;
}

/** Make the axis: a line for the answer with its interval, and one for each input by itself; grey where training had values. */
function estimateChart(number) {
  const rows = el("ul", { class: "rows" });
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" });
  const note = el("p", { class: "hint" });
  const element = el("div", { class: "estimates" }, rows, ticks, note);

  function show(answer, write) {
    const together = answer.interval ?? around(answer, number);
    const alone = Object.entries(answer.modalities).map(([name, own]) => [title(name), own, around(own, number), "alone"]);
    const lines = [["All together", answer, together, "together"], ...alone];
    const ends = lines.flatMap(([, { value }, { low, high }]) => [value, low, high]).filter(end => end !== null);
    const axis = makeAxis([...ends, ...(number.low === null ? [] : [number.low, number.high])], number.log);
    rows.replaceChildren(...lines.map(([name, said, span, how]) => line(name, said, span, how, axis, number, write)));
    ticks.replaceChildren(...axis.ticks.map(value => placed(el("span", {}, short(value)), axis.place(value))));
    note.textContent = number.low === null ? "" : `Grey: the training rows, ${plain(number.low, number)} to ${withUnit(plain(number.high, number), number)}`;
  }
  return { element, show };
}

function line(name, { value }, { low, high }, how, axis, number, write) {
  const grey = number.low !== null && stretched(el("span", { class: "known" }), axis.place(number.low), axis.place(number.high));
  const span = stretched(el("span", { class: "span" }), low === null ? 0 : axis.place(low), high === null ? 1 : axis.place(high));
  const point = placed(el("span", { class: "point" }), axis.place(value));
  const spoken = el("span", { class: "unseen" }, `${write(value)}, ${between({ low, high }, write)}`);
  return el("li", { class: how }, el("span", { class: "name" }, name), el("span", { class: "plot" }, grey, span, point, spoken));
}

function placed(element, share) {
  element.style.left = `${100 * share}%`;
  return element;
}

function stretched(element, from, to) {
  element.style.width = `${100 * (to - from)}%`;
  return placed(element, from);
}

/** One deviation to both sides of a value; where the logarithm is Gaussian, the part below is shorter. */
function around({ value, deviation }, { log }) {
  if (!log) return { low: value - deviation, high: value + deviation };
  const factor = Math.exp(Math.asinh(deviation / value));
  return { low: value / factor, high: value * factor };
}

/** Make an axis that holds all values. Returns {place(value): 0 to 1, ticks}. */
function makeAxis(values, log) {
  const scale = log ? Math.log : value => value;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [from, to] = high > low ? [scale(low), scale(high)] : [scale(low) - 1, scale(low) + 1];
  const margin = 0.03 * (to - from);
  const place = value => (scale(value) - from + margin) / (to - from + 2 * margin);
  return { place, ticks: log ? logarithmicTicks(low, high) : linearTicks(low, high) };
}

function linearTicks(low, high) {
  const rough = (high - low || 1) / (MOST_TICKS - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(each => each >= rough);
  const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
  return Array.from({ length: Math.max(0, count) }, (_, i) => (Math.ceil(low / step) + i) * step);
}

function logarithmicTicks(low, high) {
  const inside = factors => powers(low, high).flatMap(power => factors.map(factor => factor * power)).filter(value => value >= low && value <= high);
  const fitting = [[1, 2, 5], [1, 3], [1]].map(inside).find(ticks => ticks.length <= MOST_TICKS) ?? inside([1]);
  const every = Math.ceil(fitting.length / MOST_TICKS);
  return fitting.length > 1 ? fitting.filter((_, i) => i % every === 0) : linearTicks(low, high);
}

function powers(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.floor(Math.log10(high))];
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}

function short(value) {
  const options = Math.abs(value) >= COMPACT_FROM ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: 3 };
  if (value !== 0 && Math.abs(value) < TINY) return Number(value.toPrecision(3)).toExponential().replaceAll("-", "−");
  return new Intl.NumberFormat("en", options).format(value).replace("-", "−");
}

function plain(value, { decimals }) {
  if (isTiny(value, decimals)) return exponential(value, decimals);
  return new Intl.NumberFormat("en", { maximumFractionDigits: Math.min(decimals, MOST_FORMATTED) }).format(value).replace("-", "−");
}
