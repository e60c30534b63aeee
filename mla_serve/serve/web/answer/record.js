// The record: how good the answers were on the rows that the model was measured with, from exactly these inputs.

import { strangeInputs } from "./verdict.js";
import { el, plain } from "../dom.js";
import { joined } from "../words.js";

const MOST_NAMED = 4;
const SPLITS = { val: "validation" };

/** Look up what was measured with these inputs. Returns {scores, rows: {count, name}, likely: {score: [low, high]}}, or null. */
export function recordOf({ metrics, modalities, fusion }, names, rule) {
  const condition = Object.keys(modalities).filter(name => names.includes(name)).join("+");
  const scores = metrics?.conditions?.[condition]?.[rule];
  if (!scores) return null;
  const name = metrics.fitted ? "rows that it was fitted to" : metrics.held_out ? "rows held out of training" : `${SPLITS[metrics.split] ?? metrics.split ?? "measured"} rows`;
  return { scores, rows: { count: metrics.condition_rows?.[condition], name }, likely: (rule === fusion.default && metrics.intervals?.[condition]) || {} }; // measured for that rule only
}

/** Make the line that tells the record. */
export function recordLine(model, view) {
  const element = el("p", { class: "record" });

  function show(reply) {
    const names = Object.keys(reply.modalities);
    const found = recordOf(model, names, reply.fusion);
    element.hidden = !found;
    if (!found) return;
    const what = names.length > MOST_NAMED ? `these ${names.length} inputs` : joined(names.map(plain));
    const given = `${what}${names.length === 1 && reply.missing.length ? " alone" : ""}`;
    const strange = strangeInputs(reply).length > 0; // the rows were like the training data
    element.replaceChildren(strange ? `On inputs like the training data, with ${given}, ` : `With ${given} `, ...view.record(found.scores, found.rows, found.likely), ". ", el("a", { href: "report" }, "Report"));
  }
  return { element, show };
}
