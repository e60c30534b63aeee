// The form that says which column of a table is which input, before anything is sent.

import { button, el, hueOf, title } from "../dom.js";
import { count } from "../words.js";
import { BY_NAME, cellsByName, matchColumns, RowError, sampleMaker, usedColumns } from "./match.js";
import { fileFinder } from "./table.js";

const NAMED = 12; // columns that are named before the others are counted
const CHECKED = 5000; // rows whose cells are looked at before they are sent

/** Make the form. Args: start(make), called with the function that makes samples; close(). Returns elements. */
export function matchForm({ model, cards, table, files, notes, start, close }) {
  const { modalities } = model;
  const takes = name => cards.some(card => card.name === name && files.every(({ file }) => card.accepts(file)));
  const sources = matchColumns(modalities, table, takes);
  const find = fileFinder(files, table.name);
  const unused = el("p", { class: "hint" });
  const advice = el("p", { class: "advice", hidden: true });
  const maker = () => sampleMaker(sources, modalities, table.columns, find);
  const go = button(`Score ${count(table.rows.length, "row")}`, "play", () => start(maker()), { class: "button primary" });

  function describe() {
    const used = usedColumns(sources, modalities, table.columns);
    const left = table.columns.filter((_, i) => !used.has(i));
    unused.textContent = left.length ? `Not used: ${left.slice(0, NAMED).join(", ")}${left.length > NAMED ? ` and ${left.length - NAMED} more` : ""}.` : "Every column is used.";
    const names = Object.keys(modalities).map(name => `“${name}”`);
    advice.textContent = used.size ? firstFault(table, maker()) : `No column is called ${names.join(" or ")}. Say which column is which input.`;
    advice.hidden = !advice.textContent;
    go.disabled = !used.size;
  }
  const choices = Object.keys(modalities).map(name => {
    const byName = modalities[name].sent_as === "cells" ? cellsByName(name, modalities, table.columns).length : 0;
    const options = [["", "not in this table"], ...(byName ? [[BY_NAME, `${byName} of ${modalities[name].columns.length} columns, by name`]] : []), ...table.columns.map((column, i) => [i, column])];
    const changed = ({ target: { value } }) => {
      sources[name] = value === "" ? null : value === BY_NAME ? value : Number(value);
      describe();
    };
    const select = el("select", { onchange: changed }, ...options.map(([value, text]) => el("option", { value: String(value), selected: value === (sources[name] ?? "") }, text)));
    return el("label", { class: `match ${hueOf(model, name)}`, "data-match": name }, el("span", {}, title(name)), select);
  });
  describe();
  return [
    el("h3", {}, el("bdi", {}, table.name), `: ${count(table.rows.length, "row")}. Which column is which input?`),
    el("div", { class: "matches" }, ...choices),
    unused, notes && el("p", { class: "hint" }, notes), advice,
    el("div", { class: "tools row" }, go, button("Close", "clear", close, { class: "button quiet" })),
  ].filter(Boolean);
}

/** Say what the first row that cannot be sent lacks, so that it can be mended before. */
function firstFault(table, make) {
  for (const [i, { cells, problem }] of table.rows.slice(0, CHECKED).entries()) {
    try {
      if (!problem) make(cells);
      else return `Row ${i + 1} cannot be scored. ${problem}`;
    } catch (error) {
      if (error instanceof RowError) return `Row ${i + 1} cannot be scored. ${error.message}`;
      throw error;
    }
  }
  return "";
}
