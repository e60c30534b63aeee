// What a visitor does with answers: copy them, share a link, go back to an earlier try, score a table.

import { RequestError, unreachable, unreached } from "../ask.js";
import { el, icon } from "../dom.js";
import { copyButtons } from "./copy.js";
import { entriesOf, filesOfEntries, filesOfInput, isTable } from "./files.js";
import { triesSection } from "./history.js";

const LINK = /^#model=/; // how the address of an answer goes on. What reads it is fetched with the first one

/** Add the tools to the page. Args: tries, many, their sections; give({modality: content}), which fills the cards. Returns {answered(parts, options, reply), emptied(), chosen(), leaveLink(), fetchLink(), openLink(), takesDrop(event)}. */
export function workTools({ tries, many }, model, cards, panel, give) {
  let last = null;
  let note = null; // what is said of a link
  let linked; // the options of the link in the address
  const copying = copyButtons(panel, model, () => last);
  const history = triesSection(tries, model, { short: panel.view.short, restore: (parts, options) => {
    leaveLink();
    return fill(parts, options);
  } });
  const openTable = manySection(many, model, cards, panel.options);
  window.addEventListener("hashchange", () => openLink().catch(failed));
  emptied();

  /** Fill the cards and choose the options as they were. */
  function fill(parts, options) {
    panel.choose(options);
    return give(Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, contentOf(part, name)])));
  }
  /** Fetch what reads the link in the address, if it is one: before the page is shown, since the link takes the place of what is typed meanwhile. Throws RequestError. */
  async function fetchLink() {
    return LINK.test(location.hash) && import("./link.js").catch(unreached);
  }
  /** Open the link in the address, if it is one. Returns whether it was. Throws RequestError. */
  async function openLink() {
    const fetched = await fetchLink();
    if (!fetched) return false;
    const { linkNote, readLink } = fetched;
    const link = readLink(location.hash, model);
    if (!note) document.querySelector(".columns").before((note = linkNote()).element);
    note.say(link.remarks);
    const filled = fill(link.inputs, link.options);
    linked = wanted();
    await filled;
    return true;
  }
  /** Take the link out of the address: one that leads to other inputs than those on the page would be shared by mistake. */
  function leaveLink() {
    if (LINK.test(location.hash)) window.history.replaceState(null, "", location.pathname + location.search);
  }
  /** Hear of a change of the options; how many labels are listed is in no link. */
  function chosen() {
    if (wanted() !== linked) leaveLink();
  }
  function wanted() {
    const { fusion, coverage } = panel.options();
    return `${fusion} ${coverage}`;
  }
  function answered(parts, options, reply) {
    last = { parts, options, reply };
    copying.show(true);
    copying.forget();
    history.answered(parts, options, reply);
  }
  function failed(error) {
    if (!(error instanceof RequestError)) throw error;
    panel.fail(error);
  }
  function emptied() {
    last = null;
    copying.show(false);
    copying.forget();
    history.forget();
  }
  /** Take a drop of a table or a folder. Returns whether it was one. */
  function takesDrop({ dataTransfer, target }) {
    const under = target.closest?.("[data-modality]")?.dataset.modality;
    const card = cards.find(each => each.name === under);
    const files = [...dataTransfer.files];
    const entries = entriesOf(dataTransfer);
    const isFolder = entries.some(entry => entry.isDirectory);
    if (!isFolder && !files.some(file => isTable(file.name) && !card?.accepts(file))) return false;
    openTable(entries.length ? filesOfEntries(entries) : filesOfInput(files));
    return true;
  }
  return { answered, emptied, chosen, leaveLink, fetchLink, openLink, takesDrop };
}

/** Make the section of tables. What reads and scores them is fetched with the first one. */
function manySection(section, model, cards, options) {
  const stage = el("div", { class: "table-stage" });
  const status = el("p", { class: "table-status", role: "status" });
  const say = (text, failed = false) => {
    status.textContent = text;
    status.classList.toggle("failed", failed);
  };
  let open;
  /** Args: listing, the files, or a promise of them. */
  async function take(listing) {
    section.scrollIntoView({ block: "nearest" });
    const files = await Promise.resolve(listing).catch(() => null);
    if (!files) return say("A file in it cannot be read. Look whether you may open it, then drop all of them again.", true);
    const fetched = await import("./batch.js").catch(() => null);
    if (!fetched) return say(unreachable(), true);
    open ??= fetched.batch(stage, say, model, cards, options);
    await open(files);
  }
  const chooser = (text, properties) => {
    const input = el("input", { type: "file", class: "unseen", multiple: true, ...properties });
    input.addEventListener("change", () => {
      const files = filesOfInput(input.files); // before they are let go of
      input.value = ""; // so that the same can be chosen again
      if (files.length) take(files);
    });
    return el("label", { class: "button" }, input, icon("folder"), el("span", {}, text));
  };
  section.append(
    el("header", {}, el("div", {}, el("h2", {}, "Many at once"), el("p", { class: "hint" }, "Drop a table (CSV, TSV or JSONL) or a folder of files on this page. Every row is answered, and the answers can be downloaded.")), chooser("Score a table", { accept: ".csv,.tsv,.tab,.jsonl,.ndjson" }), chooser("Score a folder", { webkitdirectory: true })),
    status, stage,
  );
  section.hidden = false;
  return take;
}

/** A part as a card takes it: a file with its name. */
function contentOf(part, name) {
  return part instanceof Blob && !(part instanceof File) ? new File([part], part.filename ?? name, { type: part.type }) : part;
}
