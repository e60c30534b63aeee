// The form for the API key, where the service asks for one.

import { key } from "./ask.js";
import { el } from "./dom.js";

/** Ask for the key below an element. Args: given, called when it was; loads the page again by default. */
export function askForKey(place, given = () => location.reload()) {
  if (document.querySelector("form.key")) return;
  const input = el("input", { type: "password", required: true, autocomplete: "off", "aria-label": "API key", placeholder: "API key" });
  const submitted = event => {
    event.preventDefault();
    key.set(input.value.trim());
    form.remove();
    given();
  };
  const form = el("form", { class: "key", onsubmit: submitted }, input, el("button", { class: "button primary" }, "Use this key"));
  place.after(form);
}
