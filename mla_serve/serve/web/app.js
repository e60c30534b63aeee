// The page: one card for each modality that GET /model lists, and a request to POST /predict after each change.

import { ask, get, RequestError } from "./ask.js";
import { makeCard } from "./inputs/card.js";
import { isDrawable } from "./inputs/image.js";
import { answerPanel } from "./answer/panel.js";
import { sampleStrip } from "./inputs/samples.js";
import { codeSection } from "./work/snippets.js";
import { workTools } from "./work/tools.js";
import { el, title } from "./dom.js";
import { askForKey } from "./key.js";

const DEBOUNCE_MS = 15;
const LONGEST_DEBOUNCE_MS = 90; // also while a line is being drawn or a slider moved
const TRIES = 10;
const VERBS = { image: "show a picture", audio: "speak", file: "choose a file", text: "type", numbers: "enter numbers", cells: "fill in columns" };
// By task: what the model does.
const PURPOSES = {
  classes: ({ classes }) => ["tells ", ...named(classes, "classes"), " apart"],
  labels: ({ labels }) => ["finds which of ", ...named(labels.map(each => each.label), "labels"), " apply"],
  number: ({ number }) => ["estimates ", el("bdi", {}, number.column || "a number"), number.unit ? ` in ${number.unit}` : ""],
};
const place = id => document.getElementById(id);

async function start() {
  const model = await get("model");
  introduce(model);
  const changed = debounced(() => answer(0));
  const cards = Object.entries(model.modalities).map(([name, modality]) => makeCard(name, modality, model, changed));
  const panel = answerPanel(place("answer"), model, { changed, retry: () => answer(0) });
  const code = codeSection(place("code"), model);
  place("inputs").append(...cards.map(card => card.element));
  const work = workTools({ tries: place("tries"), many: place("many") }, model, cards, panel);
  const answer = answering(cards, panel, code, work);
  window.addEventListener("online", () => answer(0));
  acceptFilesAnywhere(cards, work);
  await work.openLink();
  await sampleStrip(place("samples"), model, cards);
}

function introduce(model) {
  document.title = `${model.name} · mla_serve`;
  place("name").textContent = model.name;
  const kinds = [...new Set(Object.values(model.modalities).map(modality => (isDrawable(modality) ? "draw" : (VERBS[modality.kind] ?? VERBS[modality.sent_as]))))];
  const ways = kinds.length > 1 ? `${kinds.slice(0, -1).join(", ")} or ${kinds.at(-1)}` : kinds[0];
  const several = Object.keys(model.modalities).length > 1;
  const says = several ? "says how sure it is, and how much each input counted." : "says how sure it is.";
  place("lede").replaceChildren(`${title(ways)}${several ? ", in any combination" : ""}. The model `, ...PURPOSES[model.task](model), `${several ? ", " : " and "}${says}`);
}

function named(names, what) {
  const few = names.length <= 12;
  const shown = names.slice(0, few ? 12 : 6).map(each => el("bdi", {}, each));
  const parted = shown.flatMap((name, i) => [i === 0 ? "" : few && i === shown.length - 1 ? " and " : ", ", name]);
  return few ? parted : [`${names.length.toLocaleString("en")} ${what} (`, ...parted, ", …)"];
}

/** Make the function that sends a request; a newer request cancels the one before. */
function answering(cards, panel, code, work) {
  let current = new AbortController();
  let again;

  return async function answer(tries) {
    current.abort();
    clearTimeout(again);
    const { signal } = (current = new AbortController());
    try {
      const parts = await collect(cards);
      if (signal.aborted) return;
      if (!Object.keys(parts).length) {
        work.emptied();
        return panel.empty();
      }
      const options = panel.options();
      panel.stale();
      const reply = await ask(parts, options, signal);
      if (signal.aborted) return;
      panel.show(reply);
      code.show(parts, options);
      work.answered(parts, options, reply);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof RequestError)) throw error;
      show(error, cards, panel);
      if (error.retryAfter && tries < TRIES) again = setTimeout(() => answer(tries + 1), 1000 * error.retryAfter);
    }
  };
}

/** Collect what is sent: {modality: Blob or string}. */
async function collect(cards) {
  const parts = await Promise.all(cards.map(async card => [card.name, await card.payload()]));
  return Object.fromEntries(parts.filter(([, part]) => part !== null));
}

/** Show a problem at the modality's card, or above the answer. Its field is a modality, or MODALITY.COLUMN. */
function show(error, cards, panel) {
  const [name, ...column] = (error.field ?? "").split(".");
  const card = cards.find(each => each.name === name);
  if (card) card.say(error.message, column.join("."));
  panel.fail(card ? new RequestError(`${title(card.name)} cannot be used as it is: ${error.message}`) : error, card?.name);
  if (error.status === 401) askForKey(place("lede"));
}

/** Call `action` when there was no change for a moment, or when changes have gone on for too long. */
function debounced(action) {
  let timer, since;
  return () => {
    clearTimeout(timer);
    since ??= performance.now();
    const wait = Math.min(DEBOUNCE_MS, Math.max(0, since + LONGEST_DEBOUNCE_MS - performance.now()));
    timer = setTimeout(() => {
      since = undefined;
      action();
    }, wait);
  };
}

/** Take files that are dropped or pasted, into the card under the pointer or the first card that accepts them. */
function acceptFilesAnywhere(cards, work) {
  const give = (file, target) => {
    const under = target?.closest?.("[data-modality]")?.dataset.modality;
    const able = cards.filter(card => card.accepts(file));
    const card = able.find(each => each.name === under) ?? able[0];
    if (card) card.load(file);
    else cards[0].say(`Nothing here reads ${file.type || "files of this kind"}.`);
  };
  document.addEventListener("dragover", event => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", event => event.relatedTarget || document.body.classList.remove("dropping"));
  document.addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (work.takesDrop(event)) return;
    for (const file of event.dataTransfer.files) give(file, event.target);
  });
  document.addEventListener("paste", event => {
    const files = [...event.clipboardData.files];
    if (files.length) event.preventDefault();
    files.forEach(file => give(file, event.target));
  });
}

start().catch(error => {
  place("lede").textContent = error instanceof RequestError ? error.message : "This page failed; reload it.";
  place("lede").setAttribute("role", "alert");
  if (error.status === 401) askForKey(place("lede"));
  else if (!(error instanceof RequestError)) throw error;
});
