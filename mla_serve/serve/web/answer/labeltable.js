// The table of labels: a bar with the threshold of each, its probability, and what each input says of it alone.

import { breakable, el, hueOf, percent, plain } from "../dom.js";

const FEWEST = 6; // rows always shown, so that nothing jumps as labels come and go
const BEYOND = 2; // rows below the shortlist, to compare with
const MOST = 12; // rows before one asks for all
const SEARCHED_FROM = 12; // labels
const MOST_ROWS = 100; // of those found; more would slow the live answer

/** Make the table. Returns {element, show(reply), options()}. */
export function labelTable(model, changed) {
  const count = model.labels.length;
  const head = el("tr", {});
  const body = el("tbody", {});
  const frame = el("div", { class: "label-table", tabIndex: 0, role: "group", "aria-label": "What is said of each label" }, el("table", {}, el("thead", {}, head), body));
  const filter = el("input", { type: "search", class: "filter", placeholder: "Find a label", "aria-label": "Find a label", autocomplete: "off", hidden: true, oninput: fill });
  const rest = el("span", {});
  const more = el("button", { type: "button", class: "link", "aria-expanded": "false", onclick: toggle });
  let [reply, all] = [null, false];

  function show(answer) {
    reply = answer;
    const inputs = Object.keys(reply.modalities);
    head.replaceChildren(el("th", { scope: "col" }, "Label"), el("th", { scope: "col", class: "value" }, inputs.length > 1 ? "All" : el("span", { class: "unseen" }, "Probability")));
    if (inputs.length > 1) head.append(...inputs.map(name => el("th", { scope: "col", class: `own ${hueOf(model, name)}` }, el("span", { class: "unseen" }, "by "), ...breakable(plain(name)))));
    fill();
  }
  function fill() {
    const { probabilities } = reply;
    if (all && probabilities.length < count) return changed(); // the others come with another answer
    const inSet = new Set(reply.prediction_set?.labels);
    const wanted = filter.value.trim().toLowerCase();
    const held = probabilities.filter(each => each.answered || inSet.has(each.label)).length;
    const few = Math.min(Math.max(FEWEST, held + BEYOND), MOST);
    const found = probabilities.map((each, at) => [each, at]).filter(([each]) => !all || each.label.toLowerCase().includes(wanted));
    const shown = found.slice(0, all ? MOST_ROWS : few);
    body.replaceChildren(...shown.map(([each, at]) => row(each, at, inSet.has(each.label), reply, model)));
    frame.classList.toggle("all", all);
    tell(shown, found.length);
  }
  function tell(shown, found) {
    const others = count - shown.length;
    more.hidden = !all && !others;
    more.textContent = all ? "Show fewer" : count < SEARCHED_FROM ? "Show them" : "Find a label";
    more.setAttribute("aria-expanded", String(all));
    if (all) rest.textContent = found > shown.length ? `${shown.length} of ${found.toLocaleString("en")} shown ` : found ? "" : "No label has this in its name ";
    else rest.textContent = others ? `${others.toLocaleString("en")} more, ${others > 1 ? "each " : ""}at most ${percent(shown.at(-1)[0].probability)}. ` : "";
  }
  function toggle() {
    all = !all;
    filter.value = "";
    filter.hidden = !all || count < SEARCHED_FROM;
    fill();
    if (all && !filter.hidden) filter.focus();
  }
  return {
    element: el("div", { class: "labels-body" }, filter, frame, el("p", { class: "hint" }, rest, more)),
    show,
    options: () => (all && count ? { top_k: count } : {}),
  };
}

function row({ label, probability, threshold, answered }, at, inSet, { modalities }, model) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${100 * probability}%`;
  const mark = el("span", { class: "threshold" });
  mark.style.left = `${100 * threshold}%`;
  const name = el("th", { scope: "row", title: `Given from ${percent(threshold)}` }, el("span", { class: "name", dir: "auto" }, ...breakable(label)), el("span", { class: "scale", "aria-hidden": "true" }, el("span", { class: "track" }, fill), mark));
  const inputs = Object.keys(modalities);
  return el("tr", { class: [answered && "best", inSet && "in-set"].filter(Boolean).join(" ") }, name, el("td", { class: "value" }, percent(probability)), ...(inputs.length > 1 ? inputs.map(each => own(each, modalities[each].probabilities[at]?.probability, model)) : []));
}

/** Make the cell of what an input alone says of a label, in a tint of its hue. */
function own(name, probability, model) {
  const whole = Math.round(100 * probability);
  const cell = el("td", { class: `own ${hueOf(model, name)}`, title: percent(probability) }, el("span", { "aria-hidden": "true" }, whole ? String(whole) : "–"), el("span", { class: "unseen" }, percent(probability)));
  cell.style.setProperty("--tint", `${Math.round(45 * probability)}%`);
  return cell;
}
