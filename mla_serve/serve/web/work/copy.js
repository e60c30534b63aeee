// The buttons below the answer: copy it as a short text, copy a link to it.

import { button, el, plain, title } from "../dom.js";
import { joined } from "../words.js";
import { recordOf } from "../answer/record.js";

const SAID_MS = 2500;
const LONGEST = 200; // characters of an input that is quoted

/** Add the buttons. Args: panel, of the answer; last(), {parts, options, reply}, or null without an answer. */
export function copyButtons(panel, model, last) {
  const note = el("p", { class: "hint copy-note", role: "status" });
  const byHand = el("textarea", { readOnly: true, hidden: true, rows: 4, "aria-label": "Text to copy" });
  const answer = button("Copy answer", "copy", () => copy(answer, answerText(last(), panel, model), []));
  const link = button("Copy link", "link", async () => {
    const { parts, options } = last();
    const { makeLink } = await import("./link.js");
    const { url, remarks } = await makeLink(model, parts, options);
    await copy(link, url, remarks);
  });
  panel.foot.append(el("div", { class: "copying" }, answer, link), note, byHand);

  async function copy(control, text, remarks) {
    const done = await writeClipboard(text);
    byHand.hidden = done;
    if (!done) {
      byHand.value = text;
      byHand.select();
    }
    note.textContent = [done ? "" : "The browser does not let this page copy. The text is selected: copy it by hand.", ...remarks].filter(Boolean).join(" ");
    if (done) confirm(control);
  }
  return { show: there => [answer, link].forEach(each => (each.disabled = !there)), forget: () => {
    note.textContent = "";
    byHand.hidden = true;
  } };
}

/** Say on the button that it is done, without changing its width. */
function confirm(control) {
  const text = control.querySelector("span");
  const before = (control.dataset.text ??= text.textContent);
  control.style.minWidth = `${control.offsetWidth}px`;
  text.textContent = "Copied";
  setTimeout(() => (text.textContent = before), SAID_MS);
}

/** Write to the clipboard, which pages have only over https and on this machine. Returns whether it worked. */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Write an answer as a text: what was asked, what is answered and how sure, the record, the model. */
export function answerText({ parts, reply }, panel, model, now = new Date()) {
  const [main, side] = panel.view.short(reply);
  const asked = Object.entries(parts).map(([name, part]) => `${title(name)}: ${part instanceof Blob ? fileText(part, name) : inWords(part, model.modalities[name])}`);
  const alone = Object.entries(reply.modalities).map(([name, own]) => `${title(name)} alone: ${textOf(panel.view.says(own, reply))}`);
  return [
    `${model.name} answers: ${main} (${side})`,
    `Asked with`, ...asked.map(each => `  ${each}`),
    ...(alone.length > 1 ? alone : []),
    reply.missing.length && `Not sent: ${joined(reply.missing.map(title))}`,
    recordText(model, reply, panel.view),
    `Model ${model.name}, made ${model.created.slice(0, 10)}, ${model.sha256.slice(0, 12)}; asked ${now.toISOString().slice(0, 16).replace("T", " ")} UTC`,
  ].filter(Boolean).join("\n");
}

function recordText(model, reply, view) {
  const names = Object.keys(reply.modalities);
  const found = recordOf(model, names, reply.fusion);
  return found && `Record: with ${joined(names.map(plain))} ${textOf(view.record(found.scores, found.rows, found.likely))}`;
}

function textOf(nodes) {
  return el("span", {}, ...nodes).textContent.replace(/\s+/g, " ").trim();
}

/** Name a file by what somebody called it, or else by its type. */
function fileText({ filename = "", type, size }, name) {
  const own = filename.replace(/\.\w+$/, "");
  const called = own && own !== name ? filename : `a file${type ? ` of type ${type}` : ""}`;
  return `${called}, ${Math.ceil(size / 1024).toLocaleString("en")} kB`;
}

/** Write what is in an input in one line: a text, or the cells of columns. */
export function inWords(part, { sent_as: sentAs }, longest = LONGEST) {
  const text = sentAs === "cells" ? Object.entries(JSON.parse(part)).map(([column, cell]) => `${column} ${cell}`).join(", ") : part;
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > longest ? `${line.slice(0, longest)}…` : line;
}
