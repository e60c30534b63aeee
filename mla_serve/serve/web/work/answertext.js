// An answer as a short text, to be pasted into a mail: as sure as the page says, not surer. Fetched with the first one.

import { recordOf } from "../answer/record.js";
import { fillVerdict, strangeInputs } from "../answer/verdict.js";
import { OFTEN } from "../answer/promise.js";
import { el, plain, title } from "../dom.js";
import { joined } from "../words.js";
import { inWords } from "./copy.js";

const MOST_LABELS = 20; // of a shortlist that is written out

/** Write an answer: what was asked, what is answered and how sure, the shortlist or range, the record, the model. */
export function answerText({ parts, reply }, view, model, now = new Date()) {
  const [main, side] = view.short(reply);
  const asked = Object.entries(parts).map(([name, part]) => `${title(name)}: ${part instanceof Blob ? fileText(part, name) : inWords(part, model.modalities[name])}`);
  const alone = Object.entries(reply.modalities).map(([name, own]) => `${title(name)} alone: ${textOf(view.says(own, reply))}`);
  return [
    `${model.name} answers: ${main} (${side})`,
    verdictText(reply, view),
    `Asked with`, ...asked.map(each => `  ${each}`),
    ...(alone.length > 1 ? alone : []),
    reply.missing.length && `Not sent: ${joined(reply.missing.map(title))}`,
    reply.fusion !== model.fusion.default && `Fusion rule: ${reply.fusion}, not the usual ${model.fusion.default}`,
    promiseText(reply, view),
    recordText(model, reply, view),
    `Model ${reply.model.name}, made ${model.created.slice(0, 10)}, ${reply.model.sha256.slice(0, 12)}; asked ${now.toISOString().slice(0, 16).replace("T", " ")} UTC`,
  ].filter(Boolean).join("\n");
}

function verdictText(reply, view) {
  const line = el("p", {});
  fillVerdict(line, reply, view);
  return textOf([line]);
}

/** Write the labels of a shortlist, and how often it or the range is right. */
function promiseText(reply, view) {
  const promised = reply.prediction_set ?? reply.interval;
  const often = OFTEN.find(([value]) => value === promised?.coverage)?.[1];
  if (!often) return "";
  const labels = reply.prediction_set?.labels ?? [];
  const more = labels.length - MOST_LABELS;
  return [
    reply.prediction_set && `${textOf(view.promise(reply))}${labels.length > 1 ? `: ${labels.slice(0, MOST_LABELS).join(", ")}${more > 0 ? ` and ${more.toLocaleString("en")} more` : ""}` : ""}.`,
    strangeInputs(reply).length ? `Do not rely on ${often} here: it was measured on inputs like the training data.` : view.promises(often),
  ].filter(Boolean).join(" ");
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
