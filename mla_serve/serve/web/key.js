// Ask for the API key of a service that needs one.

import { key } from "./ask.js";
import { el } from "./dom.js";

/** Show a form for the key below the lede of the page, once; the page is loaded again with the key. */
export function askForKey() {
  if (document.querySelector("form.key")) return;
  const input = el("input", { type: "password", required: true, autocomplete: "off", "aria-label": "API key", placeholder: "API key" });
  const submitted = event => {
    event.preventDefault();
    key.set(input.value.trim());
    location.reload();
  };
  document.getElementById("lede").after(el("form", { class: "key", onsubmit: submitted }, input, el("button", { class: "button primary" }, "Use this key")));
}
