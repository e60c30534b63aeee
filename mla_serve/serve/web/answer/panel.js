// The answer, told: what it is and whether to believe it, its record, what each input says, the shortlist; numbers are folded.

import { numbersFold } from "./numbers.js";
import { opinionList } from "./opinions.js";
import { promiseRow } from "./promise.js";
import { recordLine } from "./record.js";
import { sharesBar } from "./shares.js";
import { fillVerdict } from "./verdict.js";
import { button, el, plain, title } from "../dom.js";
import { joined } from "../words.js";

// By task: what draws its answers, fetched when the model has the task. Called with the model and {verdict, changed}: `verdict` is a line that the panel fills and
// the view places, `changed` asks for another answer. A view is {
//   headline, body: elements,
//   empty(heading), show(reply),
//   unsure(reply): how sure it is, in words,
//   short(reply): [main, side], texts for where there is little room,
//   promise(reply): nodes about the shortlist or the range; null under a rule that has none,
//   promises(often): a sentence, what "9 in 10" means,
//   promised: what a promise is about, such as "shortlist",
//   says(own, reply): nodes, what an input answers by itself,
//   agrees(own, reply): whether that is the answer,
//   stands(own, reply): the same in a word or two, "" for nothing; may be missing,
//   together(reply): how inputs that all agree make the answer, [what is stressed, what follows]; null for the usual; may be missing,
//   stays(own, reply): whether the answer would be the same without this input, and at least fairly sure,
//   hangs(own, reply): "would" or "might", where without this input the answer would or might be another; may be missing,
//   without(name, own, reply): nodes, what would be answered without it; null where nothing is known,
//   record(scores, {count, name}, likely): nodes, such as "it was right on 99.0 % of 500 test rows"; count, of rows, and name
//     may be missing; likely: {score: [low, high]},
//   merit(scores): a number, the higher the better,
//   counts(own): [[name, text, meaning]], numbers of an opinion,
//   options(): options of the request; may be missing }.
const VIEWS = {
  classes: async () => (await import("./classes.js")).classesView,
  labels: async () => (await Promise.all([import("./labels.js"), styled("labels.css")]))[0].labelsView,
  number: async () => (await Promise.all([import("./number.js"), styled("number.css")]))[0].numberView,
};
const ANNOUNCE_AFTER_MS = 600;

/** Fetch the styles of a view, of which a page needs one. */
function styled(path) {
  const link = el("link", { rel: "stylesheet", href: new URL(path, import.meta.url).href });
  document.head.append(link);
  return new Promise((done, failed) => Object.assign(link, { onload: done, onerror: failed }));
}

/** Make the answer's panel. Args: cardOf(name), the card of an input, to lead to it and to leave it out. Returns a promise of {show(reply), empty(), fail(error, name), stale(), options(), choose(options), view, foot}. */
export async function answerPanel(panel, model, { changed, retry, cardOf }) {
  const verdict = el("p", { class: "verdict" });
  const makeView = await VIEWS[model.task]();
  const view = makeView(model, { verdict, changed });
  const notice = el("div", { class: "notice", role: "alert", hidden: true });
  const spoken = el("p", { class: "unseen", role: "status" });
  const shares = sharesBar(model);
  const opinions = opinionList(model, view, name => cardOf(name).focus());
  const record = recordLine(model, view);
  const promise = promiseRow(model, view, changed);
  const numbers = numbersFold(model, view, changed);
  const foot = el("div", { class: "foot" });
  const details = el("div", { class: "details" }, record.element, shares.element, opinions.element, promise.head, view.body, promise.foot, foot, numbers.element);
  const bar = el("a", { class: "answer-bar", href: "#answer", "aria-hidden": "true", tabIndex: -1, hidden: true });
  panel.append(el("h2", { class: "unseen" }, "Answer"), notice, el("div", { class: "headline" }, ...view.headline), spoken, details);
  document.body.append(bar);
  let announcement;

  /** Show that there is no answer. */
  function none(heading, advice) {
    panel.classList.remove("stale");
    panel.classList.add("empty");
    view.empty(heading);
    verdict.textContent = advice;
    details.hidden = true;
  }
  function empty() {
    none("Nothing there yet", Object.keys(model.modalities).length > 1 ? "Fill in any of the inputs, one is enough." : "Fill in the input.");
    notice.hidden = true;
    bar.hidden = true;
    announce("");
  }
  function show(reply) {
    panel.classList.remove("stale", "empty");
    notice.hidden = true;
    details.hidden = false;
    view.show(reply);
    const inShort = fillVerdict(verdict, reply, view);
    for (const part of [record, shares, opinions, promise, numbers]) part.show(reply);
    const [main, side] = view.short(reply);
    tell(main, [side, inShort].filter(Boolean).join(" · "));
    announce(`${main}, ${side}. ${verdict.textContent} From ${joined(Object.keys(reply.modalities).map(plain))}.`);
  }
  /** Show a problem. Args: name, the input at fault, if it is one. An answer to other inputs stays only while one tries again. */
  function fail(error, name) {
    const waits = error.retryAfter && !panel.classList.contains("empty");
    notice.replaceChildren(el("p", {}, error.message, waits ? " The answer below is to what you sent before." : ""));
    notice.hidden = false;
    if (error.retryAfter) notice.append(button("Try again now", "again", retry));
    if (waits) return panel.classList.add("stale");
    const spare = name && Object.keys(model.modalities).length > 1;
    if (spare) notice.append(button("Leave it out", "clear", () => cardOf(name).use(false)));
    none("No answer", spare ? "Correct it, or leave it out and be answered from the others." : "");
    tell("No answer", name ? `${title(name)} cannot be used` : "");
    announce("");
  }
  function tell(main, side) {
    bar.replaceChildren(el("strong", { dir: "auto" }, main), el("span", {}, side));
    bar.hidden = false;
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
    options: () => ({ ...view.options?.(), ...numbers.options(), ...promise.options(numbers.rule()) }),
    choose(options) {
      numbers.choose(options);
      promise.choose(options);
    },
    view,
    foot,
  };
}
