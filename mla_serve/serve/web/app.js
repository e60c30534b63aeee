// The page: one card for each modality that GET /model lists, and a request to POST /predict after each change.

import { ask, get, RequestError, unreached } from "./ask.js";
import { makeCard } from "./inputs/card.js";
import { answerPanel } from "./answer/panel.js";
import { getSamples, sampleStrip } from "./inputs/samples.js";
import { codeSection } from "./work/snippets.js";
import { workTools } from "./work/tools.js";
import { button, el, megabytes, title } from "./dom.js";
import { introduce } from "./intro.js";
import { askForKey } from "./key.js";

const DEBOUNCE_MS = 15;
const LONGEST_DEBOUNCE_MS = 90; // also while a line is being drawn or a slider moved
const TRIES = 10;
const place = id => document.getElementById(id);

async function start() {
  const [model, given] = await Promise.all([get("model"), getSamples()]);
  introduce(model, place("name"), place("lede"));
  const later = debounced(() => answer(0));
  const changed = () => {
    samples.changed();
    work.leaveLink();
    later();
  };
  const making = Object.entries(model.modalities).map(([name, modality]) => makeCard(name, modality, model, changed));
  const cardOf = name => cards.find(card => card.name === name);
  const [panel, ...cards] = await Promise.all([answerPanel(place("answer"), model, { changed: () => (work.chosen(), later()), retry: () => answer(0), cardOf }), ...making]);
  const code = codeSection(place("code"), model);
  place("inputs").append(...cards.map(card => card.element));
  const work = workTools({ tries: place("tries"), many: place("many") }, model, cards, panel, inputs => samples.give(inputs));
  const answer = answering(cards, panel, code, work, model);
  window.addEventListener("online", () => answer(0));
  acceptFilesAnywhere(cards, work);
  const samples = sampleStrip(place("samples"), model, model.golden_source === "generated" ? [] : given, cards, later, work.leaveLink);
  await work.fetchLink();
  place("page").classList.add("opening"); // what stands below comes with the first answer, which would move it
  place("page").hidden = false; // all at once, so that nothing moves
  if (!(await work.openLink()) && !(await samples.openFirst())) opened();
}

/** Show the whole page. */
function opened() {
  place("page").classList.remove("opening");
}

/** Make the function that sends a request; a newer request cancels the one before. */
function answering(cards, panel, code, work, model) {
  let current = new AbortController();
  let again;

  /** Take away what is told of an earlier request. */
  function withdraw() {
    code.hide();
    work.emptied();
  }
  return async function answer(tries) {
    current.abort();
    clearTimeout(again);
    const { signal } = (current = new AbortController());
    try {
      const parts = await collect(cards, model.limits.body_bytes);
      if (signal.aborted) return;
      if (!Object.keys(parts).length) {
        withdraw();
        opened();
        return panel.empty();
      }
      const options = panel.options();
      panel.stale();
      const reply = await ask(parts, options, signal);
      const replaced = reply.model.sha256 !== model.sha256 && (await import("./work/replaced.js").catch(unreached));
      if (signal.aborted) return;
      if (replaced) {
        opened();
        withdraw();
        return replaced.sayReplaced(panel, parts, options, reply);
      }
      panel.show(reply);
      opened();
      code.show(parts, options);
      work.answered(parts, options, reply);
    } catch (error) {
      if (signal.aborted) return;
      opened();
      if (!(error instanceof RequestError)) throw error;
      if (!error.retryAfter) withdraw();
      show(error, cards, panel, () => answer(0));
      if (error.retryAfter && tries < TRIES) again = setTimeout(() => answer(tries + 1), 1000 * error.retryAfter);
    }
  };
}

/** Collect what is sent: {modality: Blob or string}. Throws RequestError where it is more than the service reads at once. */
async function collect(cards, limit) {
  const parts = (await Promise.all(cards.map(async card => [card.name, await card.payload()]))).filter(([, part]) => part !== null);
  const bytes = new Blob(parts.map(([, part]) => part)).size;
  if (bytes > limit) throw new RequestError(`Together these inputs have ${megabytes(bytes)}, the service reads at most ${megabytes(limit)}. Leave one out, or choose smaller files.`);
  return Object.fromEntries(parts);
}

/** Show a problem at the modality's card, or above the answer. Its field is a modality, or MODALITY.COLUMN. */
function show(error, cards, panel, retry) {
  const [name, ...column] = (error.field ?? "").split(".");
  const card = cards.find(each => each.name === name);
  if (card) card.refuse(error.message, column.join("."));
  panel.fail(card ? new RequestError(`${title(card.name)} cannot be used as it is. ${error.message}`) : error, card?.name);
  if (error.status === 401) askForKey(place("lede"), retry);
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
  if (error.status === 401) return askForKey(place("lede"));
  place("lede").after(el("p", {}, button("Try again", "again", () => location.reload())));
  window.addEventListener("online", () => location.reload());
  if (!(error instanceof RequestError)) throw error;
});
