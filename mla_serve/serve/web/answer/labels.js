// The answer of a model of labels: those that apply, and the probability of each beside its threshold.

import { barList } from "./bars.js";
import { breakable, el, percent } from "../dom.js";
import { certainty, listed, nats } from "../words.js";

const ANSWERED_SHOWN = 30;
const PERHAPS_SHOWN = 10; // labels that the prediction set adds to those answered

/** Make the view of answers that are any number of labels. */
export function labelsView({ labels }, { verdict }) {
  const tags = el("ul", { class: "tags", "aria-label": "Labels" });
  const bars = barList();

  function empty(heading) {
    tags.replaceChildren(el("li", { class: "none" }, heading));
  }
  function show(answer) {
    const answered = new Set(answer.labels);
    const perhaps = (answer.prediction_set?.labels ?? []).filter(each => !answered.has(each));
    tags.replaceChildren(
      ...(answer.labels.length ? chips(answer.labels, "answered", ANSWERED_SHOWN) : [el("li", { class: "none" }, "No label")]),
      ...chips(perhaps, "perhaps", PERHAPS_SHOWN),
    );
    const inSet = new Set(answer.prediction_set?.labels);
    const rows = answer.probabilities.map(each => ({ name: each.label, share: each.probability, best: each.answered, inSet: inSet.has(each.label), threshold: each.threshold }));
    const others = labels.length - rows.length;
    bars.show(rows, others > 0 ? [`${others.toLocaleString("en")} more, less probable`] : []);
  }
  function counted(answer) {
    const perhaps = (answer.prediction_set?.labels ?? []).filter(each => !answer.labels.includes(each)).length;
    const count = `${answer.labels.length.toLocaleString("en")} of ${labels.length.toLocaleString("en")} labels`;
    return perhaps ? `${count}, perhaps ${perhaps.toLocaleString("en")} more` : count;
  }
  return {
    headline: [el("div", {}, tags, verdict)],
    body: bars.element,
    empty,
    show,
    unsure: answer => `${counted(answer)}. ${certainty(answer.entropy / (labels.length * Math.LN2))}`,
    promised: "shortlist",
    promise: ({ prediction_set: set }) => set && ["Shortlist: ", ...(set.labels.length ? listed(set.labels) : ["no label"])],
    agrees: (own, answer) => own.labels.length === answer.labels.length && own.labels.every(each => answer.labels.includes(each.label)),
    stays: () => false,
    without: () => null,
    record: ({ micro_f1: score }, { count, name }) => ["its F1 was ", el("b", {}, percent(score)), name ? ` on ${count ?? ""} ${name}` : ""],
    merit: ({ micro_f1: score }) => score,
    says: own => (own.labels.length ? listed(own.labels.map(each => each.label), own.labels.map(each => percent(each.probability))) : [el("strong", {}, "no label")]),
    counts: own => [["entropy", own.entropy.toFixed(2), "How undecided it is alone, in nats"], ["influence", nats(own.influence), "What the answer owes to it, in nats"]],
    short: answer => [answer.labels.join(", ") || "No label", `${answer.labels.length} of ${labels.length.toLocaleString("en")}`],
  };
}

/** Make a chip for each of the first labels, and count the others. */
function chips(labels, how, most) {
  const more = labels.length - most;
  return [...labels.slice(0, most).map(label => chip(label, how)), ...(more > 0 ? [el("li", { class: "none few" }, `and ${more.toLocaleString("en")} more`)] : [])];
}

function chip(label, how) {
  const perhaps = how === "perhaps";
  const meaning = perhaps ? "In the prediction set, below its threshold" : "At or above its threshold";
  return el("li", { class: how, dir: "auto", title: meaning }, perhaps && el("span", { class: "unseen" }, "perhaps "), ...breakable(label));
}
