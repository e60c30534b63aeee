// The bundle's samples: one press fills every field. Generated samples are noise, which only checks the graphs, so they
// are not shown as examples.

import { el } from "../dom.js";
import { get } from "../ask.js";

const SHOWN = 12;

/** Show a button for each sample. Args: model, the answer of GET /model. */
export async function sampleStrip(section, model, cards) {
  if (model.golden_source === "generated") return;
  const samples = (await get("samples")).slice(0, SHOWN);
  if (!samples.length) return;
  const pictured = cards.find(card => card.kind === "image")?.name;
  const press = async ({ inputs: sample }) => {
    await Promise.all(cards.map(async card => (card.name in sample ? card.load(await content(sample, card.name, model)) : card.reset())));
  };
  const chips = await Promise.all(samples.map((sample, i) => chip(sample, i, pictured, press)));
  section.append(el("h2", {}, "Try one"), el("ul", {}, ...chips.map(each => el("li", {}, each))));
  section.hidden = false;
  await learnFrom(samples, cards);
}

async function chip(sample, index, pictured, press) {
  const path = sample.inputs[pictured];
  const picture = path && (await get(path, reply => reply.blob()));
  const face = picture ? el("img", { src: URL.createObjectURL(picture), alt: "" }) : String(index + 1);
  return el("button", { type: "button", class: "chip", "aria-label": `Sample ${index + 1}`, onclick: () => press(sample) }, face);
}

async function content(sample, name, model) {
  if (model.modalities[name].sent_as !== "file") return sample[name];
  const blob = await get(sample[name], reply => reply.blob());
  return new File([blob], `${name}.${blob.type.split("/")[1].replace("x-", "")}`, { type: blob.type });
}

/** Let fields adapt to the samples, such as the drawing pad to their line width. */
async function learnFrom(samples, cards) {
  for (const card of cards.filter(each => each.learn)) {
    const urls = samples.map(({ inputs }) => inputs[card.name]).filter(Boolean);
    await card.learn(await Promise.all(urls.map(url => get(url, reply => reply.blob()))));
  }
}
