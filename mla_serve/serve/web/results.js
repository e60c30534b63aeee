// The answer: label, distribution, each modality's own answer and weight, what is missing; and the options.

import { breakable, button, el, percent, title } from "./dom.js";

// Sizes of the answer's letters, in pixels: beside the probability, or on lines of their own.
const BESIDE = [96, 84, 72, 60, 48];
const ALONE = [40, 36, 32, 28, 25, 22, 20, 18];
const MOST_LINES = 3;
const BROKEN = 26; // of a word that no size can hold: it is broken then
const SET_SHOWN = 10; // labels of a prediction set
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
  const probability = el("p", { class: "probability" });
  const verdict = el("p", { class: "verdict" });
  const facts = el("div", {}, probability, verdict);
  const label = fittedLabel(facts);
  const notice = el("div", { class: "notice", role: "alert", hidden: true });
  const spoken = el("p", { class: "unseen", role: "status" });
  const bars = distribution(model.classes.length);
  const opinions = el("ul", { class: "opinions" });
  const missing = el("p", { class: "missing" });
  const set = el("strong", {});
  const rule = choice("Fusion rule", model.fusion.rules.map(value => [value, RULES[value] ?? value]), model.fusion.default, changed);
  const offersCoverage = Object.keys(model.coverage ?? {}).length > 0;
  const coverage = offersCoverage && choice("Coverage", COVERAGES.map(value => [value, `${100 * value} % coverage`]), 0.9, changed);
  const setRow = coverage && el("div", { class: "row set" }, el("p", {}, "Prediction set ", set), coverage.element);
  const details = el(
    "div", { class: "details" },
    el("div", { class: "row" }, el("h3", {}, "All together"), rule.element), bars.element, setRow,
    el("h3", {}, "Each input alone, and its weight"), opinions, missing,
  );
  const bar = el("a", { class: "answer-bar", href: "#answer", "aria-hidden": "true", tabIndex: -1, hidden: true });
  panel.append(
    el("h2", { class: "unseen" }, "Answer"), notice,
    el("div", { class: "headline" }, label.element, facts), spoken, details,
  );
  document.body.append(bar);
  let announcement;

  function empty() {
    panel.classList.remove("stale");
    panel.classList.add("empty");
    label.show("?");
    probability.textContent = "Nothing there yet";
    verdict.textContent = "Fill in any of the inputs, one is enough.";
    details.hidden = true;
    bar.hidden = true;
    fail(null);
    announce("");
  }
  function show(answer) {
    panel.classList.remove("stale", "empty");
    fail(null);
    label.show(answer.label);
    probability.textContent = percent(answer.probability);
    verdict.replaceChildren(`${certainty(answer.entropy, model.classes.length)} · `, el("span", { class: "whole" }, `entropy ${answer.entropy.toFixed(2)}`));
    bars.show(answer);
    opinions.replaceChildren(...Object.entries(answer.modalities).map(([name, own]) => opinion(name, own)));
    missing.textContent = answer.missing.length ? `Without ${listed(answer.missing.map(title))}` : "Nothing is missing";
    set.replaceChildren(...(answer.prediction_set ? setOf(answer.prediction_set) : ["not under this rule"]));
    details.hidden = false;
    bar.replaceChildren(el("strong", { dir: "auto" }, answer.label), el("span", {}, percent(answer.probability)));
    bar.hidden = false;
    announce(`${answer.label}, ${percent(answer.probability)}, from ${listed(Object.keys(answer.modalities).map(title))}`);
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

/** Make the label of the answer, in letters as large as fit without breaking a word; `facts` stands beside it. */
function fittedLabel(facts) {
  const element = el("p", { class: "label", dir: "auto" });
  let shown;

  function fit() {
    element.classList.remove("broken");
    if (BESIDE.some(size => set(size) && lines() === 1 && isBeside()) || ALONE.some(size => set(size) && lines() <= MOST_LINES)) return;
    set(BROKEN);
    element.classList.add("broken");
  }
  /** Set the size; returns whether every word fits. */
  function set(size) {
    element.style.fontSize = `${size}px`;
    return element.scrollWidth <= element.clientWidth;
  }
  const lines = () => Math.round(element.offsetHeight / parseFloat(getComputedStyle(element).lineHeight));
  const isBeside = () => facts.offsetTop < element.offsetTop + element.offsetHeight;
  function show(text) {
    if (text === shown) return;
    shown = text;
    element.replaceChildren(...breakable(text));
    fit();
  }
  window.addEventListener("resize", fit);
  return { element, show };
}

/** Make the bars of the fused distribution, the most probable label first; the other labels are counted. */
function distribution(classes) {
  const list = el("ol", { class: "bars", "aria-label": "Probabilities" });
  const rest = el("p", { class: "rest hint" });
  const element = el("div", { class: "distribution" }, list, rest);
  const rows = [];
  function show({ label, probabilities, prediction_set: set }) {
    while (rows.length < probabilities.length) rows.push(distributionRow());
    list.replaceChildren(...rows.slice(0, probabilities.length).map(({ row }) => row));
    probabilities.forEach(({ label: each, probability }, i) => {
      rows[i].name.replaceChildren(...breakable(each));
      rows[i].value.textContent = percent(probability);
      rows[i].fill.style.width = `${100 * probability}%`;
      rows[i].row.classList.toggle("best", each === label);
      rows[i].row.classList.toggle("in-set", Boolean(set?.includes(each)));
    });
    const [others, share] = [classes - probabilities.length, 1 - probabilities.reduce((sum, each) => sum + each.probability, 0)];
    rest.hidden = others <= 0;
    rest.textContent = `${others.toLocaleString("en")} more, ${percent(Math.max(0, share))} together`;
  }
  return { element, show };
}

function distributionRow() {
  const [name, fill, value] = [el("span", { class: "name", dir: "auto" }), el("span", { class: "fill" }), el("span", { class: "value" })];
  return { row: el("li", {}, name, el("span", { class: "track", "aria-hidden": "true" }, fill), value), name, fill, value };
}

/** Make one modality's line: its weight, and its answer when it is sent alone. */
function opinion(name, own) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${100 * own.weight}%`;
  const facts = [
    ["entropy", own.entropy.toFixed(2), "How undecided it is alone, in nats"],
    ["influence", signed(own.influence), "What the answer owes to it, in nats"],
    typeof own.unfamiliarity === "number" && ["unfamiliar", percent(own.unfamiliarity), "The share of known inputs that were more like the training data"],
  ].filter(Boolean);
  return el(
    "li", { "data-opinion": name },
    el("div", { class: "who" }, el("span", { class: "name" }, title(name)), el("span", { class: "says" }, "says ", el("strong", { dir: "auto" }, ...breakable(own.label)), " ", el("span", { class: "whole" }, percent(own.probability)))),
    el("div", { class: "share" }, el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", {}, el("span", { class: "unseen" }, "weight "), el("b", { class: "weight" }, percent(own.weight)))),
    el("div", { class: "facts" }, ...facts.map(([key, value, meaning]) => el("span", { title: meaning, class: isStrange(key, own) && "strange" }, `${key} `, el("b", {}, value)))),
  );
}

/** Whether an input is less like the training data than nearly all validation inputs. */
function isStrange(key, own) {
  return key === "unfamiliar" && own.unfamiliarity >= STRANGE_FROM;
}

/** The labels of a prediction set, the first of many. */
function setOf(labels) {
  const shown = labels.slice(0, SET_SHOWN).flatMap((label, i) => [...(i ? [", "] : []), el("bdi", {}, ...breakable(label))]);
  return labels.length > SET_SHOWN ? [...shown, ` and ${(labels.length - SET_SHOWN).toLocaleString("en")} more`] : shown;
}

function signed(value) {
  const size = Math.abs(value).toFixed(2);
  return Number(size) === 0 ? size : `${value < 0 ? "−" : "+"}${size}`;
}

function choice(text, options, chosen, changed) {
  const select = el("select", { onchange: changed }, ...options.map(([value, shown]) => el("option", { value, selected: value === chosen }, shown)));
  return { element: el("label", { class: "choice" }, el("span", { class: "unseen" }, text), select), value: () => select.value };
}

/** Put an entropy into words, from 0 (sure) to the logarithm of the number of classes (undecided). */
function certainty(entropy, classes) {
  const share = entropy / Math.log(classes);
  if (share < 0.1) return "Sure";
  if (share < 0.35) return "Fairly sure";
  return share < 0.7 ? "Unsure" : "Guessing";
}

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
