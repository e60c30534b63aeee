// Read and write CSV as RFC 4180 has it, in pieces, so that a large file does not freeze the page.

const CANDIDATES = [",", ";", "\t"];
const PIECE = 2 ** 18; // bytes that are decoded and parsed at once
const FORMULA = /^[=+\-@\t\r]/; // how a text starts that a spreadsheet runs
const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

/** A table that cannot be read; its message is for the person in front of the page. */
export class TableError extends Error {}

/** Make a reader that is given text in pieces. push and end return the rows that are complete, each a list of texts. */
export function csvReader(separator) {
  let rows = [];
  let row = [];
  let cell = "";
  let state = "start"; // of a cell; then plain or quoted; closed: behind a quote that may have ended the cell
  let line = 1;
  let opened = 0; // line of the last opening quote
  let returned = false; // whether the last piece ended with a carriage return

  function endRow() {
    row.push(cell);
    if (row.length > 1 || cell !== "" || state === "closed") rows.push(row); // not the empty lines
    [row, cell, state] = [[], "", "start"];
  }
  function take() {
    const complete = rows;
    rows = [];
    return complete;
  }
  function push(text) {
    let at = 0;
    if (returned && text[0] === "\n") at = 1;
    if (text) returned = false;
    while (at < text.length) {
      if (state === "quoted") {
        const quote = text.indexOf('"', at);
        const end = quote < 0 ? text.length : quote;
        const part = text.slice(at, end);
        cell += part;
        line += part.split("\n").length - 1;
        at = end + 1;
        if (quote >= 0) state = "closed";
        continue;
      }
      const letter = text[at];
      if (letter === '"' && state !== "plain") {
        if (state === "closed") cell += '"'; // two quotes stand for one
        else opened = line;
        state = "quoted";
        at += 1;
      } else if (letter === separator) {
        row.push(cell);
        [cell, state] = ["", "start"];
        at += 1;
      } else if (letter === "\n" || letter === "\r") {
        endRow();
        line += 1;
        at += letter === "\r" && text[at + 1] === "\n" ? 2 : 1;
        if (letter === "\r" && at === text.length) returned = text[at - 1] === "\r";
      } else {
        let end = at + 1;
        while (end < text.length && text[end] !== separator && text[end] !== "\n" && text[end] !== "\r") end += 1;
        cell += text.slice(at, end);
        state = "plain";
        at = end;
      }
    }
    return take();
  }
  function end() {
    if (state === "quoted") throw new TableError(`The quote that opens in line ${opened.toLocaleString("en")} is never closed. Correct it and choose the file again.`);
    if (row.length || cell !== "" || state !== "start") endRow();
    return take();
  }
  return { push, end };
}

/** Find what separates the cells: the candidate that is most frequent in the first line, outside of quotes. */
export function guessSeparator(text) {
  const [first] = text.replace(/"[^"]*("|$)/g, "").split(/[\r\n]/).filter(Boolean);
  const count = candidate => (first ?? "").split(candidate).length;
  return CANDIDATES.reduce((best, each) => (count(each) > count(best) ? each : best));
}

/** Read a file's text in pieces: UTF-8, UTF-16 by its mark, or else Windows-1252, which spreadsheets write. `given` gets each piece and the share that is read. */
export async function readText(file, given) {
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const marks = { "255,254": "utf-16le", "254,255": "utf-16be" };
  const encoding = marks[start.join()] ?? ((await isUtf8(file)) ? "utf-8" : "windows-1252");
  await eachPiece(file, new TextDecoder(encoding), given);
  return encoding;
}

async function isUtf8(file) {
  try {
    await eachPiece(file, new TextDecoder("utf-8", { fatal: true }), () => {});
    return true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

async function eachPiece(file, decoder, given) {
  for (let at = 0; at < file.size || at === 0; at += PIECE) {
    const piece = await file.slice(at, at + PIECE).arrayBuffer(); // waiting for it lets the page go on
    const last = at + PIECE >= file.size;
    given(decoder.decode(piece, { stream: !last }), Math.min(1, (at + PIECE) / (file.size || 1)));
  }
}

/** Write a row. */
export function csvLine(cells, separator = ",") {
  const quoted = cell => (/["\r\n,;\t]|^\s|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return `${cells.map(cell => quoted(String(cell ?? ""))).join(separator)}\r\n`;
}

/** Keep a spreadsheet from running a text as a formula: a quote in front makes it a text. */
export function harmless(cell) {
  return typeof cell === "string" && FORMULA.test(cell) && !NUMBER.test(cell) ? `'${cell}` : cell;
}
