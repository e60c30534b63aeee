// The shortlist or the range that is promised to hold the truth, how often, and the warning where that promise does not hold.

import { strangeInputs } from "./verdict.js";
import { el, plain } from "../dom.js";
import { joined } from "../words.js";

export const OFTEN = [[0.8, "8 in 10"], [0.9, "9 in 10"], [0.95, "95 in 100"], [0.99, "99 in 100"]];
const USUAL = 0.9;

/** Make what stands above and below the view's body. Returns {head, foot, show(reply), options(rule), choose(options)}. */
export function promiseRow(model, view, changed) {
  const offered = model.coverage ?? {};
  const what = el("h3", { class: "promised" });
  const condition = el("p", { class: "hint condition" });
  const often = el("select", { "aria-label": `How often the ${view.promised} is to be right`, onchange: changed }, ...OFTEN.map(([value, text]) => el("option", { value, selected: value === USUAL }, text)));
  const offers = Object.keys(offered).length > 0;

  function show(reply) {
    const said = view.promise(reply);
    what.replaceChildren(...(said ?? [`No ${view.promised} under this rule`]));
    const strange = strangeInputs(reply);
    const coverage = (reply.prediction_set ?? reply.interval)?.coverage;
    const words = OFTEN.find(([value]) => value === coverage)?.[1];
    condition.hidden = !said;
    condition.classList.toggle("strange", strange.length > 0);
    condition.textContent = strange.length
      ? `Do not rely on ${words} here: it was measured on inputs like the training data, and ${joined(strange.map(plain))} ${strange.length > 1 ? "are" : "is"} not.`
      : view.promises(words);
  }
  return {
    head: el("div", { class: "row promise", hidden: !offers }, what, often),
    foot: condition,
    show,
    choose: ({ coverage }) => (often.value = coverage ?? USUAL),
    options: rule => (offers && rule in offered ? { coverage: Number(often.value) } : {}),
  };
}
