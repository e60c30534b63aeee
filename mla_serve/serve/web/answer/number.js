// The answer of a model of a number: the value, the range that is to hold the truth, and a forest plot of what each input says.

import { breakable, el, percent, title } from "../dom.js";
import { short, withUnit, writer } from "./decimals.js";
import { forestPlot } from "./forest.js";
import { fittedLabel } from "./label.js";
import { covered, ownRange } from "./ranges.js";
import { certainty, signed } from "../words.js";

const GAUSSIAN_NATS = 0.5 * Math.log(2 * Math.PI * Math.E); // entropy of a standardised number before any input is known
const SIZES = [60, 54, 48]; // of the value's letters, in pixels, on a line of its own
const TOO_WIDE = 0.7; // of the values seen in training

/** Make the view of answers that are a number. */
export function numberView(model, { verdict }) {
  const { number } = model;
  const range = el("p", { class: "range" });
  const warning = el("p", { class: "warning", hidden: true });
  const label = fittedLabel(null, SIZES);
  const what = el("p", { class: "hint", hidden: !number.column }, ...breakable(title(number.column || "-")));
  const plot = forestPlot(model);
  const write = (value, deviation) => withUnit(writer(number, deviation)(value), number);

  function empty(heading) {
    label.show("?");
    label.element.classList.remove("vague");
    range.textContent = heading;
    warning.hidden = true;
  }
  function show(answer) {
    const { value, deviation } = answer;
    const vague = warnings(answer, number);
    label.show(`${vague.wide ? "about " : ""}${write(value, deviation)}`);
    label.element.classList.toggle("vague", vague.wide);
    range.replaceChildren(...spanned(answer, each => write(each, deviation)));
    warning.hidden = !vague.said.length;
    warning.replaceChildren(...vague.said);
    plot.show(answer);
  }
  return {
    headline: [what, label.element, range, warning, verdict],
    body: plot.element,
    empty,
    show,
    unsure: answer => unsure(answer, number),
    short: answer => [write(answer.value, answer.deviation), inShort(answer)],
    promised: "range",
    promise: ({ interval }) => interval && [Object.keys(model.modalities).length > 1 ? "The range, and what each input says" : "The range"],
    promises: often => `The range holds the true value ${often} times, on average, for inputs like those it was measured with.`,
    plain: "What each input says",
    says: own => [el("strong", { class: "whole" }, write(own.value, own.deviation)), " ", el("span", { class: "whole" }, `± ${writer(number, own.deviation)(own.deviation)}`)],
    agrees: (own, answer) => {
      const { low, high } = ownRange(own, answer, number);
      return low <= answer.value && answer.value <= high;
    },
    together: ({ modalities }) => [Object.keys(modalities).length > 2 ? "They agree" : "Both agree", "; the value lies in the range of each"],
    stays: () => false,
    without: (name, own, answer) => pulled(own.influence, each => write(each, Math.abs(own.influence)), write(answer.value - own.influence, answer.deviation)),
    record: (scores, rows, likely) => record(scores, rows, likely, number, model.metrics.asked_coverage),
    merit: ({ mae }) => -mae,
    counts: own => [["moves the value by", withUnit(signed(own.influence, writer(number, Math.abs(own.influence))), number), "How far the value is from what it would be without this input"]],
  };
}

/** Write the range: between 149 € and 228 €, 9 times in 10. An end is null where too few rows are known to tell it. */
function spanned({ interval, deviation }, write) {
  if (!interval) return [`give or take ${write(deviation)}`];
  const { low, high, coverage } = interval;
  const bold = end => el("b", { class: "whole" }, write(end));
  if (low === null && high === null) return ["it may be any value: too few rows are known"];
  const ends = low === null ? ["at most ", bold(high)] : high === null ? ["at least ", bold(low)] : ["between ", bold(low), " and ", bold(high)];
  return [...ends, el("span", { class: "whole" }, `, ${times(coverage)}`)];
}

function times(coverage) {
  const [right, of] = Math.round(coverage * 100) % 10 ? [Math.round(coverage * 100), 100] : [Math.round(coverage * 10), 10];
  return `${right} times in ${of}`;
}

function inShort({ interval, deviation }) {
  if (!interval) return `± ${short(deviation)}`;
  const { low, high } = interval;
  if (low === null) return high === null ? "any value" : `up to ${short(high)}`;
  return high === null ? `${short(low)} and more` : `${short(low)} to ${short(high)}`;
}

/** Say what speaks against using the value: {wide, said}. */
function warnings({ value, interval }, number) {
  const share = interval && covered(interval, number);
  const wide = Boolean(interval) && (share === null ? interval.low === null || interval.high === null : share >= TOO_WIDE);
  const ends = interval && (interval.low === null) === (interval.high === null) ? "it has no known end" : "one end of it is not known";
  const known = share === null || share === undefined ? ends : `it covers ${percent(share)} of the values seen in training`;
  return {
    wide,
    said: [
      ...(wide ? [el("b", {}, "Too wide to use"), `: ${known}.`] : []),
      ...(isOutside({ value }, number) ? [wide ? " " : "", el("b", {}, "Unlike training"), `: the value is ${value < number.low ? "below" : "above"} all that were seen.`] : []),
    ],
  };
}

function unsure(answer, number) {
  if (isOutside(answer, number)) return "Beyond what it knows";
  return warnings(answer, number).wide ? "Guessing" : certainty(Math.exp(answer.entropy - GAUSSIAN_NATS));
}

function isOutside({ value }, { low, high }) {
  return low !== null && (value < low || value > high);
}

function pulled(influence, write, other) {
  const size = write(Math.abs(influence));
  if (!/[1-9]/.test(size)) return ["It does not move the value."];
  return [`Pulls it ${influence > 0 ? "up" : "down"} by `, el("b", { class: "whole" }, size), ", from ", el("span", { class: "whole" }, other), "."];
}

/** Tell the record: how far off it was, and how often the range held the truth. */
function record({ mae, coverage }, { count, name }, { mae: likely }, number, asked) {
  const write = writer(number, mae / 10);
  const range = likely ? ` (likely ${write(likely[0])} to ${write(likely[1])})` : "";
  const off = ["it was off by ", el("b", { class: "whole" }, withUnit(write(mae), number)), `${range} on average${name ? ` on ${count ? `${count.toLocaleString("en")} ` : ""}${name}` : ""}`];
  if (coverage === undefined || !name) return off;
  return [...off, `; the range for ${times(asked ?? 0.9)} held the true value in `, el("b", { class: "whole" }, percent(coverage))];
}
