// The answers to a table's rows: a table on the page, and a file.

import { writer } from "../answer/decimals.js";
import { breakable, el, percent, title } from "../dom.js";
import { csvLine, harmless } from "./csv.js";

const SHOWN = 100; // rows
const LONGEST = 80; // characters of a cell that is shown
const [BLANK] = breakable(""); // how a label that shows nothing is written
const NOT_SCORED = { problem: "not scored" };

// By task: the columns of its answers. They have the names that `mla-serve predict --table` gives them. `bounds` are
// those of a shortlist or range that was asked for; truths, names of columns that say which answer is right;
// options, those of the request that make replies short.
const ANSWERS = {
  classes: {
    columns: { label: reply => reply.label, probability: reply => reply.probability },
    bounds: { prediction_set: reply => JSON.stringify(reply.prediction_set.labels) },
    truths: ["label", "truth"],
    options: { top_k: 1 },
  },
  labels: {
    columns: { labels: reply => JSON.stringify(reply.labels) },
    bounds: { prediction_set: reply => JSON.stringify(reply.prediction_set.labels) },
    options: { top_k: 1 },
  },
  number: {
    columns: { value: reply => reply.value, deviation: reply => reply.deviation },
    bounds: { interval_low: reply => reply.interval.low, interval_high: reply => reply.interval.high },
  },
};
const HEADS = { prediction_set: "Shortlist", interval_low: "Range from", interval_high: "Range to", missing: "Not sent" };
const visible = label => (breakable(label)[0] === BLANK ? BLANK : label);
const SHOWN_AS = {
  label: visible,
  probability: percent,
  labels: list => JSON.parse(list).map(visible).join(", ") || "no label",
  prediction_set: list => JSON.parse(list).map(visible).join(", ") || "no label",
  missing: list => JSON.parse(list).map(title).join(", "),
};

/** Name the columns of the answers. Args: bounds, whether a shortlist or range was asked for. */
export function answerColumns(task, bounds) {
  const { columns, bounds: asked } = ANSWERS[task];
  return { ...columns, ...(bounds && asked), missing: reply => JSON.stringify(reply.missing) };
}

/** Choose the options of a request for a table: those of the page, and those that make replies short. */
export function optionsOf(task, { fusion, coverage }) {
  return JSON.parse(JSON.stringify({ fusion, coverage, ...ANSWERS[task].options })); // without what is undefined
}

/** Count the rows whose answer is the one that a column of the table names: {column, right, of}, or null. */
export function countRight(task, table, results) {
  const column = ANSWERS[task].truths?.map(name => table.columns.indexOf(name)).find(index => index >= 0);
  if (column === undefined) return null;
  const known = table.rows.flatMap(({ cells }, i) => (results[i]?.cells && `${cells[column] ?? ""}`.trim() ? [[`${cells[column]}`.trim(), results[i].cells[0]]] : []));
  return known.length ? { column: table.columns[column], right: known.filter(([truth, label]) => truth === label).length, of: known.length } : null;
}

/** Make the table of the first rows: number, answer or problem, and the table's own columns. */
export function resultsTable({ number }, table, names, results) {
  const kept = names.filter(name => name !== "deviation"); // it says how many digits a value has; the file holds it
  const heads = ["Row", ...kept.map(name => HEADS[name] ?? title(name))].map(text => el("th", { scope: "col" }, text));
  const owns = table.columns.map(name => el("th", { scope: "col", class: "own" }, name));
  const rows = table.rows.slice(0, SHOWN).map(({ cells }, i) => {
    const { cells: answer, problem } = results[i] ?? NOT_SCORED;
    const digits = answer && number && writer(number, answer[names.indexOf("deviation")]);
    const write = name => written(name, answer[names.indexOf(name)], digits);
    const shown = answer ? kept.map(name => el("td", { class: `of-${name}`, dir: "auto" }, ...(write(name) ? breakable(write(name)) : []))) : [el("td", { class: "problem", colSpan: kept.length }, el("div", {}, problem))];
    return el("tr", {}, el("th", { scope: "row" }, String(i + 1)), ...shown, ...table.columns.map((_, at) => el("td", { class: "own", dir: "auto" }, cut(textOf(cells[at])))));
  });
  const element = el("table", { class: "results" }, el("thead", {}, el("tr", {}, ...heads, ...owns)), el("tbody", {}, ...rows));
  const rest = table.rows.length - rows.length;
  return [
    el("div", { class: "results-box", tabIndex: 0, role: "region", "aria-label": "Answers by row" }, element),
    rest > 0 && el("p", { class: "hint" }, `${rest.toLocaleString("en")} more rows are in the download.`),
  ].filter(Boolean);
}

function written(name, cell, digits) {
  if (cell === null || cell === undefined) return "";
  return cut(String(SHOWN_AS[name]?.(cell) ?? (typeof cell === "number" ? digits(cell) : cell)));
}

/** Write the file: the table's own columns, then those of the answers; one of the same name is called own_NAME, as the command does. */
export function* resultLines(table, names, results) {
  const added = [...names, "problem"];
  const used = new Set(added);
  // The cells of a CSV stay as they are; what becomes CSV only here must not become a formula.
  const safe = table.isCsv ? text => text : harmless;
  const own = table.columns.map(column => {
    let name = safe(column);
    while (used.has(name)) name = `own_${name}`;
    used.add(name);
    return name;
  });
  yield csvLine([...own, ...added], table.separator);
  for (const [i, { cells }] of table.rows.entries()) {
    const { cells: answer = [], problem = "" } = results[i] ?? NOT_SCORED;
    yield csvLine([...own.map((_, at) => safe(textOf(cells[at]))), ...names.map((_, at) => harmless(answer[at])), harmless(problem)], table.separator);
  }
}

function textOf(cell) {
  return cell === undefined || cell === null ? "" : typeof cell === "object" ? JSON.stringify(cell) : String(cell);
}

const cut = text => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
