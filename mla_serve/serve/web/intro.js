// The head of the page: what the model is for, and what can be sent.

import { el, title } from "./dom.js";
import { isDrawable } from "./inputs/image.js";
import { purposeOf } from "./purpose.js";

const ENOUGH = 60; // letters: a sentence that is shorter is shown with the next one
const VERBS = { image: "show a picture", audio: "speak", file: "choose a file", text: "type", numbers: "enter numbers", cells: "fill in columns" };

/** Say what the model is for, in the words of whoever made it if there are any, and what a visitor can send. */
export function introduce(model, heading, lede) {
  document.title = `${model.name} · mla_serve`;
  heading.textContent = model.name;
  const purpose = beginning(model.about?.purpose ?? "");
  const several = Object.keys(model.modalities).length > 1;
  lede.replaceChildren(
    el("strong", { class: "purpose" }, ...(purpose ? [purpose] : purposeOf(model))),
    el("span", {}, `${title(ways(model))}${several ? ", in any combination: one input is enough" : ""}. The answer comes as you go, with how sure it is${several ? " and how much each input counted" : ""}.`),
  );
}

function ways(model) {
  const verbs = Object.values(model.modalities).map(modality => (isDrawable(modality) ? "draw" : (VERBS[modality.kind] ?? VERBS[modality.sent_as])));
  const kinds = [...new Set(verbs)];
  return kinds.length > 1 ? `${kinds.slice(0, -1).join(", ")} or ${kinds.at(-1)}` : kinds[0];
}

/** The beginning of a text in Markdown, whole sentences of its first paragraph, without the signs for emphasis, code and links. */
function beginning(markdown) {
  const text = markdown.trim().split(/\n\s*\n/)[0].replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/[*`]+/g, "").replace(/\s+/g, " ");
  const ends = [...text.matchAll(/[.!?](?=\s)/g)].map(({ index }) => index + 1);
  return text.slice(0, ends.find(end => end >= ENOUGH) ?? text.length);
}
