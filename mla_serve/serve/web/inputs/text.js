// The fields for text and for lists of numbers.

import { el, randomNumbers, title } from "../dom.js";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

/** A text field. Noise replaces letters: 30 % replaces three of ten. */
export function textField({ name, modality, changed }) {
  if (modality.kind !== "text") return writtenField({ name, changed, placeholder: "Type here", hint: `Text of the kind ${modality.kind}` });
  const limit = modality.input.max_characters;
  return writtenField({ name, changed, placeholder: "Type here", spoil: spoilText, hint: `Any script, up to ${limit.toLocaleString("en")} characters` });
}

/** A field of numbers. Noise moves each of them towards chance. */
export function numbersField({ name, modality, changed }) {
  const size = modality.shape[0];
  return writtenField({ name, changed, placeholder: "0.5, -1, 2e3", spoil: spoilNumbers, hint: `${size} numbers, separated by commas or spaces` });
}

function writtenField({ name, changed, placeholder, spoil, hint }) {
  const spoiled = el("p", { class: "spoiled", hidden: true });
  const note = el("p", { class: "hint", id: `hint-${name}` }, hint);
  const input = el("textarea", {
    rows: 1, placeholder, spellcheck: false, autocomplete: "off", dir: "auto",
    "aria-label": title(name), "aria-describedby": note.id, oninput: changed,
  });
  return {
    element: el("div", { class: "written" }, input, note, spoiled),
    noiseless: !spoil,
    accepts: () => false,
    clear: () => (input.value = ""),
    load: content => (input.value = Array.isArray(content) ? content.join(", ") : content),
    payload(noise) {
      const sent = noise > 0 ? spoil(input.value, noise) : input.value;
      spoiled.hidden = sent === input.value;
      note.hidden = !spoiled.hidden; // one takes the place of the other
      spoiled.textContent = `The model gets: ${sent}`;
      return sent.trim() ? sent : null;
    },
  };
}

/** Replace letters of a text by others; the same ones and more of them as `amount` grows from 0 to 1. */
export function spoilText(text, amount) {
  const random = randomNumbers(7);
  return Array.from(text, letter => {
    const [threshold, choice] = [random(), random()];
    const replaced = threshold < amount && letter.trim() !== "";
    return replaced ? LETTERS[Math.floor(choice * LETTERS.length)] : letter;
  }).join("");
}

/** Mix numbers with Gaussian noise of their own size; at amount 1 nothing but noise is left. */
export function spoilNumbers(text, amount) {
  const values = text.replace(/[[\],]/g, " ").trim().split(/\s+/).map(Number);
  if (!values.every(Number.isFinite) || !text.trim()) return text; // the service says what is wrong with it
  const size = Math.hypot(...values) / Math.sqrt(values.length) || 1;
  const random = randomNumbers(7);
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return values.map(value => ((1 - amount) * value + amount * size * gauss()).toPrecision(5)).join(", ");
}
