// A link to an answer: its inputs in the part of the address behind #, which browsers never send to a server.
//
// #model=HASH&name=NAME&in.MODALITY=TEXT&in.MODALITY=TYPE,BASE64URL&fusion=RULE&coverage=SHARE&left=MODALITY,BYTES&end=
// `left` names an input that did not fit. `end` comes last, so that a link that was cut off on its way is known as one.

import { OFTEN } from "../answer/promise.js";
import { el, megabytes, title } from "../dom.js";

const LONGEST = 128_000; // characters: a small picture, or three seconds that were recorded at 8 kHz
const LONG = 8_000; // some programs cut longer ones
const HASH = 12; // digits of the model's hash
const INPUT = "in.";
const OPTIONS = ["fusion", "coverage"];

/** Write the link. Returns {url, remarks: what to know about it}. Args: model, {name, sha256} of the one that answered; parts, {modality: Blob or string}; options, those of the request. */
export async function makeLink(model, parts, options) {
  const pairs = await Promise.all(Object.entries(parts).map(async ([name, part]) => ({ name, ...(await written(part)) })));
  pairs.sort((a, b) => a.text.length - b.text.length); // so that one large input leaves room for the small ones
  const fields = new URLSearchParams({ model: model.sha256.slice(0, HASH), name: model.name });
  const left = [];
  for (const { name, text, bytes } of pairs) {
    if (String(fields).length + encodeURIComponent(text).length <= LONGEST) fields.append(INPUT + name, text);
    else left.push({ name, bytes });
  }
  for (const name of OPTIONS) if (name in options) fields.append(name, options[name]);
  for (const { name, bytes } of left) fields.append("left", `${name},${bytes}`);
  fields.append("end", "");
  const url = `${location.href.split("#")[0]}#${fields}`;
  const remarks = left.map(({ name, bytes }) => `${title(name)} is too large for a link: ${size(bytes)}. Whoever opens the link has to add it.`);
  if (url.length > LONG) remarks.push(`The link has ${url.length.toLocaleString("en")} characters; some programs cut off links of this length.`);
  return { url, remarks };
}

/** Read what is behind #. Returns {inputs: {modality: File or string}, options, remarks}. */
export function readLink(fragment, model) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const remarks = [];
  const inputs = {};
  const pairs = [...fields].filter(([name]) => name.startsWith(INPUT));
  const name = fields.get("name") ?? "";
  if (name !== model.name) remarks.push(`This link was made with another model, “${name.slice(0, 100)}”. What this one reads, too, is filled in.`);
  else if (!model.sha256.startsWith(fields.get("model")) || !fields.get("model")) remarks.push("The model has changed since this link was made, so the answer may differ.");
  if (!fields.has("end")) {
    const [cut] = pairs.pop() ?? [""];
    remarks.push(`This link was cut off on its way. ${cut ? `“${cut.slice(INPUT.length)}” and whatever came after it are` : "Everything in it is"} missing; ask for it again.`);
  }
  for (const [field, text] of pairs) {
    const input = field.slice(INPUT.length);
    if (!Object.hasOwn(model.modalities, input)) {
      remarks.push(`This model has no input “${input.slice(0, 100)}”, so it is left out.`);
      continue;
    }
    const { content, remark } = read(text, input, model.modalities[input]);
    if (content !== undefined) inputs[input] = content;
    if (remark) remarks.push(`${title(input)}: ${remark}`);
  }
  for (const each of fields.getAll("left")) {
    const [input, bytes] = each.split(",");
    remarks.push(`${title(input || "An input")} was too large for the link (${size(Number(bytes) || 0)}). Add it for the same answer.`);
  }
  const options = {};
  const offered = { fusion: rule => model.fusion.rules.includes(rule), coverage: share => OFTEN.some(([value]) => String(value) === share) };
  for (const [option, isOffered] of Object.entries(offered)) {
    const value = fields.get(option);
    if (value !== null && isOffered(value)) options[option] = value;
    else if (value !== null) remarks.push(`This model does not offer “${option} ${value.slice(0, 60)}”, so the usual is taken.`);
  }
  return { inputs, options, remarks };
}

/** Make the place of the remarks about a link that was opened. Returns {element, say(remarks)}. */
export function linkNote() {
  const list = el("ul", {});
  const close = el("button", { type: "button", class: "button quiet", onclick: () => (element.hidden = true) }, "Close");
  const element = el("div", { class: "link-note", role: "status", hidden: true }, list, close);
  const say = remarks => {
    list.replaceChildren(...remarks.map(remark => el("li", {}, remark)));
    element.hidden = !remarks.length;
  };
  return { element, say };
}

async function written(part) {
  if (!(part instanceof Blob)) return { text: part, bytes: new Blob([part]).size };
  if (part.size > LONGEST) return { text: " ".repeat(LONGEST), bytes: part.size };
  const content = new Uint8Array(await part.arrayBuffer()).reduce((text, byte) => text + String.fromCharCode(byte), "");
  return { text: `${part.type || "application/octet-stream"},${btoa(content).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`, bytes: part.size };
}

/** Read one input. Returns {content, remark}; no content where nothing of it can be used. */
function read(text, name, modality) {
  const damaged = { remark: "this part of the link is damaged, so it is left out." };
  try {
    if (modality.sent_as === "file") {
      const [type, content] = text.split(",");
      const bytes = Uint8Array.from(atob(content.replaceAll("-", "+").replaceAll("_", "/")), letter => letter.charCodeAt(0));
      return bytes.length ? { content: new File([bytes], `${name}.${type.split("/")[1].replace("x-", "")}`, { type }) } : damaged;
    }
    if (modality.sent_as !== "cells") return { content: text };
    const cells = JSON.parse(text);
    if (cells === null || typeof cells !== "object") return damaged;
    const known = Object.entries(cells).filter(([column]) => modality.columns.some(each => each.name === column));
    const unknown = Object.keys(cells).length - known.length;
    return { content: Object.fromEntries(known), remark: unknown && `${unknown} of the columns in the link ${unknown === 1 ? "is" : "are"} not among those of this model.` };
  } catch {
    return damaged; // atob, split and JSON.parse throw errors of different kinds
  }
}

function size(bytes) {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} kB` : megabytes(bytes);
}
