// The figures at the top: how good the model is, with all inputs and with half missing, and what its promises are worth.

import { amount, atLeast, measureOf } from "./measure.js";
import { el, percent } from "../dom.js";

const OFTEN = { 0.8: "8 in 10", 0.9: "9 in 10", 0.95: "95 in 100", 0.99: "99 in 100" };
// By task: [figure, meaning] of each tile, from the scores with all inputs and with half of them missing.
const TILES = {
  classes: ({ full, half, rows, likely }) => [
    [measure.write(full.accuracy, rows), `right, with ${all}${bounds(likely.accuracy, full.accuracy)}`],
    half && [percent(half.accuracy), "right, with half of the inputs missing"],
    surer(half ?? full, half, "it is right"),
    shortlist(half ?? full, half, "of the shortlists hold the right one", scores => scores.coverage),
  ],
  labels: ({ full, half, likely }) => [
    [percent(full.micro_f1), `fit of the labels, with ${all}; 100 %: all right ones, no others${bounds(likely.micro_f1, full.micro_f1)}`],
    "fnr" in full && [percent(1 - full.fnr), "of the right labels of a row are found, on average"],
    half && [percent(half.micro_f1), "fit of the labels, with half of the inputs missing"],
    surer(half ?? full, half, "the label is right"),
    shortlist(half ?? full, half, "of the right labels are in the shortlist", scores => 1 - scores.set_fnr),
  ],
  number: ({ full, half, likely, number }) => [
    [amount(full.mae, number), `off on average, with ${all}${span(likely.mae, number)}`],
    half && [amount(half.mae, number), "off on average, with half of the inputs missing"],
    full.r2 > 0 && [percent(full.r2), `of the differences between rows are explained, with ${all}`],
    range(half ?? full, half, number),
  ],
};
let measure, asked, all;

/** Make the tiles; an empty text where nothing was measured. */
export function tiles(model) {
  const { conditions, rows, intervals, condition_rows: counts } = model.metrics;
  const rule = model.fusion.default;
  const whole = conditions?.full ? "full" : Object.keys(model.modalities).join("+");
  const full = conditions?.[whole]?.[rule];
  if (!full) return "";
  measure = measureOf(model);
  asked = model.metrics.asked_coverage;
  all = allInputs(model, counts);
  const several = Object.keys(model.modalities).length > 1;
  const scores = { full, half: several ? conditions.missing50?.[rule] : undefined, rows: counts?.[whole] ?? rows, likely: intervals?.[whole] ?? {}, number: model.number };
  const found = TILES[model.task](scores).filter(Boolean);
  return el("section", { class: "tiles", "aria-label": "The main figures" }, ...found.map(([figure, meaning]) => el("div", {}, el("b", {}, figure), el("span", {}, meaning))));
}

function bounds(likely, score) {
  if (!likely || likely[0] === 1) return ""; // bundles of older versions resampled rows that were all right
  return score === 1 ? ` (at least ${atLeast(likely[0])}, 95 % sure)` : ` (likely ${percent(likely[0])} to ${percent(likely[1])})`;
}

function span(likely, number) {
  return likely ? ` (likely ${amount(likely[0], number)} to ${amount(likely[1], number)})` : "";
}

/** Say which inputs "all" are: rows may lack some. */
function allInputs({ modalities }, counts) {
  const lack = counts && counts.full > (counts[Object.keys(modalities).join("+")] ?? 0);
  return lack ? "all inputs that a row has" : "all inputs";
}

const promised = () => OFTEN[asked] ?? `${Number((100 * asked).toFixed(1))} %`;
const missing = half => (half ? ", with half of the inputs missing" : "");

function surer({ ece }, half, happens) {
  return typeof ece === "number" && [`${(100 * ece).toFixed(1)} points`, `lie on average between the percentage it gives and how often ${happens}${missing(half)}`];
}

function shortlist(scores, half, what, held) {
  if (!("set_size" in scores) || !Number.isFinite(held(scores)) || !asked) return null;
  return [percent(held(scores)), `${what}${missing(half)} (${promised()} are promised). A shortlist has ${scores.set_size.toFixed(1)} labels on average`];
}

function range(scores, half, number) {
  if (!("coverage" in scores) || !asked) return null;
  const width = "width" in scores ? `. A range is ${amount(scores.width, number)} wide on average` : "";
  return [percent(scores.coverage), `of the true values lie in the range${missing(half)} (${promised()} are promised)${width}`];
}
