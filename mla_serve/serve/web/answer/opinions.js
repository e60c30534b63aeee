// One row for each input: what it says by itself and what the answer owes to it; or that it was not sent, and what it would add.

import { recordOf } from "./record.js";
import { isUnwritten } from "./shares.js";
import { strangeInputs } from "./verdict.js";
import { el, hueOf, percent, plain, title } from "../dom.js";
import { joined } from "../words.js";

const MOST_GHOSTS = 3; // rows of inputs that were not sent; more share one row

/** Make the rows, in the order of the model's inputs. Args: visit(name), leads to the card of an input. */
export function opinionList(model, view, visit) {
  const element = el("ul", { class: "opinions", "aria-label": "What each input says", hidden: Object.keys(model.modalities).length === 1 });

  function show(reply) {
    const strange = new Set(strangeInputs(reply));
    const { missing } = reply;
    const rows = Object.keys(model.modalities).map(name => {
      const own = reply.modalities[name];
      if (own) return opinion(name, own, reply, strange.has(name), model, view);
      return missing.length <= MOST_GHOSTS && ghost([name], worthOf(name, reply, model, view), visit);
    });
    if (missing.length > MOST_GHOSTS) rows.push(ghost(missing, best(missing.map(name => worthOf(name, reply, model, view))), visit));
    element.replaceChildren(...rows.filter(Boolean));
  }
  return { element, show };
}

function opinion(name, own, reply, strange, model, view) {
  const alone = Object.keys(reply.modalities).length === 1;
  const agrees = alone || view.agrees(own, reply);
  const stands = alone ? "" : (view.stands?.(own, reply) ?? (agrees ? "agrees" : "differs"));
  const lost = discounted(name, reply, model);
  return el(
    "li", { "data-opinion": name, class: hueOf(model, name) },
    el("div", { class: "who" }, el("span", { class: "name" }, title(name)), el("span", { class: "says" }, "says ", ...view.says(own, reply), stands && el("span", { class: `mark ${agrees ? "yes" : "no"}` }, stands))),
    el("p", { class: "hint" }, strange && el("span", { class: "strange" }, `Stranger than ${most(own.unfamiliarity)} known inputs${lost ? ", so it counts for less" : ""}. `), !alone && isUnwritten(name, reply.modalities) && `Its share: ${percent(own.weight)}. `, ...(alone ? ["The only thing sent."] : (view.without(name, own, reply) ?? []))),
  );
}

/** Write a share of nearly all. */
function most(share) {
  if (share === 1) return "all";
  return share > 0.9995 ? "nearly all" : `${percent(share)} of`;
}

/** Whether the rule listens less to this input the stranger it is. */
function discounted(name, { fusion }, model) {
  return fusion === "calibrated" && model.fusion.fitted.discounts?.[name] > 0;
}

/** Make the row of inputs that were not sent. Args: worth, {name, said, better}, what adding one is worth, or null; better is null where it cannot be compared. */
function ghost(names, worth, visit) {
  const target = worth?.name ?? names[0];
  return el(
    "li", { class: "ghost", "data-ghost": names.join(" ") },
    el("div", { class: "who" }, el("span", { class: "name" }, title(joined(names.map(plain)))), el("span", { class: "says" }, "not sent")),
    el("p", { class: "hint" }, ...(worth ? [names.length > 1 && worth.better ? `${title(target)} would help most: with it, ` : `With ${plain(target)} too, `, ...worth.said, worth.better === false ? ", no better than without it. " : ". "] : []), el("button", { type: "button", class: "link", onclick: () => visit(target) }, `Add ${plain(target)}`)),
  );
}

function worthOf(name, reply, model, view) {
  const found = recordOf(model, [...Object.keys(reply.modalities), name], reply.fusion);
  if (!found) return null;
  const [now, merit] = [recordOf(model, Object.keys(reply.modalities), reply.fusion), view.merit(found.scores)];
  const alike = now && now.rows.count === found.rows.count; // records of other rows are not compared
  const better = alike ? merit > view.merit(now.scores) : null;
  return { name, said: view.record(found.scores, { count: found.rows.count }, {}), merit, better };
}

function best(worths) {
  return worths.filter(Boolean).reduce((top, each) => (top && top.merit >= each.merit ? top : each), null);
}
