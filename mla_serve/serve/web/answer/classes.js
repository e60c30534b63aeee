// The answer of a model of classes: the most probable one, the probability of each, and the shortlist as a band on the bars.

import { barList } from "./bars.js";
import { breakable, el, percent } from "../dom.js";
import { fittedLabel } from "./label.js";
import { nats, spelled } from "../words.js";

const FEWEST_BARS = 4; // always shown, so that nothing jumps as the shortlist grows
const MOST_BARS = 8; // of a longer shortlist
const SURE = 0.95;
const FAIRLY_SURE = 0.75;
const GUESSED = 0.25; // of the way from chance to certainty
const LONG = 20; // letters of a label that is not repeated for each input
const FEW = 5; // classes that one is unsure between

/** Make the view of answers that are one of several classes. */
export function classesView({ classes }, { verdict, changed }) {
  const probability = el("p", { class: "probability" });
  const facts = el("div", {}, probability, verdict);
  const label = fittedLabel(facts);
  const bars = barList();
  const more = el("button", { type: "button", class: "link", "aria-expanded": "false", onclick: toggle });
  let [reply, all] = [null, false];

  function empty(heading) {
    label.show("?");
    probability.textContent = heading;
  }
  function show(answer) {
    reply = answer;
    label.show(answer.label);
    probability.textContent = percent(answer.probability);
    fillBars();
  }
  /** List the shortlist, or its first labels; the others are counted. */
  function fillBars() {
    const inSet = new Set(reply.prediction_set?.labels);
    const wanted = Math.max(FEWEST_BARS, all ? inSet.size : Math.min(inSet.size, MOST_BARS));
    if (all && reply.probabilities.length < Math.min(wanted, classes.length)) return changed(); // they come with another answer
    const shown = reply.probabilities.slice(0, wanted);
    bars.show(shown.map(each => ({ name: each.label, share: each.probability, best: each.label === reply.label, inSet: inSet.has(each.label) })), rest(shown, inSet), all && inSet.size > MOST_BARS);
  }
  function rest(shown, inSet) {
    const others = classes.length - shown.length;
    if (!others) return [];
    const left = Math.max(0, 1 - shown.reduce((sum, each) => sum + each.probability, 0));
    const listed = inSet.size - shown.filter(each => inSet.has(each.label)).length;
    more.textContent = all ? "Show fewer" : "Show them";
    more.setAttribute("aria-expanded", String(all));
    const text = `${others.toLocaleString("en")} ${others > 1 ? "others, together" : "other,"} ${percent(left)}`;
    return [text, ...(listed ? [`; ${listed.toLocaleString("en")} of them on the shortlist. `] : [" "]), ...(inSet.size > MOST_BARS ? [more] : [])];
  }
  function toggle() {
    all = !all;
    fillBars();
  }
  function unsure({ probability: p, prediction_set: set }) {
    if (p >= SURE) return "Sure";
    if (p >= FAIRLY_SURE) return "Fairly sure";
    const chance = 1 / classes.length;
    const word = (p - chance) / (1 - chance) < GUESSED ? "Guessing" : "Unsure";
    const among = set?.labels.length;
    return among > 1 && among <= FEW && among < classes.length ? `${word} between ${spelled(among)}` : word;
  }
  const withoutIt = (own, { probability: p }) => p * Math.exp(-own.influence);

  return {
    headline: [label.element, facts],
    body: bars.element,
    empty,
    show,
    unsure,
    short: answer => [answer.label, percent(answer.probability)],
    promised: "shortlist",
    promise: ({ prediction_set: set }) => set && ["Shortlist: ", ...held(set.labels, classes.length)],
    promises: often => `The shortlist holds the right answer ${often} times, on average, for inputs like those it was measured with.`,
    says: own => [el("strong", { dir: "auto" }, ...breakable(own.label)), el("span", { class: "whole" }, ` · ${percent(own.probability)}`)],
    agrees: (own, answer) => own.label === answer.label,
    stays: (own, answer) => withoutIt(own, answer) >= FAIRLY_SURE,
    hangs: (own, answer) => (withoutIt(own, answer) < 1 / classes.length ? "would" : withoutIt(own, answer) < 0.5 && "might"), // more than half cannot be exceeded, less than chance is
    without: (name, own, answer) => {
      const left = percent(withoutIt(own, answer));
      if (left === percent(answer.probability)) return ["Without it: the same."];
      return ["Without it, ", answer.label.length > LONG ? "the answer" : el("bdi", {}, ...breakable(answer.label)), ` would have ${left}.`];
    },
    record,
    merit: ({ accuracy }) => accuracy,
    counts: own => [["entropy", own.entropy.toFixed(2), "How undecided it is alone, in nats"], ["influence", nats(own.influence), "What the answer owes to it, in nats"]],
    options: () => (all && reply?.prediction_set ? { top_k: reply.prediction_set.labels.length } : {}),
  };
}

function held(labels, count) {
  if (labels.length === 1) return [el("b", {}, "only ", el("bdi", {}, ...breakable(labels[0])))];
  return [el("b", {}, labels.length === count ? `all ${count.toLocaleString("en")}` : `${labels.length.toLocaleString("en")} of ${count.toLocaleString("en")}`)];
}

function record({ accuracy }, { count, name }, { accuracy: likely }) {
  const whole = count && accuracy === 1;
  const right = whole ? `${count.toLocaleString("en")} of ${count.toLocaleString("en")}` : percent(accuracy);
  const of = name ? (whole ? ` ${name}` : ` of ${count ? `${count.toLocaleString("en")} ` : ""}${name}`) : "";
  const range = likely && accuracy < 1 ? ` (likely ${percent(likely[0])} to ${percent(likely[1])})` : "";
  return ["it was right on ", el("b", { class: "whole" }, right), `${of}${range}`];
}
