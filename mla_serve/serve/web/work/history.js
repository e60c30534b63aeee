// The last tries of this visit side by side. They are kept in memory only, and are gone with the page.

import { breakable, button, el, hueOf, icon, title } from "../dom.js";
import { inWords } from "./copy.js";

const KEPT = 8;
const SNIPPET = 80; // letters of a text
const SETTLED_MS = 1200; // an answer that stands for so long is a try; one while a line is drawn is not

/** Make the section. Args: short(reply), [answer, how sure]; restore(parts, options), called when a try is pressed. Returns {answered(parts, options, reply), forget()}. */
export function triesSection(section, model, { short, restore }) {
  const list = el("ol", {});
  const clear = button("Clear", "clear", empty, { class: "button quiet", "aria-label": "Clear the last tries" });
  section.append(el("header", {}, el("h2", {}, "Your last tries"), el("p", { class: "hint" }, "Kept on this page only, until you leave it."), clear), list);
  let tries = [];
  let first = null; // kept at once, so that nothing moves when it has stood; until then the next one takes its place
  let timer;
  empty();

  function answered(parts, options, reply) {
    clearTimeout(timer);
    section.hidden = false;
    const made = { parts, options, reply, id: identity(parts, options, reply) };
    if (!tries.length) first = keep(made);
    timer = setTimeout(() => settle(made), SETTLED_MS);
  }
  function settle(made) {
    if (first && first.id !== made.id) tries.splice(tries.indexOf(first), 1).forEach(drop);
    first = null;
    keep(made);
  }
  function keep(made) {
    const known = tries.find(each => each.id === made.id);
    const entry = known ?? { ...made, urls: [] };
    if (!known) {
      entry.element = item(entry);
      tries.unshift(entry);
      tries.splice(KEPT).forEach(drop);
    }
    mark(entry);
    list.replaceChildren(...tries.map(each => each.element));
    clear.hidden = false;
    return entry;
  }
  function mark(current) {
    tries.forEach(each => each.element.firstChild.setAttribute("aria-current", String(each === current)));
  }
  function item(entry) {
    const { parts, options, reply } = entry;
    const [main, side] = short(reply);
    const press = () => {
      mark(entry);
      restore(parts, options);
    };
    const seen = Object.entries(parts).map(([name, part]) => el("span", { class: `input ${hueOf(model, name)}` }, el("span", { class: "unseen" }, `${title(name)}: `), face(part, model.modalities[name], entry)));
    const rule = options.fusion && options.fusion !== model.fusion.default && el("span", { class: "hint" }, `rule ${options.fusion}`);
    return el("li", {}, el("button", { type: "button", class: "try", onclick: press }, el("span", { class: "inputs-of" }, ...seen), el("span", { class: "answer-of" }, el("strong", { dir: "auto" }, ...breakable(main)), " ", el("span", {}, side), rule)));
  }
  function empty() {
    tries.forEach(drop);
    tries = [];
    first = null;
    clear.hidden = true;
    list.replaceChildren(el("li", { class: "hint" }, "An answer that stands for a moment is kept here."));
  }
  function drop({ urls }) {
    urls.forEach(url => URL.revokeObjectURL(url));
  }
  return { answered, forget: () => clearTimeout(timer) };
}

/** Show an input small: a picture, or the beginning of what was written. */
function face(part, modality, { urls }) {
  if (!(part instanceof Blob)) return el("span", { class: "snippet", dir: "auto" }, inWords(part, modality, SNIPPET));
  const other = () => el("span", { class: "file-of" }, icon(modality.kind), `${Math.ceil(part.size / 1024).toLocaleString("en")} kB`);
  if (!part.type.startsWith("image/")) return other();
  const url = URL.createObjectURL(part);
  urls.push(url);
  const picture = el("img", { src: url, alt: "a picture" });
  picture.addEventListener("error", () => picture.replaceWith(other())); // not every format is one that browsers show
  return picture;
}

/** Tell two tries apart: by what was written and asked for, and for files by what the model makes of them, to the last digit. How many labels are listed makes no other try. */
function identity(parts, { fusion, coverage }, reply) {
  return JSON.stringify([Object.entries(parts).map(([name, part]) => [name, part instanceof Blob ? part.size : part]), fusion, coverage, reply.modalities]);
}
