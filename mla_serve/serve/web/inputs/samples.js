// The bundle's samples: one press fills every field. Generated samples are noise, which only checks the graphs, so they
// are not shown as examples.

import { button, el, icon, plain } from "../dom.js";
import { get } from "../ask.js";
import { joined } from "../words.js";
import { truthWriter } from "./truth.js";

const SHOWN = 12;
const LONGEST = 60; // letters of a text on a chip

/** Fetch the samples. There are none where they are noise, or cannot be had. */
export async function getSamples() {
  return (await get("samples").catch(() => [])).slice(0, SHOWN);
}

/** Show a button for each sample. Args: samples, those of a model; filled, called when all cards have been; leave, called when a sample is to take the place of what they hold. Returns {openFirst(), changed(), give(inputs)}. */
export function sampleStrip(section, model, samples, cards, filled, leave) {
  section.hidden = !samples.length;
  const truths = truthWriter(model);
  const note = el("p", { class: "truth", role: "status", hidden: samples.every(({ truth }) => truth === null) });
  const fetched = new Map();
  const file = path => {
    if (!fetched.has(path)) fetched.set(path, get(path, reply => reply.blob()));
    fetched.get(path).catch(() => fetched.delete(path)); // so that the next press asks again
    return fetched.get(path);
  };
  const chips = samples.map((sample, i) => chip(sample, i, model, truths, file, () => open(i)));
  let current = 0; // the last press or change
  const strip = el("ul", {}, ...chips.map(each => el("li", {}, each)));
  showEnds(strip);
  section.append(
    el("h2", {}, "Try a sample"), strip,
    button("Start empty", "clear", startEmpty, { class: "button quiet" }), note,
  );
  learnFrom(samples, cards, file);

  /** Fill the cards with a sample, unless something else comes while its files are on their way or are read. Returns whether there will be an answer. */
  async function open(index) {
    const { inputs, truth } = samples[index];
    const mine = ++current;
    const able = cards.filter(card => card.name in inputs);
    leave();
    try {
      const contents = await Promise.all(able.map(card => content(inputs[card.name], card.name, model, file)));
      if (mine !== current) return true;
      mark(null); // what was said is not of what is filled in now
      note.replaceChildren();
      await fill(able, contents);
    } catch (error) {
      if (mine !== current) return true;
      note.hidden = false;
      note.replaceChildren(error.message);
      return false;
    }
    if (mine !== current) return true;
    mark(index);
    note.replaceChildren(...(truth === null ? [] : truths.sentence(truth)));
    return true;
  }
  function fill(able, contents) {
    cards.forEach(card => card.reset(true)); // also the noise of the ones that are filled
    return Promise.all(able.map((card, i) => card.load(contents[i], true))).finally(filled);
  }
  function startEmpty() {
    cards.forEach(card => card.reset());
  }
  function mark(index) {
    chips.forEach((each, i) => each.setAttribute("aria-pressed", String(i === index)));
  }
  /** Hear of a change that somebody made: what is in the cards is no longer what is in the sample. */
  function changed() {
    current += 1;
    mark(null);
    note.replaceChildren();
  }
  /** Open the first sample of several inputs, unless somebody was faster. Returns whether an answer is on its way. */
  async function openFirst() {
    const first = samples.findIndex(({ inputs }) => Object.keys(inputs).length > 1 || cards.length === 1);
    return first >= 0 && current === 0 && (await open(first));
  }
  /** Fill the cards with something else than a sample: {modality: content}. */
  function give(inputs) {
    changed();
    const able = cards.filter(card => card.name in inputs);
    return fill(able, able.map(card => inputs[card.name]));
  }
  return { openFirst, changed, give };
}

/** Let a strip fade at the ends where more of it is hidden. */
function showEnds(strip) {
  const look = () => {
    strip.classList.toggle("before", strip.scrollLeft > 2);
    strip.classList.toggle("after", strip.scrollWidth - strip.clientWidth - strip.scrollLeft > 2);
  };
  strip.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(strip);
}

/** Make the button of a sample: its picture, if it has one, what it really is, and the beginning of what is written in it. */
function chip({ inputs, truth }, index, model, truths, file, onclick) {
  const names = Object.keys(model.modalities).filter(name => name in inputs);
  const pictured = names.find(name => model.modalities[name].kind === "image");
  const written = names.filter(name => model.modalities[name].sent_as !== "file").map(name => beginning(inputs[name])).find(Boolean) ?? "";
  const picture = pictured && el("img", { alt: "" });
  if (picture) file(inputs[pictured]).then(blob => (picture.src = URL.createObjectURL(blob)));
  const what = [truths.short(truth) && el("b", {}, truths.short(truth)), written && el("small", {}, written)].filter(Boolean);
  return el(
    "button", { type: "button", class: "chip", dir: "auto", "aria-pressed": "false", onclick },
    el("span", { class: "unseen" }, `Sample ${index + 1}: ${joined(names.map(plain))}${truths.short(truth) ? " of " : " "}`),
    picture ?? (!written && icon(model.modalities[names[0]].kind)),
    what.length > 0 && el("span", { class: "what" }, ...what.flatMap((part, i) => (i ? [" ", part] : [part]))),
  );
}

/** Write what is written in an input, in a few words. */
function beginning(content) {
  const text = typeof content === "string" ? content : Object.values(content).filter(cell => cell !== null && cell !== "").slice(0, 4).join(", ");
  return text.trim().length > LONGEST ? `${text.trim().slice(0, LONGEST)}…` : text.trim();
}

async function content(given, name, model, file) {
  if (model.modalities[name].sent_as !== "file") return given;
  const blob = await file(given);
  return new File([blob], `${name}.${blob.type.split("/")[1].replace("x-", "")}`, { type: blob.type });
}

/** Let fields adapt to the samples, such as the drawing pad to their line width. */
async function learnFrom(samples, cards, file) {
  for (const card of cards.filter(each => each.learn)) {
    await card.learn(await Promise.all(samples.map(({ inputs }) => inputs[card.name]).filter(Boolean).map(file)));
  }
}
