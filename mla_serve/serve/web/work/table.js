// A table of rows to score: read from a file, or made of the files of a folder; and the files that its cells name.

import { megabytes } from "../dom.js";
import { csvReader, guessSeparator, readText, TableError } from "./csv.js";
import { isTable } from "./files.js";

const LARGEST = 500 * 2 ** 20; // bytes: the table and its answers are kept in memory

/** Read the table among files, or list the files. Returns {name, columns, rows: [{cells, problem}], separator, encoding, isCsv, others}. */
export async function tableOf(files, progress) {
  const tables = files.filter(({ path }) => isTable(path));
  if (!tables.length) return { name: folderOf(files[0].path) || "files", columns: ["file"], rows: files.map(({ path }) => ({ cells: [path] })), separator: "," };
  const [{ path, file }, ...others] = tables;
  const read = /\.(jsonl|ndjson)$/i.test(path) ? readLines : readCells;
  if (file.size > LARGEST) throw new TableError(`${path} has ${megabytes(file.size)}; this page reads tables up to ${megabytes(LARGEST)}. Larger ones are scored by the command mla-serve predict --table.`);
  const table = await read(file, progress);
  if (!table.rows.length) throw new TableError(`${path} has no rows. The first line names the columns, and each further line is a row.`);
  return { ...table, name: path, others: others.map(each => each.path) };
}

async function readCells(file, progress) {
  let reader, columns, separator;
  const rows = [];
  const add = read => {
    if (!columns && read.length) columns = namesOf(read.shift());
    for (const cells of read) {
      const surplus = cells.length > columns.length;
      rows.push({ cells: cells.slice(0, columns.length), problem: surplus && `This row has ${cells.length} cells, the table has ${columns.length} columns; is a quote missing?` });
    }
  };
  const encoding = await readText(file, (text, share) => {
    separator ??= /\.(tsv|tab)$/i.test(file.name) ? "\t" : guessSeparator(text);
    reader ??= csvReader(separator);
    add(reader.push(text));
    progress(share);
  });
  add(reader.end());
  return { columns: columns ?? [], rows, separator, encoding, isCsv: true };
}

function namesOf(cells) {
  const names = cells.map((cell, i) => cell.trim() || `column ${i + 1}`);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice) throw new TableError(`Two columns are called “${twice}”. Rename one of them and choose the file again.`);
  return names;
}

async function readLines(file, progress) {
  const places = new Map(); // of each column, by its name
  const rows = [];
  let rest = "";
  const add = line => line.trim() && rows.push(rowOf(line, places));
  const encoding = await readText(file, (text, share) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    lines.forEach(add);
    progress(share);
  });
  add(rest);
  return { columns: [...places.keys()], rows, separator: ",", encoding };
}

function rowOf(line, places) {
  let given = null;
  try {
    given = JSON.parse(line);
  } catch {
    // said below
  }
  if (given === null || typeof given !== "object" || Array.isArray(given)) return { cells: [], problem: "This line is no JSON object." };
  const cells = [];
  for (const [name, cell] of Object.entries(given)) {
    if (!places.has(name)) places.set(name, places.size);
    cells[places.get(name)] = cell;
  }
  return { cells };
}

/** Make the function that finds the file that a cell names: by its path from the table, or the end of its path. */
export function fileFinder(files, tablePath) {
  const byPath = new Map(files.map(({ path, file }) => [path, file]));
  const byName = Map.groupBy(files, ({ path }) => path.slice(path.lastIndexOf("/") + 1));
  const base = folderOf(tablePath);
  return cell => {
    const path = cell.trim().replaceAll("\\", "/").replace(/^(\.?\/)+/, "");
    const exact = byPath.get(base ? `${base}/${path}` : path) ?? byPath.get(path);
    if (exact) return exact;
    const named = byName.get(path.slice(path.lastIndexOf("/") + 1)) ?? [];
    const ends = named.filter(each => each.path.endsWith(`/${path}`) || path.endsWith(`/${each.path}`));
    return ends.length === 1 ? ends[0].file : undefined;
  };
}

function folderOf(path) {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}
