// The field for the columns of a table's row: one typed input for each column, each of which may stay empty.

import { button, el, title } from "../dom.js";

const SHOWN = 8; // columns; a button shows the others
const NOTHING = "not given"; // what a menu shows for an empty cell
const MOST_CHOICES = 12; // values that a menu offers; more are suggested while one types

/** A field of columns. A column's own message is the number or date range, or that a value is none of those of training. */
export function cellsField({ name, modality, changed, say }) {
  const cells = modality.columns.map((column, i) => makeCell(`${name}-${i}`, column, edited));
  const filter = el("input", { type: "search", class: "filter", placeholder: "Find a column", autocomplete: "off", "aria-label": `Find a column of ${title(name)}`, oninput: arrange });
  const more = el("button", { type: "button", class: "button quiet", "aria-expanded": "false", onclick: toggle });
  const count = el("p", { class: "hint" });
  const example = button("Example", "again", fillExample, { "aria-label": `Fill ${title(name)} with an example` });
  const many = cells.length > SHOWN;
  let expanded = false;

  function edited() {
    describe();
    changed();
  }
  function describe() {
    const filled = cells.filter(cell => cell.isFilled()).length;
    if (!filled) count.textContent = "Fill in what is known; the rest counts as missing";
    else count.textContent = filled === cells.length ? `All ${filled} filled in` : `${filled} of ${cells.length} filled in; the rest counts as missing`;
    const hidden = cells.slice(SHOWN).filter(cell => cell.isFilled()).length;
    more.textContent = expanded ? "Show fewer" : `Show all ${cells.length}${hidden ? ` (${hidden} more filled in)` : ""}`;
  }
  /** Show the columns that are looked for; without a search the first ones, or all. */
  function arrange() {
    const wanted = filter.value.trim().toLowerCase();
    cells.forEach((cell, i) => (cell.element.hidden = wanted ? !cell.matches(wanted) : !expanded && i >= SHOWN));
    more.hidden = Boolean(wanted);
    more.setAttribute("aria-expanded", String(expanded));
    describe();
    if (cells.every(cell => cell.element.hidden)) count.textContent = "No column has this in its name";
  }
  function toggle() {
    expanded = !expanded;
    arrange();
  }
  function setAll(content) {
    cells.forEach(cell => cell.set(Object.hasOwn(content, cell.name) ? content[cell.name] : null));
    describe();
  }
  function fillExample() {
    setAll(Object.fromEntries(cells.map(cell => [cell.name, cell.example()])));
    changed();
  }

  arrange();
  return {
    element: el(
      "div", { class: "row-of-cells" },
      many && filter,
      el("div", { class: "cells" }, ...cells.map(cell => cell.element)),
      el("div", { class: "tools row" }, example, many && more, count),
    ),
    noiseless: true,
    accepts: () => false,
    clear: () => setAll({}),
    load: content => setAll(typeof content === "string" ? JSON.parse(content) : content),
    mark(column) {
      cells.forEach(cell => cell.mark(cell.name === column));
      if (cells.some(cell => cell.name === column && cell.element.hidden)) toggle();
    },
    payload() {
      const unreadable = cells.find(cell => cell.isUnreadable());
      if (unreadable) say(`this is no ${unreadable.type}, so it is left out`, unreadable.name);
      const filled = cells.filter(cell => cell.isFilled());
      return filled.length ? JSON.stringify(Object.fromEntries(filled.map(cell => [cell.name, cell.value()]))) : null;
    },
  };
}

/** Make the input of one column: {element, name, type, value(), set(value), example(), mark(wrong), ...}. */
function makeCell(id, column, edited) {
  const { input, list, read, write, example } = INPUTS[column.type](column);
  const note = el("span", { class: "hint", id: `note-${id}` });
  const marker = el("span", {});
  const lies = el("span", { class: isOrdered(column) ? "lies" : "lies none", "aria-hidden": "true" }, marker);
  input.id = `cell-${id}`;
  input.setAttribute("aria-describedby", note.id);
  if (list) {
    list.id = `list-${id}`;
    input.setAttribute("list", list.id);
  }
  /** Say how the value stands to those of training. */
  function remark() {
    const strange = unusual(column, input.value);
    note.textContent = strange || seen(column);
    note.classList.toggle("strange", strange !== "");
    if (!isOrdered(column)) return;
    lies.classList.toggle("outside", strange !== "");
    marker.hidden = input.value === "";
    marker.style.left = `${100 * placeOf(column, input.value)}%`;
  }
  input.addEventListener("input", () => {
    input.removeAttribute("aria-invalid");
    remark();
    edited();
  });
  remark();
  return {
    name: column.name,
    type: column.type,
    element: el("div", { class: "cell", "data-column": column.name }, el("label", { htmlFor: input.id }, el("bdi", {}, column.name)), input, lies, list, note),
    matches: text => column.name.toLowerCase().includes(text),
    isFilled: () => input.value.trim() !== "",
    isUnreadable: () => input.validity.badInput,
    value: () => read(input.value),
    set(value) {
      input.value = value === null || value === undefined ? "" : write(value);
      input.removeAttribute("aria-invalid");
      remark();
    },
    example,
    mark: wrong => (wrong ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid")),
  };
}

// By the type of a column: its input, how its text is read and written, and a value for an example.
const INPUTS = {
  number: column => ({
    input: el("input", { type: "number", step: "any", placeholder: NOTHING, autocomplete: "off" }),
    read: Number,
    write: String,
    example: () => column.middle,
  }),
  category: column => ({ ...categoryInput(column), read: text => text, example: () => column.values[0] ?? null }),
  date: column => ({
    input: el("input", { type: "date" }),
    read: text => text,
    write: value => String(value).slice(0, 10),
    example: () => (column.high === null ? null : String(column.high).slice(0, 10)),
  }),
  yes_no: () => ({
    input: el("select", {}, ...[["", NOTHING], ["yes", "yes"], ["no", "no"]].map(([value, text]) => el("option", { value }, text))),
    read: text => text === "yes",
    write: value => (value === true || value === "yes" ? "yes" : "no"),
    example: () => true,
  }),
};

/** A menu of few values; a text with suggestions where there are more. */
function categoryInput(column) {
  const options = column.values.map(value => el("option", { value }, value));
  if (column.value_count <= MOST_CHOICES) {
    const input = el("select", {}, el("option", { value: "" }, NOTHING), ...options);
    const write = value => {
      // A sample may have a value that training did not have.
      if (!column.values.includes(String(value))) input.append(el("option", { value: String(value) }, String(value)));
      return String(value);
    };
    return { input, write };
  }
  const input = el("input", { type: "text", placeholder: NOTHING, autocomplete: "off", spellcheck: false, dir: "auto" });
  return { input, list: el("datalist", {}, ...options), write: String };
}

/** Whether the values lie between two ends that are known. */
function isOrdered({ type, low }) {
  return (type === "number" || type === "date") && low !== null;
}

/** Say which values training had; "" where the menu shows them. */
function seen(column) {
  if (isOrdered(column)) return `in training ${range(column)}`;
  return column.type === "category" && column.value_count > MOST_CHOICES ? `${column.value_count.toLocaleString("en")} values known` : "";
}

/** Say that training had no such value; "" where it had, or where that is not known. */
function unusual(column, text) {
  if (!text.trim()) return "";
  if (isOrdered(column)) {
    const [value, low, high] = ordered(column, text);
    const [less, more] = column.type === "date" ? ["earlier", "later"] : ["less", "more"];
    if (value < low) return `${less} than any in training, from ${written(column.low)}`;
    return value > high ? `${more} than any in training, up to ${written(column.high)}` : "";
  }
  const all = column.type === "category" && column.values.length === column.value_count;
  return all && !column.values.includes(text) ? `not among the ${column.value_count.toLocaleString("en")} values seen in training` : "";
}

/** Place a value between the ends of training, 0 to 1. */
function placeOf(column, text) {
  const [value, low, high] = ordered(column, text);
  return high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5;
}

function ordered({ type, low, high }, text) {
  const day = value => Date.parse(String(value).slice(0, 10));
  return type === "date" ? [day(text), day(low), day(high)] : [Number(text), low, high];
}

function range({ low, high }) {
  return `${written(low)} to ${written(high)}`;
}

function written(value) {
  if (typeof value !== "number") return value.slice(0, 10);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 }).replace("-", "−");
}
