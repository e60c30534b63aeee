// The answer's panel: what the task's view draws, each modality's own answer and weight, what is missing; and the options.

import { classesView } from "./classes.js";
import { button, el, percent, title } from "../dom.js";
import { labelsView } from "./labels.js";
import { numberView } from "./number.js";
import { joined } from "../words.js";

// By task: what draws its answers, {headline, body, empty(title, advice), show(answer), promise, promised(answer), says(own),
// counts(own), short(answer)}. `promise` names what coverage asks for.
const VIEWS = { classes: classesView, labels: labelsView, number: numberView };
const COVERAGES = [0.8, 0.9, 0.95, 0.99];
const STRANGE_FROM = 0.99;
const ANNOUNCE_AFTER_MS = 600;
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

/** Make the answer's panel. Returns {show(answer), empty(), fail(error), wait(), options()}. */
export function answerPanel(panel, model, { changed, retry }) {
  const view = VIEWS[model.task](model);
  const notice = el("div", { class: "notice", role: "alert", hidden: true });
  const spoken = el("p", { class: "unseen", role: "status" });
  const opinions = el("ul", { class: "opinions" });
  const missing = el("p", { class: "missing" });
  const promised = el("span", { class: "promised" });
  const condition = el("p", { class: "hint condition" });
  const rule = choice("Fusion rule", model.fusion.rules.map(value => [value, RULES[value] ?? value]), model.fusion.default, changed);
  const offersCoverage = Object.keys(model.coverage ?? {}).length > 0;
  const coverage = offersCoverage && choice("Coverage", COVERAGES.map(value => [value, `${100 * value} % coverage`]), 0.9, changed);
  const setRow = coverage && el("div", { class: "row set" }, el("p", {}, `${view.promise} `, promised), coverage.element);
  const details = el(
    "div", { class: "details" },
    el("div", { class: "row" }, el("h3", {}, "All together"), rule.element), view.body, setRow, coverage && condition,
    el("h3", {}, "Each input alone, and its weight"), opinions, missing,
  );
  const bar = el("a", { class: "answer-bar", href: "#answer", "aria-hidden": "true", tabIndex: -1, hidden: true });
  panel.append(
    el("h2", { class: "unseen" }, "Answer"), notice,
    el("div", { class: "headline" }, ...view.headline), spoken, details,
  );
  document.body.append(bar);
  let announcement;

  function empty() {
    panel.classList.remove("stale");
    panel.classList.add("empty");
    view.empty("Nothing there yet", "Fill in any of the inputs, one is enough.");
    details.hidden = true;
    bar.hidden = true;
    fail(null);
    announce("");
  }
  function show(answer) {
    panel.classList.remove("stale", "empty");
    fail(null);
    view.show(answer);
    opinions.replaceChildren(...Object.entries(answer.modalities).map(([name, own]) => opinion(name, own, view)));
    missing.textContent = answer.missing.length ? `Without ${joined(answer.missing.map(title))}` : "Nothing is missing";
    promised.replaceChildren(...(view.promised(answer) ?? ["not under this rule"]));
    condition.textContent = conditionOf(answer.prediction_set ?? answer.interval);
    details.hidden = false;
    const [main, side] = view.short(answer);
    bar.replaceChildren(el("strong", { dir: "auto" }, main), el("span", {}, side));
    bar.hidden = false;
    announce(`${main}, ${side}, from ${joined(Object.keys(answer.modalities).map(title))}`);
  }
  function fail(error) {
    notice.hidden = !error;
    if (!error) return;
    panel.classList.add("stale");
    notice.replaceChildren(el("p", {}, error.message));
    if (error.retryAfter) notice.append(button("Try again now", "again", retry));
  }
  function announce(text) {
    clearTimeout(announcement);
    announcement = setTimeout(() => (spoken.textContent = text), ANNOUNCE_AFTER_MS);
  }

  empty();
  return {
    show,
    empty,
    fail,
    stale: () => panel.classList.add("stale"),
    options: () => ({
      ...(rule.value() !== model.fusion.default && { fusion: rule.value() }),
      ...(coverage && rule.value() in model.coverage && { coverage: coverage.value() }),
    }),
  };
}

/** Say what the coverage of a set or an interval holds for. */
function conditionOf(promised) {
  if (!promised) return "";
  const from = `${promised.rows.toLocaleString("en")} rows${promised.pooled ? ", also with other inputs, since few have these" : ""}`;
  return `True on average for rows like those of validation, with inputs missing at random. From ${from}.`;
}

/** Make one modality's line: its weight, and its answer when it is sent alone. */
function opinion(name, own, view) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${100 * own.weight}%`;
  const facts = [
    ...view.counts(own),
    typeof own.unfamiliarity === "number" && ["unfamiliar", percent(own.unfamiliarity), "The share of known inputs that were more like the training data"],
  ].filter(Boolean);
  return el(
    "li", { "data-opinion": name },
    el("div", { class: "who" }, el("span", { class: "name" }, title(name)), el("span", { class: "says" }, "says ", ...view.says(own))),
    el("div", { class: "share" }, el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", {}, el("span", { class: "unseen" }, "weight "), el("b", { class: "weight" }, percent(own.weight)))),
    el("div", { class: "facts" }, ...facts.map(([key, value, meaning]) => el("span", { title: meaning, class: isStrange(key, own) && "strange" }, `${key} `, el("b", {}, value)))),
  );
}

/** Whether an input is less like the training data than nearly all validation inputs. */
function isStrange(key, own) {
  return key === "unfamiliar" && own.unfamiliarity >= STRANGE_FROM;
}

function choice(text, options, chosen, changed) {
  const select = el("select", { onchange: changed }, ...options.map(([value, shown]) => el("option", { value, selected: value === chosen }, shown)));
  return { element: el("label", { class: "choice" }, el("span", { class: "unseen" }, text), select), value: () => select.value };
}
