// A table, or a folder of files, scored through POST /predict/batch. This file is fetched when the first one is chosen.

import { RequestError } from "../ask.js";
import { button, el, title } from "../dom.js";
import { count, joined } from "../words.js";
import { TableError } from "./csv.js";
import { isTable } from "./files.js";
import { matchForm } from "./matchform.js";
import { answerColumns, countRight, optionsOf, resultLines, resultsTable } from "./results.js";
import { scoreRows } from "./send.js";
import { tableOf } from "./table.js";

const WRITTEN = 2000; // rows at once

/** Score what is chosen, one table at a time. Args: stage, where it is shown; say(text, failed); options(), those of the request. Returns open(files), which takes [{path, file}]. */
export function batch(stage, say, model, cards, options) {
  let running = new AbortController();

  /** Show the next step; who pressed a button of the last one goes on at the first of this one. */
  function show(...elements) {
    const pressed = stage.contains(document.activeElement);
    stage.replaceChildren(...elements);
    if (pressed) stage.querySelector("button, select")?.focus({ preventScroll: true });
  }
  function close() {
    running.abort();
    say("");
    stage.replaceChildren();
  }
  /** Read a table, and show which column is which input. */
  async function open(files) {
    close();
    const { signal } = (running = new AbortController());
    try {
      const { table, files: read, notes } = await readTable(files, cards, share => {
        signal.throwIfAborted();
        say(`Reading the table: ${Math.floor(100 * share)} %`);
      });
      if (signal.aborted) return;
      say("");
      show(...matchForm({ model, cards, table, files: read, notes, close, start: make => score(begin(table, make)) }));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof TableError) && error.name !== "NotReadableError") throw error;
      say(error instanceof TableError ? error.message : "The file cannot be read any more. Choose it again.", true);
    }
  }
  /** Fix what holds for all rows of a table, also of those that are scored after a stop: one file has one rule and the same columns. */
  function begin(table, make) {
    const asked = optionsOf(model.task, options());
    return { table, make, asked, columns: Object.entries(answerColumns(model.task, "coverage" in asked)), models: new Set(), results: [] };
  }
  /** Score the rows that have no result yet. */
  async function score(run) {
    const { table, make, asked, columns, models, results } = run;
    const { signal } = (running = new AbortController());
    const progress = progressOf(table, results);
    const put = (row, result) => {
      results[row] = result;
      progress.add(result);
    };
    show(...progress.elements, el("div", { class: "tools row" }, button("Cancel", "stop", () => running.abort())));
    say(`Scoring ${table.name}`);
    table.rows.forEach(({ problem }, row) => problem && !results[row] && put(row, { problem }));
    let failure = "";
    try {
      await scoreRows({
        rows: [...table.rows.keys()].filter(row => !results[row]),
        make: row => make(table.rows[row].cells), options: asked, limits: model.limits, signal, waiting: progress.wait,
        answered(row, reply, problem) {
          if (reply) models.add(reply.model.sha256);
          put(row, problem ? { problem } : { cells: columns.map(([, cell]) => cell(reply)) });
        },
      });
    } catch (error) {
      if (!(error instanceof RequestError) && error.name !== "AbortError") throw error;
      if (!stage.contains(progress.elements[0])) return; // it was closed, or another table is open
      failure = error instanceof RequestError ? error.message : "You stopped it.";
    }
    finish(run, failure);
  }
  function finish(run, failure) {
    const { table, asked, columns, models, results } = run;
    const names = columns.map(([name]) => name);
    const [answered, faulty] = [results.filter(each => each.cells).length, results.filter(each => each.problem).length];
    const left = table.rows.length - answered - faulty;
    const right = countRight(model.task, table, results);
    const others = JSON.stringify(optionsOf(model.task, options())) !== JSON.stringify(asked);
    say([
      failure,
      `${answered.toLocaleString("en")} of ${count(table.rows.length, "row")} answered${faulty ? `, ${faulty.toLocaleString("en")} with a problem` : ""}.`,
      right && `Right by the column “${right.column}”: ${right.right.toLocaleString("en")} of ${right.of.toLocaleString("en")}.`,
      models.size > 1 && "The model was replaced meanwhile, so not all answers are of the same one.",
      others && "These answers have the settings that they began with. For other settings, choose the table again.",
    ].filter(Boolean).join(" "), Boolean(failure));
    show(
      el("div", { class: "tools row" },
        answered + faulty > 0 && button("Download the answers", "download", () => save(table, names, results), { class: "button primary" }),
        left > 0 && button(`Score the other ${left.toLocaleString("en")}`, "play", () => score(run)),
        button("Close", "clear", close, { class: "button quiet" })),
      ...resultsTable(model, table, names, results),
    );
  }
  return open;
}

/** Read the table among files; without one, the files that the cards take are its rows. */
async function readTable(files, cards, progress) {
  const hasTable = files.some(({ path }) => isTable(path));
  const read = hasTable ? files : files.filter(({ file }) => cards.some(card => card.accepts(file)));
  if (!read.length) throw new TableError(`Nothing in it can be scored: there is no table (CSV, TSV or JSONL), and no file that ${joined(cards.map(card => title(card.name)))} could be.`);
  const table = await tableOf(read, progress);
  const left = files.length - read.length;
  const notes = [
    table.encoding === "windows-1252" && "It is not in UTF-8, so it was read as Windows-1252.",
    table.others?.length && `Left out: ${joined(table.others)}, since one table is scored at a time.`,
    left > 0 && `Left out: ${count(left, "file")} that this model does not read.`,
  ];
  return { table, files: read, notes: notes.filter(Boolean).join(" ") };
}

/** Make what shows how far it is: {elements, add(result), wait(text)}. */
function progressOf(table, results) {
  const bar = el("progress", { max: table.rows.length, value: 0, "aria-label": "Rows that are done" });
  const text = el("p", {});
  const busy = el("p", { class: "hint" });
  let [done, faulty] = [0, 0];
  const add = ({ problem }) => {
    bar.value = done += 1;
    faulty += problem ? 1 : 0;
    text.textContent = `${done.toLocaleString("en")} of ${count(table.rows.length, "row")}${faulty ? `, ${faulty.toLocaleString("en")} with a problem` : ""}`;
  };
  results.forEach(add);
  return { elements: [bar, text, busy], add, wait: reason => (busy.textContent = reason) };
}

async function save(table, names, results) {
  const parts = ["\ufeff"]; // the mark of UTF-8: spreadsheets would read it as something else
  let piece = [];
  for (const line of resultLines(table, names, results)) {
    piece.push(line);
    if (piece.length < WRITTEN) continue;
    parts.push(piece.join(""));
    piece = [];
    await new Promise(done => setTimeout(done)); // lets the page go on
  }
  parts.push(piece.join(""));
  const url = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
  const name = table.name.split("/").at(-1).replace(isTable(table.name) ? /\.\w+$/ : "", "");
  el("a", { href: url, download: `${name}.answers.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
