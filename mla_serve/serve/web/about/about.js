// About this model: what it is for, how often it is right, what not to use it for, what it was made from.

import { combinations } from "./combinations.js";
import { nodesOf } from "./markup.js";
import { fill, section } from "./shell.js";
import { tiles } from "./tiles.js";
import { el } from "../dom.js";
import { purposeOf } from "../purpose.js";

const PARAGRAPHS = 2; // of the text on the data
const SPLITS = { train: "for training", val: "to tune", test: "to test" };

fill("About this model", (model, texts) => ({
  heading: [model.name],
  lede: texts.purpose ? nodesOf(texts.purpose) : [el("p", {}, ...purposeOf(model))],
  content: [
    tiles(model),
    el("div", { class: `halves${texts.limits.length ? " told" : ""}` }, combinations(model), limits(texts), origin(model, texts)),
  ],
}));

function limits(texts) {
  const nothing = el("p", { class: "hint" }, "Nothing was written down. Whoever trains the model can: ", el("code", {}, "mla-serve train --about FILE"), ".");
  return section("Do not use it for", texts.limits.length ? el("ul", { class: "limits" }, ...texts.limits.map(limit => el("li", {}, ...nodesOf(limit)))) : nothing);
}

function origin(model, texts) {
  const facts = [
    ["Rows", rows(model.rows)],
    ["Data", texts.data && (texts.card ? brief(nodesOf(texts.data)) : nodesOf(texts.data))],
    ["Licence", texts.licence && nodesOf(texts.licence)],
    ["Made", made(model.trained, model.versions.trained.mla_serve)],
    ["Fitted again", fittedAgain(model)],
    ["Version", [el("code", {}, model.sha256.slice(0, 12))]],
    ["More", more(model, texts)],
  ];
  const given = facts.filter(([, value]) => value?.length);
  const unsaid = !texts.data && el("p", { class: "hint" }, "Where the data come from, and their licence, were not written down.");
  return section("Made from", el("dl", {}, ...given.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, ...value)])), unsaid);
}

/** Keep the first paragraphs of a long text; the card has all of it. None that is kept leads to one that is not. */
function brief(nodes) {
  const blocks = nodes.filter(node => node.nodeType === Node.ELEMENT_NODE);
  const end = blocks.findIndex(node => node.nodeName !== "P");
  const kept = blocks.slice(0, Math.min(end < 0 ? blocks.length : end, PARAGRAPHS));
  if (kept.length === blocks.length) return kept;
  while (kept.at(-1)?.textContent.trim().endsWith(":")) kept.pop();
  const what = blocks.slice(kept.length).some(node => node.querySelector("table")) ? "All of it, with a table," : "All of it";
  return [...kept, el("p", {}, `${kept.length ? what : "It"} is in the `, el("a", { href: "card" }, "model card"), ".")];
}

function rows(counts) {
  const parts = Object.entries(SPLITS).filter(([split]) => split in counts).map(([split, use]) => `${counts[split].toLocaleString("en")} ${use}`);
  return parts.length ? [parts.join(", ")] : [];
}

function made(date, version) {
  const day = new Date(date);
  const told = Number.isNaN(day.getTime()) ? [] : [el("time", { datetime: date }, day.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" }))];
  return [...told, ...(version ? [`${told.length ? ", " : ""}with mla_serve ${version}`] : [])];
}

/** Say that its probabilities are younger than its graphs. */
function fittedAgain({ fitted_again: again }) {
  return again && [...made(again.date, again.mla_serve), `, to ${again.rows.toLocaleString("en")} rows`];
}

/** Link to the report, the card and the JSON, which a browser gets as a file: at its own path it is given this page. */
function more(model, texts) {
  const json = URL.createObjectURL(new Blob([JSON.stringify(model, null, 1)], { type: "application/json" }));
  const links = [texts.report && el("a", { href: "report" }, "report"), texts.card && el("a", { href: "card" }, "model card"), el("a", { href: json, download: `${model.name}.json` }, "all of this as JSON")];
  return links.filter(Boolean).flatMap((link, i) => (i ? [", ", link] : [link]));
}
