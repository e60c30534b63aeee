// One modality's card: its name, a switch to leave it out, its field, a noise slider, a place for messages.
//
// A field is {element, payload(noise), load(content, isLast), clear(), accepts(file)}, with `icon` where it is not that of the
// kind. load takes over what it has read only if isLast() then: somebody may have emptied or filled the field in the meantime.
// payload returns what is sent, a Blob with a `filename` or a string, or null when there is nothing; it also shows the input
// with its noise. A field with `noiseless` has no noise slider. A field of several inputs has mark(part) too, which shows the
// one that a message is about.

import { button, el, hueOf, icon, megabytes, title } from "../dom.js";

// By kind, fetched when the model has it. A kind without a field of its own gets the one for how it is sent.
const FIELDS = {
  image: async () => (await import("./image.js")).imageField,
  audio: async () => (await import("./audio.js")).audioField,
  file: async () => (await import("./file.js")).fileField,
  text: async () => (await import("./text.js")).textField,
  numbers: async () => (await import("./text.js")).numbersField,
  cells: async () => (await import("./cells.js")).cellsField,
};

/**
 * Make the card of one modality. Calls `changed(byHand)` whenever its payload has changed; not by hand is what `load` and `reset` do. Returns a promise of {
 *   name, kind, element,
 *   payload(): what is sent, null when it is empty or switched off,
 *   load(content, byHand), reset(byHand): fill it and empty it,
 *   isOn(), use(on): its switch,
 *   focus(): go to its first control,
 *   say(text), refuse(text, part): show a remark, or an error that the service has with it; null takes it away,
 *   accepts(file), learn(blobs) }.
 */
export async function makeCard(name, modality, model, changed) {
  const makeField = await (FIELDS[modality.kind] ?? FIELDS[modality.sent_as])();
  const message = el("div", { class: "message", role: "alert", hidden: true });
  const spare = Object.keys(model.modalities).length > 1;
  /** Show a message. Args: part, the column that it is about, if it is about one. */
  const say = (text, part, ...more) => {
    message.hidden = !text;
    message.replaceChildren(...(text ? [el("p", {}, [title(name), part, text].filter(Boolean).join(": ")), ...more] : []));
    field.mark?.(part);
  };
  const refuse = (text, part) => say(text, part, ...(text && spare ? [button("Leave it out", "clear", () => use(false), { "aria-label": `Leave it out: ${title(name)}` })] : []));
  let loads = 0; // the last load, or what has overtaken it
  const touched = () => {
    loads += 1;
    say(null);
    if (!uses.checked) use(true); // filling a field switches its modality on
    else changed(true);
  };
  const field = makeField({ name, modality, limits: model.limits, changed: touched, take: content => load(content, true), say });
  const noise = noiseSlider(name, () => changed(true));
  const uses = el("input", { type: "checkbox", role: "switch", checked: true, "aria-label": `Use ${title(name)}`, title: "Use this input, or leave it out" });
  const clear = button("Clear", "clear", () => reset(true), { class: "button quiet unneeded", "aria-label": `Clear ${title(name)}` });
  const element = el(
    "article",
    { class: `card ${hueOf(model, name)}`, "data-modality": name, "data-kind": modality.kind, "aria-label": title(name) },
    el("header", {}, icon(field.icon ?? modality.kind), el("h2", {}, title(name)), clear, el("label", { class: "switch" }, uses)),
    field.element,
    !field.noiseless && noise.element,
    message,
  );

  function show(on) {
    uses.checked = on;
    element.classList.toggle("off", !on);
    noise.input.disabled = !on;
  }
  function use(on) {
    show(on);
    say(null);
    changed(true);
  }
  function focus() {
    if (!uses.checked) use(true);
    const control = field.element.querySelector('textarea, select, input, button, [tabindex="0"]');
    control.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest" });
  }
  function reset(byHand = false) {
    loads += 1;
    field.clear();
    noise.set(0);
    say(null);
    changed(byHand);
  }
  async function load(content, byHand = false) {
    const limit = model.limits.body_bytes;
    if (content instanceof Blob && content.size > limit) {
      say(`this file has ${megabytes(content.size)}, the service reads at most ${megabytes(limit)}. Choose a smaller one.`);
      return;
    }
    say(null);
    const mine = ++loads;
    await field.load(content, () => mine === loads);
    if (mine !== loads) return;
    show(true);
    changed(byHand);
  }
  uses.addEventListener("change", () => use(uses.checked));

  return {
    name,
    kind: modality.kind,
    element,
    say,
    refuse,
    reset,
    focus,
    use,
    accepts: file => field.accepts(file),
    learn: field.learn,
    isOn: () => uses.checked,
    async payload() {
      if (!uses.checked) return null;
      const content = await field.payload(noise.amount());
      clear.classList.toggle("unneeded", content === null);
      return content;
    },
    load,
  };
}

function noiseSlider(name, changed) {
  const input = el("input", { type: "range", min: "0", max: "100", value: "0", "aria-label": `Noise on ${title(name)}` });
  const shown = el("output", {}, "0 %");
  const set = value => {
    input.value = value;
    shown.textContent = `${input.value} %`;
  };
  input.addEventListener("input", () => {
    set(input.value);
    changed();
  });
  const element = el("div", { class: "noise" }, el("span", { "aria-hidden": "true" }, "Noise"), input, shown);
  return { element, input, set, amount: () => Number(input.value) / 100 };
}
