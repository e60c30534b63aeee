// The answer of a model of classes: the most probable one, and the probability of each.

import { barList } from "./bars.js";
import { breakable, el, percent } from "../dom.js";
import { fittedLabel } from "./label.js";
import { certainty, listed, nats } from "../words.js";

/** Make the view of answers that are one of several classes. */
export function classesView({ classes }) {
  const probability = el("p", { class: "probability" });
  const verdict = el("p", { class: "verdict" });
  const facts = el("div", {}, probability, verdict);
  const label = fittedLabel(facts);
  const bars = barList();

  function empty(title, advice) {
    label.show("?");
    probability.textContent = title;
    verdict.textContent = advice;
  }
  function show(answer) {
    label.show(answer.label);
    probability.textContent = percent(answer.probability);
    const share = answer.entropy / Math.log(classes.length);
    verdict.replaceChildren(`${certainty(share)} · `, el("span", { class: "whole" }, `entropy ${answer.entropy.toFixed(2)}`));
    const inSet = new Set(answer.prediction_set?.labels);
    const rows = answer.probabilities.map(each => ({ name: each.label, share: each.probability, best: each.label === answer.label, inSet: inSet.has(each.label) }));
    const [others, left] = [classes.length - rows.length, 1 - rows.reduce((sum, each) => sum + each.share, 0)];
    bars.show(rows, others > 0 ? `${others.toLocaleString("en")} more, ${percent(Math.max(0, left))} together` : "");
  }
  return {
    headline: [label.element, facts],
    body: bars.element,
    empty,
    show,
    promise: "Prediction set",
    promised: ({ prediction_set: set }) => set && listed(set.labels),
    says: own => [el("strong", { dir: "auto" }, ...breakable(own.label)), " ", el("span", { class: "whole" }, percent(own.probability))],
    counts: own => [["entropy", own.entropy.toFixed(2), "How undecided it is alone, in nats"], ["influence", nats(own.influence), "What the answer owes to it, in nats"]],
    short: answer => [answer.label, percent(answer.probability)],
  };
}
