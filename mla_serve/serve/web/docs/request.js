// The form of an operation: a control for each field of its multipart form, or a box for its JSON.

import { get, key } from "../ask.js";
import { el } from "../dom.js";
import { layOut } from "./layout.js";

const FORM = "multipart/form-data";
const JSON_TYPE = "application/json";
// How a file starts in base64, and what its name ends with. The service looks at the content alone.
const ENDINGS = { iVBOR: ".png", "/9j/": ".jpg", R0lGOD: ".gif", UklGR: ".wav", ZkxhQ: ".flac", T2dnU: ".ogg" };

/** Make the form. Returns {element, isForm, read, fill}: read() -> {parts, options} or {body}; fill(example), of the JSON. */
export function requestForm(operation, api, changed) {
  const content = operation.requestBody?.content ?? {};
  if (content[FORM]) return fields(operation, content[FORM].schema.properties, changed);
  if (content[JSON_TYPE]) return jsonBox(operation, changed);
  return { element: el("p", { class: "hint" }, "Nothing but the address."), isForm: false, read: () => ({ body: null }), fill: () => {} };
}

function fields(operation, properties, changed) {
  const optional = new Set((operation.parameters ?? []).map(({ name }) => name));
  const controls = Object.entries(properties).map(([name, schema]) => ({ name, isOption: optional.has(name), ...control(`${operation.operationId}-${name}`, name, schema, changed) }));
  const set = (legend, some) => some.length > 0 && el("fieldset", {}, el("legend", {}, legend), ...some.map(each => each.element));
  const inputs = controls.filter(each => !each.isOption);
  const options = controls.filter(each => each.isOption);
  const given = some => Object.fromEntries(some.map(each => [each.name, each.read()]).filter(([, value]) => value !== null));
  return {
    element: el("div", { class: "fields" }, set(inputs.length > 1 ? "Inputs, one or more" : "Input", inputs), set("Options", options)),
    isForm: true,
    read: () => ({ parts: given(inputs), options: given(options) }),
    fill: example => controls.forEach(each => each.fill(example[each.name] ?? null)),
  };
}

function control(id, name, schema, changed) {
  const makes = schema.format === "binary" ? fileControl : schema.enum ? choice : textControl;
  const about = el("p", { class: "hint", id: `${id}-about` }, schema.description);
  const { element, read, fill } = makes({ id, "aria-describedby": about.id }, name, schema, changed);
  return { read, fill, element: el("div", { class: "field" }, el("label", { htmlFor: id }, el("code", {}, name), " ", el("span", { class: "hint" }, typeOf(schema))), element, about) };
}

function typeOf(schema) {
  if (schema.format === "binary") return "a file";
  return { object: "JSON", integer: "a whole number", number: "a number" }[schema.type] ?? (schema.enum ? "one of these" : "a text");
}

function textControl(attributes, name, schema, changed) {
  const isShort = schema.type === "integer" || schema.type === "number";
  const box = el(isShort ? "input" : "textarea", { ...attributes, rows: schema.type === "object" ? 4 : 1, autocomplete: "off", spellcheck: false, oninput: changed });
  const write = value => (value === null ? "" : typeof value === "string" ? value : layOut(value));
  return { element: box, read: () => (box.value.trim() ? box.value : null), fill: value => (box.value = write(value)) };
}

function choice(attributes, name, schema, changed) {
  const names = schema.enum.map(each => el("option", { value: each }, each));
  const box = el("select", { ...attributes, onchange: changed }, el("option", { value: "" }, "not sent"), ...names);
  return { element: box, read: () => box.value || null, fill: value => (box.value = value ?? "") };
}

/** Make a chooser of a file, with a button that takes a sample's file or the file out again. */
function fileControl(attributes, name, schema, changed) {
  const box = el("input", { ...attributes, type: "file", onchange: () => chosen() });
  const other = el("button", { type: "button", class: "button quiet", onclick: toggle });
  const said = el("span", { class: "hint", role: "status" });
  function chosen() {
    other.textContent = box.files.length ? "Leave out" : "From a sample";
    other.setAttribute("aria-label", `${other.textContent}: ${name}`);
    said.textContent = "";
    changed();
  }
  function put(file) {
    const list = new DataTransfer();
    if (file) list.items.add(file);
    box.files = list.files;
    chosen();
  }
  async function toggle() {
    if (box.files.length) return put(null);
    const file = await sampleFile(name);
    if (file) put(file);
    else said.textContent = "No sample has one.";
  }
  return {
    element: el("div", { class: "file" }, box, other, said),
    read: () => (box.files.length ? Object.assign(box.files[0], { filename: box.files[0].name }) : null),
    fill: value => put(value === null ? null : fromBase64(value, name)),
  };
}

/** Get the file of a sample that has one of this name; null if none has. */
async function sampleFile(name) {
  const samples = await get("samples").catch(() => []);
  const path = samples.find(({ inputs }) => inputs[name])?.inputs[name];
  if (!path) return null;
  const content = await get(path, reply => reply.arrayBuffer());
  return new File([content], name + endingOf(new Uint8Array(content.slice(0, 6))));
}

function fromBase64(text, name) {
  const content = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new File([content], name + endingOf(content.slice(0, 6)));
}

function endingOf(head) {
  const start = btoa(String.fromCharCode(...head));
  return Object.entries(ENDINGS).find(([prefix]) => start.startsWith(prefix))?.[1] ?? "";
}

function jsonBox(operation, changed) {
  const id = `${operation.operationId}-body`;
  const box = el("textarea", { id, class: "json", rows: 12, spellcheck: false, autocomplete: "off", oninput: changed });
  return {
    element: el("div", { class: "field" }, el("label", { htmlFor: id }, el("code", {}, "body"), " ", el("span", { class: "hint" }, "JSON, files in base64")), box),
    isForm: false,
    read: () => ({ body: box.value }),
    fill: example => (box.value = layOut(example)),
  };
}

/** Return the headers of a request of this page. */
export function headers(body) {
  const own = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  return typeof body === "string" ? { ...own, "Content-Type": JSON_TYPE } : own;
}
