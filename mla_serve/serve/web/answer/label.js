// A short text in letters as large as fit: the class or the number that is answered.

import { breakable, el } from "../dom.js";

// Sizes of the letters, in pixels: beside the facts, or on lines of their own.
const BESIDE = [96, 84, 72, 60, 48];
const ALONE = [40, 36, 32, 28, 25, 22, 20, 18];
const MOST_LINES = 3;
const BROKEN = 26; // of a word that no size can hold: it is broken then

/** Make the label of the answer, in letters as large as fit without breaking a word. Args: facts, what stands beside it, if anything. */
export function fittedLabel(facts, beside = BESIDE) {
  const element = el("p", { class: "label", dir: "auto" });
  let shown;

  function fit() {
    element.classList.remove("broken");
    if (beside.some(size => set(size) && lines() === 1 && isBeside()) || ALONE.some(size => set(size) && lines() <= MOST_LINES)) return;
    set(BROKEN);
    element.classList.add("broken");
  }
  /** Set the size; returns whether every word fits. */
  function set(size) {
    element.style.fontSize = `${size}px`;
    return element.scrollWidth <= element.clientWidth;
  }
  const lines = () => Math.round(element.offsetHeight / parseFloat(getComputedStyle(element).lineHeight));
  const isBeside = () => !facts || facts.offsetTop < element.offsetTop + element.offsetHeight;
  function show(text) {
    if (text === shown) return;
    shown = text;
    element.replaceChildren(...breakable(text));
    fit();
  }
  window.addEventListener("resize", fit);
  return { element, show };
}
