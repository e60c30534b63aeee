// The command and the program that send what is on the page.

import { key } from "./ask.js";
import { button, el } from "./dom.js";

/** Make the section with curl and Python. Returns {show(parts, options)}. */
export function codeSection(section, model) {
  const program = el("pre", { tabIndex: 0, "aria-label": "Code" });
  const files = el("p", { class: "files hint" });
  const copied = el("span", { class: "hint", role: "status" });
  const tabs = ["curl", "Python"].map(name => el("button", { type: "button", class: "tab", "aria-pressed": String(name === "curl"), onclick: () => pick(name) }, name));
  const copy = button("Copy", "copy", async () => {
    const done = await navigator.clipboard.writeText(program.textContent).then(() => true, () => false);
    copied.textContent = done ? "Copied" : "Select the text and copy it by hand";
    setTimeout(() => (copied.textContent = ""), 2500);
  });
  section.append(el("header", {}, el("h2", {}, "The same from code"), el("div", { class: "tabs", role: "group", "aria-label": "Language" }, ...tabs), copied, copy), program, files);
  let language = "curl";
  let last = [{}, {}];
  let urls = [];

  function pick(name) {
    language = name;
    tabs.forEach(tab => tab.setAttribute("aria-pressed", String(tab.textContent === name)));
    write();
  }
  function write() {
    program.textContent = language === "curl" ? curl(...last) : python(...last, model);
  }
  function show(parts, options) {
    last = [parts, options];
    section.hidden = false;
    write();
    urls.forEach(url => URL.revokeObjectURL(url));
    const blobs = Object.values(parts).filter(part => part instanceof Blob);
    urls = blobs.map(blob => URL.createObjectURL(blob));
    const links = blobs.map((blob, i) => el("a", { href: urls[i], download: blob.filename }, blob.filename));
    files.replaceChildren(...(links.length ? ["Save what was sent: ", ...links.flatMap((link, i) => (i ? [", ", link] : [link]))] : []));
  }
  return { show };
}

/** Write a command for a shell. --form-string, because -F would take "@name" for a file. */
export function curl(parts, options) {
  const fields = Object.entries({ ...parts, ...options }).map(([name, value]) =>
    value instanceof Blob ? `-F ${quoted(`${name}=@${value.filename}`)}` : `--form-string ${quoted(`${name}=${value}`)}`,
  );
  const allowed = key.get() ? ['-H "Authorization: Bearer $MLA_API_KEY"'] : [];
  return ["curl", ...allowed, ...fields, new URL("predict", location)].join(" \\\n  ");
}

/** Write a program for the Python client. */
export function python(parts, options, model) {
  const given = Object.entries(parts).map(([name, value]) => `${name}=${pythonValue(value, model.modalities[name].kind)}`);
  const chosen = Object.entries(options).map(([name, value]) => `${name}=${name === "coverage" ? value : JSON.stringify(value)}`);
  const base = new URL(".", location).href.replace(/\/$/, "");
  const allowed = key.get() ? ', api_key=os.environ["MLA_API_KEY"]' : "";
  return `${allowed && "import os\n\n"}from mla_serve.client import Client

with Client(${JSON.stringify(base)}${allowed}) as client:
    answer = client.predict(${[...given, ...chosen].join(", ")})

print(answer.label, answer.probability)`;
}

function pythonValue(value, kind) {
  if (value instanceof Blob) return JSON.stringify(value.filename);
  return kind === "vector" ? `[${value.replace(/[[\],]/g, " ").trim().split(/\s+/).join(", ")}]` : JSON.stringify(value);
}

function quoted(text) {
  return /^[\w@=./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
