// The buttons below the answer: copy it as a short text, copy a link to it.

import { button, el } from "../dom.js";
import { unreachable } from "../ask.js";

const SAID_MS = 2500;
const LONGEST = 200; // characters of an input that is quoted

/** Add the buttons. Args: panel, of the answer; last(), {parts, options, reply}, or null without an answer. */
export function copyButtons(panel, model, last) {
  const note = el("p", { class: "hint copy-note", role: "status" });
  const byHand = el("textarea", { readOnly: true, hidden: true, rows: 4, "aria-label": "Text to copy" });
  const answer = button("Copy answer", "copy", () => copy(answer, textOf(last())));
  const link = button("Copy link", "link", () => copy(link, linkOf(last())));
  const textOf = async made => ({ text: (await import("./answertext.js")).answerText(made, panel.view, model), remarks: [] });
  const linkOf = async ({ parts, options, reply }) => {
    const { url, remarks } = await (await import("./link.js")).makeLink(reply.model, parts, options);
    return { text: url, remarks };
  };
  panel.foot.append(el("div", { class: "copying" }, answer, link), note, byHand);

  async function copy(control, making) {
    const done = await writeClipboard(making.then(made => made.text));
    const { text, remarks } = await making.catch(notFetched);
    if (!text) return (note.textContent = unreachable());
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

/** What makes texts and links is fetched with the first of them, which fails while the service does not answer. */
function notFetched(error) {
  if (!(error instanceof TypeError)) throw error;
  return {};
}

/** Say on the button that it is done, without changing its width. */
function confirm(control) {
  const text = control.querySelector("span");
  const before = (control.dataset.text ??= text.textContent);
  control.style.minWidth = `${control.offsetWidth}px`;
  text.textContent = "Copied";
  setTimeout(() => (text.textContent = before), SAID_MS);
}

/** Write to the clipboard, which pages have only over https and on this machine. Returns whether it worked. Args: text, a promise: Safari allows no waiting between the press and this. */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": text.then(each => new Blob([each], { type: "text/plain" })) })]);
    return true;
  } catch {
    return false;
  }
}

/** Write what is in an input in one line: a text, or the cells of columns. */
export function inWords(part, { sent_as: sentAs }, longest = LONGEST) {
  const text = sentAs === "cells" ? Object.entries(JSON.parse(part)).map(([column, cell]) => `${column} ${cell}`).join(", ") : part;
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > longest ? `${line.slice(0, longest)}…` : line;
}
