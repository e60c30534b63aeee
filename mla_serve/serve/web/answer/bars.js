// Bars of probabilities, one line for each name, the most probable first.

import { breakable, el, percent } from "../dom.js";

/** Make a list of bars. Returns {element, show(rows, rest, scrolls)}: rows of {name, share, best, inSet}; rest, nodes about the others; scrolls, whether the list has a height of its own. */
export function barList() {
  const list = el("ol", { class: "bars", "aria-label": "Probabilities" });
  const note = el("p", { class: "rest hint" });
  const rows = [];

  function show(shares, rest, scrolls = false) {
    while (rows.length < shares.length) rows.push(bar());
    list.replaceChildren(...rows.slice(0, shares.length).map(({ row }) => row));
    shares.forEach((each, i) => fill(rows[i], each));
    list.classList.toggle("scrolls", scrolls);
    if (scrolls) list.tabIndex = 0;
    else list.removeAttribute("tabindex"); // for the keyboard to scroll it
    note.hidden = !rest.length;
    const focused = note.contains(document.activeElement) ? document.activeElement : null;
    note.replaceChildren(...rest);
    focused?.focus({ preventScroll: true }); // which moving it has taken away
  }
  return { element: el("div", { class: "distribution" }, list, note), show };
}

function bar() {
  const [name, filled, value] = [el("span", { class: "name", dir: "auto" }), el("span", { class: "fill" }), el("span", { class: "value" })];
  const listed = el("span", { class: "unseen", hidden: true }, ", on the shortlist");
  return { row: el("li", {}, name, el("span", { class: "track", "aria-hidden": "true" }, filled), value, listed), name, filled, value, listed };
}

function fill(parts, { name, share, best, inSet }) {
  parts.name.replaceChildren(...breakable(name));
  parts.value.textContent = percent(share);
  parts.filled.style.width = `${100 * share}%`;
  parts.row.classList.toggle("best", Boolean(best));
  parts.row.classList.toggle("in-set", Boolean(inSet));
  parts.listed.hidden = !inSet;
}
