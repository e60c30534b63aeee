// The answer of a model of labels: those that apply, those that perhaps do, and what is said of each, in a table.

import { breakable, el, percent, title } from "../dom.js";
import { labelTable } from "./labeltable.js";
import { certainty, nats } from "../words.js";

const ANSWERED_SHOWN = 12; // chips; the table tells the rest
const PERHAPS_SHOWN = 6; // labels that the shortlist adds to those answered
const SAID_SHOWN = 3; // labels that an input says by itself; the table tells the rest

/** Make the view of answers that are any number of labels. */
export function labelsView(model, { verdict, changed }) {
  const count = model.labels.length;
  const tags = el("ul", { class: "tags", "aria-label": "Labels" });
  const counts = el("p", { class: "counts" });
  const table = labelTable(model, changed);

  function empty(heading) {
    tags.replaceChildren(el("li", { class: "none" }, heading));
    counts.textContent = "";
  }
  function show(answer) {
    const perhaps = perhapsOf(answer);
    tags.replaceChildren(
      ...(answer.labels.length ? chips(answer.labels, "answered", ANSWERED_SHOWN) : [el("li", { class: "none" }, "No label")]),
      ...chips(perhaps, "perhaps", PERHAPS_SHOWN),
    );
    counts.replaceChildren(...counted(answer.labels.length, perhaps.length, count));
    table.show(answer);
  }
  return {
    headline: [el("div", {}, tags, counts, verdict)],
    body: table.element,
    empty,
    show,
    unsure: answer => unsure(answer, count),
    short: answer => [answer.labels.join(", ") || "No label", `${answer.labels.length.toLocaleString("en")} of ${count.toLocaleString("en")}`],
    promised: "shortlist",
    promise: ({ prediction_set: set }) => set && ["Shortlist: ", el("b", {}, `${set.labels.length.toLocaleString("en")} of ${count.toLocaleString("en")}`)],
    promises: often => `The shortlist holds ${often} of the labels that apply, on average, for inputs like those it was measured with.`,
    says,
    agrees: (own, answer) => own.labels.every(each => answer.labels.includes(each.label)),
    stands,
    together,
    stays: (own, answer) => own.without !== null && isSame(own.without, answer.labels),
    hangs: (own, answer) => own.without !== null && !isSame(own.without, answer.labels) && "would",
    without,
    record,
    merit: ({ micro_f1: score }) => score,
    counts: own => [["entropy", own.entropy.toFixed(2), "How undecided it is alone, in nats"], ["influence", nats(own.influence), "What the answer owes to it, in nats"]],
    options: table.options,
  };
}

function perhapsOf({ labels, prediction_set: set }) {
  const answered = new Set(labels);
  return (set?.labels ?? []).filter(each => !answered.has(each));
}

/** Count: 3 apply, perhaps 2 more. The other 74 are unlikely. */
function counted(answered, perhaps, all) {
  const others = all - answered - perhaps;
  const number = value => el("b", {}, value.toLocaleString("en"));
  const sure = answered ? [number(answered), answered > 1 ? " apply" : " applies"] : ["None is likely enough"];
  const maybe = perhaps ? [answered ? ", perhaps " : "; perhaps ", number(perhaps), answered ? " more" : perhaps > 1 ? " apply" : " applies"] : [];
  return [...sure, ...maybe, answered + perhaps === 0 ? "." : others > 1 ? `. The other ${others.toLocaleString("en")} are unlikely.` : others === 1 ? ". The other one is unlikely." : "."];
}

/** Say how sure it is: by how many labels are neither on both, the answer and the shortlist, nor off both. */
function unsure({ labels, prediction_set: set, entropy }, count) {
  if (!set) return certainty(entropy / (count * Math.LN2));
  const both = set.labels.filter(each => labels.includes(each)).length;
  const either = labels.length + set.labels.length - both;
  return certainty(either ? 1 - both / either : 0);
}

/** List what an input says by itself, first what the answer lacks. */
function says(own, answer) {
  if (!own.labels.length) return [el("strong", {}, "no label")];
  const labels = own.labels.map(each => each.label);
  return named([...labels.filter(each => !answer.labels.includes(each)), ...labels.filter(each => answer.labels.includes(each))], "strong");
}

/** Say how the labels of an input stand to those answered; "" where it names none. */
function stands(own, answer) {
  if (isSame(own.labels.map(each => each.label), answer.labels)) return "agrees";
  if (!own.labels.length) return "";
  return own.labels.every(each => answer.labels.includes(each.label)) ? "in part" : "differs";
}

/** Say how inputs that do not contradict the answer make it: [what is stressed, what follows]; null where each says all of it. */
function together(reply) {
  const names = Object.keys(reply.modalities);
  const whole = names.filter(name => stands(reply.modalities[name], reply) === "agrees");
  if (whole.length === names.length) return null;
  if (!whole.length) return ["They add up", "; none says all of it alone"];
  return ["", `${title(whole[0])} says all of it alone`];
}

/** Name what would be answered otherwise without an input. */
function without(name, own, { labels }) {
  if (!own.without) return null;
  const lost = labels.filter(each => !own.without.includes(each));
  const gained = own.without.filter(each => !labels.includes(each));
  if (!lost.length && !gained.length) return ["Without it: the same."];
  const missing = lost.length ? [...named(lost), " would not be given"] : [];
  const added = gained.length ? [...named(gained), " would be"] : [];
  return ["Without it, ", ...missing, ...(lost.length && gained.length ? ["; "] : []), ...added, lost.length ? "." : " given too."];
}

/** Name the first labels, each in an element, and count the others. */
function named(labels, element = "bdi") {
  const shown = labels.slice(0, SAID_SHOWN);
  const more = labels.length - shown.length;
  const before = i => (i === 0 ? "" : i === shown.length - 1 && !more ? " and " : ", ");
  return [...shown.flatMap((label, i) => [before(i), el(element, { dir: "auto" }, ...breakable(label))]), ...(more ? [` and ${more.toLocaleString("en")} more`] : [])];
}

/** Tell the record: of the labels given, how many are right, and of the right ones, how many are given. */
function record({ precision, fnr }, { count, name }) {
  const rows = name ? `, on ${count ? `${count.toLocaleString("en")} ` : ""}${name}` : "";
  const found = [el("b", { class: "whole" }, percent(1 - fnr)), " of the labels that apply"];
  if (fnr === undefined) return ["it was never tried with a label that applies", rows];
  if (fnr === 1) return ["it gave ", el("b", {}, "none"), " of the labels that apply", rows];
  if (precision === undefined) return ["it gave ", ...found, rows];
  return [el("b", { class: "whole" }, percent(precision)), " of the labels given were right, and it gave ", ...found, rows];
}

function isSame(some, others) {
  return some.length === others.length && some.every(each => others.includes(each));
}

/** Make a chip for each of the first labels, and count the others. */
function chips(labels, how, most) {
  const more = labels.length - most;
  return [...labels.slice(0, most).map(label => chip(label, how)), ...(more > 0 ? [el("li", { class: "none few" }, `and ${more.toLocaleString("en")} more`)] : [])];
}

function chip(label, how) {
  const perhaps = how === "perhaps";
  const meaning = perhaps ? "On the shortlist, but below its threshold" : "At or above its threshold";
  return el("li", { class: how, dir: "auto", title: meaning }, perhaps && el("span", { class: "unseen" }, "perhaps "), ...breakable(label), perhaps && el("span", { "aria-hidden": "true" }, "?"));
}
