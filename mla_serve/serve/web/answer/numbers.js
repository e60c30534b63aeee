// "Numbers and rule": the exact numbers behind the answer, in the terms of the method, and the choice of the rule.

import { el, hueOf, percent, title } from "../dom.js";

const RULES = {
  calibrated: "Calibrated (fitted)",
  paper: "Paper (certainty)",
  mean_logit: "Mean of logits",
  mean_prob: "Mean of probabilities",
  product: "Product of experts",
  product_prior: "Product, prior counted once",
  undiscounted: "Calibrated, unfamiliar or not",
  static: "Fixed weights",
  energy: "Energy",
  sum_logit: "Sum of logits",
  native: "As trained",
};
const UNFAMILIAR = "Share of validation inputs that were more like the training data";

/** Make the fold. Returns {element, show(reply), rule(), options(), choose(options)}. */
export function numbersFold(model, view, changed) {
  const { rules, default: usual } = model.fusion;
  const rule = el("select", { onchange: changed }, ...rules.map(value => el("option", { value, selected: value === usual }, RULES[value] ?? value)));
  const inputs = el("ul", { class: "facts" });
  const whole = el("p", { class: "hint" });
  const element = el("details", { class: "numbers" }, el("summary", {}, "Numbers and rule"), el("label", { class: "row" }, el("span", {}, "Fusion rule"), rule), inputs, whole);

  function show(reply) {
    inputs.replaceChildren(...Object.entries(reply.modalities).map(([name, own]) => factsOf(name, own, view, model)));
    whole.textContent = [`Entropy of the answer: ${reply.entropy.toFixed(2)} nats.`, conditionOf(reply.prediction_set ?? reply.interval)].filter(Boolean).join(" ");
  }
  const choose = ({ fusion }) => (rule.value = fusion ?? usual);
  return { element, show, rule: () => rule.value, options: () => (rule.value === usual ? {} : { fusion: rule.value }), choose };
}

function factsOf(name, own, view, model) {
  const facts = [
    ["weight", percent(own.weight), "In the fusion"],
    ...view.counts(own),
    ...(typeof own.unfamiliarity === "number" ? [["unfamiliar", percent(own.unfamiliarity), UNFAMILIAR]] : []),
  ];
  return el("li", { class: hueOf(model, name), "data-facts": name }, el("strong", {}, title(name)), ...facts.map(([key, value, meaning]) => el("span", { title: meaning }, `${key} `, el("b", { class: key }, value))));
}

/** Say what the coverage of a shortlist or a range holds for, and what it rests on. */
function conditionOf(promised) {
  if (!promised) return "";
  const from = `${promised.rows.toLocaleString("en")} validation rows${promised.pooled ? ", also with other inputs, since few have these" : ""}`;
  return `Coverage ${percent(promised.coverage)}, from ${from}; true on average for rows like those of validation, with inputs missing at random.`;
}
