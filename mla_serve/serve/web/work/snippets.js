// The curl command and the Python program that send the page's inputs.

import { key } from "../ask.js";
import { button, el } from "../dom.js";

const NUMBER = /^[-+]?(0|[1-9]\d*|\d*\.\d+|\d+\.)(e[-+]?\d+)?$/i; // as Python writes them, too
// By task: what the program prints of an answer.
const PRINTED = { classes: "answer.label, answer.probability", labels: "answer.labels", number: "answer.value, answer.unit" };
const PROMISED = { classes: "answer.prediction_set", labels: "answer.prediction_set", number: "answer.interval" };
const LONGEST_LINE = 60; // characters of a dict; a longer one gets a line for each member
const LONGEST_CALL = 32; // of the arguments of a call, which must fit a phone
// Python's keywords, which cannot name an argument
const KEYWORDS = new Set("and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield".split(" "));

/** Make the section with curl and Python. Returns {show(parts, options), hide()}. */
export function codeSection(section, model) {
  const { show } = codeTabs(section, el("h2", {}, "The same from code"), ["curl", "Python"]);
  return {
    show(parts, options) {
      section.hidden = false;
      show([curl(parts, options), python(parts, options, model)], parts);
    },
    hide: () => (section.hidden = true), // the request that it shows is not that of the page any more
  };
}

/** Fill an element with a program in each language. Returns {show(programs, parts)}; parts, {name: Blob or string} that they send. */
export function codeTabs(element, heading, languages) {
  const program = el("pre", { tabIndex: 0, "aria-label": "Code", role: "group" });
  const files = el("p", { class: "files hint" });
  const copied = el("span", { class: "hint", role: "status" });
  const tabs = languages.map(name => el("button", { type: "button", class: "tab", "aria-pressed": String(name === languages[0]), onclick: () => pick(name) }, name));
  const copy = button("Copy", "copy", async () => {
    const done = await navigator.clipboard.writeText(program.textContent).then(() => true, () => false);
    copied.textContent = done ? "Copied" : "Select the text and copy it by hand";
    setTimeout(() => (copied.textContent = ""), 2500);
  });
  const chooser = languages.length > 1 ? el("div", { class: "tabs", role: "group", "aria-label": "Language" }, ...tabs) : el("span", { class: "tabs" });
  element.append(el("header", {}, heading, chooser, copied, copy), program, files);
  let language = languages[0];
  let last = [];
  let urls = [];

  function pick(name) {
    language = name;
    tabs.forEach(tab => tab.setAttribute("aria-pressed", String(tab.textContent === name)));
    program.textContent = last[languages.indexOf(language)];
  }
  function show(programs, parts = {}) {
    last = programs;
    pick(language);
    urls.forEach(url => URL.revokeObjectURL(url));
    const blobs = Object.entries(parts).filter(([, part]) => part instanceof Blob);
    // Without a type, or the browser would add an extension of its own.
    urls = blobs.map(([, blob]) => URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" })));
    const names = blobs.map(([name, blob]) => fileName(name, blob));
    const links = names.map((name, i) => el("a", { href: urls[i], download: name }, name));
    files.replaceChildren(...(links.length ? ["Save what was sent: ", ...links.flatMap((link, i) => (i ? [", ", link] : [link]))] : []));
  }
  return { show };
}

/** Write a command for a shell that sends a form. --form-string, because -F would take "@name" for a file. */
export function curl(parts, options, path = "predict") {
  const fields = Object.entries({ ...parts, ...options }).map(([name, value]) =>
    value instanceof Blob ? `-F ${name}=@${fileName(name, value)}` : `--form-string ${quoted(`${name}=${value}`)}`,
  );
  return command(fields, path);
}

/** Write a command that sends JSON, or nothing. Args: body, a text or null. */
export function curlJson(body, path) {
  return command(body === null ? [] : ["-H 'Content-Type: application/json'", `-d ${quoted(body)}`], path);
}

function command(fields, path) {
  const allowed = key.get() ? ['-H "Authorization: Bearer $MLA_API_KEY"'] : [];
  return ["curl", ...allowed, ...fields, new URL(path, location)].join(" \\\n  ");
}

/** Write a program for the Python client. */
export function python(parts, options, model) {
  return pythonCall("predict", parts, options, model, [PRINTED[model.task], ...("coverage" in options ? [PROMISED[model.task]] : [])]);
}

/** Write a program that calls a method of the Python client. Args: printed, what it prints of the answer. */
export function pythonCall(method, parts, options, model, printed) {
  const given = Object.entries(parts).map(([name, value]) => pythonArgument(name, pythonValue(name, value, model.modalities[name])));
  const chosen = Object.entries(options).map(([name, value]) => `${name}=${NUMBER.test(value) ? value : JSON.stringify(value)}`);
  const base = new URL(".", location).href.replace(/\/$/, "");
  const allowed = key.get() ? ', api_key=os.environ["MLA_API_KEY"]' : "";
  const line = [...given, ...chosen].join(", ");
  const call = line.length <= LONGEST_CALL ? line : `\n${[...given, ...chosen].map(each => `        ${each.replaceAll("\n", "\n    ")},\n`).join("")}    `;
  return `${allowed && "import os\n\n"}from mla_serve.client import Client

with Client(${JSON.stringify(base)}${allowed}) as client:
    answer = client.${method}(${call})

print(${printed.join(", ")})`;
}

/** Name a modality's file after the modality, since two modalities may have files of the same name. */
function fileName(name, blob) {
  const ending = blob.filename?.match(/\.[a-z0-9]{1,5}$/i);
  return `${name}${ending ? ending[0].toLowerCase() : ""}`;
}

function pythonArgument(name, value) {
  return KEYWORDS.has(name) ? `**{${JSON.stringify(name)}: ${value}}` : `${name}=${value}`;
}

function pythonValue(name, value, { kind, sent_as: sentAs }) {
  if (value instanceof Blob) return JSON.stringify(fileName(name, value));
  if (sentAs === "cells") return pythonDict(JSON.parse(value));
  const numbers = value.replace(/[[\],]/g, " ").trim().split(/\s+/);
  return kind === "vector" && numbers.every(each => NUMBER.test(each)) ? `[${numbers.join(", ")}]` : JSON.stringify(value);
}

/** Write cells as a dict. JSON writes texts and numbers as Python does, but not true and false. */
function pythonDict(cells) {
  const words = { true: "True", false: "False", null: "None" };
  const members = Object.entries(cells).map(([column, cell]) => `${JSON.stringify(column)}: ${words[cell] && typeof cell !== "string" ? words[cell] : JSON.stringify(cell)}`);
  const line = members.join(", ");
  return line.length <= LONGEST_LINE ? `{${line}}` : `{\n        ${members.join(",\n        ")},\n    }`;
}

function quoted(text) {
  return /^[\w@=./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
