// Which column of a table holds which input, and the sample that a row makes.

import { title } from "../dom.js";

/** The source of an input of columns that stands for: each by its own name. */
export const BY_NAME = "by name";

const ENCODED = /^[A-Za-z0-9+/_-]{80,}={0,2}$/; // longer than a path without a full stop
const plain = name => name.trim().toLowerCase().replace(/[\s_-]+/g, "_");

/** Find the source of each input: {modality: index of a column, BY_NAME, or null}. Args: accepts(modality), whether it takes a folder's files. */
export function matchColumns(modalities, table, accepts) {
  const inFolder = table.columns.length === 1 && table.columns[0] === "file" && !Object.hasOwn(modalities, "file");
  const first = inFolder && Object.keys(modalities).find(accepts);
  return Object.fromEntries(Object.entries(modalities).map(([name, modality]) => {
    if (name === first) return [name, 0];
    const named = indexOf(table.columns, name);
    const byName = modality.sent_as === "cells" && cellsByName(name, modalities, table.columns).length > 0;
    return [name, byName ? BY_NAME : named];
  }));
}

function indexOf(columns, name) {
  const exact = columns.indexOf(name);
  const like = exact < 0 ? columns.findIndex(column => plain(column) === plain(name)) : exact;
  return like < 0 ? null : like;
}

/** Find the table's columns that an input of columns has: [column of the model, index in the table]; MODALITY.COLUMN, or COLUMN where no other input has it. */
export function cellsByName(name, modalities, columns) {
  const others = Object.entries(modalities).filter(([other]) => other !== name);
  const taken = column => others.some(([other, each]) => other === column || each.columns.some(own => own.name === column));
  const places = modalities[name].columns.map(({ name: column }) => {
    const full = columns.indexOf(`${name}.${column}`);
    return [column, full < 0 && !taken(column) ? columns.indexOf(column) : full];
  });
  return places.filter(([, index]) => index >= 0);
}

/** List the indices of the columns that are used. */
export function usedColumns(sources, modalities, columns) {
  return new Set(Object.entries(sources).flatMap(([name, source]) => (source === BY_NAME ? cellsByName(name, modalities, columns).map(([, index]) => index) : source === null ? [] : [source])));
}

/** Make the function that turns the cells of a row into a sample for POST /predict/batch: {modality: value or File}. It throws RowError. */
export function sampleMaker(sources, modalities, columns, find) {
  const made = Object.entries(sources).filter(([, source]) => source !== null).map(([name, source]) => {
    const read = READERS[modalities[name].sent_as];
    if (source !== BY_NAME) return [name, cells => (isEmpty(cells[source]) ? undefined : read(cells[source], name, find))];
    const places = cellsByName(name, modalities, columns);
    return [name, cells => {
      const filled = places.filter(([, index]) => !isEmpty(cells[index]));
      return filled.length ? Object.fromEntries(filled.map(([column, index]) => [column, cells[index]])) : undefined;
    }];
  });
  return cells => Object.fromEntries(made.map(([name, value]) => [name, value(cells)]).filter(([, value]) => value !== undefined));
}

/** What is wrong with a row, for the person in front of the page. */
export class RowError extends Error {}

function isEmpty(cell) {
  return cell === undefined || cell === null || (typeof cell === "string" && !cell.trim());
}

// By how an input is sent: what its value in JSON is.
const READERS = {
  file(cell, name, find) {
    const text = String(cell);
    if (/^data:/i.test(text) || ENCODED.test(text)) return text;
    const file = find(text);
    if (!file) throw new RowError(`${title(name)}: no file “${text.slice(0, 100)}” was given. Choose the folder that holds the table and its files.`);
    if (!file.size) throw new RowError(`${title(name)}: the file “${text.slice(0, 100)}” is empty.`);
    return file;
  },
  text: cell => (typeof cell === "string" ? cell : JSON.stringify(cell)),
  numbers(cell, name) {
    if (typeof cell !== "string") return cell;
    const numbers = cell.replace(/[[\],;]/g, " ").trim().split(/\s+/).map(Number);
    if (!numbers.every(Number.isFinite)) throw new RowError(`${title(name)}: “${cell.slice(0, 60)}” is no list of numbers such as 0.5, -1, 2e3.`);
    return numbers;
  },
  cells(cell, name) {
    if (typeof cell !== "string") return cell;
    try {
      return JSON.parse(cell);
    } catch {
      throw new RowError(`${title(name)}: “${cell.slice(0, 60)}” is no JSON object such as {"price": 12.5}.`);
    }
  },
};
